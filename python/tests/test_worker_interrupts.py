"""Interrupts in worker processes that start threads, at whatever moment of their life."""

import multiprocessing
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support import LIMIT, environment

pytestmark = pytest.mark.skipif(
    not hasattr(multiprocessing, "get_all_start_methods") or sys.platform == "win32",
    reason="interrupts are signals of Unix",
)

METHODS = multiprocessing.get_all_start_methods()

# `begin` starts threads of a pool that lives as long as the worker.
PROGRAM = """
import faulthandler, multiprocessing, os, signal, sys, threading, warnings
import {library} as futures
from support import until_asleep
from types import SimpleNamespace
warnings.simplefilter("ignore", DeprecationWarning)

def begin(*_):
    begin.pool = futures.ThreadPoolExecutor(2)
    begin.pool.submit(int).result()

class Unpickled:
    def __reduce__(self):
        return begin, ()

def interrupted():
    signal.raise_signal(signal.SIGINT)
    return "ignored"

def begin_and_be_interrupted():
    begin()
    return interrupted()

def interrupt_the_main_thread():
    # An interrupt in the middle of `submit` can leave a lock of the standard library locked.
    until_asleep(SimpleNamespace(native_id=os.getpid()))
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

def be_interrupted_while_waiting():
    begin.pool.submit(interrupt_the_main_thread)
    return threading.Event().wait({limit}) or "ignored"

def nothing(*_):
    pass

def main():
    faulthandler.dump_traceback_later({limit}, exit=True)
    context = multiprocessing.get_context({method!r})
    settings = {{}}
    {preparation}
    with futures.ProcessPoolExecutor(1, context, **settings) as pool:
        for _ in range(2):
            for task in {tasks}:
                error = pool.submit(task).exception()
                print(type(error).__name__)
        print(pool.submit(abs, -7).result())

if __name__ == "__main__":
    main()
"""

# The ways in which a worker starts a thread before or in its first task.
WAYS = {
    "a hook after forks": "os.register_at_fork(after_in_child=begin)",
    "a hook of multiprocessing": (
        "from multiprocessing.util import register_after_fork; register_after_fork(main, begin)"
    ),
    "the initializer": "settings.update(initializer=begin)",
    "unpickling": "settings.update(initializer=nothing, initargs=(Unpickled(),))",
    "a task": "",
}


def run(lib: ModuleType, method: str, way: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    tasks = "[interrupted, be_interrupted_while_waiting]"
    if way == "a task":
        tasks = "[begin_and_be_interrupted, be_interrupted_while_waiting]"
    text = PROGRAM.format(
        library=lib.__name__, method=method, preparation=WAYS[way], tasks=tasks, limit=LIMIT
    )
    path = folder / "program.py"
    path.write_text(text)
    return subprocess.run(
        [sys.executable, str(path)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
        check=False,
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_reaches_the_task_of_a_worker_with_threads(
    lib: ModuleType, method: str, way: str, tmp_path: Path
) -> None:
    if method != "fork" and "hook" in way:
        pytest.skip("such a worker does not have the hooks of its parent")
    if method == "fork" and way == "unpickling":
        pytest.skip("such a worker unpickles nothing before its first task")
    ended = run(lib, method, way, tmp_path)
    assert (ended.stdout, ended.stderr) == ("KeyboardInterrupt\n" * 4 + "7\n", "")
    assert ended.returncode == 0
