"""Hosts: they run the tasks of a queue, with a pool of worker processes."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
import weakref
from typing import TYPE_CHECKING

from concurrent_futures import (
    BrokenProcessPool,
    CancelledError,
    ProcessPoolExecutor,
    TaskTerminatedError,
    WorkerDiedError,
    as_completed,
)
from concurrent_futures._base import cpu_count
from concurrent_futures_cluster import _calls, _frames, _native, _waits
from concurrent_futures_cluster._settings import settings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Any, Self

__all__ = ["ClusterHost"]

_LOGGER = logging.getLogger("concurrent.futures")

#: The most calls of a host that wait for others of a cluster while as many more run.
_SPARES = 256

#: The seconds of work that a thread hands to the pool at once, and the most calls.
_AHEAD = 0.001
_MOST_AHEAD = 64

#: The hosts that the interpreter's end drains.
_hosts: weakref.WeakSet[ClusterHost] = weakref.WeakSet()


class ClusterHost:
    """A host in this process: it runs the tasks of a queue, in worker processes.

    ``python -m concurrent_futures worker`` is a process that does this and nothing else.

    Parameters
    ----------
    url
        The address of the server, such as ``nats://10.0.0.1:4222``.
    queue, key, token, credentials, nkey, tls, insecure, tag, lease, object_store
        As for `ClusterExecutor`.
    workers
        The number of worker processes. The default is the number of CPUs.
    drain
        The seconds that running tasks have when the host stops. Tasks that take longer run again
        elsewhere.

    Raises ValueError if a setting makes no sense, and `ClusterError` if the server does not answer,
    or if there is no key.

    Examples
    --------
    >>> from concurrent_futures_cluster import ClusterError, ClusterHost
    >>> try:
    ...     ClusterHost("nats://127.0.0.1:1", workers=2)
    ... except ClusterError:
    ...     print("no server")
    no server
    """

    def __init__(
        self,
        url: str,
        *,
        queue: str | None = None,
        workers: int | None = None,
        drain: float = 30,
        key: str | bytes | None = None,
        token: str | None = None,
        credentials: str | os.PathLike[str] | None = None,
        nkey: str | None = None,
        tls: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        tag: str | None = None,
        lease: float | None = None,
        object_store: str | None = None,
    ) -> None:
        if workers is None:
            workers = cpu_count()
        elif workers <= 0:
            raise ValueError("workers must be greater than 0")
        common = settings(
            url, queue, key, insecure, token, credentials, nkey, tls, tag, lease, object_store
        )
        terminated = TaskTerminatedError("the call was terminated")
        self._native = _native.Host(
            common,
            workers=workers,
            spares=_SPARES,
            drain=drain,
            terminated=_calls.pack_exception(terminated),
        )
        self._crew = _Crew(self._native, workers)
        _hosts.add(self)

    def stop(self) -> None:
        """Take no more tasks, give those back that have not begun, wait for the others, and end.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> from concurrent_futures_cluster import ClusterHost
        >>> with ClusterExecutor(key="secret") as executor:
        ...     executor.wait_for_host(60)
        ...     server = executor.embedded_server()
        ...     host = ClusterHost(server["url"], token=server["token"], key="secret", workers=1)
        ...     len(executor.hosts())
        ...     host.stop()
        True
        2
        """
        self._native.stop()
        self._crew.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class _Pool:
    """A pool of processes, which is replaced if its workers cannot start."""

    def __init__(
        self, workers: int, socket: str | None, direct_for: _native.Host | None = None
    ) -> None:
        self._workers = workers
        self._socket = socket
        #: The host that submits short calls itself, without Python code.
        self._direct_for = direct_for
        #: The pool that the host was given for that.
        self._given: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()
        self._pool = self._make()

    def _make(self) -> ProcessPoolExecutor:
        # The host has threads, so that workers must not be its forks.
        methods = multiprocessing.get_all_start_methods()
        method = "forkserver" if "forkserver" in methods else "spawn"
        return ProcessPoolExecutor(
            self._workers,
            multiprocessing.get_context(method),
            initializer=None if self._socket is None else _waits.begin,
            initargs=() if self._socket is None else (self._socket,),
            on_worker_death="isolate",
        )

    def submit(self, job: _native.Job) -> Future[Any]:
        pool = self._pool
        try:
            future = _submit(pool, job)
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    pool.shutdown(wait=False)
                    self._pool = self._make()
            pool = self._pool
            future = _submit(pool, job)
        if self._direct_for is not None and self._given is not pool:
            self._give(pool, self._direct_for)
        return future

    def _give(self, pool: ProcessPoolExecutor, host: _native.Host) -> None:
        """Let the host submit calls to the pool, whose first call was submitted."""
        with self._lock:
            if self._given is pool or self._pool is not pool:
                return
            self._given = pool
            # An older version of the package has no such method.
            offer = getattr(pool, "_direct_calls", None)
            host.use_direct_calls(None if offer is None else offer(_calls.run))

    def shutdown(self) -> None:
        self._pool.shutdown()


def _submit(pool: ProcessPoolExecutor, job: _native.Job) -> Future[Any]:
    options = pool.options(timeout=job.time_limit, retries=job.retries)
    argument = job.argument
    # The worker gets what is in it.
    passed: Any = argument if isinstance(argument, bytes) else _frames.Passed(argument)
    return options.submit(_calls.run, passed, job.token)


class _Crew:
    """The threads of a host, which carry calls out, and their pools.

    The host's own thread submits short calls to the pool of the crew, once that has begun. The crew
    gets the other ones, and the outcomes for which Python code is needed.

    A thread waits for the calls that it has handed to a pool, as a waiting thread receives the
    replies of workers itself. A callback would come by way of two more threads. When all threads
    have calls, another one starts: the host begins a call more for each call that waits for others
    of the cluster. Calls that have come ahead are handed over together while they are short. A
    call that waits in the pool can still be recalled.
    """

    def __init__(self, host: _native.Host, workers: int) -> None:
        self._host = host
        self._workers = workers
        self._socket = host.waits_path()
        self._pool = _Pool(workers, self._socket, host)
        self._lock = threading.Lock()
        #: The pool of calls that run while as many others wait, once there was one.
        self._spare: _Pool | None = None
        self._threads: list[threading.Thread] = []
        for _ in range(workers):
            self._start()

    def _start(self) -> None:
        with self._lock:
            index = len(self._threads)
            if index == self._workers + _SPARES:
                return
            thread = threading.Thread(target=self._work, name=f"ClusterHost_{index}")
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        """Carry calls of the host out, one after another, until the host ends."""
        has_carried, most = False, 1
        while True:
            try:
                jobs = self._host.next(has_carried, most)
            except Exception as error:
                # The call has failed by that, unless another worker has taken it.
                _LOGGER.warning("a worker of a host could not start", exc_info=error)
                has_carried = False
                continue
            if not jobs:
                return
            has_carried = True
            if self._host.waiting() == 0:
                self._start()
            if jobs[0].is_ended:
                _end(jobs[0].outcome, jobs[0])
                del jobs
                continue
            began = time.perf_counter()
            # Some may have been recalled meanwhile.
            self._carry_out([job for job in jobs if job.take()])
            each = (time.perf_counter() - began) / len(jobs)
            del jobs
            most = min(max(int(_AHEAD / max(each, 1e-6)), 1), _MOST_AHEAD)

    def _carry_out(self, jobs: list[_native.Job]) -> None:
        """Carry calls out, and tell the host their ends."""
        handed = {}
        for job in jobs:
            pool = self._spares() if job.is_spare else self._pool
            try:
                future = pool.submit(job)
            except BaseException as error:
                job.end(False, _calls.pack_exception(error))
                continue
            if job.begun(future):
                future.terminate()  # type: ignore[attr-defined]
            handed[future] = job
        for future in as_completed(list(handed)) if len(handed) > 1 else list(handed):
            _end(future.result, handed.pop(future))

    def _spares(self) -> _Pool:
        """Return the pool of calls that run while as many others wait."""
        with self._lock:
            if self._spare is None:
                self._spare = _Pool(_SPARES, self._socket)
            return self._spare

    def end(self) -> None:
        """Wait for the threads, as the host has ended."""
        joined = 0
        while True:
            with self._lock:
                threads = self._threads[joined:]
            if not threads:
                break
            for thread in threads:
                thread.join()
            joined += len(threads)
        self._pool.shutdown()
        if self._spare is not None:
            self._spare.shutdown()


def _end(result: Callable[[], Any], job: _native.Job) -> None:
    """Tell the host the end of a call, whose outcome ``result`` waits for."""
    try:
        outcome = result()
        if type(outcome) is bytes:
            job.end_short(outcome)
        else:
            job.end(*outcome)
        return
    except CancelledError:
        # Before its worker had begun.
        job.end_cancelled()
        return
    except BaseException as failure:
        error = failure
    if isinstance(error, WorkerDiedError):
        # Its cause is the traceback of this process.
        error.__cause__ = None
    job.end(False, _calls.pack_exception(error))


def _at_exit() -> None:
    """Drain all hosts before the interpreter ends."""
    for host in list(_hosts):
        host.stop()


_register_atexit: Callable[[Callable[[], Any]], None]
_register_atexit = threading._register_atexit  # type: ignore[attr-defined]
_register_atexit(_at_exit)
