"""``ThreadPoolExecutor``.

The names are those of the standard library's ``concurrent.futures.thread``.
"""

import concurrent.futures.thread as _stdlib_thread
import itertools
import os
import sys
import threading
import weakref
from concurrent.futures.thread import BrokenThreadPool

from concurrent_futures import TYPE_CHECKING, _base, _engine, _private
from concurrent_futures._private import without_hints

if TYPE_CHECKING:
    import concurrent.futures as _stdlib
    from collections.abc import Callable, Generator, Iterable
    from typing import Any, Never, ParamSpec, TypeVar

    from concurrent_futures._stats import ExecutorStats

    _P = ParamSpec("_P")
    _T = TypeVar("_T")
else:
    _stdlib = _private.originals

__all__ = ["BrokenThreadPool", "ThreadPoolExecutor"]

_stdlib_executor = _stdlib.ThreadPoolExecutor
# From CPython 3.14 on, each worker has a context, which knows the initializer and runs the calls.
_has_contexts = hasattr(_stdlib_executor, "prepare_context")
# `importlib.reload` executes this module again.
_is_reloaded = "_executors" in globals()
if not _is_reloaded:
    # By their ids. The references have no callbacks, in which Ctrl-C would be lost.
    _executors: "dict[int, weakref.ref[ThreadPoolExecutor]]" = {}
    #: The number of forks up to the process whose threads the executors have.
    _process = _engine.process_generation()


@without_hints
class ThreadPoolExecutor(_engine.ThreadPool, _stdlib.ThreadPoolExecutor):
    """Runs calls in threads of this process.

    Tasks start in the order in which they were submitted. The pool starts threads when there
    are tasks for them, and uses idle threads first. The semantics are those of
    ``concurrent.futures.ThreadPoolExecutor``; ``max_pending`` and ``copy_context`` go beyond.

    Parameters
    ----------
    max_workers
        The number of threads that the pool may have. The default is 4 more than there are CPUs,
        and at most 32.
    thread_name_prefix
        The beginning of the threads' names.
    initializer
        Called first in each thread. If it raises an exception, the pool is broken: pending
        futures and ``submit`` raise ``BrokenThreadPool``.
    initargs
        The arguments of the initializer.
    max_pending
        The number of tasks that may be pending: ``submit`` waits for room. Running tasks do
        not count. The pool's own tasks may exceed the limit. By default there is no limit.
    copy_context
        Whether each call runs in a copy of the context (``contextvars``) in which it was
        submitted. By default a call runs in the context of its thread.

    Raises ValueError if a number is not above 0, and TypeError if the initializer cannot be called.

    Examples
    --------
    >>> from concurrent_futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(max_workers=2) as pool:
    ...     future = pool.submit(pow, 2, 10)
    >>> future.result()
    1024
    """

    # The original that this class stands for where it is installed.
    _original = _stdlib_executor

    _hooks = _private.Hooks(
        _stdlib_executor,
        _stdlib_thread,
        frozenset(
            (
                "_broken",
                "_idle_semaphore",
                "_max_workers",
                "_shutdown",
                "_shutdown_lock",
                "_thread_name_prefix",
                "_threads",
                "_work_queue",
                *(
                    ("_create_worker_context", "_resolve_work_item_task")
                    if _has_contexts
                    else ("_initargs", "_initializer")
                ),
            )
        ),
    )

    # The beginning of the names of threads of pools without a prefix.
    _kind = "ThreadPoolExecutor"
    # The numbers of pools without a prefix.
    _counter = itertools.count().__next__

    def __init__(
        self,
        max_workers: "int | None" = None,
        thread_name_prefix: str = "",
        initializer: "Callable[..., object] | None" = None,
        initargs: "Iterable[Any]" = (),
        *,
        max_pending: "int | None" = None,
        copy_context: bool = False,
        **ctxkwargs: "Never",
    ) -> None:
        if max_workers is None:
            max_workers = min(32, _base.cpu_count() + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if max_pending is not None and max_pending <= 0:
            raise ValueError("max_pending must be greater than 0")
        of_instance = vars(self)
        if of_instance:
            # From a subclass that has set them before; the standard library replaces them, too.
            for name in self._hooks.attributes:
                of_instance.pop(name, None)
        self._max_pending = max_pending
        self._copy_context = copy_context
        thread_name_prefix = thread_name_prefix or f"{self._kind}-{ThreadPoolExecutor._counter()}"
        if self._hooks.are_overridden(type(self)):
            why = f"{type(self).__qualname__} overrides private parts of its base class"
        elif _engine.is_threading_replaced():
            why = "another library has replaced the locks of threading"
        elif self._is_standard():
            why = "the pool works as the standard library's already"
        else:
            if ctxkwargs:
                # The class has no `prepare_context` that takes them: the version's error is raised.
                _stdlib_executor.__init__(self, max_workers, **ctxkwargs)
            of_instance["_max_workers"] = max_workers
            of_instance["_thread_name_prefix"] = thread_name_prefix
            of_instance["_begun_with"] = self._begin_with(initializer, initargs)
            self._begin()
            _executors[id(self)] = weakref.ref(self)
            return
        if max_pending is not None:
            raise ValueError(f"max_pending is not available, as {why}")
        self._use_standard()
        start: Any = _stdlib_executor.__init__
        start(self, max_workers, thread_name_prefix, initializer, initargs, **ctxkwargs)

    def _begin_with(
        self, initializer: "Callable[..., object] | None", initargs: "Iterable[Any]"
    ) -> "tuple[Any, Any]":
        """Check the initializer, and return it and its arguments."""
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        # Arguments of no function are not looked at.
        return initializer, initargs if initializer is None else tuple(initargs)

    def _begin(self) -> None:
        """Set up a pool without threads."""
        work_queue = _private.WorkQueue(self)
        of_instance = vars(self)
        threads = _private.WorkerSet()
        of_instance["_threads"] = threads
        of_instance["_work_queue"] = work_queue
        initializer, initargs = of_instance["_begun_with"]
        make_context = self._context_maker()
        # A context calls the initializer itself, whatever its arguments are.
        is_called = initializer is not None and make_context is None
        self._start(
            min(-int(-of_instance["_max_workers"] // 1), _engine.MAX_WORKERS),
            of_instance["_thread_name_prefix"],
            initializer,
            initargs if is_called else (),
            self._max_pending,
            self._copy_context,
            threads,
            work_queue,
            make_context,
        )

    def _context_maker(self) -> "Callable[[], object] | None":
        """Return the function that makes the contexts of workers, if they need any."""
        return None

    def submit(
        self, fn: "Callable[_P, _T]", /, *args: "_P.args", **kwargs: "_P.kwargs"
    ) -> "_base.Future[_T]":
        """Submit the call ``fn(*args, **kwargs)``, and return its Future at once.

        With `max_pending`, it waits for room first. Raises RuntimeError after a shutdown,
        BrokenThreadPool if an initializer has failed.

        Examples
        --------
        >>> from concurrent_futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor() as pool:
        ...     future = pool.submit(int, "ff", base=16)
        >>> future.result()
        255
        """
        # Most calls lead there without this; see `_engine.lead_to`.
        future: _base.Future[_T] = self._submit(fn, *args, **kwargs)
        return future

    def map(
        self,
        fn: "Callable[..., _T]",
        *iterables: "Iterable[Any]",
        timeout: "float | None" = None,
        chunksize: int = 1,
        buffersize: "int | None" = None,
        progress: bool = False,
    ) -> "Generator[_T, None, None]":
        """Call ``fn`` for the items of the iterables; return an iterator over the results.

        The results come in the order of the items. All calls are submitted at once, or, with
        ``buffersize``, that many ahead of the iteration. The iterator raises TimeoutError if a
        result is not there ``timeout`` seconds after the call of map. ``chunksize`` is for process
        pools, and without effect here. Calls that have not started are cancelled when the iterator
        is closed or fails. With ``progress``, the iteration shows a bar of tqdm, if that is
        installed.

        Raises what ``submit`` raises, ValueError if ``buffersize`` is not above 0, and TypeError if
        it is no integer.

        Examples
        --------
        >>> from concurrent_futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor() as pool:
        ...     powers = list(pool.map(pow, [2, 3, 4], [10, 2, 3]))
        >>> powers
        [1024, 9, 64]

        An endless iterable needs a ``buffersize``:

        >>> from itertools import count, islice
        >>> with ThreadPoolExecutor() as pool:
        ...     texts = list(islice(pool.map(str, count(), buffersize=4), 3))
        >>> texts
        ['0', '1', '2']
        """
        if progress:
            from concurrent_futures import _progress

            def call(iterables: "tuple[Iterable[Any], ...]") -> "Generator[_T, None, None]":
                return _base.result_iterator(self._map(fn, iterables, timeout, buffersize))

            return _progress.of_map(call, fn, iterables, buffersize is None)
        return _base.result_iterator(self._map(fn, iterables, timeout, buffersize))

    # Error messages name it as the standard library's.
    map.__qualname__ = "Executor.map"

    def options(self, *, label: "str | None" = None) -> "ThreadPoolOptions":
        """Return an object whose ``submit`` and ``map`` give calls a label, which recordings show.

        With ``buffersize``, the label is that of the calls that ``map`` itself submits.

        Examples
        --------
        >>> from concurrent_futures import ThreadPoolExecutor, recording
        >>> with ThreadPoolExecutor() as pool, recording() as run:
        ...     future = pool.options(label="page 1").submit(len, "page")
        ...     length = future.result()
        >>> b"page 1" in run.trace()
        True
        """
        return ThreadPoolOptions(self, label)

    def stats(self) -> "ExecutorStats":
        """Return the figures of the pool since its start.

        Counts are kept always, and reading them takes some microseconds, however many tasks are
        pending. Times are measured from the first call on. To measure
        all tasks, call this once before the first.

        Raises RuntimeError if the pool works by the standard library's code.

        Examples
        --------
        >>> from concurrent_futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor() as pool:
        ...     value = pool.submit(abs, -7).result()
        ...     stats = pool.stats()
        >>> stats.finished, stats.failed
        (1, 0)
        """
        from concurrent_futures import _stats

        if self._is_standard():
            raise _stats.refused()
        return _stats.of(self._stats())

    def _repr_html_(self) -> str:
        from concurrent_futures import _stats

        return _stats.html(self)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse tasks from now on.

        Waits for those that are pending or running, if ``wait``; called by a task of the
        pool itself, it does not wait. With ``cancel_futures``, those that are pending are
        cancelled.

        Examples
        --------
        >>> from concurrent_futures import ThreadPoolExecutor
        >>> pool = ThreadPoolExecutor()
        >>> future = pool.submit(pow, 2, 10)
        >>> pool.shutdown()
        >>> future.done()
        True
        >>> pool.submit(pow, 2, 10)
        Traceback (most recent call last):
            ...
        RuntimeError: cannot schedule new futures after shutdown
        """
        with _private.switching:
            is_standard = self._is_standard()
            if not is_standard:
                self._close()
        if is_standard:
            _stdlib_executor.shutdown(self, wait, cancel_futures=cancel_futures)
            return
        if cancel_futures:
            self._cancel_pending()
        if wait and not self._is_worker():
            threads = self._threads
            if not getattr(threads, "was_taken_from", False):
                self._wait_for_threads()
            # A copy of a set is made in one step, whatever the other threads do.
            for thread in set(threads):
                thread.join()

    # ---- what other code touches

    _max_workers = _private.Stored()
    _thread_name_prefix = _private.Stored()
    _threads = _private.Stored()
    _work_queue = _private.Stored()
    _broken = _private.Computed(_engine.ThreadPool._what_broke)
    _shutdown = _private.Computed(_engine.ThreadPool._is_closed)
    _shutdown_lock = _private.Standard()
    _idle_semaphore = _private.Standard()
    if _has_contexts:
        _create_worker_context = _private.Standard()
        _resolve_work_item_task = _private.Standard()
    else:
        _initializer = _private.Computed(lambda pool: pool._begun_with[0])
        _initargs = _private.Computed(lambda pool: pool._begun_with[1])
    _adjust_thread_count = _private.Method(_stdlib_executor._adjust_thread_count)
    _initializer_failed = _private.Method(_stdlib_executor._initializer_failed)

    def _after_fork(self) -> None:
        """Take note of a fork, as code uses the executor before our hook has been called."""
        _after_fork_in_child()

    def _become_standard(self, touched: str) -> None:
        """Work by the standard library's code from now on, as ``touched`` needs that.

        Running tasks stay with the threads that run them. Those threads, and what is pending, go
        over to the standard library's code: it finds what it would have made itself.
        """
        with _private.switching:
            if self._is_standard():
                return
            if not self._has_started():
                if touched == "_work_queue":
                    # By a subclass before `__init__`, or the original's `__init__`.
                    self._copy_context = False
                    self._use_standard()
                return
            if self._max_pending is not None:
                raise AttributeError(
                    f"{touched} belongs to the standard library's executor, which has no"
                    " max_pending: make this pool without max_pending"
                )
            of_instance = vars(self)
            work_queue = of_instance["_work_queue"]
            is_closed = self._is_closed()
            lock = threading.Lock()
            of_instance.update(
                _broken=self._what_broke(),
                _shutdown=is_closed,
                _shutdown_lock=lock,
                _idle_semaphore=threading.Semaphore(0),
            )
            if sys.version_info >= (3, 14):
                create, resolve = self.prepare_context(*of_instance["_begun_with"])
                of_instance.update(_create_worker_context=create, _resolve_work_item_task=resolve)
            # Calls that are submitted meanwhile come after pending ones.
            with lock:
                given_up = self._give_up(_private.worker_after_engine(self, work_queue))
                for future, fn, args, kwargs in given_up:
                    work_queue.keep(self._work_item(future, fn, args, kwargs))
                if is_closed:
                    work_queue.keep(None)
                work_queue.is_engines = False

    def _submit_standard(
        self, fn: "Callable[..., Any]", args: "tuple[Any, ...]", kwargs: "dict[str, Any]"
    ) -> "_base.Future[Any]":
        """Submit a call by the standard library's code."""
        if self._copy_context:
            import contextvars  # Few need it, and each program would load it.

            fn, args = contextvars.copy_context().run, (fn, *args)
        with self._shutdown_lock, _stdlib_thread._global_shutdown_lock:
            if self._broken:
                raise getattr(self, "BROKEN", BrokenThreadPool)(self._broken)
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _stdlib_thread._shutdown:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            future: _base.Future[Any] = _base.Future()
            self._work_queue.put(self._work_item(future, fn, args, kwargs))
            self._adjust_thread_count()
            return future

    def _work_item(self, future: "Any", fn: "Any", args: "Any", kwargs: "Any") -> "Any":
        """Return a call in the form for workers of the standard library."""
        if sys.version_info < (3, 14):
            return _stdlib_thread._WorkItem(future, fn, args, kwargs)
        return _stdlib_thread._WorkItem(future, self._resolve_work_item_task(fn, args, kwargs))


class ThreadPoolOptions:
    """Submits calls with options; see `ThreadPoolExecutor.options`."""

    def __init__(self, executor: ThreadPoolExecutor, label: "str | None") -> None:
        self._executor = executor
        self._label = label

    def submit(
        self, fn: "Callable[_P, _T]", /, *args: "_P.args", **kwargs: "_P.kwargs"
    ) -> "_base.Future[_T]":
        """Submit the call ``fn(*args, **kwargs)``, and return its Future at once."""
        if self._label is None:
            return self._executor.submit(fn, *args, **kwargs)
        submit = self._executor.submit
        future: _base.Future[_T] = _engine.call_with_label(self._label, submit, fn, *args, **kwargs)
        return future

    def map(
        self, fn: "Callable[..., _T]", *iterables: "Iterable[Any]", **options: "Any"
    ) -> "Generator[_T, None, None]":
        """Call ``fn`` for the items of the iterables, as `ThreadPoolExecutor.map` does."""
        if self._label is None:
            return self._executor.map(fn, *iterables, **options)
        return _engine.call_with_label(self._label, self._executor.map, fn, *iterables, **options)


def _at_exit() -> None:
    """Let all pools finish their work before the interpreter ends."""
    _engine.interpreter_exits()
    for thread in _private.engine_threads():
        thread.join()


def _after_fork_in_child() -> None:
    """Give the executors of the child new threads, when they need them.

    Hooks of the program may have been called before: threads and executors that they have made are
    the child's.
    """
    global _process
    if _process == _engine.process_generation():
        return
    _process = _engine.process_generation()
    _private.switching._at_fork_reinit()  # type: ignore[attr-defined]
    for thread in _private.engine_threads():
        if not thread.is_alive():
            _private.threads_queues.pop(thread, None)
    for reference in list(_executors.values()):
        executor = reference()
        if executor is None or executor._is_standard() or not executor._is_inherited():
            continue
        is_closed = executor._is_closed()
        executor._begin()
        if is_closed:
            executor._close()


ThreadPoolExecutor._hooks.remember(ThreadPoolExecutor)
_engine.look_up_for_threads()
_engine.lead_to(ThreadPoolExecutor.submit, _engine.ThreadPool._submit, 0)

if not _is_reloaded:
    # As the standard library does it: before all threads that are no daemons are joined.
    _register_atexit: "Callable[[Callable[[], None]], None]" = threading._register_atexit  # type: ignore[attr-defined]
    _register_atexit(lambda: _at_exit())

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _after_fork_in_child())

_private.forward(__name__, _stdlib_thread)
