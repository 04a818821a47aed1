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
from concurrent_futures_cluster import _calls, _native
from concurrent_futures_cluster._executor import settings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Any, Self

__all__ = ["ClusterHost"]

#: The hosts that the interpreter's end drains.
_hosts: weakref.WeakSet[ClusterHost] = weakref.WeakSet()


class ClusterHost:
    """A host in this process: it runs the tasks of a queue, in worker processes.

    ``python -m concurrent_futures worker`` is a process that does this and nothing else.

    Parameters
    ----------
    url
        The address of the server, such as ``nats://10.0.0.1:4222``.
    queue, key, token, credentials, nkey, tls, insecure, tag, lease
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
    ) -> None:
        if workers is None:
            workers = cpu_count()
        elif workers <= 0:
            raise ValueError("workers must be greater than 0")
        common = settings(url, queue, key, insecure, token, credentials, nkey, tls, tag, lease)
        terminated = TaskTerminatedError("the call was terminated")
        self._native = _native.Host(
            common, workers=workers, drain=drain, terminated=_calls.pack_exception(terminated)
        )
        self._pool = _Pool(workers)
        # The host begins no more calls at once than there are threads.
        self._threads = [
            threading.Thread(
                target=_carry_out, args=(self._native, self._pool), name=f"ClusterHost_{index}"
            )
            for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()
        _hosts.add(self)

    def stop(self) -> None:
        """Take no more tasks, give those back that have not begun, wait for the others, and end.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> from concurrent_futures_cluster import ClusterHost
        >>> with ClusterExecutor(key="secret") as executor:
        ...     server = executor.embedded_server()
        ...     host = ClusterHost(server["url"], token=server["token"], key="secret", workers=1)
        ...     len(executor.hosts())
        ...     host.stop()
        2
        """
        self._native.stop()
        for thread in self._threads:
            thread.join()
        self._pool.shutdown()

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

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._pool = self._make()

    def _make(self) -> ProcessPoolExecutor:
        # The host has threads, so that workers must not be its forks.
        methods = multiprocessing.get_all_start_methods()
        method = "forkserver" if "forkserver" in methods else "spawn"
        return ProcessPoolExecutor(
            self._workers,
            multiprocessing.get_context(method),
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
    return options.submit(_calls.run, job.argument)


def _carry_out(host: _native.Host, pool: _Pool) -> None:
    """Carry calls of a host out, one after another, until the host ends.

    The thread waits for each call, as a waiting thread receives the reply of the worker itself. A
    callback would come by way of two more threads.
    """
    while (job := host.next()) is not None:
        # It may have been recalled meanwhile.
        if job.take():
            job.end(*_outcome(pool, job))


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
