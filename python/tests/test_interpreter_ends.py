"""The ends of interpreters and of their pools."""

from __future__ import annotations

import sys

import pytest

if sys.version_info < (3, 14):
    pytest.skip("CPython has pools of interpreters from version 3.14 on", allow_module_level=True)

import gc
from pathlib import Path
from types import ModuleType
from typing import Any

import interpreter_tasks as tasks
from interpreter_support import SECONDS, ids, interpreters, pool_of, run
from support import LIMIT, eventually


def test_an_interpreter_that_ends_while_a_call_runs(lib: ModuleType) -> None:
    def wait(arrived: Any, go: Any) -> str:
        arrived.put(None)
        go.get()
        return "done"

    arrived, go = interpreters.create_queue(), interpreters.create_queue()
    before = ids()
    with pool_of(lib) as pool:
        for _ in range(3):
            future = pool.submit(wait, arrived, go)
            arrived.get(timeout=SECONDS)
            [number] = ids() - before
            with pytest.raises(interpreters.InterpreterError, match="^interpreter running$"):
                interpreters.Interpreter(number).close()
            assert interpreters.Interpreter(number).is_running()
            with pytest.raises(interpreters.InterpreterError):
                interpreters.Interpreter(number).exec("pass")
            go.put(None)
            assert future.result(LIMIT) == "done"


@pytest.mark.parametrize("calls", [0, 1, 5])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_interpreter_that_ends_between_calls(lib: ModuleType, calls: int) -> None:
    before = ids()
    with pool_of(lib) as pool:
        pool.submit(abs, 1).result(LIMIT)
        for _ in range(calls):
            assert pool.submit(tasks.echo, 1).result(LIMIT) == ((1,), {})
        [number] = ids() - before
        eventually(lambda: not interpreters.Interpreter(number).is_running())
        interpreters.Interpreter(number).close()
        for function in (tasks.echo, abs, tasks.make_closure()):
            with pytest.raises(interpreters.InterpreterNotFoundError):
                pool.submit(function, 1).result(LIMIT)
    assert ids() == before


def test_a_call_that_closes_all_interpreters(lib: ModuleType) -> None:
    before = ids()
    with pool_of(lib, 1) as pool:
        for _ in range(3):
            errors = pool.submit(tasks.close_others).result(LIMIT)
            assert "cannot destroy the current interpreter" in errors
    assert ids() == before


def test_shutting_down_closes_the_interpreters(lib: ModuleType) -> None:
    before = ids()
    pool = pool_of(lib, 3)
    futures = [pool.submit(tasks.count) for _ in range(20)]
    pool.shutdown()
    assert ids() == before
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="^cannot schedule new futures after shutdown$"):
        pool.submit(abs, 1)


def test_an_abandoned_pool_closes_its_interpreters(lib: ModuleType) -> None:
    before = ids()
    pool = pool_of(lib, 2)
    futures = [pool.submit(tasks.count) for _ in range(20)]
    del pool
    for future in futures:
        assert future.result(LIMIT) > 0
    eventually(lambda: gc.collect() >= 0 and ids() == before)


def test_cancelling_pending_calls(lib: ModuleType) -> None:
    def wait(arrived: Any, go: Any) -> None:
        arrived.put(None)
        go.get()

    arrived, go = interpreters.create_queue(), interpreters.create_queue()
    pool = pool_of(lib)
    running = pool.submit(wait, arrived, go)
    arrived.get(timeout=SECONDS)
    pending = [pool.submit(tasks.count) for _ in range(5)]
    assert pending[0].cancel()
    assert not running.cancel()
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in pending)
    go.put(None)
    assert running.result(LIMIT) is None
    pool.shutdown()


def test_the_end_of_the_program_waits_for_calls(lib: ModuleType, tmp_path: Path) -> None:
    program = f"""
    from {lib.__name__} import InterpreterPoolExecutor

    def write(number):
        import os, time
        time.sleep(0.05)
        os.write(1, b"%d\\n" % number)

    pool = InterpreterPoolExecutor(1)
    for number in range(3):
        pool.submit(write, number)
    """
    assert run(program, tmp_path) == ["0", "1", "2"]
