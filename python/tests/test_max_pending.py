"""Tests of the bound on pending tasks."""

import threading
from typing import Any

import pytest

import concurrent_futures
from concurrent_futures import ThreadPoolExecutor
from support import LIMIT, Background, eventually, held, until_asleep


def test_running_tasks_hold_no_permit_and_pending_tasks_do() -> None:
    with ThreadPoolExecutor(1, max_pending=2) as pool, held(pool):
        first, second = pool.submit(int), pool.submit(int)
        submitting = Background(pool.submit, pow, 2, 2)
        until_asleep(submitting)
        assert submitting.is_alive()
        assert first.cancel()
        third = submitting.outcome()
        assert not second.done()
        assert not third.done()


def test_submit_waits_until_a_worker_takes_a_pending_task() -> None:
    with ThreadPoolExecutor(1, max_pending=1) as pool:
        started, release = threading.Event(), threading.Event()

        def second() -> bool:
            started.set()
            return release.wait(LIMIT)

        with held(pool) as go:
            pending = pool.submit(second)
            submitting = Background(pool.submit, pow, 2, 3)
            until_asleep(submitting)
            go.set()
            future = submitting.outcome()
        assert started.wait(LIMIT)
        assert not pending.done()
        release.set()
        assert future.result(LIMIT) == 8


def test_shutdown_refuses_submitters_that_wait_for_room() -> None:
    pool = ThreadPoolExecutor(1, max_pending=1)
    with held(pool):
        pending = pool.submit(pow, 2, 2)
        submitting = [Background(pool.submit, int) for _ in range(3)]
        for thread in submitting:
            until_asleep(thread)
        pool.shutdown(wait=False)
        for thread in submitting:
            with pytest.raises(RuntimeError, match="^cannot schedule new futures after shutdown$"):
                thread.outcome()
    assert pending.result(LIMIT) == 4


def test_a_pool_that_breaks_refuses_submitters_that_wait_for_room() -> None:
    release = threading.Event()

    def initialize() -> None:
        release.wait(LIMIT)
        raise ValueError("no")

    with ThreadPoolExecutor(1, initializer=initialize, max_pending=1) as pool:
        pending = pool.submit(int)
        submitting = Background(pool.submit, int)
        until_asleep(submitting)
        release.set()
        with pytest.raises(concurrent_futures.BrokenExecutor):
            submitting.outcome().result(LIMIT)
        assert isinstance(pending.exception(LIMIT), concurrent_futures.BrokenExecutor)


def test_a_pools_own_tasks_may_exceed_the_bound() -> None:
    def outer() -> int:
        futures = [pool.submit(abs, n) for n in range(20)]
        return sum(future.result() for future in futures)

    with ThreadPoolExecutor(1, max_pending=1) as pool:
        assert pool.submit(outer).result(LIMIT) == 190


def test_callbacks_in_the_worker_may_exceed_it() -> None:
    submitted: list[Any] = []
    with ThreadPoolExecutor(1, max_pending=1) as pool:
        release = threading.Event()
        running = pool.submit(release.wait, LIMIT)
        running.add_done_callback(lambda _: submitted.extend(pool.submit(int) for _ in range(3)))
        eventually(running.running)
        pool.submit(int)
        release.set()
        eventually(lambda: len(submitted) == 3)
        assert [future.result(LIMIT) for future in submitted] == [0, 0, 0]


def test_a_callback_on_cancellation_may_submit_in_the_place_that_became_free() -> None:
    submitted: list[Any] = []
    with ThreadPoolExecutor(1, max_pending=1) as pool, held(pool):
        pending = pool.submit(int)
        pending.add_done_callback(lambda _: submitted.append(pool.submit(pow, 2, 4)))
        Background(pending.cancel).outcome()
        assert submitted[0]._state == "PENDING"


def test_nothing_is_lost_with_many_submitters() -> None:
    ran: list[int] = []
    with ThreadPoolExecutor(2, max_pending=3) as pool:

        def submit() -> int:
            cancelled = 0
            for n in range(200):
                future = pool.submit(ran.append, n)
                if n % 5 == 0 and future.cancel():
                    cancelled += 1
            return cancelled

        threads = [Background(submit) for _ in range(4)]
        cancelled = sum(thread.outcome() for thread in threads)
    assert len(ran) + cancelled == 800


def test_all_places_are_free_again_in_the_end() -> None:
    with ThreadPoolExecutor(1, max_pending=2) as pool:
        for round in range(100):
            with held(pool):
                first, second = pool.submit(divmod, 1, 0), pool.submit(int)
                if round % 2:
                    assert second.cancel()
            assert isinstance(first.exception(LIMIT), ZeroDivisionError)
        with held(pool):
            for _ in range(2):
                Background(pool.submit, int).outcome()


def test_map_waits_for_room_too() -> None:
    taken: list[int] = []

    def items() -> Any:
        for n in range(50):
            taken.append(n)
            yield n

    with ThreadPoolExecutor(1, max_pending=3) as pool:
        with held(pool):
            mapping = Background(pool.map, abs, items())
            until_asleep(mapping)
            assert mapping.is_alive()
            assert taken == [0, 1, 2, 3]
        assert list(mapping.outcome()) == list(range(50))
        assert list(pool.map(abs, range(30), buffersize=10)) == list(range(30))


def test_dropped_pending_tasks_keep_their_places_until_they_ran() -> None:
    with ThreadPoolExecutor(1, max_pending=2) as pool:
        with held(pool):
            pool.submit(int)
            pool.submit(int)
            submitting = Background(pool.submit, int)
            until_asleep(submitting)
            assert submitting.is_alive()
        submitting.outcome().result(LIMIT)


@pytest.mark.parametrize("number", [0, -1])
def test_it_must_be_positive(number: int) -> None:
    with pytest.raises(ValueError, match="max_pending must be greater than 0"):
        ThreadPoolExecutor(1, max_pending=number)


@pytest.mark.parametrize("wrong", ["1", 1.5, [1]])
def test_it_must_be_a_number(wrong: Any) -> None:
    with pytest.raises(TypeError):
        ThreadPoolExecutor(1, max_pending=wrong)


def test_it_is_by_keyword_only() -> None:
    with pytest.raises(TypeError):
        ThreadPoolExecutor(1, "", None, (), 5)  # type: ignore[call-arg]
