"""The live page: `dashboard()` and `--dashboard`."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import concurrent_futures as cf
from support import LIMIT, environment, held


class Page:
    """A browser's connection to a page."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname == "127.0.0.1"
        assert parts.port
        self.port, self.query = parts.port, parts.query
        self.kept: list[http.client.HTTPConnection] = []

    def get(self, path: str, host: str | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        connection.request("GET", path, headers={} if host is None else {"Host": host})
        self.kept.append(connection)
        return connection.getresponse()

    def updates(self) -> Iterator[dict[str, Any] | None]:
        """Yield the documents, and None at the end."""
        response = self.get(f"/events?{self.query}")
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        for line in response:
            if line == b"event: end\n":
                yield None
                return
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


def test_the_page_and_its_updates() -> None:
    with cf.dashboard() as dashboard, cf.ThreadPoolExecutor(1) as pool:
        page = Page(dashboard.address)
        text = page.get(f"/?{page.query}").read().decode()
        assert 'content="events?token=' in text
        assert "default-src 'none'" in text
        updates = page.updates()
        first = next(updates)
        assert first is not None
        assert not first["finished"]
        assert first["tasks"]["count"] == 0
        with held(pool):
            pool.submit(pow, 2, 3)
            while first is not None and first["tasks"]["count"] < 2:
                first = next(updates)
        dashboard.close()
        *_, last, end = updates
        assert last is not None
        assert end is None
        assert last["finished"]
        assert last["tasks"]["count"] == 2


def test_requests_without_the_token_are_refused() -> None:
    with cf.dashboard() as dashboard:
        page = Page(dashboard.address)
        for path in ("/", "/?token=", "/events", "/events?token=wrong", "/?token=%ff"):
            assert page.get(path).status == 403
        assert page.get(f"/other?{page.query}").status == 404
        # A name that another's server gives this machine.
        assert page.get(f"/?{page.query}", host=f"evil.example:{page.port}").status == 403
        assert page.get(f"/?{page.query}").status == 200
    other = cf.dashboard()
    other.close()
    assert other.address.partition("?")[2] != page.query


def test_a_page_that_is_closed_and_opened_again() -> None:
    with cf.dashboard() as dashboard, cf.ThreadPoolExecutor(1) as pool:
        page = Page(dashboard.address)
        for count in range(3):
            updates = page.updates()
            document = next(updates)
            assert document is not None
            assert document["tasks"]["count"] == count
            # In the middle of an update.
            for connection in page.kept:
                connection.close()
            pool.submit(pow, 2, 3).result(LIMIT)


def test_a_port_that_is_taken_is_an_error_and_records_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            cf.dashboard(port)
    with cf.dashboard(port) as dashboard:
        assert urlsplit(dashboard.address).port == port
    # Free again.
    cf.dashboard(port).close()


def test_closing_twice_and_without_pages() -> None:
    dashboard = cf.dashboard()
    thread = dashboard._thread
    dashboard.close()
    dashboard.close()
    thread.join(LIMIT)
    assert not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        Page(dashboard.address).get("/")


def start(tmp_path: Path, code: str, *options: str) -> subprocess.Popen[str]:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(code))
    return subprocess.Popen(
        [sys.executable, "-m", "concurrent_futures", *options, str(script)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


PROGRAM = """
    import sys
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        print(sum(pool.map(abs, range(10))), flush=True)
        sys.stdin.read()
    sys.exit(3)
"""


@pytest.mark.parametrize("option", [["--dashboard"], ["--dashboard=0"], ["--dashboard", "0"]])
def test_an_unmodified_program_is_served_until_it_ends(tmp_path: Path, option: list[str]) -> None:
    program = start(tmp_path, PROGRAM, *option)
    assert program.stderr is not None
    assert program.stdout is not None
    assert program.stdin is not None
    told = re.fullmatch(
        r"concurrent_futures: dashboard at (http://127.0.0.1:\d+/\?token=.+)\n",
        program.stderr.readline(),
    )
    assert told
    page = Page(told[1])
    assert program.stdout.readline() == "45\n"
    updates = page.updates()
    document = next(updates)
    assert document is not None
    assert document["tasks"]["count"] == 10
    assert document["program"] == "program.py"
    program.stdin.close()
    *_, last, end = updates
    assert last is not None
    assert last["finished"]
    assert end is None
    assert program.wait(LIMIT) == 3
    assert program.stderr.read() == ""
    program.stderr.close()
    program.stdout.close()


def test_a_program_whose_port_is_taken_runs_as_without(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = start(tmp_path, PROGRAM, "--dashboard", str(port))
        out, err = program.communicate(timeout=LIMIT)
    assert (program.returncode, out) == (3, "45\n")
    assert err.startswith(f"concurrent_futures: no dashboard at port {port}: ")


@pytest.mark.parametrize("port", ["--dashboard=x", "--dashboard=70000", "--dashboard=-1"])
def test_an_option_without_a_port_is_refused(tmp_path: Path, port: str) -> None:
    program = start(tmp_path, PROGRAM, port)
    _, err = program.communicate(timeout=LIMIT)
    assert program.returncode == 2
    assert "is no port" in err


@pytest.mark.parametrize("end", ["os._exit(5)", "os.kill(os.getpid(), signal.SIGTERM)", "1 / 0"])
def test_ends_of_a_program_with_an_open_page(tmp_path: Path, end: str) -> None:
    program = start(tmp_path, f"import os, signal, sys\nsys.stdin.read()\n{end}\n", "--dashboard")
    assert program.stderr is not None
    assert program.stdin is not None
    page = Page(program.stderr.readline().split()[-1])
    updates = page.updates()
    assert next(updates) is not None
    program.stdin.close()
    documents = list(updates)
    codes = {"os._exit(5)": 5, "1 / 0": 1}
    assert program.wait(LIMIT) == codes.get(end, -signal.SIGTERM)
    # After an exception, the program's last steps run.
    assert (documents[-1:] == [None]) == (end == "1 / 0")
    program.stderr.close()
    assert program.stdout is not None
    program.stdout.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_leaves_the_page_to_its_parent() -> None:
    with cf.dashboard() as dashboard:
        page = Page(dashboard.address)
        pid = os.fork()
        if pid == 0:
            dashboard.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert page.get(f"/?{page.query}").status == 200


def test_a_page_that_takes_nothing_does_not_hold_the_end_back() -> None:
    dashboard = cf.dashboard()
    page = Page(dashboard.address)
    with socket.create_connection(("127.0.0.1", page.port)) as silent:
        silent.sendall(b"GET /ev")
        closing = threading.Thread(target=dashboard.close)
        closing.start()
        closing.join(LIMIT)
        assert not closing.is_alive()


def test_a_notebook_shows_the_page_and_the_figures() -> None:
    with cf.recording() as recorded, cf.ThreadPoolExecutor(1) as pool:
        pool.submit(pow, 2, 3).result(LIMIT)
        html = recorded._repr_html_()
        assert html.startswith("<iframe sandbox=")
        assert "&quot;finished&quot;:false" in html
        figures = pool._repr_html_()
        assert "<td>1</td>" in figures
        assert "finished" in figures
