"""Tests of the time and the thread of unpickling: on arrival, by a thread of the pool, unless that
makes no difference."""

import asyncio
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, Background, eventually, prints


@pytest.fixture
def pool(lib: ModuleType, forking: Any) -> Iterator[Any]:
    """Make a pool of one process."""
    with lib.ProcessPoolExecutor(1, mp_context=forking) as made:
        yield made


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_a_result_that_its_worker_serves_is_there_after_the_end_of_the_pool(
    lib: ModuleType, start: str
) -> None:
    context = multiprocessing.get_context(start)
    with lib.ProcessPoolExecutor(1, mp_context=context) as pool:
        socket = pool.submit(tasks.connected_socket)
        connection = pool.submit(tasks.connection)
    with socket.result(LIMIT) as received:
        assert received.recv(10) == b"hello"
    with connection.result(LIMIT) as received:
        assert received.recv() == "hello"


def test_results_are_unpickled_once_by_a_thread_of_the_pool(pool: Any) -> None:
    future = pool.submit(tasks.Pid)
    results = [Background(future.result, LIMIT) for _ in range(4)]
    first = future.result(LIMIT)
    assert all(result.outcome() is first for result in results)
    assert first.thread != threading.current_thread().name


def test_a_future_is_done_when_its_result_was_unpickled(
    pool: Any, running: tasks.Flag, release: tasks.Flag
) -> None:
    future = pool.submit(tasks.UnpicklesWhen, running, release)
    running.wait()
    assert not future.done()
    assert future.running()
    assert not future.cancel()
    with pytest.raises(TimeoutError):
        future.result(0)
    release.set()
    assert future.result(LIMIT) == "unpickled"


def test_results_that_take_long_to_unpickle_do_not_delay_those_that_are_plain(
    package: ModuleType, forking: Any, running: tasks.Flag, release: tasks.Flag
) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking, task_timeout=LIMIT) as pool:
        slow = pool.submit(tasks.UnpicklesWhen, running, release)
        running.wait()
        assert pool.submit(abs, -1).result(LIMIT) == 1
        called = threading.Event()
        pool.submit(abs, -2).add_done_callback(lambda _: called.set())
        assert called.wait(LIMIT)
        assert not slow.done()
        release.set()
        assert slow.result(LIMIT) == "unpickled"


def test_a_time_limit_ends_a_task_while_a_result_is_being_unpickled(
    package: ModuleType, forking: Any, running: tasks.Flag, release: tasks.Flag
) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        slow = pool.submit(tasks.UnpicklesWhen, running, release)
        running.wait()
        late = pool.options(timeout=0.05).submit(tasks.Flag.wait, release)
        assert isinstance(late.exception(LIMIT), package.TaskTimeoutError)
        release.set()
        assert slow.result(LIMIT) == "unpickled"


def test_the_end_of_a_pool_waits_for_results_that_are_being_unpickled(
    lib: ModuleType, forking: Any, running: tasks.Flag, release: tasks.Flag
) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    future = pool.submit(tasks.UnpicklesWhen, running, release)
    running.wait()
    end = Background(pool.shutdown)
    release.set()
    end.outcome()
    assert future.done()
    assert future.result() == "unpickled"


def test_a_callback_of_a_future_sees_its_unpickled_result(pool: Any) -> None:
    seen: list[Any] = []
    future = pool.submit(tasks.Pid)
    future.add_done_callback(lambda done: seen.append(done.result()))
    eventually(lambda: seen)
    assert seen[0] is future.result(LIMIT)


def test_asyncio_finds_results_unpickled(pool: Any) -> None:
    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, tasks.Pid)

    assert asyncio.run(main()).thread != threading.current_thread().name


def test_a_result_that_cannot_be_unpickled_breaks_the_pool_though_nobody_asks(pool: Any) -> None:
    future = pool.submit(tasks.identity, 1)
    assert future.result(LIMIT) == 1
    pool.submit(tasks.OnUnpickling, "raise")
    eventually(lambda: pool._broken)


def test_unpickling_a_result_may_shut_the_pool_down(package: ModuleType) -> None:
    code = """
        import multiprocessing, threading, tasks
        context = multiprocessing.get_context("fork")
        pool = futures.ProcessPoolExecutor(1, mp_context=context)
        class Ends:
            def __setstate__(self, state):
                pool.shutdown()
        Ends.__getstate__ = lambda self: {"a": 1}
        future = pool.submit(Ends)
        print(type(future.result()).__name__)
        pool.shutdown()
    """
    assert prints(package, code, forks=True) == "Ends\n"


@pytest.mark.parametrize(
    "error",
    [ValueError("text", 7, b"bytes"), tasks.DetailedError(2, "reason"), OSError(2, "no such file")],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_arrive_as_they_were(pool: Any, error: BaseException) -> None:
    raised = pool.submit(tasks.fail, error).exception(LIMIT)
    assert type(raised) is type(error)
    assert raised.args == error.args


def test_an_interrupted_wait_loses_no_result(pool: Any) -> None:
    future = pool.submit(tasks.Pid)
    for _ in range(3):
        try:
            future.result(0)
        except TimeoutError:
            continue
    assert isinstance(future.result(LIMIT), tasks.Pid)


def test_results_of_a_pool_that_is_gone_are_still_unpickled(lib: ModuleType, forking: Any) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    future = pool.submit(tasks.Pid)
    del pool
    assert isinstance(future.result(LIMIT), tasks.Pid)


@pytest.mark.parametrize("size", [1, 2])
def test_results_of_map_that_their_worker_serves_are_there_after_the_end_of_the_pool(
    lib: ModuleType, forking: Any, size: int
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        results = pool.map(tasks.served_socket, range(5), chunksize=size)
    received = list(results)
    for socket in received:
        with socket:
            assert socket.recv(10) == b"hello"


def test_results_of_map_are_unpickled_by_a_thread_of_the_pool(pool: Any) -> None:
    results = list(pool.map(tasks.pid_or_number, range(40)))
    assert [result for result in results if isinstance(result, int)] == list(range(0, 40, 2))
    others = [result for result in results if not isinstance(result, int)]
    assert len(others) == 20
    assert threading.current_thread().name not in {other.thread for other in others}


def test_a_result_of_map_that_cannot_be_unpickled_breaks_the_pool_though_nobody_asks(
    pool: Any,
) -> None:
    results = pool.map(tasks.cannot_arrive, range(3))
    eventually(lambda: pool._broken)
    assert next(results) == 0
    with pytest.raises(BrokenProcessPool):
        next(results)


def test_errors_of_map_arrive_as_they_were(pool: Any) -> None:
    results = pool.map(tasks.fail_by_number, range(4))
    assert next(results) == 0
    with pytest.raises(tasks.DetailedError) as info:
        next(results)
    assert (info.value.code, info.value.reason) == (1, "reason")


def test_a_map_with_a_time_limit_waits_for_results_that_are_being_unpickled(
    pool: Any, running: tasks.Flag, release: tasks.Flag
) -> None:
    results = pool.map(tasks.UnpicklesWhen, [running], [release], timeout=0.2)
    running.wait()
    with pytest.raises(TimeoutError):
        next(results)
    release.set()
