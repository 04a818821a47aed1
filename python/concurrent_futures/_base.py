"""Futures, and the functions over many of them.

The names are those of the standard library's ``concurrent.futures._base``. Exceptions and
constants are the standard library's own, so that code written for it catches and compares
them; so is ``Executor``.
"""

import concurrent.futures._base as _stdlib_base
import contextlib
import copyreg
import functools
import logging
import os
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

from concurrent_futures import TYPE_CHECKING, _engine, _private
from concurrent_futures._private import without_hints

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures as _stdlib
    from collections.abc import Callable, Generator, Iterable
    from typing import Any, ParamSpec, SupportsIndex, TypeVar

    _P = ParamSpec("_P")

    _T = TypeVar("_T")
    # Any futures, and the same ones again.
    _F = TypeVar("_F", bound=_stdlib.Future[Any])
    _MakeGenerator = TypeVar("_MakeGenerator", bound=Callable[..., Generator[Any, None, None]])
else:
    _stdlib = _private.originals

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

#: The logger of errors that no caller can receive, such as those of callbacks.
LOGGER: "logging.Logger" = logging.getLogger("concurrent.futures")

# For futures of other libraries, and after `install()`.
_original_wait = _stdlib.wait
_original_as_completed = _stdlib.as_completed
_stdlib_future = _stdlib.Future


#: The names in the ``__dict__`` of a future of the standard library.
_FIELDS = ("_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks")


def cpu_count() -> int:
    """Return the number of CPUs, counted as this Python's executors do."""
    count = getattr(os, "process_cpu_count", os.cpu_count)()
    return count or 1


class DeadlockError(RuntimeError):
    """Raised for tasks that wait for each other in a cycle, so that none of them would ever finish.

    Or a task waits for one of its own pool, for which no thread can be started.

    Examples
    --------
    >>> import threading
    >>> from concurrent_futures import DeadlockError, ThreadPoolExecutor
    >>> own, is_known = [], threading.Event()
    >>> def wait_for_itself():
    ...     is_known.wait()
    ...     return own[0].result()
    >>> with ThreadPoolExecutor() as pool:
    ...     own.append(pool.submit(wait_for_itself))
    ...     is_known.set()
    >>> isinstance(own[0].exception(), DeadlockError)
    True
    """


def shareable(function: "_MakeGenerator") -> "_MakeGenerator":
    """Make the generators of a function such that threads may share them.

    Threads may share the interpreter's own, except in free-threaded builds up to CPython 3.14.
    """
    if _engine.GENERATORS_ARE_SAFE:
        return function

    @functools.wraps(function)
    def make(*args: "Any", **kwargs: "Any") -> "_engine.SharedGenerator[Any]":
        return _engine.SharedGenerator(function(*args, **kwargs))

    return make  # type: ignore[return-value]


@without_hints
class Future(_engine.Future["_T"], _stdlib.Future["_T"]):
    """The result of a call that may not have run yet.

    It is a ``concurrent.futures.Future`` in every respect, and can also be awaited in
    asyncio.

    Examples
    --------
    >>> import asyncio
    >>> from concurrent_futures import ThreadPoolExecutor
    >>> async def main(pool):
    ...     return await pool.submit(pow, 2, 10)
    >>> with ThreadPoolExecutor() as pool:
    ...     answer = asyncio.run(main(pool))
    >>> answer
    1024
    """

    __slots__ = ()

    # The original that this class stands for where it is installed.
    _original = _stdlib_future

    def __init__(self) -> None:
        """Make a pending future. Executors do this; other code seldom needs to."""

    def __reduce_ex__(self, protocol: "SupportsIndex", /) -> "str | tuple[Any, ...]":
        if type(self).__reduce__ is not object.__reduce__:
            return self.__reduce__()
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __getstate__(self) -> "dict[str, Any]":
        """Return the names of the standard library's ``__dict__``: a copy shares their values."""
        return {name: getattr(self, name) for name in _FIELDS} | vars(self)

    def __setstate__(self, state: "dict[str, Any]") -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def __await__(self) -> "Generator[Any, None, _T]":
        """Wait in the running event loop. Cancelling the wait cancels the future."""
        import asyncio

        if not self.done():
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()

            def wake(_: object) -> None:
                # If the loop is closed, no coroutine waits any more.
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
    fs: "Iterable[_F]",
    timeout: "float | None" = None,
    return_when: str = ALL_COMPLETED,
) -> "_engine._DoneAndNotDone[_F]":
    """Wait for futures, of any executors.

    Returns two sets, ``done`` and ``not_done``, when all futures are done, or after ``timeout``
    seconds. ``return_when`` may ask for less: for the first future that is done, or that has raised
    an exception. Raises ValueError for any other ``return_when``. The semantics are those of
    ``concurrent.futures.wait``.

    Examples
    --------
    >>> from concurrent_futures import FIRST_COMPLETED, Future, wait
    >>> first, second = Future(), Future()
    >>> first.set_result(1)
    >>> done, not_done = wait([first, second], return_when=FIRST_COMPLETED)
    >>> done == {first}, not_done == {second}
    (True, True)
    """
    result: Any = _engine.wait(fs, timeout, return_when)
    if isinstance(result, set):
        # Futures of other executors are among them, or other libraries' locks to wait with.
        result = _original_wait(result, timeout, return_when)
    both: _engine._DoneAndNotDone[_F] = result
    return both


def _wait_with_condition(future: "Future[Any]", timeout: "float | None") -> bool:
    """Wait for a future by its condition; return whether it is done."""
    with future._condition:
        if not future.done():
            future._condition.wait(timeout)
        return future.done()


@without_hints
@shareable
def as_completed(
    fs: "Iterable[_F]", timeout: "float | None" = None, *, progress: bool = False
) -> "Generator[_F, None, None]":
    """Yield futures, of any executors, each as it is done; those that are done already first.

    Raises TimeoutError if the next future is not done ``timeout`` seconds after the first was asked
    for. With ``progress``, the iteration shows a bar of tqdm, if that is installed. The semantics
    are those of ``concurrent.futures.as_completed``.

    Examples
    --------
    >>> from concurrent_futures import ThreadPoolExecutor, as_completed
    >>> with ThreadPoolExecutor() as pool:
    ...     lengths = {pool.submit(len, word): word for word in ["submit", "map"]}
    ...     for future in as_completed(lengths):
    ...         assert future.result() == len(lengths[future])
    """
    iterator: Any
    if progress:
        from concurrent_futures import _progress

        iterator = _progress.of_futures(lambda own: as_completed(own, timeout), fs)
    else:
        iterator = _engine.as_completed(fs, timeout)
    del fs
    try:
        yield from iterator
    finally:
        iterator.close()


@without_hints
@shareable
def result_iterator(iterator: "_engine.ResultIterator[_T]") -> "Generator[_T, None, None]":
    """Yield the results of ``map``."""
    try:
        yield from iterator
    finally:
        iterator.close()


# Profiles and error messages name it as the standard library's.
getattr(
    result_iterator, "__wrapped__", result_iterator
).__qualname__ = "Executor.map.<locals>.result_iterator"

#: The originals that these functions stand for where they are installed.
wait._original = _original_wait  # type: ignore[attr-defined]
as_completed._original = _original_as_completed  # type: ignore[attr-defined]


def _release(waiter: "asyncio.Future[None]") -> None:
    """End a wait, unless it was cancelled."""
    if not waiter.done():
        waiter.set_result(None)


# Those of the first import, if there was one before.
_used = _engine.use_types(Future, DeadlockError)
if not TYPE_CHECKING:
    Future, DeadlockError = _used
_engine.look_up_for_futures()

_engine.register_hooks()

_private.forward(__name__, _stdlib_base)
