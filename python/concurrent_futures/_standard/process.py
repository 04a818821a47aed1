"""The standard library's pool of processes, under this package's name."""

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
    """Nothing raises it here; it is there to be caught."""


class TaskTerminatedError(WorkerDiedError):
    """Nothing raises it here; it is there to be caught."""


class TaskTimeoutError(TimeoutError):
    """Nothing raises it here; it is there to be caught."""


def __getattr__(name: str) -> Any:
    return getattr(process, name)
