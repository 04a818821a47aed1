"""Hosts: they run the tasks of a queue, with a pool of worker processes."""

from __future__ import annotations

import multiprocessing
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING

from concurrent_futures import (
    BrokenProcessPool,
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
        self._workers = workers
        self._native = _native.Host(
            common, workers=workers, drain=drain, terminated=_calls.pack_exception(terminated)
        )
        self._thread = threading.Thread(
            target=_feed, args=(self._native, workers), name="ClusterHost-calls"
        )
        self._thread.start()
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
        self._thread.join()

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
        try:
            return self._submit(job)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._make()
            return self._submit(job)

    def _submit(self, job: _native.Job) -> Future[tuple[bool, bytes]]:
        options = self._pool.options(timeout=job.time_limit, retries=job.retries)
        return options.submit(_calls.run, job.argument)

    def shutdown(self) -> None:
        self._pool.shutdown()


def _feed(host: _native.Host, workers: int) -> None:
    """Give the calls of a host to a pool, until the host ends."""
    pool = _Pool(workers)
    try:
        while (jobs := host.next()) is not None:
            for job in jobs:
                # It may have been recalled meanwhile.
                if job.take():
                    _begin(pool, job)
    finally:
        pool.shutdown()


def _begin(pool: _Pool, job: _native.Job) -> None:
    try:
        future = pool.submit(job)
    except BaseException as error:
        job.end(False, _calls.pack_exception(error))
        return
    if job.begun(future):
        future.terminate()  # type: ignore[attr-defined]
    future.add_done_callback(partial(_end, job))


def _end(job: _native.Job, future: Future[tuple[bool, bytes]]) -> None:
    """Tell the host how a call has ended."""
    if future.cancelled():
        # By a termination, before its worker had begun.
        error: BaseException | None = TaskTerminatedError("the call was terminated")
    else:
        error = future.exception()
    if error is None:
        job.end(*future.result())
        return
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
