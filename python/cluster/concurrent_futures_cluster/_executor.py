"""``ClusterExecutor``: the workers are on other machines."""

from __future__ import annotations

import importlib
import os
import threading
import weakref
from concurrent.futures import Executor
from types import ModuleType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from concurrent_futures_cluster import _calls, _native, _waits
from concurrent_futures_cluster._errors import HostInfo
from concurrent_futures_cluster._settings import settings
from concurrent_futures_cluster._state import RecordedCall, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Literal

    from concurrent_futures_cluster._future import ClusterFuture

__all__ = ["ClusterExecutor"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_EMBEDDED = "embedded"
_URL = "CONCURRENT_FUTURES_URL"
_KEY = "CONCURRENT_FUTURES_KEY"


class ClusterExecutor(Executor):
    """Runs calls on other machines, by way of a NATS server with JetStream.

    It is an executor like those of threads and processes: the futures mix with theirs in ``wait``
    and ``as_completed``, and work with asyncio. A task runs at least once, and its future gets one
    outcome. Each machine runs a host, ``python -m concurrent_futures worker nats://SERVER:4222``,
    whose worker processes run the calls.

    Functions are pickled by reference, so that hosts import their modules. Those of ``__main__``
    and of the modules in ``by_value`` travel by value, and so do lambdas and closures.

    Parameters
    ----------
    url
        The address of the server, such as ``nats://10.0.0.1:4222`` or ``tls://…``. The default is
        ``$CONCURRENT_FUTURES_URL``, or else ``"embedded"``: a server and a host on this machine,
        which end with the executor. A server of several nodes has several addresses, with commas.
    queue
        The queue. The default is ``$CONCURRENT_FUTURES_QUEUE``, or else ``"default"``.
    max_pending
        The number of tasks that may be pending, which means that no host has begun them. ``submit``
        waits for room. By default there is no limit.
    priority
        The priority of the tasks: 0, 1 or 2. Hosts start tasks of a higher priority first.
    retries
        How often a host repeats a task whose worker process dies.
    task_timeout
        The seconds that each task may run. Then its worker is killed, and the future raises
        ``TaskTimeoutError``.
    on_host_loss
        The effect of the loss of a whole host on its running tasks. With ``"rerun"``, they run
        again elsewhere. With ``"fail"``, their futures raise `HostLostError`.
    by_value
        Modules, or their names, whose functions and classes the hosts cannot import.
    key
        The key of the queue, by which tasks and results are authenticated. The default is
        ``$CONCURRENT_FUTURES_KEY``. Servers on other machines need one.
    token, credentials, nkey
        A way to log in to the server: a token, a file, or the seed of an NKey.
    tls
        A file with certificates by which the server's is checked, besides those of the system.
    wait_for_workers
        The seconds for which tasks wait for a first host. Then they raise `NoWorkersError`.
    insecure
        Whether a server on another machine is accepted without a key.
    tag
        A text that clients and hosts must have in common.
    session
        The name of a session, whose tasks outlive the program: `attach` finds them later. They are
        on the server's disk. If the session has tasks, the executor takes them over.
    keep
        The seconds for which the server keeps a task of the session after its submission, and its
        outcome; a day by default. Without ``session``, the session gets a random name.
    replicas
        The number of nodes of the server that each task of the session is on.
    lease
        The seconds for which a task belongs to a host after the host's last sign of life; 15 by
        default, and at least 1. All clients and hosts of a queue must have the same.
    object_store
        The address of a folder that all machines share, such as ``file:///shared``. Arguments and
        results of more than 64 MiB go there, and not through the server. Clients and hosts need the
        same one. The default is ``$CONCURRENT_FUTURES_OBJECT_STORE``. Only a package that was built
        for it has object stores.
    workers
        The number of worker processes of the embedded host, if there is one. The default is the
        number of CPUs.

    Raises ValueError if a setting makes no sense. Raises `ClusterError` if the cluster cannot be
    set up, as the server does not answer, or there is no key. Raises `SessionInUseError` if another
    executor has the session.

    Examples
    --------
    >>> from concurrent_futures import ClusterExecutor
    >>> with ClusterExecutor(workers=2) as executor:
    ...     future = executor.submit(pow, 2, 10)
    ...     powers = list(executor.map(pow, [2, 3, 4], [10, 2, 3]))
    >>> future.result(), powers
    (1024, [1024, 9, 64])
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        queue: str | None = None,
        max_pending: int | None = None,
        priority: int = 1,
        retries: int = 0,
        task_timeout: float | None = None,
        on_host_loss: Literal["rerun", "fail"] = "rerun",
        by_value: Iterable[str | ModuleType] = (),
        key: str | bytes | None = None,
        token: str | None = None,
        credentials: str | os.PathLike[str] | None = None,
        nkey: str | None = None,
        tls: str | os.PathLike[str] | None = None,
        wait_for_workers: float = 30,
        insecure: bool = False,
        tag: str | None = None,
        lease: float | None = None,
        object_store: str | None = None,
        workers: int | None = None,
        session: str | None = None,
        keep: float | None = None,
        replicas: int = 1,
        _is_attached: bool = False,
    ) -> None:
        if on_host_loss not in ("rerun", "fail"):
            raise ValueError("on_host_loss must be 'rerun' or 'fail'")
        if max_pending is not None and max_pending <= 0:
            raise ValueError("max_pending must be greater than 0")
        if priority not in (0, 1, 2):
            raise ValueError("priority must be 0, 1 or 2")
        if retries < 0:
            raise ValueError("retries must not be negative")
        if task_timeout is not None and task_timeout <= 0:
            raise ValueError("task_timeout must be greater than 0")
        if keep is not None and keep <= 0:
            raise ValueError("keep must be greater than 0")
        if replicas < 1:
            raise ValueError("replicas must be at least 1")
        if workers is not None and workers <= 0:
            raise ValueError("workers must be greater than 0")
        if isinstance(by_value, (str, ModuleType)):
            raise TypeError("by_value must be an iterable of modules")
        modules = tuple(
            module if isinstance(module, ModuleType) else importlib.import_module(module)
            for module in by_value
        )
        if workers is not None and url is not None and url != _EMBEDDED:
            raise ValueError("workers is for the embedded host; this url has hosts of its own")
        url = url or os.environ.get(_URL) or _EMBEDDED
        embedded = program = None
        is_kept = session is not None or keep is not None
        if url == _EMBEDDED and is_kept:
            raise ValueError("a session needs a server that outlives the program: give its url")
        if url == _EMBEDDED:
            from concurrent_futures_cluster._embedded import (
                EmbeddedHost,
                random_key,
                server_program,
            )

            if not (token is credentials is nkey is tls is None):
                raise ValueError("token, credentials, nkey and tls are not for the embedded server")
            program = server_program()
            if key is None:
                key = os.environ.get(_KEY) or random_key()
        common = settings(
            url, queue, key, insecure, token, credentials, nkey, tls, tag, lease, object_store
        )
        if url == _EMBEDDED:
            # Its imports take as long as the start of the server.
            embedded = EmbeddedHost()
        try:
            client = _native.Client(
                common,
                priority=priority,
                max_pending=max_pending,
                wait_for_workers=wait_for_workers,
                retries=retries,
                task_timeout=task_timeout,
                rerun=on_host_loss == "rerun",
                server_program=program,
                session=session,
                keep=keep,
                replicas=replicas,
                is_attached=_is_attached,
            )
            if embedded is not None:
                server = client.embedded_server()
                embedded.begin({**common, **(server or {})}, workers)
        except BaseException:
            if embedded is not None:
                embedded.stop()
            raise
        #: Whether `map` may send several items as one task.
        self._may_divide = task_timeout is None and max_pending is None and on_host_loss == "rerun"
        self._session = client.session()
        self._state = State(client, _calls.CallPickler(modules))
        self._state.embedded = embedded
        weakref.finalize(self, self._state.close).atexit = False
        self._state.start()

    @classmethod
    def attach(cls, url: str, session: str, **options: Any) -> ClusterExecutor:
        """Return an executor for a session that an earlier program has left.

        ``options`` are those of the class. The session belongs to the new executor from then on.

        Raises `UnknownSessionError` if the session has no task, and what the class raises.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor(workers=1, key="example") as server:
        ...     address = {**server.embedded_server(), "key": "example"}
        ...     with ClusterExecutor(**address, session="tonight") as executor:
        ...         future = executor.submit(pow, 2, 10)
        ...     with ClusterExecutor.attach(**address, session="tonight") as later:
        ...         [future.result() for future in later.futures()]
        [1024]
        """
        return cls(url, session=session, _is_attached=True, **options)

    @property
    def session(self) -> str | None:
        """The name of the session; None if the tasks end with the executor.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor(workers=1, key="example") as server:
        ...     address = {**server.embedded_server(), "key": "example"}
        ...     with ClusterExecutor(**address, session="tonight") as executor:
        ...         executor.session
        'tonight'
        """
        return self._session

    def futures(self) -> list[ClusterFuture[Any]]:
        """Return the futures of all tasks that the session had when the executor was made.

        They are done or not, and in the order of their submission. Each task has one future: a
        second call returns an empty list. Without a session, there are none.

        Raises RuntimeError after the shutdown.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor(workers=1, key="example") as server:
        ...     address = {**server.embedded_server(), "key": "example"}
        ...     with ClusterExecutor(**address, session="tonight") as executor:
        ...         future = executor.submit(pow, 2, 10)
        ...     with ClusterExecutor.attach(**address, session="tonight") as later:
        ...         [future.result() for future in later.futures()]
        [1024]
        """
        self._check_process()
        return self._state.found()

    def flush(self, timeout: float) -> bool:
        """Wait until all tasks are recorded on the server; return whether they are.

        Waits up to ``timeout`` seconds. From then on, the tasks and their outcomes outlive the
        program. Returns False without a session, or if another executor has it.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor(workers=1, key="example") as server:
        ...     address = {**server.embedded_server(), "key": "example"}
        ...     with ClusterExecutor(**address, session="tonight") as executor:
        ...         future = executor.submit(pow, 2, 10)
        ...         executor.flush(60)
        True
        """
        self._check_process()
        return self._state.client.flush(timeout)

    def discard(self) -> None:
        """Remove the session from the server, with all outcomes; refuse tasks from now on.

        Futures that are not done raise `ClusterError`. Hosts finish the calls that they run.

        Raises `ClusterError` if the server does not answer, and RuntimeError after the shutdown.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor(workers=1, key="example") as server:
        ...     address = {**server.embedded_server(), "key": "example"}
        ...     with ClusterExecutor(**address, session="tonight") as executor:
        ...         future = executor.submit(pow, 2, 10)
        ...         future.result()
        ...         executor.discard()
        1024
        """
        self._check_process()
        self._state.client.discard()
        self._state.close()

    def submit(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> ClusterFuture[_T]:
        """Submit the call ``fn(*args, **kwargs)``, and return its Future at once.

        Waits for room if there are ``max_pending`` pending tasks. A call that cannot be pickled
        fails its future.

        Raises RuntimeError after the shutdown, and in a fork of the executor's process.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor() as executor:
        ...     future = executor.submit(int, "ff", base=16)
        >>> future.result()
        255
        """
        state = self._state
        self._check_process()
        argument: bytes | BaseException
        began = state.recorded.begin()
        try:
            argument = state.pickler.dumps(fn, args, kwargs)
        except Exception as error:
            argument = error
        call = RecordedCall(began, fn, args, kwargs) if began else None
        return state.submit(argument, fn, call)

    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[_T]:
        """Call ``fn`` for the items of the iterables; return an iterator over the results.

        The results come in the order of the items. Short calls travel together, as tasks of at
        least 20 ms or so, and each call is still for itself. With a ``chunksize``, so many calls
        are one task. With ``task_timeout``, ``max_pending`` or ``on_host_loss="fail"``, each call
        is one, and always in a session. All items are taken at once, or, with ``buffersize``, that
        many ahead of the iteration.

        The iterator raises TimeoutError if a result is not there ``timeout`` seconds after the call
        of map. Raises what ``submit`` raises, ValueError if ``chunksize`` or ``buffersize`` is not
        above 0, and TypeError if one is no integer.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor() as executor:
        ...     powers = list(executor.map(pow, [2, 3, 4], [10, 2, 3]))
        >>> powers
        [1024, 9, 64]
        """
        for name, size in (("chunksize", chunksize), ("buffersize", buffersize)):
            if size is None:
                continue
            if not isinstance(size, int):
                raise TypeError(f"{name} must be an integer")
            if size < 1:
                raise ValueError(f"{name} must be >= 1.")
        from concurrent_futures_cluster._map import mapped, mapped_one_by_one

        self._check_process()
        items = zip(*iterables, strict=False)
        if self._state.is_kept:
            # The future of a later program is that of a call.
            return mapped_one_by_one(self.submit, fn, items, timeout, buffersize)
        size = None if chunksize == 1 and self._may_divide else chunksize
        return mapped(self._state, fn, items, timeout, size, buffersize)

    def hosts(self) -> list[HostInfo]:
        """Return the hosts of the queue, those that run other tasks included.

        Raises `ClusterError` if the server does not answer.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor(workers=2) as executor:
        ...     executor.wait_for_host(60)
        ...     [host.workers for host in executor.hosts()]
        True
        [2]
        """
        self._check_process()
        return [HostInfo(*host) for host in self._state.client.hosts()]

    def wait_for_host(self, timeout: float) -> bool:
        """Wait until a host takes the tasks, up to ``timeout`` seconds; return whether one does.

        Raises `ClusterError` if the server does not answer.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor() as executor:
        ...     executor.wait_for_host(60)
        True
        """
        self._check_process()
        return self._state.client.wait_for_host(timeout)

    def embedded_server(self) -> dict[str, str] | None:
        """Return the address and the token of the embedded server, for further local hosts.

        They are under the names ``url`` and ``token``. Returns None if the server is not embedded.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor() as executor:
        ...     sorted(executor.embedded_server())
        ['token', 'url']
        """
        self._check_process()
        return self._state.client.embedded_server()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse tasks from now on.

        Waits for those that are pending or running if ``wait``. With ``cancel_futures``, those that
        no host has begun are cancelled. The connection ends when all tasks are done. At its end,
        the interpreter waits for them, except for those of a session: they go on without the
        program.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> executor = ClusterExecutor()
        >>> future = executor.submit(pow, 2, 10)
        >>> executor.shutdown()
        >>> future.result()
        1024
        """
        state = self._state
        if state.is_foreign():
            return
        if cancel_futures:
            # Not before, as the calls of maps are submitted after the shutdown as well.
            for spans in list(state.maps):
                spans.stop()
        state.close()
        if cancel_futures:
            state.client.cancel_all()
        # A callback, which the thread calls, does not wait for it.
        if wait and state.thread is not threading.current_thread():
            if _waits.is_worker():
                with _waits.Wait():
                    state.thread.join()
            state.thread.join()

    def _check_process(self) -> None:
        if self._state.is_foreign():
            raise RuntimeError(
                "this ClusterExecutor belongs to the process that has made it, of which this"
                " process is a fork: make another one here"
            )
