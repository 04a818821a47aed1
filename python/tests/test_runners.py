"""Tests of programs that are run by `python -m concurrent_futures` under another runner."""

import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from support import LIMIT

PROGRAM = """
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import multiprocessing

def square(n):
    return n * n

if __name__ == "__main__":
    assert sys.modules["__main__"].square is square
    with ThreadPoolExecutor(2) as pool:
        print("threads", list(pool.map(square, range(3))))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        print("processes", pool.submit(square, 3).result())
    print(ThreadPoolExecutor.__module__, sys.argv[1:], __file__.endswith("prog.py"))
"""

EXPECTED = [
    "threads [0, 1, 4]",
    "processes 9",
    "concurrent_futures.thread ['an', 'argument'] True",
]

PACKAGE = ["-m", "concurrent_futures"]


def output(folder: Path, arguments: Sequence[str], status: int = 0) -> list[str]:
    (folder / "prog.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
    )
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "runner",
    [
        [],
        ["-m", "cProfile", "-o", "out"],
        ["-m", "cProfile"],
        ["-m", "profile", "-o", "out"],
        ["-m", "pdb", "-c", "continue", "-c", "quit"],
        ["-m", "coverage", "run"],
        ["-m", "runpy", "cProfile", "-o", "out"],
    ],
    ids=["none", "cProfile to a file", "cProfile", "profile", "pdb", "coverage", "two"],
)
def test_a_runner(tmp_path: Path, runner: list[str]) -> None:
    if "coverage" in runner and find_spec("coverage") is None:
        pytest.skip("coverage is not installed")
    lines = output(tmp_path, [*runner, *PACKAGE, "prog.py", "an", "argument"])
    assert [line for line in lines if line in EXPECTED] == EXPECTED
    if runner == ["-m", "cProfile"]:
        assert any("function calls" in line for line in lines)
    if "-o" in runner:
        assert (tmp_path / "out").stat().st_size > 0


def test_trace_counts_the_lines_of_the_program(tmp_path: Path) -> None:
    runner = ["-m", "trace", "--count", "-C", "counts", "--module", "concurrent_futures"]
    lines = output(tmp_path, [*runner, "prog.py", "an", "argument"])
    assert [line for line in lines if line in EXPECTED] == EXPECTED
    assert list((tmp_path / "counts").glob("*prog.cover"))


@pytest.mark.once
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_valgrind(tmp_path: Path) -> None:
    """Valgrind takes away the page by which the system tells the time."""
    (tmp_path / "prog.py").write_text(PROGRAM)
    valgrind = ["valgrind", "--quiet", "--tool=none", "--trace-children=yes"]
    done = subprocess.run(
        [*valgrind, sys.executable, *PACKAGE, "prog.py", "an", "argument"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * LIMIT,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.splitlines() == EXPECTED


@pytest.mark.parametrize("alter_sys", [False, True])
def test_a_program_that_runs_the_package(tmp_path: Path, alter_sys: bool) -> None:
    """The program goes on afterwards, with its own `__main__`."""
    code = f"""
import runpy, sys
def own(): pass
if __name__ == "__main__":
    sys.argv = ["x", "prog.py", "an", "argument"]
    runpy.run_module("concurrent_futures", run_name="__main__", alter_sys={alter_sys})
    assert sys.modules["__main__"].own is own
    print("and on")
"""
    (tmp_path / "outer.py").write_text(code)
    assert output(tmp_path, ["outer.py"]) == [*EXPECTED, "and on"]


def test_the_exception_of_a_program_reaches_its_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prog.py").write_text("raise LookupError('from the program')")
    main = sys.modules["__main__"]
    hook = sys.excepthook
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "prog.py")])
    monkeypatch.setattr(sys, "path", [*sys.path])
    import concurrent_futures

    try:
        with pytest.raises(LookupError, match="from the program"):
            runpy.run_module("concurrent_futures", run_name="__main__")
    finally:
        concurrent_futures.uninstall()
    assert sys.modules["__main__"] is main
    assert sys.excepthook is hook


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import PackageNotFoundError, version

    import concurrent_futures

    assert concurrent_futures.__version__.count(".") == 2
    try:
        installed = version("concurrent-futures")
    except PackageNotFoundError:
        pytest.skip("the package is not installed as a distribution")
    assert concurrent_futures.__version__ == installed
