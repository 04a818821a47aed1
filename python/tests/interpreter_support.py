"""Helpers of the tests of `InterpreterPoolExecutor`, for CPython 3.14 and newer."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import interpreter_tasks as tasks
from support import LIMIT

FOLDER = str(Path(__file__).parent)
SECONDS = int(LIMIT)
# Modules that other versions of CPython do not have.
interpreters: Any = importlib.import_module("concurrent.interpreters")
stdlib: Any = importlib.import_module("concurrent.futures.interpreter")
NotShareableError = interpreters.NotShareableError


def pool_of(lib: Any, workers: int = 1, **options: Any) -> Any:
    """A pool whose workers find the functions in `interpreter_tasks`."""
    return lib.InterpreterPoolExecutor(
        workers, initializer=tasks.use_folder, initargs=(FOLDER,), **options
    )


def ids() -> set[int]:
    return {each.id for each in interpreters.list_all()}


def run(program: str, folder: Path) -> list[str]:
    """Runs a program, and returns the lines that it prints."""
    file = folder / "program.py"
    file.write_text(textwrap.dedent(program))
    ended = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()
