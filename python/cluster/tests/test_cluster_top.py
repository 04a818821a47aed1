"""The command ``python -m concurrent_futures top``."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cluster_tasks as tasks
from cluster_support import LIMIT, Server, environment, wait_until

pytest_plugins = ["cluster_support"]


def top(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the command until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "concurrent_futures", "top", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def look(server: Server, **variables: str) -> dict[str, Any]:
    """Return the first queue that the command shows."""
    done = top(server.url, "--once", "--interval", "0.05", "--json", **variables)
    assert done.returncode == 0, done.stderr
    queues: list[dict[str, Any]] = json.loads(done.stdout)["queues"]
    return queues[0] if queues else {"hosts": []}


def test_hosts_and_tasks_are_shown(server: Server, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    host = server.host(1, CONCURRENT_FUTURES_KEY="secret")
    with server.executor(key="secret") as executor:
        running = executor.submit(tasks.note_and_wait, str(begun), str(go))
        waiting = [executor.submit(tasks.double, n) for n in range(3)]
        failing = executor.submit(divmod, 1, 0)
        shown: list[dict[str, Any]] = []

        def details() -> Any:
            shown.append(look(server, CONCURRENT_FUTURES_KEY="secret"))
            (found,) = shown[-1]["hosts"] or [{"details": None}]
            return found["details"]

        wait_until("the running task is shown", lambda: (details() or {}).get("running") == 1)
        assert shown[-1]["waiting"] + shown[-1]["held"] == 5
        assert details()["pid"] == host.process.pid
        (blind,) = look(server)["hosts"]
        assert blind["details"] is None
        assert blind["environment"].startswith("python3-")
        table = top(server.url, "--once", CONCURRENT_FUTURES_KEY="secret").stdout
        assert "queue default:" in table
        assert str(host.process.pid) in table
        go.touch()
        running.result(LIMIT)
        assert [future.result(LIMIT) for future in waiting] == [0, 2, 4]
        assert isinstance(failing.exception(LIMIT), ZeroDivisionError)
        wait_until("the ended tasks are shown", lambda: details()["ended"] == 5)
        assert details()["failed"] == 1


def test_the_live_view_goes_on_until_ctrl_c(server: Server) -> None:
    command = [sys.executable, "-m", "concurrent_futures", "top", server.url]
    with subprocess.Popen(
        [*command, "--json", "--interval", "0.05"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        for _ in range(3):
            assert json.loads(child.stdout.readline())["server"] == server.url
        child.send_signal(signal.SIGINT)
        assert child.wait(LIMIT) == 0
        assert child.stderr is not None
        assert child.stderr.read() == ""


def test_a_server_that_is_not_there_is_told() -> None:
    done = top("nats://127.0.0.1:1", "--once")
    assert done.returncode == 70
    assert "cannot connect to nats://127.0.0.1:1" in done.stderr
    done = top("nats://127.0.0.1:1", "--interval", "-1")
    assert done.returncode == 2
