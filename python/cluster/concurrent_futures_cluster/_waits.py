"""Tasks that wait for other tasks of a cluster: their host runs another one meanwhile.

A worker tells its host when a task begins to wait for a future of a cluster, and when the task goes
on. It does so on a socket of the host's own, with a byte each. Parts of results take the same way.

``wait`` and ``as_completed`` of the standard library append a waiter to ``_waiters`` of each
future, and wait for the waiter's event. They hold the conditions of all futures meanwhile, so that
nothing has set the event. `Waiters` gives the event another class, whose `wait` tells the host. So
a process that is no worker pays nothing, and futures of threads keep the engine's way to wait.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import nullcontext

TYPE_CHECKING = False

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Any

#: The path of the host's socket, in its workers.
_path: str | None = None
_lock = threading.Lock()
_connection: socket.socket | None = None


def begin(path: str) -> None:
    """Note the socket of the host; the first call in each of its workers."""
    global _path
    _path = path


def is_worker() -> bool:
    """Return whether this process is a worker of a host."""
    return _path is not None


class Wait:
    """A wait of a task; a context manager."""

    def __enter__(self) -> None:
        self._is_told = _tell(b"+")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_told:
            _tell(b"-")


def waiting() -> AbstractContextManager[None]:
    """Return the context of a wait, also in a process that is no worker."""
    return Wait() if is_worker() else nullcontext()


class _Event(threading.Event):
    """The event of a waiter for a future of a cluster."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as any event does, and tell the host of it."""
        if self.is_set():
            return True
        with Wait():
            return super().wait(timeout)


class Waiters:
    """The waiters of a future, as the standard library uses them."""

    def __init__(self, waiters: list[Any]) -> None:
        self._waiters = waiters

    def append(self, waiter: Any) -> None:
        """Add a waiter, whose waits the host is to know."""
        if type(event := getattr(waiter, "event", None)) is threading.Event:
            event.__class__ = _Event
        self._waiters.append(waiter)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._waiters, name)

    def __iter__(self) -> Any:
        return iter(self._waiters)

    def __len__(self) -> int:
        return len(self._waiters)


def tell_part(token: int, first: int, part: bytes) -> None:
    """Send the host a part of the result of a call, which has this place in it."""
    _tell(b"".join((b"p", struct.pack("<QQQ", token, first, len(part)), part)))


def _tell(news: bytes) -> bool:
    """Tell the host some news. Return False if it is gone: then its workers end."""
    global _connection
    with _lock:
        try:
            if _connection is None:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    connection.connect(_path or "")
                except BaseException:
                    connection.close()
                    raise
                _connection = connection
            _connection.sendall(news)
        except OSError:
            if _connection is not None:
                _connection.close()
                _connection = None
            return False
    return True
