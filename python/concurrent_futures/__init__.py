"""Python's ``concurrent.futures`` on an engine in Rust.

Replace the dot of the import by an underscore::

    from concurrent_futures import ThreadPoolExecutor, as_completed, wait

or change nothing: ``python -m concurrent_futures script.py`` runs a program with this
package in place of the standard library's, and so does :func:`install`.

As in the standard library, a module is loaded when something of it is first asked for: programs
with threads only need nothing of processes, and worker processes need no executors.
"""

import os
import sys

# What type checkers take for `typing.TYPE_CHECKING`, without loading that module.
TYPE_CHECKING = False

if TYPE_CHECKING:
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
    if TYPE_CHECKING:
        from concurrent.futures import InterpreterPoolExecutor as InterpreterPoolExecutor

    __all__ += ["InterpreterPoolExecutor"]

try:
    from concurrent_futures._engine import __version__ as __version__
except ImportError as error:
    if "subinterpreter" not in str(error):
        raise
    # This interpreter is not the first of its process: the standard library does the work.
    __path__.insert(0, os.path.join(__path__[0], "_standard"))

#: The modules that names are in, but for those in `_base`.
_MODULES = {
    "BrokenProcessPool": "concurrent_futures.process",
    # The standard library's own.
    "InterpreterPoolExecutor": "concurrent.futures",
    "ProcessPoolExecutor": "concurrent_futures.process",
    "TaskTerminatedError": "concurrent_futures.process",
    "TaskTimeoutError": "concurrent_futures.process",
    "ThreadPoolExecutor": "concurrent_futures.thread",
    "WorkerDiedError": "concurrent_futures.process",
    "install": "concurrent_futures._install",
    "uninstall": "concurrent_futures._install",
}

_SUBMODULES = ("_base", "process", "thread")

# After a reload, they are looked up anew.
for _name in (*__all__, *_SUBMODULES):
    globals().pop(_name, None)


def _load(name: str) -> object:
    """Import a module, and return it, without loading ``importlib``."""
    __import__(name)
    return sys.modules[name]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load what is asked for the first time."""
        if name == "__version__":
            # The engine, which has it, cannot be loaded.
            from importlib.metadata import version

            value: object = version("concurrent-futures")
        elif name in __all__:
            value = getattr(_load(_MODULES.get(name, "concurrent_futures._base")), name)
        elif name in _SUBMODULES:
            value = _load(f"concurrent_futures.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_SUBMODULES})
