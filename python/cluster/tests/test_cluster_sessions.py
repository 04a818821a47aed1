"""Sessions, whose tasks outlive their program."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cluster_tasks
import pytest
from cluster_support import LEASE, LIMIT, Server, environment, run_program, wait_until

from concurrent_futures import ClusterExecutor
from concurrent_futures_cluster import (
    ClusterError,
    SessionInUseError,
    UnknownSessionError,
)

pytest_plugins = ["cluster_support"]


def attach(server: Server, session: str, **options: Any) -> ClusterExecutor:
    """Attach to a session as soon as it has no other executor."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            return ClusterExecutor.attach(server.url, session, lease=LEASE, **options)
        except SessionInUseError:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_later_program_finds_the_outcomes_of_a_killed_one(server: Server, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    program = f"""
import os, signal
import cluster_tasks
from concurrent_futures import ClusterExecutor

class MainError(Exception):
    pass

def fail():
    raise MainError("of the program")

executor = ClusterExecutor({server.url!r}, lease={LEASE}, session="left")
executor.submit(cluster_tasks.note_and_wait, {str(begun)!r}, {str(go)!r})
for number in range(5):
    executor.submit(cluster_tasks.double, number)
executor.submit(cluster_tasks.double, bytes(600_000))
executor.submit(fail)
assert executor.flush(60)
os.kill(os.getpid(), signal.SIGKILL)
"""
    server.host(1)
    ended = run_program(program)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    wait_until("it runs", begun.exists)
    go.touch()
    with attach(server, "left") as executor:
        assert executor.session == "left"
        futures = executor.futures()
        assert executor.futures() == []
        worker, *doubles, long, failed = futures
        assert isinstance(worker.result(), int)
        assert [future.result() for future in doubles] == [0, 2, 4, 6, 8]
        assert long.result() == bytes(1_200_000)
        error = failed.exception()
        assert type(error).__name__ == "MainError" and str(error) == "of the program"
        assert executor.submit(cluster_tasks.double, 21).result() == 42
    # Each ran once, and the new task is found as well.
    assert len(begun.read_text().splitlines()) == 1
    with ClusterExecutor.attach(server.url, "left", lease=LEASE) as executor:
        assert len(executor.futures()) == 9
        executor.discard()
    with pytest.raises(UnknownSessionError, match="left"):
        ClusterExecutor.attach(server.url, "left", lease=LEASE)


def test_the_end_of_a_program_leaves_tasks_running(server: Server, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    server.host(1)
    ended = run_program(
        f"""
import cluster_tasks
from concurrent_futures import ClusterExecutor

executor = ClusterExecutor({server.url!r}, lease={LEASE}, keep=600)
running = executor.submit(cluster_tasks.note_and_wait, {str(begun)!r}, {str(go)!r})
pending = executor.map(cluster_tasks.double, range(3))
executor.shutdown(wait=False)
print(executor.session)
"""
    )
    assert ended.returncode == 0, ended.stderr
    # At once: the program has given its session free.
    executor = ClusterExecutor.attach(server.url, ended.stdout.strip(), lease=LEASE)
    with executor:
        running, *doubles = executor.futures()
        wait_until("it runs", begun.exists)
        assert not running.done()
        with pytest.raises(SessionInUseError, match=f"process {os.getpid()} "):
            ClusterExecutor(server.url, session=executor.session, lease=LEASE)
        go.touch()
        assert isinstance(running.result(), int)
        assert [future.result() for future in doubles] == [0, 2, 4]
    assert len(begun.read_text().splitlines()) == 1


def test_a_with_block_waits_and_an_executor_takes_its_session_over(
    server: Server, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    server.host(2)
    with ClusterExecutor(server.url, session="s", lease=LEASE) as executor:
        futures = [executor.submit(cluster_tasks.double, n) for n in range(20)]
    assert all(future.done() for future in futures)
    with ClusterExecutor(server.url, session="s", lease=LEASE) as executor:
        assert [future.result() for future in executor.futures()] == [2 * n for n in range(20)]
        assert executor.futures() == []
        for size in (None, 3):
            doubled = executor.map(cluster_tasks.double, range(10), buffersize=size)
            assert list(doubled) == [2 * n for n in range(10)]
        late = executor.map(cluster_tasks.wait_for, [str(go)], timeout=0)
        with pytest.raises(TimeoutError):
            next(late)
        go.touch()
    with ClusterExecutor(server.url, lease=LEASE) as executor:
        assert executor.session is None
        assert executor.futures() == []
        assert not executor.flush(0)


def test_settings_that_make_no_sense_are_refused(server: Server) -> None:
    with pytest.raises(ValueError, match="outlives the program"):
        ClusterExecutor("embedded", session="s")
    with pytest.raises(ValueError, match="outlives the program"):
        ClusterExecutor("embedded", keep=1)
    with pytest.raises(ValueError, match="keep must be greater"):
        ClusterExecutor(server.url, keep=0)
    with pytest.raises(ValueError, match="replicas must be at least 1"):
        ClusterExecutor(server.url, session="s", replicas=0)
    with pytest.raises(ValueError, match="must not be empty"):
        ClusterExecutor(server.url, session="")
    with pytest.raises(ClusterError, match="3 copies"):
        ClusterExecutor(server.url, session="s", replicas=3)
    with pytest.raises(UnknownSessionError, match="nothing"):
        ClusterExecutor.attach(server.url, "nothing")


def test_another_key_finds_nothing(server: Server) -> None:
    executor = ClusterExecutor(server.url, key="secret", session="s", lease=LEASE)
    executor.submit(cluster_tasks.double, 21)
    assert executor.flush(LIMIT)
    with pytest.raises(ClusterError, match="another key"):
        ClusterExecutor(server.url, key="other", session="s", lease=LEASE)
    server.host(1, CONCURRENT_FUTURES_KEY="secret")
    executor.shutdown()
    with pytest.raises(ClusterError, match="another key"):
        ClusterExecutor.attach(server.url, "s", key="other", lease=LEASE)
    with ClusterExecutor.attach(server.url, "s", key="secret", lease=LEASE) as executor:
        assert [future.result() for future in executor.futures()] == [42]


def test_ctrl_c_leaves_the_tasks_of_a_session(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    program = f"""
import cluster_tasks
from concurrent_futures import ClusterExecutor
with ClusterExecutor({server.url!r}, lease={LEASE}, session="s") as executor:
    future = executor.submit(cluster_tasks.wait_for, {str(go)!r}, 7)
    print("submitted", flush=True)
    future.result()
"""
    command = [sys.executable, "-c", program]
    child = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "submitted\n"
    server.host(1)
    # The first one ends the wait for the result, the second one that of the `with` block.
    end = time.monotonic() + LIMIT
    while child.poll() is None:
        assert time.monotonic() < end
        child.send_signal(signal.SIGINT)
        time.sleep(0.1)
    go.touch()
    with attach(server, "s") as executor:
        assert [future.result() for future in executor.futures()] == [7]
