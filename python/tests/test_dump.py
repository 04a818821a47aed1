"""Dumps of programs that stand still: `dump()` and `register_dump()`."""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

import concurrent_futures as cf
import tasks
from concurrent_futures import ProcessPoolExecutor, ThreadPoolExecutor
from support import LIMIT, environment, eventually, held


def dumped() -> str:
    out = io.StringIO()
    cf.dump(out)
    return out.getvalue()


def wait_for_the_end(event: threading.Event) -> None:
    event.wait()


def test_running_idle_and_pending_are_told() -> None:
    with ThreadPoolExecutor(2, thread_name_prefix="told") as pool:
        begun, end = threading.Event(), threading.Event()
        assert pool.submit(pow, 2, 3).result(LIMIT) == 8
        dumped()

        def hold() -> None:
            begun.set()
            wait_for_the_end(end)

        first = pool.submit(hold)
        begun.wait()
        second = pool.submit(end.wait)
        pending = [pool.submit(pow, 2, 3) for _ in range(3)]
        eventually(lambda: pool.stats().running == 2)
        text = dumped()
        end.set()
        first.result(LIMIT)
        assert second.result(LIMIT)
        for future in pending:
            future.result(LIMIT)
    assert ": 2 of 2 workers, pending tasks: 3" in text
    assert re.search(r"\(told_0\) runs task #\d+ \(test_dump\..*\.hold\) for", text)
    assert re.search(r"\(told_1\) runs task #\d+ \(threading.Event.wait\) for", text)
    assert "wait_for_the_end" in text
    assert "(MainThread) (this one):" in text


def test_the_time_of_a_task_from_before_is_a_lower_bound() -> None:
    program = """
        import io, threading
        import concurrent_futures as cf

        with cf.ThreadPoolExecutor(1) as pool:
            begun, end = threading.Event(), threading.Event()
            pool.submit(lambda: (begun.set(), end.wait()))
            begun.wait()
            for _ in range(2):
                out = io.StringIO()
                cf.dump(out)
                line = next(line for line in out.getvalue().split("\\n") if "runs task" in line)
                print(line.split(" for ")[1].rpartition(" ")[0].rpartition(" ")[0])
            end.set()
            pool.submit(begun.clear).result()
            pool.submit(lambda: (begun.set(), end.wait()))
            end.clear()
            pool.submit(end.wait)
            cf.dump(out)
            end.set()
    """
    done = run(program)
    assert done.stdout.split("\n")[:2] == ["at least", "at least"]


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment(),
        timeout=LIMIT,
        capture_output=True,
        text=True,
        check=True,
    )


def test_waits_of_tasks_are_told() -> None:
    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
        end = threading.Event()
        awaited = other.submit(end.wait)
        queued = other.submit(pow, 2, 3)
        waiting = pool.submit(lambda: [awaited.result(), queued.result()])
        eventually(lambda: "\n    waits for task #" in dumped())
        text = dumped()
        end.set()
        assert waiting.result(LIMIT) == [True, 8]
    assert "\n    waits for task #" in text
    assert "(running in pool" in text


class Holder:
    """Something to call."""

    def __call__(self, end: threading.Event) -> None:
        end.wait()

    def method(self, end: threading.Event) -> None:
        end.wait()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda end: functools.partial(threading.Event.wait, end), "threading.Event.wait"),
        (lambda end: functools.partial(Holder().method, end), "test_dump.Holder.method"),
        (lambda end: functools.partial(Holder(), end), "Holder"),
        # A function in C has no frame.
        (lambda end: _after(end).get, "SimpleQueue.get"),
    ],
    ids=["partial", "partial method", "partial object", "function in C"],
)
def test_the_function_of_a_thread_is_named(
    call: Callable[[threading.Event], Callable[[], object]], name: str
) -> None:
    end = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(call(end))
        try:
            eventually(lambda: f"({name}) for" in dumped())
        finally:
            end.set()
        task.result(LIMIT)
        assert pool.submit(pow, 2, 3).result(LIMIT) == 8
    assert f"({name})" not in dumped()


def _after(end: threading.Event) -> SimpleQueue[bool]:
    """Return a queue that gets an item after the event."""
    queue: SimpleQueue[bool] = SimpleQueue()
    threading.Thread(target=lambda: queue.put(end.wait()), daemon=True).start()
    return queue


@pytest.mark.parametrize("kind", ["partial", "method", "object"])
def test_the_function_of_a_worker_process_is_named(tmp_path: Path, kind: str) -> None:
    holder = tasks.HoldsAt(str(tmp_path))
    calls: dict[str, tuple[Callable[[], int], str]] = {
        "partial": (functools.partial(tasks.hold_at, str(tmp_path)), "tasks.hold_at"),
        "method": (holder.hold, "tasks.HoldsAt.hold"),
        "object": (holder, "HoldsAt"),
    }
    call, name = calls[kind]
    with ProcessPoolExecutor(1) as pool:
        begun, end = tasks.Flag(tmp_path / "begun"), tasks.Flag(tmp_path / "end")
        running = pool.submit(call)
        begun.wait()
        text = dumped()
        end.set()
        running.result(LIMIT)
    assert re.search(rf"runs task #\d+ \({name}\) for", text)


@pytest.mark.parametrize("by_map", [False, True])
def test_worker_processes_and_their_tasks_are_told(tmp_path: Path, by_map: bool) -> None:
    with ProcessPoolExecutor(1) as pool:
        begun, end = tasks.Flag(tmp_path / "begun"), tasks.Flag(tmp_path / "end")
        if by_map:
            results = pool.map(functools.partial(tasks.hold_at), [str(tmp_path)])
        else:
            running = pool.submit(tasks.hold_at, str(tmp_path))
        begun.wait()
        text = dumped()
        end.set()
        pid = next(results) if by_map else running.result(LIMIT)
    assert re.search(rf"process {pid} runs task #\d+ \(tasks.hold_at\)", text)
    # No signal was sent, for which the worker is not prepared.
    assert "Stacks of the worker" not in text


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "dump"
    with path.open("w") as file:
        cf.register_dump(signal.SIGUSR1, file)
        yield path
        cf.unregister_dump()


def test_a_signal_writes_stacks_and_pools(registered: Path) -> None:
    with ThreadPoolExecutor(1) as pool, held(pool):
        os.kill(os.getpid(), signal.SIGUSR1)
        eventually(lambda: "runs task #" in registered.read_text())
        text = registered.read_text()
    # From faulthandler.
    assert "Current thread 0x" in text
    assert "test_a_signal_writes_stacks_and_pools" in text
    assert "Pools of concurrent_futures" in text


# A fork server is started once in this process, perhaps before: it has its environment.
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_stacks_of_worker_processes(registered: Path, tmp_path: Path, method: str) -> None:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        begun, end = tasks.Flag(tmp_path / "begun"), tasks.Flag(tmp_path / "end")
        running = pool.submit(tasks.hold, begun, end)
        begun.wait()
        for _ in range(3):
            text = dumped()
            assert "Stacks of the worker process" in text
            assert "tasks.py" in text.split("Stacks of the worker process")[1]
        os.kill(os.getpid(), signal.SIGUSR1)
        eventually(lambda: "Stacks of the worker process" in registered.read_text())
        assert "tasks.py" in registered.read_text().split("Stacks of the worker process")[1]
        end.set()
        pid = running.result(LIMIT)
        # The worker has survived.
        assert pool.submit(tasks.pid).result(LIMIT) == pid


def test_a_worker_that_does_not_answer_is_told(registered: Path, tmp_path: Path) -> None:
    # Not by a fork server, as above; from CPython 3.14 on, that is the default.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        begun, end = tasks.Flag(tmp_path / "begun"), tasks.Flag(tmp_path / "end")
        running = pool.submit(tasks.hold, begun, end)
        begun.wait()
        (pid,) = pool._processes
        os.kill(pid, signal.SIGSTOP)
        text = dumped()
        os.kill(pid, signal.SIGCONT)
        assert f"process {pid} has not answered" in text
        end.set()
        assert running.result(LIMIT) == pid


def test_a_program_that_stands_still_with_the_interpreters_lock(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    program = f"""
        import signal, threading, ctypes
        import concurrent_futures as cf

        cf.register_dump(signal.SIGUSR1, open({str(path)!r}, "w"))
        with cf.ThreadPoolExecutor(1) as pool:
            begun = threading.Event()
            pool.submit(lambda: (begun.set(), threading.Event().wait()))
            begun.wait()
            print("stands still", flush=True)
            # With the lock of the interpreter, for ever.
            ctypes.PyDLL(None).pause()
    """
    stands = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert stands.stdout is not None
        assert stands.stdout.readline() == "stands still\n"

        def is_there() -> bool:
            # The call returns after each signal, and so the program ends by and by.
            text = path.read_text()
            return "runs task #" in text and "most recent call first" in text

        os.kill(stands.pid, signal.SIGUSR1)
        eventually(is_there)
    finally:
        stands.kill()
        stands.communicate(timeout=LIMIT)


def test_unregistering_restores_the_former_handler(tmp_path: Path) -> None:
    got: list[int] = []
    former = signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    try:
        with (tmp_path / "dump").open("w") as file:
            cf.register_dump(signal.SIGUSR1, file)
            # The second call replaces the first.
            cf.register_dump(signal.SIGUSR2, file)
            os.kill(os.getpid(), signal.SIGUSR1)
            eventually(lambda: got == [signal.SIGUSR1])
            assert "CONCURRENT_FUTURES_DUMP" in os.environ
            assert cf.unregister_dump()
            assert not cf.unregister_dump()
            assert "CONCURRENT_FUTURES_DUMP" not in os.environ
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_a_signal_that_cannot_be_handled_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "dump").open("w") as file:
        for number in (0, 1_000, signal.SIGKILL, signal.SIGSEGV):
            with pytest.raises((ValueError, OSError, RuntimeError)):
                cf.register_dump(number, file)
        assert not cf.unregister_dump()


def test_a_fork_that_gets_the_signal_writes_its_stacks_only(registered: Path) -> None:
    with ThreadPoolExecutor(1) as pool, held(pool):
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        # The parent's thread has nothing to do: only what it is asked for comes.
        os.kill(os.getpid(), signal.SIGUSR1)
        eventually(lambda: "runs task #" in registered.read_text())
        text = registered.read_text()
    assert text.count("Pools of concurrent_futures") == 1
    assert text.count("Current thread 0x") == 2


def test_the_folder_is_removed_at_the_end() -> None:
    done = run(
        """
        import os, signal, sys
        import concurrent_futures as cf

        cf.register_dump(signal.SIGUSR1, sys.stdout)
        print(os.environ["CONCURRENT_FUTURES_DUMP"].split(":", 1)[1])
        """
    )
    assert not Path(done.stdout.strip()).exists()


def test_a_program_of_forkserver_workers() -> None:
    program = """
        import multiprocessing, signal, sys, os
        import concurrent_futures as cf
        import tasks

        if __name__ == "__main__":
            cf.register_dump(signal.SIGUSR1, sys.stdout)
            context = multiprocessing.get_context("forkserver")
            with cf.ProcessPoolExecutor(1, mp_context=context) as pool:
                pid = pool.submit(tasks.pid).result()
                cf.dump(sys.stdout)
                assert pool.submit(tasks.pid).result() == pid
    """
    assert "Stacks of the worker process" in run(program).stdout
