"""Runs whole programs both ways: under `python`, and under `python -m concurrent_futures`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent

WAYS = {"python": [], "package": ["-m", "concurrent_futures"]}

# Time limit of a program in seconds. Long, for the machine may be busy: then it hangs.
LIMIT = 60


@dataclass(frozen=True)
class Ended:
    """The results of a program that has ended."""

    pid: int
    code: int
    lines: list[str]
    errors: str
    folder: Path
    server: str


@dataclass(frozen=True)
class Program:
    """A program, and the known parts of its output."""

    file: Path
    facts: Callable[[Ended], None]
    arguments: tuple[str, ...] = ()
    second: float = 0.05
    ordered: bool = False
    free: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()

    def comparable(self, ended: Ended) -> list[str]:
        """Returns the lines without the parts that are left to chance."""
        lines = ended.lines
        for pattern, replacement in self.free:
            lines = [re.sub(pattern, replacement, line) for line in lines]
        return lines if self.ordered else sorted(lines)


def run(
    program: Program, way: str, folder: Path, server: str, start_method: str | None = None
) -> Ended:
    """Runs a program in a new folder, and waits for its end and that of its processes."""
    folder.mkdir()
    for name in program.folders:
        (folder / name).mkdir()
    environment = os.environ | {
        "EXAMPLES_SERVER": server,
        "EXAMPLES_SECOND": str(program.second),
        "PYTHONPATH": str(TESTS / "quick"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "no_proxy": "127.0.0.1",
    }
    if start_method is not None:
        environment["EXAMPLES_START_METHOD"] = start_method
    process = subprocess.Popen(
        [sys.executable, *WAYS[way], str(program.file), *program.arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        # The signal makes them tell where their threads are.
        os.killpg(process.pid, signal.SIGABRT)
        output, errors = process.communicate()
        pytest.fail(f"{program.file} hangs under {way}:\n{output}\n{errors}")
    return Ended(process.pid, process.returncode, output.splitlines(), errors, folder, server)


def position(lines: list[str], line: str) -> int:
    """Returns the place of a line, which must be there once."""
    assert lines.count(line) == 1, (line, lines)
    return lines.index(line)


def assert_same_both_ways(
    program: Program, folder: Path, server: str, start_method: str | None = None
) -> None:
    ended = {way: run(program, way, folder / way, server, start_method) for way in WAYS}
    for one in ended.values():
        assert (one.code, one.errors) == (0, "")
        program.facts(one)
    assert program.comparable(ended["python"]) == program.comparable(ended["package"])
