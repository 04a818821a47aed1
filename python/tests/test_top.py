"""The terminal view: `--top`."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import concurrent_futures as cf
from concurrent_futures._top import Totals
from support import LIMIT, environment, held

needs_rich = pytest.mark.skipif(
    importlib.util.find_spec("rich") is None, reason="rich is not installed"
)


def fail(n: int) -> None:
    raise ValueError(n)


def test_totals_are_the_sums_over_all_updates() -> None:
    with cf.recording() as recording, cf.ThreadPoolExecutor(1, "view") as pool:
        follower, totals = recording._follow(), Totals()

        def update() -> None:
            totals.apply(json.loads(follower.update()[0]))

        update()
        assert (totals.ended, dict(totals.functions), totals.running) == (0, {}, [])
        for _ in range(3):
            for n in range(10):
                pool.submit(abs, n)
                pool.submit(fail, n)
                pool.options(label="label").submit(abs, n).result(LIMIT)
            update()
        gate = threading.Event()
        with held(pool):
            pool.submit(gate.wait)
            assert pool.submit(abs, 1).cancel()
            update()
            update()
            ((seconds, _, worker),) = totals.running
            assert seconds > 0
            assert worker == "view_0"
            assert dict(totals.pending) == {1: 1}
            assert totals.ended == 91
        gate.set()
        pool.shutdown()
        update()
        update()
    assert (totals.running, dict(totals.pending)) == ([], {})
    found = {name: (each.calls, each.failed) for name, each in totals.functions.items()}
    assert found.pop("abs") == (30, 0)
    assert found.pop("label") == (30, 0)
    assert found.pop("test_top.fail") == (30, 30)
    for each in totals.functions.values():
        assert 0 <= each.longest <= each.seconds


PROGRAM = """
    import os, signal, sys
    from concurrent.futures import ThreadPoolExecutor

    out, err = sys.stdout, sys.stderr
    def load(name):
        return len(name)
    with ThreadPoolExecutor(2) as pool:
        print(sum(pool.map(load, ["[red]", "b\\x1b[2J"])), flush=True)
    assert (sys.stdout, sys.stderr) == (out, err)
"""


def run(tmp_path: Path, end: str, **variables: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM) + end)
    return subprocess.run(
        [sys.executable, "-m", "concurrent_futures", "--top", str(script)],
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


ENDS = {
    "return": ("", 0),
    "exit": ("sys.exit(3)", 3),
    "os._exit": ("os._exit(5)", 5),
    "kill": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "closed": ("os.close(2)", 0),
    "fork": ("if (pid := os.fork()) == 0: sys.exit(9)\nos.waitpid(pid, 0)\nsys.exit(4)", 4),
}


@needs_rich
@pytest.mark.parametrize("end", ENDS)
def test_a_program_with_a_view_ends_as_it_would_otherwise(tmp_path: Path, end: str) -> None:
    line, code = ENDS[end]
    ended = run(tmp_path, line)
    assert (ended.returncode, ended.stdout) == (code, "10\n")
    assert "Traceback" not in ended.stderr
    if end in ("return", "exit", "fork"):
        assert "program.py: " in ended.stderr
        assert "2 tasks ended" in ended.stderr
        assert "load" in ended.stderr


@needs_rich
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_a_terminal_shows_pictures_and_keeps_its_cursor(tmp_path: Path) -> None:
    import pty

    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM) + "sys.stdin.read()")
    main, other = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "concurrent_futures", "--top", str(script)],
        env=environment() | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=other,
    )
    os.close(other)
    shown = b""
    while b"load" not in shown or b"2 tasks ended" not in shown:
        shown += os.read(main, 1 << 16)
    # While the program runs, the cursor is there.
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l")
    program.kill()
    assert program.communicate(timeout=LIMIT)[0] == b"10\n"
    os.close(main)


def test_without_rich_the_program_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('no rich')")
    paths = [str(tmp_path), *environment().get("PYTHONPATH", "").split(os.pathsep)]
    ended = run(tmp_path, "sys.exit(3)", PYTHONPATH=os.pathsep.join(paths))
    assert (ended.returncode, ended.stdout) == (3, "10\n")
    assert ended.stderr.startswith("concurrent_futures: no --top: no rich (pip install ")
    assert ended.stderr.count("\n") == 1


def test_the_environment_asks_for_the_view_once(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("import os; print('CONCURRENT_FUTURES_TOP' in os.environ)")
    for value, has_view in (("1", True), ("0", False), ("", False)):
        ended = subprocess.run(
            [sys.executable, "-m", "concurrent_futures", str(script)],
            env=environment() | {"CONCURRENT_FUTURES_TOP": value},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert (ended.returncode, ended.stdout) == (0, "False\n")
        assert bool(ended.stderr) == has_view
