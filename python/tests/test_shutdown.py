"""Tests of shutting executors down, and of dropping them."""

import gc
import threading
import weakref
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, Background, eventually, held, until_asleep

REFUSED = "^cannot schedule new futures after shutdown$"


def test_submit_is_refused_afterwards(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(1)
    assert pool.shutdown() is None
    for _ in range(2):
        with pytest.raises(RuntimeError, match=REFUSED):
            pool.submit(int)
    with pytest.raises(RuntimeError, match=REFUSED):
        pool.map(int, [1])


def test_it_may_be_repeated(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(1)
    assert pool.submit(int).result() == 0
    for wait in (True, False, True):
        pool.shutdown(wait)
        pool.shutdown(wait=wait, cancel_futures=True)


def test_a_pool_that_never_worked(lib: ModuleType) -> None:
    lib.ThreadPoolExecutor(1).shutdown()
    with lib.ThreadPoolExecutor(1):
        pass


def test_it_waits_for_what_is_pending_and_running(lib: ModuleType) -> None:
    ran: list[int] = []
    pool = lib.ThreadPoolExecutor(2)
    release = threading.Event()
    running = pool.submit(release.wait, LIMIT)
    futures = [pool.submit(ran.append, n) for n in range(20)]
    stopping = Background(pool.shutdown)
    until_asleep(stopping)
    assert stopping.is_alive()
    assert not running.done()
    release.set()
    stopping.outcome()
    assert running.done()
    assert all(future.done() for future in futures)
    assert sorted(ran) == list(range(20))
    assert not any(thread.is_alive() for thread in pool._threads)


def test_it_need_not_wait(lib: ModuleType) -> None:
    ran: list[int] = []
    pool = lib.ThreadPoolExecutor(1)
    with held(pool):
        futures = [pool.submit(ran.append, n) for n in range(5)]
        pool.shutdown(wait=False)
        assert pool._shutdown
        assert ran == []
        with pytest.raises(RuntimeError, match=REFUSED):
            pool.submit(int)
    for future in futures:
        future.result(LIMIT)
    assert ran == list(range(5))
    for thread in pool._threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


@pytest.mark.parametrize("wait", [True, False])
def test_pending_futures_may_be_cancelled(lib: ModuleType, wait: bool) -> None:
    called: list[Any] = []
    pool = lib.ThreadPoolExecutor(1)
    release = threading.Event()
    running = pool.submit(release.wait, LIMIT)
    eventually(running.running)
    futures = [pool.submit(int) for _ in range(10)]
    for future in futures:
        future.add_done_callback(called.append)
    waiting = Background(futures[5].result)
    until_asleep(waiting)
    stopping = Background(lambda: pool.shutdown(wait, cancel_futures=True))
    eventually(lambda: all(future.cancelled() for future in futures))
    with pytest.raises(lib.CancelledError):
        waiting.outcome()
    if wait:
        assert stopping.is_alive()
    release.set()
    stopping.outcome()
    assert running.result(LIMIT) is True
    assert sorted(map(id, called)) == sorted(map(id, futures))
    pool.shutdown()


def test_leaving_the_block_waits(lib: ModuleType) -> None:
    ran: list[int] = []
    with lib.ThreadPoolExecutor(2) as pool:
        assert isinstance(pool, lib.ThreadPoolExecutor)
        for n in range(50):
            pool.submit(ran.append, n)
    assert sorted(ran) == list(range(50))
    assert pool._shutdown
    with pytest.raises(RuntimeError, match=REFUSED):
        pool.submit(int)


def test_an_exception_in_the_block_passes(lib: ModuleType) -> None:
    ran: list[int] = []
    with pytest.raises(KeyError), lib.ThreadPoolExecutor(1) as pool:
        pool.submit(ran.append, 1)
        raise KeyError("in the block")
    assert ran == [1]
    assert pool.__exit__(None, None, None) is False


def test_several_threads_shut_down_at_once(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(2)
    futures = [pool.submit(abs, n) for n in range(100)]
    threads = [Background(pool.shutdown) for _ in range(5)]
    for thread in threads:
        thread.outcome()
    assert [future.result(0) for future in futures] == list(range(100))


def test_a_task_may_shut_its_pool_down_without_waiting(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(2)
    pool.submit(pool.shutdown, wait=False).result()
    with pytest.raises(RuntimeError, match=REFUSED):
        pool.submit(int)
    pool.shutdown()


def test_a_task_that_waits_for_its_pools_end_does_not_hang(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(2)
    error = pool.submit(pool.shutdown).exception(LIMIT)
    assert error is None or isinstance(error, RuntimeError)
    pool.shutdown()


def test_a_callback_may_shut_the_pool_down(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(1)
    with held(pool):
        future = pool.submit(int)
        future.add_done_callback(lambda _: pool.shutdown(wait=False))
    future.result()
    eventually(lambda: pool._shutdown)
    pool.shutdown()


def test_a_task_that_is_cancelled_just_before(lib: ModuleType) -> None:
    for _ in range(50):
        pool = lib.ThreadPoolExecutor(1)
        pool.submit(int).result()
        pool.submit(int).cancel()
        Background(pool.shutdown).outcome()


def test_submitting_races_with_shutting_down(lib: ModuleType) -> None:
    """Checks that each task is refused or done."""
    for cancel in [False, True] * 30:
        pool = lib.ThreadPoolExecutor(2)
        barrier = threading.Barrier(3)

        def submit(pool: Any = pool, barrier: threading.Barrier = barrier) -> list[Any]:
            futures = []
            barrier.wait()
            try:
                while True:
                    futures.append(pool.submit(int))
            except RuntimeError:
                return futures

        threads = [Background(submit) for _ in range(2)]
        barrier.wait()
        pool.shutdown(cancel_futures=cancel)
        for thread in threads:
            for future in thread.outcome():
                assert future.done()
                assert cancel or not future.cancelled()


def test_a_dropped_executor_finishes_its_work(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(2)
    release = threading.Event()
    futures = [pool.submit(release.wait, LIMIT) for _ in range(2)]
    futures += [pool.submit(abs, n) for n in range(20)]
    threads = list(pool._threads)
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    assert reference() is None
    assert not any(future.done() for future in futures)
    release.set()
    assert [future.result(LIMIT) for future in futures[2:]] == list(range(20))
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_a_dropped_executors_idle_threads_end(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(3)
    barrier = threading.Barrier(3)
    for future in [pool.submit(barrier.wait, LIMIT) for _ in range(3)]:
        future.result()
    threads = list(pool._threads)
    until_asleep(threads[0])
    assert all(thread.is_alive() for thread in threads)
    del pool
    gc.collect()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_an_executor_nobody_ever_held(lib: ModuleType) -> None:
    assert lib.ThreadPoolExecutor(1).submit(abs, -3).result(LIMIT) == 3
    assert sum(lib.ThreadPoolExecutor(2).map(abs, range(-3, 0))) == 6


def test_the_last_reference_may_be_a_tasks(lib: ModuleType) -> None:
    for _ in range(20):
        pool = lib.ThreadPoolExecutor(1)
        release = threading.Event()
        future = pool.submit(lambda pool, release=release: release.wait(LIMIT), pool)
        [thread] = pool._threads
        del pool
        release.set()
        assert future.result(LIMIT) is True
        del future
        gc.collect()
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_shutting_down_in_a_cycle_of_pools(lib: ModuleType) -> None:
    one, two = lib.ThreadPoolExecutor(1), lib.ThreadPoolExecutor(1)
    shut = one.submit(two.shutdown)
    assert shut.result(LIMIT) is None
    one.shutdown()


def test_waiting_for_the_end_of_a_pool_from_its_own_task_finishes_pending_tasks() -> None:
    ran: list[int] = []
    pool = concurrent_futures.ThreadPoolExecutor(1)

    def task() -> None:
        for n in range(5):
            pool.submit(ran.append, n)
        pool.shutdown()

    pool.submit(task).exception(LIMIT)
    pool.shutdown()
    assert ran == list(range(5))
