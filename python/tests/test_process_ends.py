"""Tests of the end of worker processes, with all effects of the standard library's, by any start
method."""

import concurrent.futures
import multiprocessing
import sys
from pathlib import Path
from types import ModuleType

import pytest

import concurrent_futures
from test_process_programs import METHODS, ended, start, write

PROGRAM = """
import atexit, ctypes, multiprocessing, os, sys, threading
from multiprocessing import util

class Finalized:
    def __init__(self, text):
        self.me = self  # Found by the garbage collector only.
        self.text = text
    def __del__(self, write=os.write):
        write(1, self.text)

class Plain:
    __slots__ = ()
    def __del__(self, write=os.write):
        write(1, b"plain")

def note(text):
    os.write(1, text.encode())

def last():
    threading.main_thread().join()
    note("a thread")

def work():
    global kept
    {work}

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(work).result()
        processes = list(pool._processes.values())
    print([process.exitcode for process in processes])
"""

# Statements of tasks that have an effect at the end of their worker.
ENDS = {
    "nothing": "pass",
    "functions": "atexit.register(note, 'first'); atexit.register(note, 'second')",
    "a function that ends it": "atexit.register(os._exit, 7)",
    "finalizers of multiprocessing": """util.Finalize(None, note, args=('late',), exitpriority=1)
    util.Finalize(None, note, args=('early',), exitpriority=10)""",
    "a thread": "threading.Thread(target=last).start()",
    "output": "sys.stdout.write('out'); sys.stderr.write('error')",
    "output of C": "ctypes.CDLL(None).printf(b'by C')",
    "a file": "kept = open('file', 'w'); kept.write('text')",
    "a file in a cycle": """kept = [open('file', 'w')]
    kept[0].write('text'); kept.append(kept)""",
    "an object with a finalizer": "kept = Finalized(b'finalized')",
    "an object without references": "kept = Plain()",
    "garbage": "Finalized(b'found')",
    "standard output of its own": """kept = sys.stdout = open('file', 'w')
    print('text')""",
    "standard output detached": "kept = sys.stdout.detach()",
    "an object with a difficult class": """class Difficult(type):
        def __getattr__(self, name):
            raise RuntimeError(name)
    kept = Difficult('Kept', (), {})()
    kept.me = kept""",
}

#: Effects at the end of an interpreter, which forks that leave at once do not have.
ONLY_SPAWNED = {
    "output of C": "by C",
    "a file": "text",
    "a file in a cycle": "text",
    "an object with a finalizer": "finalized",
    "an object without references": "plain",
    "standard output of its own": "text",
}


def outcome(lib: ModuleType, folder: Path, method: str, what: str) -> tuple[int, str, str, str]:
    """Runs the program; returns exit status, output, and what is in the file."""
    folder.mkdir()
    work = ENDS[what]
    path = write(folder, "program.py", PROGRAM.format(work=work, method=method), lib)
    code, out, err = ended(start([str(path)], cwd=folder))
    file = folder / "file"
    return code, out, err, file.read_text() if file.exists() else ""


@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("method", METHODS)
def test_workers_end_as_the_standard_librarys(tmp_path: Path, method: str, what: str) -> None:
    ours = outcome(concurrent_futures, tmp_path / "ours", method, what)
    theirs = outcome(concurrent.futures, tmp_path / "theirs", method, what)
    assert ours == theirs
    assert ours[0] == 0
    if method == "spawn" and what in ONLY_SPAWNED:
        assert ONLY_SPAWNED[what] in "".join(ours[1:])


@pytest.mark.parametrize(
    ("kept", "seen"),
    [
        ("None", "frozen"),
        ("threading.Lock()", "frozen"),
        ("Finalized()", "as ever"),
        ("open(os.devnull)", "as ever"),
        ("importlib.import_module('sqlite3')", "as ever"),
        ("importlib.import_module('numpy')", "as ever"),
    ],
)
def test_the_last_garbage_collection_is_skipped_if_it_has_no_effect(
    tmp_path: Path, kept: str, seen: str
) -> None:
    if "numpy" in kept:
        pytest.importorskip("numpy")
    # An exit function sees the objects that the collector leaves alone.
    code = f"""
    import atexit, gc, importlib, multiprocessing, os, threading

    class Finalized:
        def __del__(self):
            pass

    def look():
        os.write(1, b"frozen" if gc.get_freeze_count() else b"as ever")

    def work():
        global kept
        kept = {kept}
        atexit.register(look)

    if __name__ == "__main__":
        context = multiprocessing.get_context("spawn")
        with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            pool.submit(work).result()
    """
    path = write(tmp_path, "program.py", code, concurrent_futures)
    assert ended(start([str(path)])) == (0, seen, "")


def test_spawned_workers_load_no_executors(tmp_path: Path) -> None:
    code = """
    import multiprocessing, sys

    def loaded(names):
        return [name for name in names if name in sys.modules]

    if __name__ == "__main__":
        context = multiprocessing.get_context("spawn")
        with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            print(pool.submit(loaded, ["concurrent.futures", "logging"]).result())
            print(pool.submit(loaded, ["concurrent_futures.process"]).result())
    """
    path = write(tmp_path, "program.py", code, concurrent_futures)
    assert ended(start([str(path)])) == (0, "[]\n[]\n", "")


def test_a_shutdown_while_another_thread_submits_the_first_task() -> None:
    class Pool(concurrent_futures.ProcessPoolExecutor):
        def _supervise(self) -> None:
            # Between the two steps of the first submit.
            started = processes(self)
            self.shutdown()
            ended.extend(process.exitcode for process in started)
            super()._supervise()

    def processes(pool: Pool) -> list[multiprocessing.Process]:
        return list(pool._workers.processes.values())

    ended: list[int | None] = []
    context = multiprocessing.get_context("fork")
    pool = Pool(2, mp_context=context)
    assert pool.submit(abs, -1).result() == 1
    assert ended == [0, 0]
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, -1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_pool_that_never_got_a_task_starts_nothing() -> None:
    context = multiprocessing.get_context("fork")
    pool = concurrent_futures.ProcessPoolExecutor(2, mp_context=context)
    pool.shutdown()
    assert pool._executor_manager_thread is None
    assert not pool._workers.processes
