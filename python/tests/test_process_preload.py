"""Tests of the modules that the fork server loads before it forks workers."""

import concurrent.futures
import shutil
import sys
from importlib.machinery import ModuleSpec
from multiprocessing import forkserver
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from concurrent_futures import _forkserver_preload
from support import LIMIT
from test_process_programs import ended, start

PRELOADED = "concurrent_futures.process"

# The program says whether the package was there before the program itself loads it.
PROGRAM = """
import sys
was_loaded = "concurrent_futures.process" in sys.modules
import {library} as futures
import multiprocessing, os, time
from multiprocessing import forkserver

def look():
    return was_loaded, __name__

def count(folder):
    return len(os.listdir(f"/proc/{{forkserver._forkserver._forkserver_pid}}/{{folder}}"))

def files(most, seconds):
    # The server closes something more when it has noticed that a worker has ended.
    end = time.monotonic() + seconds
    found = count("fd")
    while found > most and time.monotonic() < end:
        time.sleep(0.01)
        found = min(found, count("fd"))
    return found

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    {setting}
    with futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        print(*pool.submit(look).result())
    {afterwards}
"""


def outcome(
    folder: Path,
    setting: str = "",
    afterwards: str = "",
    *,
    lib: ModuleType = concurrent_futures,
    cwd: Path | None = None,
    options: tuple[str, ...] = (),
) -> str:
    """Runs the program; returns what it prints."""
    path = folder / "program.py"
    path.write_text(PROGRAM.format(library=lib.__name__, setting=setting, afterwards=afterwards))
    code, out, err = ended(start([*options, str(path)], cwd=cwd or folder))
    assert (code, err) == (0, "")
    return out


before_main_is_loaded = pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="the fork server loads the main program first, and the package with it",
)


@before_main_is_loaded
def test_workers_find_the_package_loaded(tmp_path: Path) -> None:
    assert outcome(tmp_path) == "True __mp_main__\n"


def test_preloaded_modules_of_the_user_come_first_and_stay(tmp_path: Path) -> None:
    (tmp_path / "of_the_user.py").write_text(
        f"import sys\nwas_first = {PRELOADED!r} not in sys.modules\n"
        "def get():\n    return was_first\n"
    )
    setting = "names = ['of_the_user']; context.set_forkserver_preload(names)"
    afterwards = """
    with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        print(pool.submit(__import__("of_the_user").get).result())
    print(names, forkserver._forkserver._preload_modules)
    """
    out = outcome(tmp_path, setting, afterwards)
    assert out == (f"True __mp_main__\nTrue\n['of_the_user'] ['of_the_user', {PRELOADED!r}]\n")


def test_a_server_that_runs_already_is_left_alone(tmp_path: Path) -> None:
    setting = "process = context.Process(target=look); process.start(); process.join()"
    assert outcome(tmp_path, setting) == "False __mp_main__\n"


@before_main_is_loaded
def test_the_server_has_no_more_threads_and_open_files_for_it(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    afterwards = "print(count('task'), files(0, 1))"
    without = outcome(theirs, "", afterwards, lib=concurrent.futures).split()
    assert without[:3] == ["False", "__mp_main__", "1"]
    afterwards = f"print(count('task'), files({without[3]}, {LIMIT}))"
    assert outcome(ours, "", afterwards).split() == ["True", *without[1:]]


@before_main_is_loaded
def test_modules_in_the_working_directory_are_not_taken_for_the_librarys(tmp_path: Path) -> None:
    # The server looks there first, the program does not.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "queue.py").write_text("raise RuntimeError('not this one')\n")
    assert outcome(tmp_path, cwd=elsewhere) == "False __mp_main__\n"
    # Told not to look there, it does not.
    assert outcome(tmp_path, cwd=elsewhere, options=("-P",)) == "True __mp_main__\n"


def test_a_package_that_the_server_would_not_find_is_not_looked_for(tmp_path: Path) -> None:
    # The program has added the folder to its own path.
    folder = tmp_path / "folder"
    shutil.copytree(Path(concurrent_futures.__file__).parent, folder / "concurrent_futures")
    path = tmp_path / "program.py"
    code = PROGRAM.format(library="concurrent_futures", setting="", afterwards="")
    path.write_text(f"import sys\nsys.path.insert(0, {str(folder)!r})\n{code}")
    assert ended(start([str(path)], cwd=tmp_path)) == (0, "False __mp_main__\n", "")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Returns the fork server before any setting, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    server: Any = vars(forkserver)["_forkserver"]
    monkeypatch.setattr(server, "_preload_modules", ["__main__"])
    return server


def test_it_is_told_once(server: Any) -> None:
    _forkserver_preload.preload()
    _forkserver_preload.preload()
    assert server._preload_modules == ["__main__", PRELOADED]


def test_it_is_told_nothing_if_the_program_has_a_module_of_its_own_for_the_librarys(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("queue")
    module.__spec__ = ModuleSpec("queue", None, origin="/of/the/program/queue.py")
    monkeypatch.setitem(sys.modules, "queue", module)
    _forkserver_preload.preload()
    assert server._preload_modules == ["__main__"]


@pytest.mark.parametrize(
    ("name", "value"), [("_preload_on_error", "fail"), ("_preload_modules", None)]
)
def test_an_unknown_fork_server_is_left_alone(
    server: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(server, name, value, raising=False)
    before = server._preload_modules
    _forkserver_preload.preload()
    assert server._preload_modules is before


def test_a_working_directory_that_is_gone_does_no_harm(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    _forkserver_preload.preload()
    assert server._preload_modules == ["__main__"]
