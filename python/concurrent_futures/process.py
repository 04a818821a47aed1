"""``ProcessPoolExecutor``.

The names are those of the standard library's ``concurrent.futures.process``.
"""

import concurrent.futures as _stdlib
import concurrent.futures.process as _stdlib_process
import importlib
import itertools
import os
import sys
import threading
from functools import partial

from concurrent_futures import TYPE_CHECKING, _base, _engine, _private, _process_workers, _worker
from concurrent_futures._private import without_hints
from concurrent_futures._process_errors import (
    BrokenProcessPool,
    TaskTerminatedError,
    TaskTimeoutError,
    WorkerDiedError,
)
from concurrent_futures._process_private import (
    CallQueue,
    IdleWorkers,
    Lock,
    MaxWorkers,
    Refusal,
    Wakeup,
    pending_work_items,
    wakeups,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.context import BaseContext
    from typing import Any, Literal, ParamSpec, TypeVar

    from concurrent_futures._process_options import ProcessPoolOptions
    from concurrent_futures._stats import ExecutorStats

    _P = ParamSpec("_P")
    _T = TypeVar("_T")

__all__ = [
    "BrokenProcessPool",
    "ProcessPoolExecutor",
    "TaskTerminatedError",
    "TaskTimeoutError",
    "WorkerDiedError",
]

if TYPE_CHECKING:
    _stdlib_executor = _stdlib_process.ProcessPoolExecutor
else:
    _stdlib_executor = _private.originals.ProcessPoolExecutor
_check_system_limits: "Callable[[], None]" = _stdlib_process._check_system_limits

# As the newer versions of the standard library name them.
_TERMINATE = "terminate"
_KILL = "kill"

# `importlib.reload` executes this module again.
_is_reloaded = "ProcessPoolExecutor" in globals()


@without_hints
class ProcessPoolExecutor(_engine.ProcessPool, _stdlib_executor):
    """Runs calls in worker processes.

    The semantics are those of ``concurrent.futures.ProcessPoolExecutor``; the parameters from
    ``on_worker_death`` on go beyond.

    Parameters
    ----------
    max_workers
        The number of processes that the pool may have. The default is the number of CPUs.
    mp_context
        The context of ``multiprocessing`` whose processes the workers are.
    initializer
        Called first in each worker. If it raises an exception, the pool is broken: pending
        futures and ``submit`` raise ``BrokenProcessPool``.
    initargs
        The arguments of the initializer. They may be locks and queues of the context.
    max_tasks_per_child
        The number of calls after which a worker is replaced.
    on_worker_death
        The effect of a worker's death. ``"break"``, as in the standard library, breaks the
        pool, so that all futures raise ``BrokenProcessPool``. With ``"isolate"``, only the
        future of the call that the worker was running raises `WorkerDiedError`, and the pool
        replaces the worker. Results that cannot be unpickled then fail their own future, too.
        As long as another worker works, workers that die before they can work are replaced, with
        pauses that grow to 1.28 seconds. Otherwise three consecutive deaths break the pool.
    task_timeout
        The seconds that each call may run. When they have passed, the worker of the call is
        killed and replaced, and the future raises `TaskTimeoutError`.
    memory_limit
        The bytes that each worker may have for data (``RLIMIT_DATA``), its initializer
        included. The limit is checked when a worker asks the system for more memory. A forked
        worker may use what this process has reserved before.
    max_pending
        The number of tasks that may be pending: ``submit`` waits for room. Tasks that were
        dispatched to a worker, or run, do not count. By default there is no limit.
    cloudpickle
        Whether ``cloudpickle``, which must be installed, pickles objects that ``pickle``
        refuses, such as lambdas and closures.

    Raises ValueError if a number is not above 0, or if two options exclude each other. Raises
    TypeError if the initializer cannot be called, and OSError if the system refuses a resource.

    Examples
    --------
    >>> import os
    >>> from concurrent_futures import ProcessPoolExecutor
    >>> with ProcessPoolExecutor(max_workers=2) as pool:
    ...     future = pool.submit(os.getpid)
    >>> future.result() != os.getpid()
    True
    """

    # The original that this class stands for where it is installed.
    _original = _stdlib_executor

    _hooks = _private.Hooks(
        _stdlib_executor,
        _stdlib_process,
        frozenset(
            (
                "_broken",
                "_call_queue",
                "_cancel_pending_futures",
                "_executor_manager_thread",
                "_executor_manager_thread_wakeup",
                *(("_force_shutting_down",) if sys.version_info >= (3, 14) else ()),
                "_idle_worker_semaphore",
                "_initargs",
                "_initializer",
                "_max_tasks_per_child",
                "_max_workers",
                "_mp_context",
                "_pending_work_items",
                "_processes",
                "_queue_count",
                "_result_queue",
                "_safe_to_dynamically_spawn_children",
                "_shutdown_lock",
                "_shutdown_thread",
                "_work_ids",
            )
        ),
    )

    def __init__(
        self,
        max_workers: "int | None" = None,
        mp_context: "BaseContext | None" = None,
        initializer: "Callable[..., object] | None" = None,
        initargs: "tuple[Any, ...]" = (),
        *,
        max_tasks_per_child: "int | None" = None,
        on_worker_death: "Literal['break', 'isolate']" = "break",
        task_timeout: "float | None" = None,
        memory_limit: "int | None" = None,
        max_pending: "int | None" = None,
        cloudpickle: bool = False,
    ) -> None:
        _check_system_limits()
        if max_workers is None:
            max_workers = _base.cpu_count()
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if mp_context is None:
            mp_context = _process_workers.default_context(max_tasks_per_child)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        method = _process_workers.start_method(mp_context)
        if max_tasks_per_child is not None:
            _process_workers.check_tasks_per_child(max_tasks_per_child, method)
        if on_worker_death not in ("break", "isolate"):
            raise ValueError("on_worker_death must be 'break' or 'isolate'")
        if max_pending is not None and max_pending <= 0:
            raise ValueError("max_pending must be greater than 0")
        if cloudpickle:
            importlib.import_module("cloudpickle")  # Now rather than at the first call.
        needs_engine = {
            "on_worker_death": on_worker_death != "break",
            "task_timeout": task_timeout is not None,
            "memory_limit": memory_limit is not None,
            "max_pending": max_pending is not None,
            "cloudpickle": cloudpickle,
        }
        #: The options that the standard library's executor does not have.
        self._beyond = [name for name, is_set in needs_engine.items() if is_set]
        self._start_lock = threading.Lock()
        #: Whether a task was submitted, or is about to be, before the supervisor is started.
        self._is_used = False
        of_instance = vars(self)
        for name in self._hooks.attributes:
            of_instance.pop(name, None)
        of_instance.update(
            _max_workers=max_workers,
            _mp_context=mp_context,
            _safe_to_dynamically_spawn_children=method != "fork",
            _initializer=initializer,
            _initargs=initargs,
            _max_tasks_per_child=max_tasks_per_child,
        )
        if self._hooks.are_overridden(type(self)):
            self._work_as_standard(
                f"{type(self).__qualname__} overrides private parts of its base class"
            )
            return
        if _engine.is_threading_replaced():
            self._work_as_standard("another library has replaced the locks of threading")
            return
        strict = on_worker_death == "break"
        # With limits for each task, and where each dies for itself, each item is one.
        self._may_divide = strict and task_timeout is None and max_pending is None
        installed = _stdlib.ProcessPoolExecutor is ProcessPoolExecutor
        task = _worker.Task(
            initializer,
            initargs,
            strict=strict,
            installed=installed,
            by_value=cloudpickle,
            memory_limit=memory_limit,
        )
        self._workers = _process_workers.Workers(mp_context, task)
        self._own(task)
        queue = CallQueue(self)
        of_instance.update(
            _processes=self._workers.processes,
            _call_queue=queue,
            _work_ids=queue,
            _result_queue=queue,
            _executor_manager_thread=None,
            _executor_manager_thread_wakeup=Wakeup(None),
            _cancel_pending_futures=False,
            _idle_worker_semaphore=IdleWorkers(self),
        )
        self._start(
            self._workers,
            min(max_workers, _engine.MAX_WORKERS),
            max_tasks_per_child,
            strict,
            task_timeout,
            memory_limit,
            max_pending,
            cloudpickle,
        )

    def _begin(self) -> None:
        """Start the parts that must be there before the first task."""
        with self._start_lock:
            if self._executor_manager_thread is not None or self._processes is None:
                return
            self._is_used = True
            if not self._safe_to_dynamically_spawn_children:
                # All at once, before there is a thread more, which forks do not go well with.
                self._start_workers(self._max_workers)

    def _supervise(self) -> None:
        """Start the supervisor, if it was not started."""
        with self._start_lock:
            self._start_supervisor()

    def _start_supervisor(self) -> None:
        """Start the supervisor under the lock."""
        if not self._is_used or self._executor_manager_thread is not None:
            return
        supervisor = self._supervisor()
        thread = threading.Thread(target=supervisor.run, name="ProcessPoolExecutor-supervisor")
        wakeup = self._workers.wakeup = Wakeup(supervisor)
        _stdlib_process._threads_wakeups[thread] = wakeup
        try:
            thread.start()
        except BaseException:
            del _stdlib_process._threads_wakeups[thread]
            raise
        vars(self).update(_executor_manager_thread=thread, _executor_manager_thread_wakeup=wakeup)
        self._workers.supervisor = thread
        self._is_used = False

    def submit(
        self, fn: "Callable[_P, _T]", /, *args: "_P.args", **kwargs: "_P.kwargs"
    ) -> "_base.Future[_T]":
        """Submit the call ``fn(*args, **kwargs)``, and return its Future at once.

        A thread of the pool pickles the call, unless its arguments are numbers, texts and the like.
        If pickling fails, so does the future. With `max_pending`, `submit` waits for room first.
        Raises RuntimeError after a shutdown, BrokenProcessPool if the pool is broken.

        Examples
        --------
        >>> from concurrent_futures import ProcessPoolExecutor
        >>> with ProcessPoolExecutor(max_workers=1) as pool:
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
    ) -> "Iterator[_T]":
        """Call ``fn`` for the items of the iterables; return an iterator over the results.

        The results come in the order of the items. All calls are submitted at once, or, with
        ``buffersize``, that many ahead of the iteration. The iterator raises TimeoutError if a
        result is not there ``timeout`` seconds after the call of map. With a ``chunksize``, so many
        calls are one task. Otherwise, the executor sends short calls together, and each call is
        still for itself. If a worker dies, the calls that it had finished have their results. With
        ``progress``, the iteration shows a bar of tqdm, if that is installed.

        Raises what ``submit`` raises, ValueError if ``chunksize`` or ``buffersize`` is not above 0,
        and TypeError if one is no integer.

        Examples
        --------
        >>> from concurrent_futures import ProcessPoolExecutor
        >>> with ProcessPoolExecutor(max_workers=2) as pool:
        ...     powers = list(pool.map(pow, [2, 3, 4], [10, 2, 3]))
        >>> powers
        [1024, 9, 64]
        """
        if progress:
            from concurrent_futures import _progress

            def mapped(iterables: "tuple[Iterable[Any], ...]") -> "Iterator[_T]":
                options: dict[str, Any] = {"timeout": timeout, "chunksize": chunksize}
                options["buffersize"] = buffersize
                return ProcessPoolExecutor.map(self, fn, *iterables, **options)

            return _progress.of_map(mapped, fn, iterables, buffersize is None)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if sys.version_info < (3, 12):
            itertools.islice((), chunksize)  # Raises its own error for a value that is no integer.
        is_overridden = "submit" in vars(self) or not _engine.leads_to(1, type(self).submit)
        if is_overridden or not self._is_plain():
            # It is to be called for each task.
            options: dict[str, Any] = {"timeout": timeout}
            if buffersize is not None:
                if sys.version_info < (3, 14):
                    raise TypeError(
                        "buffersize needs the executor's own submit:"
                        " leave buffersize out, or do not override submit"
                    )
                options["buffersize"] = buffersize
            from concurrent_futures import _process_chunks

            chunks = _process_chunks.chunks(zip(*iterables, strict=False), chunksize)
            call = partial(_process_chunks._process_chunk, fn)
            return _process_chunks.flatten(_stdlib.Executor.map(self, call, chunks, **options))
        size = None if chunksize == 1 and self._may_divide else chunksize
        return self._map(fn, iterables, timeout, size, buffersize)

    def options(
        self,
        *,
        timeout: "float | None" = None,
        retries: int = 0,
        label: "str | None" = None,
    ) -> "ProcessPoolOptions":
        """Return an object whose ``submit`` gives calls a time limit, retries and a label.

        A call that runs longer than ``timeout`` seconds raises `TaskTimeoutError`; its worker
        is killed and replaced. One whose worker dies is called again, up to ``retries`` times;
        for that, ``on_worker_death`` must be ``"isolate"``. Recordings show the label.

        Raises ValueError if ``retries`` is negative. The object's ``submit`` raises ValueError for
        a ``timeout`` that is not above 0.

        Examples
        --------
        >>> import time
        >>> from concurrent_futures import ProcessPoolExecutor, TaskTimeoutError
        >>> with ProcessPoolExecutor(max_workers=1, on_worker_death="isolate") as pool:
        ...     future = pool.options(timeout=0.1).submit(time.sleep, 1000)
        ...     error = future.exception()
        >>> isinstance(error, TaskTimeoutError)
        True
        >>> error.limit
        0.1
        """
        from concurrent_futures._process_options import ProcessPoolOptions

        return ProcessPoolOptions(self, timeout, retries, label)

    def stats(self) -> "ExecutorStats":
        """Return the figures of the pool since its start.

        Counts are kept always, and reading them takes some microseconds, however many tasks are
        pending. Times in the queue are measured from the first call on. To measure
        all tasks, call this once before the first.

        Raises RuntimeError if the pool works by the standard library's code.

        Examples
        --------
        >>> from concurrent_futures import ProcessPoolExecutor
        >>> with ProcessPoolExecutor(max_workers=1) as pool:
        ...     value = pool.submit(abs, -7).result()
        ...     stats = pool.stats()
        >>> stats.finished, stats.failed
        (1, 0)
        """
        from concurrent_futures import _stats

        if self._is_standard:
            raise _stats.refused()
        return _stats.of(self._stats())

    def _repr_html_(self) -> str:
        from concurrent_futures import _stats

        return _stats.html(self)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse tasks from now on.

        Waits for those that are pending or running, and for the end of the workers, if
        ``wait``. With ``cancel_futures``, those that no worker has begun are cancelled.

        Examples
        --------
        >>> from concurrent_futures import ProcessPoolExecutor
        >>> pool = ProcessPoolExecutor(max_workers=1)
        >>> future = pool.submit(pow, 2, 10)
        >>> pool.shutdown()
        >>> future.result()
        1024
        """
        if self._is_standard:
            _stdlib_executor.shutdown(self, wait, cancel_futures=cancel_futures)
            return
        with vars(self).get("_shutdown_lock", self._start_lock):
            self._close(cancel_futures)
        with self._start_lock:
            # Another thread may be about to do so, which is submitting the first task.
            self._start_supervisor()
            thread = self._executor_manager_thread
        # Neither the supervisor nor a callback, for which it waits, waits for itself.
        is_own = thread is threading.current_thread() or self._calls_back()
        if wait and thread is not None and not is_own:
            thread.join()
        vars(self).update(_executor_manager_thread=None, _call_queue=None, _processes=None)
        _engine.with_signals_held(self._workers.forget)

    def terminate_workers(self) -> None:
        """End all workers by SIGTERM, and shut down without waiting.

        Calls that run raise `BrokenProcessPool`; those that do not are cancelled.

        Examples
        --------
        >>> import time
        >>> from concurrent_futures import BrokenProcessPool, ProcessPoolExecutor
        >>> pool = ProcessPoolExecutor(max_workers=1)
        >>> future = pool.submit(time.sleep, 1000)
        >>> while not future.running():
        ...     time.sleep(0.001)
        >>> pool.terminate_workers()
        >>> isinstance(future.exception(), BrokenProcessPool)
        True
        """
        self._force_shutdown(operation=_TERMINATE)

    def kill_workers(self) -> None:
        """End all workers by SIGKILL, and shut down without waiting.

        Calls that run raise `BrokenProcessPool`; those that do not are cancelled.

        Examples
        --------
        >>> from concurrent_futures import ProcessPoolExecutor
        >>> pool = ProcessPoolExecutor(max_workers=1)
        >>> pool.submit(pow, 2, 10).result()
        1024
        >>> pool.kill_workers()
        """
        self._force_shutdown(operation=_KILL)

    def _force_shutdown(self, operation: str) -> None:
        if operation not in (_TERMINATE, _KILL):
            raise ValueError(f"Unsupported operation: {operation!r}")
        if self._is_standard and sys.version_info >= (3, 14):
            original: Any = _stdlib_executor
            original._force_shutdown(self, operation)
            return
        if not self._is_standard:
            vars(self)["_is_forced"] = True
            self._end_workers(operation == _KILL)
        # They have got a signal. This is for kinds of processes that do more.
        _engine.with_signals_held(
            _process_workers.end_all, self._processes or {}, operation == _KILL
        )
        self.shutdown(wait=False, cancel_futures=True)

    # ---- what other code touches

    #: Whether the executor works by the standard library's code; see `_private`.
    _is_standard = False

    _max_workers = MaxWorkers()
    _mp_context = _private.Stored()
    _safe_to_dynamically_spawn_children = _private.Stored()
    _initializer = _private.Stored()
    _initargs = _private.Stored()
    _max_tasks_per_child = _private.Stored()
    _executor_manager_thread = _private.Stored()
    _executor_manager_thread_wakeup = _private.Stored()
    _processes = _private.Stored()
    _call_queue = _private.Stored()
    _work_ids = _private.Stored()
    _result_queue = _private.Stored()
    _cancel_pending_futures = _private.Stored()
    _idle_worker_semaphore = _private.Stored()
    _shutdown_lock = Lock()
    _shutdown_thread = Refusal(_engine.ProcessPool._is_closed)
    _broken = Refusal(_engine.ProcessPool._what_broke)
    _queue_count = _private.Computed(_engine.ProcessPool._submitted)
    _pending_work_items = _private.Computed(pending_work_items)
    if sys.version_info >= (3, 14):
        _force_shutting_down = _private.Computed(lambda pool: "_is_forced" in vars(pool))

    def _work_as_standard(self, why: str) -> None:
        """Work by the standard library's code."""
        if self._beyond:
            raise ValueError(f"{self._beyond[0]} is not available, as {why}")
        of_instance = vars(self)
        arguments = (self._max_workers, self._mp_context, self._initializer, self._initargs)
        max_tasks_per_child = self._max_tasks_per_child
        of_instance["_is_standard"] = True
        self._leave_submit_to_python()
        _stdlib_executor.__init__(self, *arguments, max_tasks_per_child=max_tasks_per_child)

    def _become_standard(self, touched: str) -> None:
        """Work by the standard library's code from now on, as ``touched`` needs that."""
        if self._is_standard or "_processes" not in vars(self):
            return
        with _private.switching:
            if self._is_used or self._processes != {} or self._submitted() > 0:
                raise AttributeError(
                    f"{touched} of a ProcessPoolExecutor can be replaced only before the first"
                    " task is submitted"
                )
            self._work_as_standard(f"{touched} was replaced")

    def _submit_in_python(
        self, fn: "Callable[..., Any]", args: "tuple[Any, ...]", kwargs: "dict[str, Any]"
    ) -> "_base.Future[Any]":
        """Submit a call under the lock, as other code uses the lock or the state it guards."""
        with self._shutdown_lock:
            of_instance = vars(self)
            if broken := of_instance.get("_broken"):
                raise BrokenProcessPool(broken)
            if of_instance.get("_shutdown_thread"):
                raise RuntimeError("cannot schedule new futures after shutdown")
            if not self._is_standard:
                return self._submit_with(None, 0, fn, args, kwargs)
            if _stdlib_process._global_shutdown:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            future: _base.Future[Any] = _base.Future()
            item = _stdlib_process._WorkItem(future, fn, args, kwargs)
            self._pending_work_items[self._queue_count] = item
            self._work_ids.put(self._queue_count)
            of_instance["_queue_count"] += 1
            self._executor_manager_thread_wakeup.wakeup()
            if self._safe_to_dynamically_spawn_children:
                self._adjust_process_count()
            self._start_executor_manager_thread()
            return future

    def _adjust_process_count(self) -> None:
        """Start a worker, if none is idle and there may be another."""
        if self._is_standard:
            _stdlib_executor._adjust_process_count(self)
        elif self._idle() == 0:
            self._spawn_process()

    def _launch_processes(self) -> None:
        """Start all workers."""
        if self._is_standard:
            _stdlib_executor._launch_processes(self)  # type: ignore[attr-defined]
        else:
            self._is_used = True
            self._start_workers(self._max_workers)

    def _spawn_process(self) -> None:
        """Start a worker, if there may be another."""
        if self._is_standard:
            _stdlib_executor._spawn_process(self)  # type: ignore[attr-defined]
        elif self._processes is not None:
            self._is_used = True
            self._start_workers(len(self._processes) + 1)

    def _start_executor_manager_thread(self) -> None:
        """Start the supervisor, and the parts that must be there before it."""
        if self._is_standard:
            _stdlib_executor._start_executor_manager_thread(self)
        else:
            self._begin()
            self._supervise()


def _at_exit() -> None:
    """Let all pools finish their work before the interpreter ends."""
    _engine.interpreter_exits()
    supervisors = [
        (thread, wakeup.supervisor)
        for thread, wakeup in wakeups()
        if wakeup.supervisor is not None or thread.is_alive()
    ]
    for _, supervisor in supervisors:
        if supervisor is not None:
            supervisor.close()
    for thread, _ in supervisors:
        thread.join()


def _after_fork_in_child() -> None:
    """Forget the supervisors, whose threads are not in the child."""
    for thread, _ in wakeups():
        # Hooks of the program that were called before may have started others.
        if not thread.is_alive():
            del _stdlib_process._threads_wakeups[thread]


ProcessPoolExecutor._hooks.remember(ProcessPoolExecutor)
_engine.look_up_for_processes()
_engine.lead_to(ProcessPoolExecutor.submit, _engine.ProcessPool._submit, 1)

if not _is_reloaded:
    # As the standard library does it: before all threads that are no daemons are joined.
    _register_atexit: "Callable[[Callable[[], None]], None]" = threading._register_atexit  # type: ignore[attr-defined]
    _register_atexit(lambda: _at_exit())

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _after_fork_in_child())

_private.forward(__name__, _stdlib_process)
