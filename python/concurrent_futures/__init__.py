"""Python's ``concurrent.futures`` on an engine in Rust.

Replace the dot of the import by an underscore::

    from concurrent_futures import ThreadPoolExecutor, as_completed, wait

or change nothing: ``python -m concurrent_futures script.py`` runs a program with this
package in place of the standard library's, and so does :func:`install`.
"""

import sys

from concurrent_futures._base import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    DeadlockError,
    Executor,
    Future,
    InvalidStateError,
    TimeoutError,
    as_completed,
    wait,
)
from concurrent_futures._install import install, uninstall
from concurrent_futures.process import (
    BrokenProcessPool,
    ProcessPoolExecutor,
    TaskTerminatedError,
    TaskTimeoutError,
    WorkerDiedError,
)
from concurrent_futures.thread import ThreadPoolExecutor

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "BrokenProcessPool",
    "CancelledError",
    "DeadlockError",
    "Executor",
    "Future",
    "InvalidStateError",
    "ProcessPoolExecutor",
    "TaskTerminatedError",
    "TaskTimeoutError",
    "ThreadPoolExecutor",
    "TimeoutError",
    "WorkerDiedError",
    "as_completed",
    "install",
    "uninstall",
    "wait",
]

if sys.version_info >= (3, 14):
    # The standard library's own.
    from concurrent.futures import InterpreterPoolExecutor as InterpreterPoolExecutor

    __all__ += ["InterpreterPoolExecutor"]
