"""Hosts: they run the tasks of a queue, with a pool of worker processes."""

from __future__ import annotations

import multiprocessing
import threading
import weakref
from typing import TYPE_CHECKING

from concurrent_futures import (
    BrokenProcessPool,
    CancelledError,
    ProcessPoolExecutor,
    TaskTerminatedError,
    WorkerDiedError,
)
from concurrent_futures._base import cpu_count
from concurrent_futures_cluster import _calls, _native, _waits
from concurrent_futures_cluster._settings import settings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Any, Self

__all__ = ["ClusterHost"]

#: The most calls of a host that wait for others of a cluster while as many more run.
_SPARES = 256

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

    def __init__(self, workers: int, socket: str | None) -> None:
        self._workers = workers
        self._socket = socket
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

    def submit(self, job: _native.Job) -> Future[tuple[bool, bytes]]:
        pool = self._pool
        try:
            return _submit(pool, job)
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    pool.shutdown(wait=False)
                    self._pool = self._make()
            return _submit(self._pool, job)

    def shutdown(self) -> None:
        self._pool.shutdown()


def _submit(pool: ProcessPoolExecutor, job: _native.Job) -> Future[tuple[bool, bytes]]:
    options = pool.options(timeout=job.time_limit, retries=job.retries)
    return options.submit(_calls.run, job.argument, job.token)


class _Crew:
    """The threads of a host, which carry calls out, and their pools.

    A thread waits for each call, as a waiting thread receives the reply of the worker itself. A
    callback would come by way of two more threads. When all threads have a call, another one
    starts: the host begins a call more for each call that waits for others of the cluster.
    """

    def __init__(self, host: _native.Host, workers: int) -> None:
        self._host = host
        self._workers = workers
        self._socket = host.waits_path()
        self._pool = _Pool(workers, self._socket)
        self._lock = threading.Lock()
        #: The calls in the first pool.
        self._busy = 0
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
        has_carried = False
        while (job := self._host.next(has_carried)) is not None:
            has_carried = True
            if self._host.waiting() == 0:
                self._start()
            # It may have been recalled meanwhile.
            if job.take():
                job.end(*self._outcome(job))

    def _outcome(self, job: _native.Job) -> tuple[bool, bytes]:
        """Return whether a call has a result, and the pickled result or exception."""
        with self._lock:
            pool = self._pool
            is_first = self._busy < self._workers
            if is_first:
                self._busy += 1
            else:
                if self._spare is None:
                    self._spare = _Pool(_SPARES, self._socket)
                pool = self._spare
        try:
            return _outcome(pool, job)
        finally:
            if is_first:
                with self._lock:
                    self._busy -= 1

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


def _outcome(pool: _Pool, job: _native.Job) -> tuple[bool, bytes]:
    """Return whether a call has a result, and the pickled result or exception."""
    try:
        future = pool.submit(job)
        if job.begun(future):
            future.terminate()  # type: ignore[attr-defined]
        return future.result()
    except CancelledError:
        # By a termination, before its worker had begun.
        error: BaseException = TaskTerminatedError("the call was terminated")
    except BaseException as failure:
        error = failure
    if isinstance(error, WorkerDiedError):
        # Its cause is the traceback of this process.
        error.__cause__ = None
    return False, _calls.pack_exception(error)


def _at_exit() -> None:
    """Drain all hosts before the interpreter ends."""
    for host in list(_hosts):
        host.stop()


_register_atexit: Callable[[Callable[[], Any]], None]
_register_atexit = threading._register_atexit  # type: ignore[attr-defined]
_register_atexit(_at_exit)
