"""Stand-in for the pool of processes, which is the standard library's here."""

from concurrent.futures import process
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from typing import Any

__all__ = [
    "BrokenProcessPool",
    "ProcessPoolExecutor",
    "TaskTerminatedError",
    "TaskTimeoutError",
    "WorkerDiedError",
]


class WorkerDiedError(BrokenProcessPool):
    """Never raised here; defined for code that catches it."""


class TaskTerminatedError(WorkerDiedError):
    """Never raised here; defined for code that catches it."""


class TaskTimeoutError(TimeoutError):
    """Never raised here; defined for code that catches it."""


def __getattr__(name: str) -> Any:
    return getattr(process, name)
