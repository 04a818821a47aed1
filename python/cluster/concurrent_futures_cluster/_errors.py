"""The errors of clusters."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ClusterConnectionError",
    "ClusterError",
    "HostInfo",
    "HostLostError",
    "NoFunctionError",
    "NoWorkersError",
    "ObjectStoreError",
    "PoisonTaskError",
    "SessionInUseError",
    "SessionLostError",
    "UnknownSessionError",
]


class HostInfo(NamedTuple):
    """A host, as the registry of the server has it."""

    #: The name of the machine.
    machine: str
    #: The process id of the host.
    pid: int
    #: The number of tasks that the host runs at once.
    workers: int
    queue: str
    #: The tasks that the host can run: those of this version of Python, this key and this tag.
    environment: str


class ClusterError(RuntimeError):
    """An error of a cluster: of its set-up, or of a task that no worker has raised.

    Examples
    --------
    >>> from concurrent_futures_cluster import ClusterError, ClusterExecutor
    >>> try:
    ...     ClusterExecutor("nats://10.0.0.1:4222")
    ... except ClusterError as error:
    ...     print("give a key" in str(error))
    True
    """


class ClusterConnectionError(ClusterError, ConnectionError):
    """The server does not answer, or refuses the connection.

    Examples
    --------
    >>> from concurrent_futures_cluster import ClusterConnectionError, ClusterExecutor
    >>> try:
    ...     ClusterExecutor("nats://127.0.0.1:1")
    ... except ClusterConnectionError as error:
    ...     print("cannot connect to nats://127.0.0.1:1" in str(error))
    True
    """


class NoWorkersError(ClusterError):
    """No host came that runs the task.

    The futures of a queue raise it when ``wait_for_workers`` seconds have passed. The message names
    the hosts that there are.

    Examples
    --------
    >>> from concurrent_futures_cluster import NoWorkersError
    >>> NoWorkersError("no host came").hosts
    ()
    """

    def __init__(self, message: str, hosts: tuple[HostInfo, ...] = ()) -> None:
        super().__init__(message)
        #: The hosts of the queue, which run other tasks.
        self.hosts = hosts

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self.args, self.hosts)


class HostLostError(ClusterError):
    """The host of the task was lost, and by ``on_host_loss="fail"`` the task does not run again.

    Examples
    --------
    >>> from concurrent_futures_cluster import ClusterError, HostLostError
    >>> issubclass(HostLostError, ClusterError)
    True
    """


class PoisonTaskError(ClusterError):
    """The task was given up, as several hosts were lost while they ran it.

    Examples
    --------
    >>> from concurrent_futures_cluster import ClusterError, PoisonTaskError
    >>> issubclass(PoisonTaskError, ClusterError)
    True
    """


class NoFunctionError(ClusterError):
    """The host does not know this kind of call: it has another version of the package.

    Examples
    --------
    >>> from concurrent_futures_cluster import ClusterError, NoFunctionError
    >>> issubclass(NoFunctionError, ClusterError)
    True
    """


class ObjectStoreError(ClusterError):
    """A very long argument or result could not be stored in the object store, or fetched from it.

    Examples
    --------
    >>> from concurrent_futures_cluster import ClusterError, ObjectStoreError
    >>> issubclass(ObjectStoreError, ClusterError)
    True
    """


class SessionInUseError(ClusterError):
    """The session has another executor, which the message names.

    Examples
    --------
    >>> from concurrent_futures_cluster import ClusterError, SessionInUseError
    >>> issubclass(SessionInUseError, ClusterError)
    True
    """


class UnknownSessionError(ClusterError):
    """The session has no task: there never was one, or all have aged.

    Examples
    --------
    >>> from concurrent_futures_cluster import ClusterError, UnknownSessionError
    >>> issubclass(UnknownSessionError, ClusterError)
    True
    """


class SessionLostError(ClusterError):
    """The executor was cut off for longer than its lease, and its session has another one.

    Examples
    --------
    >>> from concurrent_futures_cluster import ClusterError, SessionLostError
    >>> issubclass(SessionLostError, ClusterError)
    True
    """


def of_task(
    name: str, message: str, hosts: list[tuple[str, int, int, str, str]], call: str | None
) -> ClusterError:
    """Return the error that the native part describes; its message names the call, if known."""
    if call is not None:
        message = f"{call}: {message}"
    if name == "NoWorkersError":
        return NoWorkersError(message, tuple(HostInfo(*host) for host in hosts))
    error: ClusterError = globals()[name](message)
    return error
