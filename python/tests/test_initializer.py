"""Tests of initializers, and of pools whose initializer fails."""

import logging
import threading
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, eventually, until_asleep

BROKEN = "A thread initializer failed, the thread pool is not usable anymore"


def fail(error: BaseException) -> None:
    """Raises the error."""
    raise error


def test_each_worker_is_initialized_once(lib: ModuleType) -> None:
    local = threading.local()
    called: list[tuple[int, str, int]] = []

    def initialize(name: str, number: int) -> None:
        local.name = name
        called.append((threading.get_ident(), name, number))

    barrier = threading.Barrier(3)

    def task() -> tuple[int, str]:
        barrier.wait(LIMIT)
        return threading.get_ident(), local.name

    with lib.ThreadPoolExecutor(3, initializer=initialize, initargs=("a", 1)) as pool:
        assert called == []
        for _ in range(3):
            threads = {future.result() for future in [pool.submit(task) for _ in range(3)]}
            assert threads == {(thread, name) for thread, name, _ in called}
    assert len(called) == 3
    assert {(name, number) for _, name, number in called} == {("a", 1)}


def test_tasks_wait_for_the_initializer(lib: ModuleType) -> None:
    release = threading.Event()
    with lib.ThreadPoolExecutor(1, "", release.wait, (LIMIT,)) as pool:
        future = pool.submit(int)
        [thread] = pool._threads
        until_asleep(thread)
        assert not future.done()
        release.set()
        assert future.result() == 0


def test_an_initializer_may_submit(lib: ModuleType) -> None:
    submitted: list[Any] = []

    def initialize() -> None:
        submitted.append(pool.submit(int))

    pool: Any = lib.ThreadPoolExecutor(1, initializer=initialize)
    with pool:
        assert pool.submit(abs, -1).result() == 1
        assert submitted[0].result() == 0


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_one_that_fails_breaks_the_pool(
    lib: ModuleType, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []
    with lib.ThreadPoolExecutor(1, initializer=fail, initargs=(error("no"),)) as pool:
        future = pool.submit(ran.append, 1)
        with pytest.raises(lib.BrokenExecutor, match=f"^{BROKEN}$") as caught:
            future.result(LIMIT)
        assert type(caught.value) is lib.thread.BrokenThreadPool
        assert isinstance(caught.value, RuntimeError)
        assert future._state == "FINISHED"
        eventually(lambda: pool._broken)
        assert pool._broken == BROKEN
        for _ in range(2):
            with pytest.raises(lib.thread.BrokenThreadPool, match=f"^{BROKEN}$"):
                pool.submit(ran.append, 2)
        with pytest.raises(lib.BrokenExecutor):
            pool.map(ran.append, [3])
    assert ran == []
    [record] = caplog.records
    assert (record.name, record.levelno) == ("concurrent.futures", logging.CRITICAL)
    assert record.getMessage() == "Exception in initializer:"
    assert record.exc_info is not None
    assert type(record.exc_info[1]) is error


def test_all_pending_futures_are_told(lib: ModuleType) -> None:
    release = threading.Event()

    def initialize() -> None:
        release.wait(LIMIT)
        raise ValueError("later")

    called: list[Any] = []
    pool = lib.ThreadPoolExecutor(1, initializer=initialize)
    futures = [pool.submit(int) for _ in range(50)]
    futures[7].add_done_callback(called.append)
    release.set()
    assert lib.wait(futures, LIMIT).done == set(futures)
    for future in futures:
        assert isinstance(future.exception(), lib.BrokenExecutor)
    assert called == [futures[7]]
    pool.shutdown()


def test_a_cancelled_future_does_not_delay_the_others() -> None:
    # In the standard library it does.
    release = threading.Event()

    def initialize() -> None:
        release.wait(LIMIT)
        raise ValueError("later")

    with concurrent_futures.ThreadPoolExecutor(1, initializer=initialize) as pool:
        futures = [pool.submit(int) for _ in range(9)]
        assert all(future.cancel() for future in futures[::3])
        release.set()
        for n, future in enumerate(futures):
            if n % 3 == 0:
                assert future.cancelled()
            else:
                assert isinstance(future.exception(LIMIT), concurrent_futures.BrokenExecutor)


def test_arguments_that_cannot_be_unpacked_or_passed_break_the_pool(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1, initializer=int, initargs=(1, 2, 3)) as pool:
        assert isinstance(pool.submit(int).exception(LIMIT), lib.BrokenExecutor)


def test_one_worker_that_fails_is_enough(lib: ModuleType) -> None:
    first = threading.Lock()

    def initialize() -> None:
        if not first.acquire(blocking=False):
            raise ValueError("only one")

    release = threading.Event()
    pool = lib.ThreadPoolExecutor(2, initializer=initialize)
    running = pool.submit(release.wait, LIMIT)
    eventually(running.running)
    pending = pool.submit(int)
    assert isinstance(pending.exception(LIMIT), lib.BrokenExecutor)
    # A task that runs already may end.
    release.set()
    assert running.result(LIMIT) is True
    pool.shutdown()


def test_nobody_waits_forever_for_a_pool_that_breaks(lib: ModuleType) -> None:
    for _ in range(50):
        pool = lib.ThreadPoolExecutor(3, initializer=fail, initargs=(ValueError(),))
        futures = []
        try:
            while True:
                futures.append(pool.submit(int))
        except lib.BrokenExecutor:
            pass
        for future in futures:
            assert isinstance(future.exception(LIMIT), lib.BrokenExecutor)
        pool.shutdown()


def test_arguments_of_no_initializer_are_not_looked_at(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1, initargs=5) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
