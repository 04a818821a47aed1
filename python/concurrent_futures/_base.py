"""Futures, and the functions over many of them.

The names are those of the standard library's ``concurrent.futures._base``. Exceptions and
constants are the standard library's own, so that code written for it catches and compares
them; so is ``Executor``.
"""

from __future__ import annotations

import atexit
import concurrent.futures as _stdlib
import contextlib
import logging
import os
from abc import ABCMeta
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    InvalidStateError,
)
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
    DoneAndNotDoneFutures,
    Error,
)

from concurrent_futures import TYPE_CHECKING, _engine
from concurrent_futures._engine import as_completed
from concurrent_futures._hints import without_hints

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator, Iterable
    from typing import Any, TypeVar

    _T = TypeVar("_T")
    # Any futures, and the same ones again.
    _F = TypeVar("_F", bound=_stdlib.Future[Any])

__all__ = [
    "ALL_COMPLETED",
    "CANCELLED",
    "CANCELLED_AND_NOTIFIED",
    "FINISHED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "LOGGER",
    "PENDING",
    "RUNNING",
    "BrokenExecutor",
    "CancelledError",
    "DeadlockError",
    "DoneAndNotDoneFutures",
    "Error",
    "Executor",
    "Future",
    "InvalidStateError",
    "TimeoutError",
    "as_completed",
    "wait",
]

TimeoutError = TimeoutError

#: What nobody can be told any more (a callback that failed) is logged here.
LOGGER: logging.Logger = logging.getLogger("concurrent.futures")

# For futures of other libraries, and after `install()`.
_original_wait = _stdlib.wait
_original_as_completed = _stdlib.as_completed
_stdlib_future = _stdlib.Future


class DeadlockError(RuntimeError):
    """Tasks wait for each other, so that none of them would ever finish."""


@without_hints
class Future(_engine.Future["_T"], _stdlib.Future["_T"], metaclass=ABCMeta):
    """The result of a call that may not have run yet.

    It is a ``concurrent.futures.Future`` in every respect, and can also be awaited in
    asyncio.
    """

    __slots__ = ()

    def __init__(self) -> None:
        """Make a pending future. Executors do this; others seldom need to."""

    @classmethod
    def __subclasshook__(cls, other: type, /) -> Any:
        # The standard library's own are as good. After `install()`, isinstance asks this
        # class about those that were made before.
        if cls is Future and issubclass(other, _stdlib_future):
            return True
        return NotImplemented

    def __await__(self) -> Generator[Any, None, _T]:
        """Wait in the running event loop. Cancelling the wait cancels the future."""
        import asyncio

        if not self.done():
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()

            def wake(_: object) -> None:
                # If the loop is closed, nobody waits any more.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_release, waiter)

            self.add_done_callback(wake)
            try:
                yield from waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self.cancelled():
            raise asyncio.CancelledError
        return self.result()


@without_hints
def wait(
    fs: Iterable[_F],
    timeout: float | None = None,
    return_when: str = ALL_COMPLETED,
) -> _engine._DoneAndNotDone[_F]:
    """Wait for futures, of any executors.

    Returns two sets, ``done`` and ``not_done``, when all futures are done, or, depending on
    ``return_when``, when the first is done or has raised an exception; or after ``timeout``
    seconds.
    """
    result = _engine.wait(fs, timeout, return_when)
    if isinstance(result, set):
        # There are others among them than those of our executors.
        divided: Any = _original_wait(result, timeout, return_when)
        both: _engine._DoneAndNotDone[_F] = divided
        return both
    return result


def _release(waiter: asyncio.Future[None]) -> None:
    """End a wait, unless it was cancelled."""
    if not waiter.done():
        waiter.set_result(None)


_engine.use_types(Future, DeadlockError)
_engine.look_up_for_futures()

# Of use to threads and processes.
atexit.register(_engine.interpreter_ends)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_engine.before_fork,
        after_in_parent=lambda: _engine.after_fork(False),
        after_in_child=lambda: _engine.after_fork(True),
    )
