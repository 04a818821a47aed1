"""The standard library's futures, under this package's name."""

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
    """Nothing raises it here; it is there to be caught."""


def __getattr__(name: str) -> Any:
    return getattr(_base, name)
