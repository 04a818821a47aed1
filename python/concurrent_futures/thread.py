"""``ThreadPoolExecutor``.

The names are those of the standard library's ``concurrent.futures.thread``.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import weakref
from abc import ABCMeta
from concurrent.futures.thread import BrokenThreadPool

from concurrent_futures import TYPE_CHECKING, _base, _engine
from concurrent_futures._hints import without_hints

if TYPE_CHECKING:
    import concurrent.futures as _stdlib
    from collections.abc import Callable, Generator, Iterable
    from typing import Any, TypeVar

    _T = TypeVar("_T")
else:
    from concurrent_futures import _originals as _stdlib

__all__ = ["BrokenThreadPool", "ThreadPoolExecutor"]

_stdlib_executor = _stdlib.ThreadPoolExecutor
# `importlib.reload` executes this module again.
_is_reloaded = "_executors" in globals()
if not _is_reloaded:
    _executors: weakref.WeakSet[ThreadPoolExecutor] = weakref.WeakSet()
    _workers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _cpu_count() -> int:
    """Return the number of CPUs, counted as this Python's executor does."""
    count = getattr(os, "process_cpu_count", os.cpu_count)()
    return count or 1


class _WorkQueue:
    """The pending tasks of an executor, to be counted."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor

    def qsize(self) -> int:
        """Return the number of pending tasks."""
        return self._executor._pending()

    def empty(self) -> bool:
        """Return whether no task is pending."""
        return self.qsize() == 0


@without_hints
class ThreadPoolExecutor(_engine.ThreadPool, _stdlib.ThreadPoolExecutor, metaclass=ABCMeta):
    """Runs calls in threads of this process.

    Tasks start in the order in which they were submitted. Threads are started when there
    are tasks for them; idle ones are used first.

    Parameters
    ----------
    max_workers
        The number of threads that the pool may have; by default 4 more than there are CPUs,
        and at most 32.
    thread_name_prefix
        What the threads' names begin with.
    initializer
        Called first in each thread. If it raises an exception, the pool is broken: pending
        futures and ``submit`` raise ``BrokenThreadPool``.
    initargs
        The arguments of the initializer.
    max_pending
        How many tasks may be pending: ``submit`` waits for room. Those that run do not
        count. The pool's own tasks may exceed it. By default there is no limit.
    copy_context
        Whether each call runs in a copy of the context (``contextvars``) in which it was
        submitted. By default it runs in that of its thread.
    """

    @classmethod
    def __subclasshook__(cls, other: type, /) -> Any:
        # As for futures.
        if cls is ThreadPoolExecutor and issubclass(other, _stdlib_executor):
            return True
        return NotImplemented

    # What it stands for where it is installed.
    _original = _stdlib_executor

    # The numbers of pools without a prefix.
    _counter = itertools.count().__next__

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_pending: int | None = None,
        copy_context: bool = False,
    ) -> None:
        if max_workers is None:
            max_workers = min(32, _cpu_count() + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_pending is not None and max_pending <= 0:
            raise ValueError("max_pending must be greater than 0")
        self._max_workers = max_workers
        self._max_pending = max_pending
        self._copy_context = copy_context
        self._thread_name_prefix: str = (
            thread_name_prefix or f"ThreadPoolExecutor-{ThreadPoolExecutor._counter()}"
        )
        self._initializer: Callable[..., Any] | None = initializer
        self._initargs = tuple(initargs)
        self._begin()
        _executors.add(self)

    def _begin(self) -> None:
        """Set up a pool without threads."""
        self._threads: set[threading.Thread] = set()
        self._start(
            min(math.ceil(self._max_workers), _engine.MAX_WORKERS),
            self._thread_name_prefix,
            self._initializer,
            self._initargs,
            self._max_pending,
            self._copy_context,
            self._threads,
            _workers,
        )

    @property
    def _work_queue(self) -> _WorkQueue:  # type: ignore[override]
        return _WorkQueue(self)

    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Generator[_T, None, None]:
        """Call ``fn`` for the items of the iterables; return an iterator over the results.

        The results come in the order of the items. All calls are submitted at once, or, with
        ``buffersize``, that many ahead of the iteration. The iterator raises TimeoutError if a
        result is not there ``timeout`` seconds after the call of map. ``chunksize`` is for process
        pools, and without effect here. Calls that have not started are cancelled when the iterator
        is closed or fails.
        """
        return _base.result_iterator(self._map(fn, iterables, timeout, buffersize))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse tasks from now on.

        Waits for those that are pending or running, if ``wait``; called by a task of the
        pool itself, it does not wait. With ``cancel_futures``, those that are pending are
        cancelled.
        """
        self._close()
        if cancel_futures:
            self._cancel_pending()
        if wait and not self._is_worker():
            self._wait_for_threads()
            for thread in list(self._threads):
                thread.join()


def _members(weak: Iterable[_T]) -> list[_T]:
    """Return what is in a weak set to which other threads may be adding."""
    while True:
        try:
            return list(weak)
        except RuntimeError:  # It has changed.
            continue


def _at_exit() -> None:
    """Let all pools finish their work before the interpreter ends."""
    _engine.interpreter_exits()
    for thread in _members(_workers):
        thread.join()


def _after_fork_in_child() -> None:
    """Give the executors of the child threads of their own, when they need them."""
    _workers.clear()
    for executor in _members(_executors):
        closed = executor._shutdown
        executor._begin()
        if closed:
            executor._close()


_engine.look_up_for_threads()

if not _is_reloaded:
    # As the standard library does it: before all threads that are no daemons are joined.
    _register_atexit: Callable[[Callable[[], None]], None] = threading._register_atexit  # type: ignore[attr-defined]
    _register_atexit(lambda: _at_exit())

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _after_fork_in_child())
