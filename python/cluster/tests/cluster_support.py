"""Servers and hosts of the tests: real processes on loopback."""

import base64
import faulthandler
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from concurrent_futures import ClusterExecutor

#: The most seconds that something takes which would otherwise take forever.
LIMIT = 60.0
#: The lease in tests of lost hosts.
LEASE = 1.5
HERE = Path(__file__).resolve().parent

_SIZES = {"f64": ("d", 8), "f32": ("f", 4), "u32": ("I", 4), "u8": ("B", 1)}


def pytest_configure() -> None:
    """Make Ctrl-C end the programs of tests.

    They inherit that it is ignored, if a shell has started the tests in the background.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def program() -> str | None:
    """Return the server's program: of a variable, of PATH, or of an environment of the project."""
    if named := os.environ.get("CONCURRENT_FUTURES_NATS_SERVER"):
        return named
    environments = (HERE.parents[2] / ".venv").glob("*/bin/nats-server")
    return shutil.which("nats-server") or next(map(str, environments), None)


def program_or_skip() -> str:
    """Return the server's program, or skip the test."""
    found = program()
    if found is None:
        pytest.skip("there is no nats-server; `make cluster` installs it")
    return found


def wait_until(what: str, is_true: Callable[[], bool]) -> None:
    """Wait for something that comes."""
    end = time.monotonic() + LIMIT
    while not is_true():
        assert time.monotonic() < end, f"{what}: not in {LIMIT} seconds"
        time.sleep(0.005)


def has_line(path: Path) -> bool:
    """Return whether a task has written a line: the file is there before its first line is."""
    return path.exists() and path.read_text().endswith("\n")


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of a process that imports what this one does, and the tasks."""
    paths = [str(HERE), *filter(None, sys.path)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CONCURRENT_FUTURES_")}
    return {**clean, "PYTHONPATH": os.pathsep.join(paths), **variables}


def embedded_executor(**options: Any) -> ClusterExecutor:
    """Make an executor with a server and a host of its own."""
    os.environ["CONCURRENT_FUTURES_NATS_SERVER"] = program_or_skip()
    return ClusterExecutor("embedded", **options)


class Server:
    """A server on loopback, which can be killed and started again at the same port."""

    def __init__(self) -> None:
        self._program = program_or_skip()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._hosts: list[Host] = []
        self.run()

    def run(self) -> None:
        """Start the server, which has nothing; wait until it accepts connections."""
        self._folder = tempfile.mkdtemp()
        settings = ["--addr", "127.0.0.1", "--port", str(self.port)]
        self._child = subprocess.Popen(
            [self._program, *settings, "--jetstream", "--store_dir", self._folder],
            stderr=subprocess.DEVNULL,
        )
        wait_until("the server accepts connections", self._accepts)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """Kill the server; it forgets all that it had."""
        self._child.kill()
        self._child.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def executor(self, **options: Any) -> ClusterExecutor:
        return ClusterExecutor(self.url, lease=LEASE, **options)

    def host(self, workers: int = 1, *options: str, **variables: str) -> "Host":
        """Start a host."""
        host = Host(self.url, workers, options, variables)
        self._hosts.append(host)
        return host

    def end(self) -> None:
        for host in self._hosts:
            host.kill()
        self.kill()


class Host:
    """A host: a process of its own."""

    def __init__(
        self, url: str, workers: int, options: tuple[str, ...], variables: dict[str, str]
    ) -> None:
        command = [sys.executable, "-m", "concurrent_futures", "worker", url]
        self.process = subprocess.Popen(
            [*command, "--workers", str(workers), "--lease", str(LEASE), *options],
            env=environment(**variables),
        )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(LIMIT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.end()


@pytest.fixture
def executor(server: Server) -> Iterator[ClusterExecutor]:
    """An executor with a host of two workers."""
    server.host(2)
    with server.executor() as executor:
        yield executor


@pytest.fixture(scope="module")
def embedded() -> Iterator[ClusterExecutor]:
    """An executor with a server and a host of its own, for tests that leave it as it is."""
    with embedded_executor(workers=2) as executor:
        yield executor


@pytest.fixture(autouse=True)
def _ends(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that hangs, with the stacks of all threads."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        faulthandler.dump_traceback_later(5 * LIMIT, exit=True, file=os.dup(2))
    yield
    faulthandler.cancel_dump_traceback_later()


def run_program(text: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a program, in a file of its own, with a server's program."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "program.py")
        path.write_text(text)
        return subprocess.run(
            [sys.executable, str(path)],
            env=environment(CONCURRENT_FUTURES_NATS_SERVER=program_or_skip(), **variables),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )


def rows_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the tasks, with texts and workers in place of their numbers."""
    table = document["tasks"]
    rows: list[dict[str, Any]] = [{} for _ in range(table["count"])]
    for name, column in table["columns"].items():
        letter, _ = _SIZES[column["type"]]
        values = [column.get("constant")] * len(rows)
        if "constant" not in column:
            data = base64.b64decode(column["base64"])
            values = list(struct.unpack(f"<{len(rows)}{letter}", data))
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    for row in rows:
        for name in ("name", "error"):
            row[name] = document["strings"][row[name]]
        row["worker"] = document["workers"][row["worker"] - 1] if row["worker"] else None
    return rows
