"""Dumps of programs whose workers have interpreters of their own."""

from __future__ import annotations

import sys

import pytest

if sys.version_info < (3, 14):
    pytest.skip("CPython has pools of interpreters from version 3.14 on", allow_module_level=True)

import _thread
import functools
import importlib
import io
import os
import re
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import concurrent_futures as cf
import interpreter_tasks as tasks
from interpreter_support import pool_of, run
from support import LIMIT, Background, eventually

#: The line of a worker that runs a task, with the function's name if there is one.
RUNS = re.compile(r"^  thread 0x[0-9a-f]+ \((.+)\) runs task #\d+(?: \((.+)\))? for", re.MULTILINE)


#: CPython 3.15 and newer read the stacks beside other interpreters; on Linux any process may.
reads_stacks = pytest.mark.skipif(
    sys.version_info < (3, 15) or sys.platform != "linux",
    reason="CPython does not read the stacks beside other interpreters",
)


def dumped() -> str:
    out = io.StringIO()
    cf.dump(out)
    return out.getvalue()


class Pipes:
    """Two pipes, which all interpreters share: by one, a call reports that it has begun."""

    def __init__(self) -> None:
        self._begun, self.begun = os.pipe()
        self.go, self._go = os.pipe()

    def await_begin(self) -> None:
        assert os.read(self._begun, 1) == b"b"

    def end(self) -> None:
        os.write(self._go, b"e")

    def close(self) -> None:
        for fd in (self._begun, self.begun, self.go, self._go):
            os.close(fd)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close()


def hold_as_code(begun: int, go: int) -> bytes:
    """Waits in a worker; goes there as code, as this module is none of its interpreter."""
    import os

    os.write(begun, b"b")
    return os.read(go, 1)


def make_local_hold() -> Callable[[int, int], bytes]:
    def hold(begun: int, go: int) -> bytes:
        import os

        os.write(begun, b"b")
        return os.read(go, 1)

    return hold


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (tasks.hold, "interpreter_tasks.hold"),
        (hold_as_code, "test_dump_interpreters.hold_as_code"),
        (make_local_hold(), "test_dump_interpreters.make_local_hold.<locals>.hold"),
        (functools.partial(tasks.hold), "interpreter_tasks.hold"),
        (tasks.Holder().hold, "interpreter_tasks.Holder.hold"),
        (tasks.Holder(), "Holder"),
    ],
    ids=["name", "code", "local", "partial", "method", "object"],
)
@pytest.mark.parametrize("by_map", [False, True])
def test_the_function_of_an_interpreter_is_named(
    pipes: Pipes, function: Callable[[int, int], bytes], name: str, by_map: bool
) -> None:
    with pool_of(cf, thread_name_prefix="own") as pool:
        # The second time, the interpreter knows the function.
        for _ in range(2):
            if by_map:
                results = pool.map(function, [pipes.begun], [pipes.go])
            else:
                running = pool.submit(function, pipes.begun, pipes.go)
            try:
                pipes.await_begin()
                text = dumped()
            finally:
                pipes.end()
            assert RUNS.findall(text) == [("own_0", name)]
            assert (next(results) if by_map else running.result(LIMIT)) == b"e"
        assert pool.submit(abs, -1).result(LIMIT) == 1
    assert RUNS.findall(dumped()) == []


def stacks_in(text: str) -> dict[str, str]:
    """Return the stacks in a dump by the names of the threads."""
    return dict(re.findall(r"^Thread 0x\w+ \((.+?)\).*:\n((?:  .*\n)+)", text, re.MULTILINE))


def missing_in(text: str) -> list[str]:
    """Return the lines that tell why stacks are missing."""
    return re.findall(r"^The stacks of other threads are missing: (.+)\.$", text, re.MULTILINE)


@reads_stacks
def test_stacks_are_those_of_the_threads_of_this_interpreter(pipes: Pipes) -> None:
    with pool_of(cf, thread_name_prefix="own") as pool:
        running = pool.submit(tasks.hold, pipes.begun, pipes.go)
        try:
            pipes.await_begin()
            text = dumped()
        finally:
            pipes.end()
        assert running.result(LIMIT) == b"e"
    stacks = stacks_in(text)
    own = "in test_stacks_are_those_of_the_threads_of_this_interpreter\n    text = dumped()\n"
    assert own in stacks["MainThread"]
    assert "in dumped\n    cf.dump(out)\n" in stacks["MainThread"].split(own)[1]
    assert "in run_worker\n" in stacks["own_0"]
    assert "in hold\n" not in text
    assert missing_in(text) == []


@reads_stacks
def test_a_thread_that_threading_does_not_know_has_its_number_of_the_system(pipes: Pipes) -> None:
    natives: SimpleQueue[int] = SimpleQueue()
    end = threading.Lock()

    def run_unknown() -> None:
        natives.put(threading.get_native_id())
        with end:
            natives.put(0)

    with pool_of(cf) as pool, end:
        running = pool.submit(tasks.hold, pipes.begun, pipes.go)
        _thread.start_new_thread(run_unknown, ())
        native = natives.get(timeout=LIMIT)
        try:
            pipes.await_begin()
            text = dumped()
        finally:
            pipes.end()
        assert running.result(LIMIT) == b"e"
    assert natives.get(timeout=LIMIT) == 0
    stack = text.split(f"\nThread of the system, number {native}:\n")[1].split("\n\n")[0]
    assert "run_unknown\n    with end:" in stack


@pytest.mark.parametrize("failures", [1, sys.maxsize])
@reads_stacks
def test_stacks_that_cannot_be_read_are_read_again_and_then_missing(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    reader = importlib.import_module("_remote_debugging")
    make_unwinder = reader.RemoteUnwinder
    calls = 0

    def fail_at_first(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise RuntimeError("the frames\ndo not fit together")
        return make_unwinder(*args, **kwargs)

    monkeypatch.setattr(reader, "RemoteUnwinder", fail_at_first)
    text = dumped_beside_a_worker(pipes)
    if failures == 1:
        assert calls >= 2
        assert set(stacks_in(text)) == {"MainThread", "own_0"}
        assert missing_in(text) == []
    else:
        assert 2 < calls < 100
        assert_only_own_stack(text)
        (reason,) = missing_in(text)
        assert reason == "they cannot be read (the frames do not fit together)"


@pytest.mark.parametrize("form", ["absent", "without interpreters"])
def test_stacks_are_missing_if_cpython_has_no_reader_for_them(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    # As it is in CPython 3.14, whose reader knows the newest interpreter only.
    reader = None if form == "absent" else types.ModuleType("_remote_debugging")
    monkeypatch.setitem(sys.modules, "_remote_debugging", reader)
    text = dumped_beside_a_worker(pipes)
    assert_only_own_stack(text)
    (reason,) = missing_in(text)
    assert reason == "this version of CPython cannot read them beside other interpreters"


@reads_stacks
@pytest.mark.parametrize(
    "result", [None, [], [object()], [types.SimpleNamespace(interpreter_id=0)]]
)
def test_stacks_of_another_form_are_missing(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch, result: object
) -> None:
    reader = importlib.import_module("_remote_debugging")
    unwinder = types.SimpleNamespace(get_stack_trace=lambda: result)
    monkeypatch.setattr(reader, "RemoteUnwinder", lambda *_, **__: unwinder)
    text = dumped_beside_a_worker(pipes)
    assert_only_own_stack(text)
    assert len(missing_in(text)) == 1


def dumped_beside_a_worker(pipes: Pipes) -> str:
    """Return a dump made while a worker runs Python code in its interpreter."""
    with pool_of(cf, thread_name_prefix="own") as pool:
        running = pool.submit(tasks.hold, pipes.begun, pipes.go)
        try:
            pipes.await_begin()
            text = dumped()
        finally:
            pipes.end()
        assert running.result(LIMIT) == b"e"
    return text


def assert_only_own_stack(text: str) -> None:
    assert RUNS.findall(text) == [("own_0", "interpreter_tasks.hold")]
    stacks = stacks_in(text)
    assert set(stacks) == {"MainThread"}
    assert "in dumped_beside_a_worker\n    text = dumped()\n" in stacks["MainThread"]
    assert text.count("\nThread ") == 1


def test_stacks_are_all_there_after_the_last_interpreter(tmp_path: Path) -> None:
    program = """
        import io, threading
        import concurrent_futures as cf

        def wait_for_the_end():
            begun.set()
            end.wait()

        with cf.InterpreterPoolExecutor(2) as pool:
            pool.submit(abs, -1).result()
        begun, end, out = threading.Event(), threading.Event(), io.StringIO()
        with cf.ThreadPoolExecutor(1) as pool:
            pool.submit(wait_for_the_end)
            begun.wait()
            cf.dump(out)
            end.set()
        print("in wait_for_the_end\\n" in out.getvalue(), "missing:" in out.getvalue())
    """
    assert run(program, tmp_path) == ["True False"]


def test_a_function_in_c_of_an_interpreter_is_named(pipes: Pipes) -> None:
    with pool_of(cf, 2, thread_name_prefix="c") as pool:
        python = pool.submit(tasks.hold, pipes.begun, pipes.go)
        pipes.await_begin()
        in_c = pool.submit(os.read, pipes.go, 1)
        try:
            found = {name for _, name in _eventually_two()}
        finally:
            pipes.end()
            pipes.end()
        assert {python.result(LIMIT), in_c.result(LIMIT)} == {b"e"}
    assert found == {"interpreter_tasks.hold", "posix.read"}


def _eventually_two() -> list[tuple[str, str]]:
    """Return what two workers run, as soon as both call a function."""
    found: list[tuple[str, str]] = []

    def are_told() -> bool:
        found[:] = RUNS.findall(dumped())
        return len(found) == 2 and all(name for _, name in found)

    eventually(are_told)
    return found


def test_workers_without_interpreters_are_told_beside_those_with_them(pipes: Pipes) -> None:
    end = threading.Event()
    with pool_of(cf, thread_name_prefix="own") as pool, cf.ThreadPoolExecutor(1, "plain") as plain:
        calls = [pool.submit(tasks.hold, pipes.begun, pipes.go), plain.submit(end.wait)]
        pipes.await_begin()
        try:
            found = dict(_eventually_two())
        finally:
            pipes.end()
            end.set()
        assert [call.result(LIMIT) for call in calls] == [b"e", True]
    assert found == {"own_0": "interpreter_tasks.hold", "plain_0": "threading.Event.wait"}


@pytest.mark.parametrize("by_standard_way", [False, True])
def test_dumps_beside_calls_of_interpreters(by_standard_way: bool) -> None:
    # A partial object is pickled for each call.
    function = functools.partial(tasks.add_one) if by_standard_way else tasks.add_one
    is_over = threading.Event()

    def dump_again_and_again() -> set[str]:
        names: set[str] = set()
        # Without the interpreter lock, a dump stops all threads. Between two dumps they go on.
        while not is_over.wait(0.001):
            names.update(name for _, name in RUNS.findall(dumped()))
        return names

    with pool_of(cf, 3) as pool:
        dumps = [Background(dump_again_and_again) for _ in range(2)]
        try:
            for _ in range(5):
                results = list(pool.map(function, range(20), timeout=LIMIT))
                assert results == list(range(1, 21))
        finally:
            is_over.set()
        for names in dumps:
            # Between two calls, a worker has a task and no function.
            assert names.outcome() <= {"", "interpreter_tasks.add_one"}


def test_dumps_beside_interpreters_that_begin_and_end() -> None:
    is_over = threading.Event()

    def dump_again_and_again() -> None:
        while not is_over.wait(0.001):
            dumped()

    dumps = Background(dump_again_and_again)
    try:
        for _ in range(3):
            with pool_of(cf, 2) as pool:
                assert list(pool.map(tasks.add_one, range(10), timeout=LIMIT)) == [*range(1, 11)]
    finally:
        is_over.set()
    dumps.outcome()
    assert RUNS.findall(dumped()) == []
