"""The host of the embedded mode: a child of the executor's process.

The two talk by a pair of sockets, a line of JSON each. The executor sends where to look for
modules, and then the settings. The child says that its host takes tasks, or why it cannot. The end
of the connection, or of the executor's process, ends the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
from multiprocessing import spawn
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

#: The program of the child.
_PROGRAM = """\
import json, os, socket, sys
channel = socket.socket(fileno=os.dup(0))
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
lines = channel.makefile("rb")
sys.path[:] = json.loads(lines.readline())
from concurrent_futures_cluster._embedded import serve
serve(channel, lines)
"""
#: The seconds that the child has to end.
_END = 5.0
#: The seconds between two looks at the parent.
_LOOK = 1.0


def server_program() -> str | None:
    """Return the server's program of this Python environment, which may not be the active one.

    Return None where the native part finds a program.
    """
    if "CONCURRENT_FUTURES_NATS_SERVER" in os.environ or shutil.which("nats-server"):
        return None
    path = os.path.join(sysconfig.get_path("scripts"), "nats-server")
    return path if os.path.isfile(path) else None


def random_key() -> str:
    """Return a random key."""
    return secrets.token_hex(32)


class EmbeddedHost:
    """The child, as the executor sees it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [_executable(), *_flags(), "-c", _PROGRAM],
                stdin=theirs.fileno(),
                # Ctrl-C is for the program, whose tasks end first.
                process_group=0,
            )
        self._channel = ours
        self._send([os.fspath(folder) for folder in sys.path])

    def _send(self, message: object) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")

    def begin(self, settings: dict[str, Any], workers: int | None) -> None:
        """Start the host in the child; return when it takes tasks."""
        from concurrent_futures_cluster._errors import ClusterError

        options = {
            name: value.decode("latin-1") if isinstance(value, bytes) else value
            for name, value in settings.items()
        }
        trouble: str
        try:
            self._send({"settings": options, "workers": workers})
            with self._channel.makefile("rb") as lines:
                line = lines.readline()
            trouble = json.loads(line) if line else f"it ended with code {self._child.wait(_END)}"
        except (OSError, subprocess.TimeoutExpired) as error:
            trouble = str(error)
        if trouble:
            raise ClusterError(f"the embedded host cannot work: {trouble}")

    def stop(self) -> None:
        """End the child."""
        with contextlib.suppress(OSError):  # It has ended.
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        try:
            self._child.wait(_END)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _executable() -> str:
    executable = spawn.get_executable()
    return os.fsdecode(executable) if executable else sys.executable


def _flags() -> list[str]:
    """Return the options that this interpreter was started with."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def serve(channel: socket.socket, lines: Any) -> None:
    """Be the child."""
    parent = os.getppid()
    from concurrent_futures_cluster import _host

    message = json.loads(lines.readline() or "null")
    if message is None:
        return  # The executor could not be made.
    settings = message["settings"]
    settings["key"] = settings["key"].encode("latin-1")
    del settings["environment"]
    for name in ("CONCURRENT_FUTURES_KEY", "CONCURRENT_FUTURES_TOKEN", "CONCURRENT_FUTURES_NKEY"):
        os.environ.pop(name, None)
    trouble = ""
    host = None
    try:
        # The tasks are those of the executor, which waits for them. So the host need not.
        host = _host.ClusterHost(**settings, workers=message["workers"], drain=0)
    except Exception as error:
        trouble = str(error)
    channel.sendall(json.dumps(trouble).encode() + b"\n")
    if host is None:
        return
    while os.getppid() == parent:
        if select.select([channel], [], [], _LOOK)[0]:
            break
    host.stop()
