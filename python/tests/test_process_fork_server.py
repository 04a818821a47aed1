"""Tests of ``multiprocessing``'s fork server as pools leave it."""

from pathlib import Path
from types import ModuleType

import pytest

from test_process_programs import ended, start

# The program says how many threads the fork server has, and which modules it was told to load.
PROGRAM = """
import {library} as futures
import multiprocessing, os
from multiprocessing import forkserver

def look():
    return __name__, len(os.listdir(f"/proc/{{os.getppid()}}/task"))

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    {setting}
    with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        name, threads = pool.submit(look).result()
    print(name, threads, forkserver._forkserver._preload_modules)
"""


def outcome(folder: Path, lib: ModuleType, setting: str) -> str:
    """Runs the program; returns what it prints."""
    path = folder / "program.py"
    path.write_text(PROGRAM.format(library=lib.__name__, setting=setting))
    code, out, err = ended(start([str(path)], cwd=folder))
    assert (code, err) == (0, "")
    return out


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("", ["__main__"]),
        ("context.set_forkserver_preload(['json', '__main__'])", ["json", "__main__"]),
    ],
    ids=["untouched", "set-by-the-program"],
)
def test_the_fork_server_is_left_as_the_program_has_set_it(
    tmp_path: Path, lib: ModuleType, setting: str, names: list[str]
) -> None:
    assert outcome(tmp_path, lib, setting) == f"__mp_main__ 1 {names}\n"


def test_a_fork_server_that_runs_is_used(lib: ModuleType, tmp_path: Path) -> None:
    setting = "process = context.Process(target=look); process.start(); process.join()"
    assert outcome(tmp_path, lib, setting) == "__mp_main__ 1 ['__main__']\n"
