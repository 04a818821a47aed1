"""Recordings of calls that run on hosts."""

import json
import subprocess
import sys
from pathlib import Path

import cluster_tasks as tasks
from cluster_support import (
    LIMIT,
    Server,
    environment,
    has_line,
    program_or_skip,
    rows_of,
    wait_until,
)

from concurrent_futures import recording

pytest_plugins = ["cluster_support"]


def test_each_host_has_a_lane_and_each_call_is_a_row(server: Server, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    hosts = {server.host(1).process.pid for _ in range(2)}
    with server.executor() as executor:
        before = executor.submit(tasks.double, 1)
        before.result(LIMIT)
        with recording() as run:
            # As many as there are workers: each host has one.
            waiting = [
                executor.submit(tasks.note_and_wait, f"{begun}{n}", str(go)) for n in range(2)
            ]
            notes = [Path(f"{begun}{n}") for n in range(2)]
            wait_until("the calls run", lambda: all(map(has_line, notes)))
            cancelled = executor.submit(tasks.double, 2)
            assert cancelled.cancel()
            go.touch()
            assert all(future.result(LIMIT) for future in waiting)
            assert list(executor.map(tasks.double, range(100))) == list(range(0, 200, 2))
            failing = executor.submit(tasks.fail, "broken")
            assert failing.exception(LIMIT)
            dying = executor.submit(tasks.die_if, 2, 2)
            assert dying.exception(LIMIT)
        after = executor.submit(tasks.double, 1)
        after.result(LIMIT)
    rows = rows_of(json.loads(run.columns()))
    ran = [row for row in rows if row["outcome"] != 4]
    for row in ran:
        assert 0 < row["submit"] <= row["start"] <= row["end"], row
        worker = row["worker"]
        assert worker["pid"] in hosts
        assert worker["name"] == f"{worker['machine']} · {worker['pid']}"
        assert row["sent"] > 0
    named = {
        name: [row for row in ran if row["name"] == f"cluster_tasks.{name}"]
        for name in ("note_and_wait", "double", "fail", "die_if")
    }
    assert sum(map(len, named.values())) == len(ran)
    both = named["note_and_wait"]
    assert {row["worker"]["pid"] for row in both} == hosts
    assert max(row["start"] for row in both) < min(row["end"] for row in both)
    assert sum(row["items"] for row in named["double"]) == 100
    assert [row["outcome"] for row in named["double"]] == [2] * len(named["double"])
    ((failed,), (died,)) = named["fail"], named["die_if"]
    assert (failed["outcome"], failed["error"]) == (3, "OwnError: broken")
    assert died["outcome"] == 6
    (never,) = [row for row in rows if row["outcome"] == 4]
    assert never["worker"] is None


def test_the_trace_of_a_program_has_the_lanes_of_hosts(tmp_path: Path) -> None:
    program, trace = tmp_path / "program.py", tmp_path / "run.json"
    program.write_text(
        "from concurrent_futures import ClusterExecutor\n"
        "def work(n):\n"
        "    return n + 1\n"
        "with ClusterExecutor(workers=1) as executor:\n"
        "    assert executor.submit(work, 1).result(60) == 2\n"
    )
    subprocess.run(
        [sys.executable, "-m", "concurrent_futures", "--trace", str(trace), str(program)],
        env=environment(CONCURRENT_FUTURES_NATS_SERVER=program_or_skip()),
        check=True,
        timeout=LIMIT,
    )
    events = json.loads(trace.read_text())["traceEvents"]
    (run,) = [event for event in events if event["ph"] == "X"]
    (lane,) = [
        event["args"]["name"]
        for event in events
        if event["name"] == "thread_name" and event["tid"] == run["tid"]
    ]
    assert run["name"] == "work"
    assert " · " in lane
    assert run["args"]["queued_us"] >= 0
