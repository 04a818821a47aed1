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
from support import LIMIT, environment, held, needs_processes
from test_recording import rows_of


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


class Growing:
    """Joins updates, as the page does."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.strings: list[str] = []
        self.wholes = 0

    def apply(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of tasks as they are now, with names."""
        if "update" in document:
            assert document["update"] == {
                "tasks": len(self.rows["tasks"]),
                "waits": len(self.rows["waits"]),
                "strings": len(self.strings),
            }
        else:
            self.wholes += 1
            self.rows = {"tasks": [], "waits": []}
            self.strings = []
        self.strings += document["strings"]
        named = {**document, "strings": self.strings}
        for table, rows in self.rows.items():
            rows += rows_of(named, table)
        return self.rows["tasks"] + rows_of({**named, **document["open"]})


def test_the_page_and_its_updates() -> None:
    with cf.dashboard() as dashboard, cf.ThreadPoolExecutor(1) as pool:
        page = Page(dashboard.address)
        text = page.get(f"/?{page.query}").read().decode()
        assert 'content="events?token=' in text
        assert "default-src 'none'" in text
        # Two pages at once, of which each gets all.
        growing, others = Growing(), [page.updates(), page.updates()]
        for updates in others:
            first = next(updates)
            assert first is not None
            assert not first["finished"]
            assert growing.apply(first) == []
        updates = others[1]
        with held(pool):
            future = pool.submit(pow, 2, 3)
            document = next(updates)
            while document is not None and len(growing.apply(document)) < 2:
                document = next(updates)
        # The end of a task is recorded before its result is there.
        assert future.result(LIMIT) == 8
        dashboard.close()
        for updates in others:
            *rest, last, end = updates
            assert last is not None
            assert end is None
            assert last["finished"]
        for document in [*rest, last]:
            assert document is not None
            rows = growing.apply(document)
        assert sorted(row["outcome"] for row in rows) == [2, 2]


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
            assert len(Growing().apply(document)) == count
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
    assert len(Growing().apply(document)) == 10
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


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what two documents have in common: they number tasks in other ways."""
    numbers = ("start", "end", "submit", "outcome", "items", "attempt", "worker", "pool")
    texts = [row[name] for name in ("name", "label", "error")]
    # A column in which all rows have the same number may have it as an integer, or none.
    return (*texts, *(str(float("nan" if row[name] is None else row[name])) for name in numbers))


def nested(pool: cf.Executor, n: int) -> int:
    return pool.submit(abs, n).result(LIMIT) if n % 5 == 0 else 1 // (n % 3)


def test_updates_have_the_new_events_only_and_together_all() -> None:
    with cf.recording() as recording, cf.ThreadPoolExecutor(4) as pool:
        followers = [recording._follow(), recording._follow()]
        growing = [Growing(), Growing()]

        def follow(number: int) -> None:
            goes_on = True
            while goes_on:
                document, goes_on = followers[number].update()
                growing[number].apply(json.loads(document))

        def work() -> None:
            for n in range(1000):
                pool.submit(nested, pool, n)
                pool.submit(nested, pool, n).cancel()

        threads = [threading.Thread(target=follow, args=(number,)) for number in (0, 1)]
        workers = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads + workers:
            thread.start()
        for thread in workers:
            thread.join(LIMIT)
        pool.shutdown()
        recording.stop()
        for thread in threads:
            thread.join(LIMIT)
    whole = json.loads(recording.columns())
    rows = rows_of(whole)
    assert len(rows) >= 4000
    for each in growing:
        assert each.wholes == 1
        assert sorted(map(key, each.rows["tasks"])) == sorted(map(key, rows))
        assert len(each.rows["waits"]) == whole["waits"]["count"]
        submitters = {row["task"]: row for row in each.rows["tasks"]}
        parents = [row["parent"] for row in each.rows["tasks"] if row["parent"]]
        assert len(parents) == sum(row["parent"] > 0 for row in rows) > 0
        assert {submitters[parent]["name"] for parent in parents} == {"test_dashboard.nested"}


def test_an_update_without_events_is_short() -> None:
    with cf.recording() as recording, cf.ThreadPoolExecutor(1) as pool:
        follower = recording._follow()
        for n in range(1000):
            pool.submit(abs, n).result(LIMIT)
        growing = Growing()
        first, _ = follower.update()
        assert len(growing.apply(json.loads(first))) == 1000
        growing.apply(json.loads(follower.update()[0]))
        with held(pool):
            pool.submit(pow, 2, 3)
            growing.apply(json.loads(follower.update()[0]))
            document = json.loads(follower.update()[0])
            assert document["tasks"]["count"] == 0
            assert document["open"]["tasks"]["count"] == 2
            assert len(json.dumps(document)) < len(first) / 4
            outcomes = sorted(row["outcome"] for row in growing.apply(document))
            assert outcomes[:2] == [0, 1]
            assert outcomes[2:] == [2] * 1000


def test_a_page_that_has_too_many_tasks_begins_anew() -> None:
    with cf.recording(records_per_thread=1) as recording, cf.ThreadPoolExecutor(1) as pool:
        follower = recording._follow(5000)
        growing = Growing()
        count = 0
        while growing.wholes < 2:
            for future in [pool.submit(abs, n) for n in range(1000)]:
                future.result(LIMIT)
            count += 1000
            document, goes_on = follower.update()
            assert goes_on
            found = growing.apply(json.loads(document))
        # The events that are still in the buffers.
        assert 0 < len(found) < count
        pool.submit(abs, -1).result(LIMIT)
        growing.apply(json.loads(follower.update()[0]))
        assert growing.wholes == 2


@needs_processes
def test_updates_of_processes() -> None:
    with cf.recording() as recording, cf.ProcessPoolExecutor(2) as pool:
        follower, growing = recording._follow(), Growing()
        for _ in range(10):
            assert list(pool.map(abs, range(100))) == list(range(100))
            growing.apply(json.loads(follower.update()[0]))
        pool.shutdown()
        recording.stop()
        document, goes_on = follower.update()
        assert not goes_on
        last = json.loads(document)
        growing.apply(last)
    assert [worker["exit"] for worker in last["workers"]] == [{"code": 0}] * len(last["workers"])
    rows = rows_of(json.loads(recording.columns()))
    assert sorted(map(key, growing.rows["tasks"])) == sorted(map(key, rows))
