"""Stand-ins for futures, which are the standard library's here."""

from concurrent.futures import _base
from concurrent.futures._base import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    as_completed,
    wait,
)
from typing import Any

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "CancelledError",
    "DeadlockError",
    "Executor",
    "Future",
    "InvalidStateError",
    "TimeoutError",
    "as_completed",
    "wait",
]

TimeoutError = TimeoutError


class DeadlockError(RuntimeError):
    """Never raised here; defined for code that catches it."""


def __getattr__(name: str) -> Any:
    return getattr(_base, name)
