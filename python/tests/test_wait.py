"""Tests of wait: its conditions, and its result."""

import threading
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, NAN_IS_REFUSED, STATES, Background, future_in, held, raised, until_asleep

MODES = ["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]


def test_the_result_is_a_named_pair_of_sets(lib: ModuleType) -> None:
    done, pending = future_in(lib, "FINISHED"), lib.Future()
    result = lib.wait([done, pending], 0)
    assert type(result).__name__ == "DoneAndNotDoneFutures"
    assert result == ({done}, {pending})
    assert type(result.done) is set
    assert type(result.not_done) is set
    assert result._fields == ("done", "not_done")


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_wait_for(lib: ModuleType, mode: str) -> None:
    assert lib.wait([], return_when=mode) == (set(), set())
    assert lib.wait((), 0, mode) == (set(), set())


@pytest.mark.parametrize("mode", MODES)
def test_done_futures_are_not_waited_for(lib: ModuleType, mode: str) -> None:
    futures = {future_in(lib, state) for state in ["CANCELLED_AND_NOTIFIED", "FINISHED"]}
    assert lib.wait(futures, return_when=mode) == (futures, set())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("timeout", [0, -1, 0.001, float("nan")])
def test_a_time_limit_passes(lib: ModuleType, timeout: float, mode: str) -> None:
    pending = {lib.Future(), future_in(lib, "RUNNING")}
    if NAN_IS_REFUSED and timeout != timeout:
        with pytest.raises(ValueError, match=r"^Invalid value NaN \(not a number\)$"):
            lib.wait(pending, timeout, mode)
        return
    assert lib.wait(pending, timeout, mode) == (set(), pending)
    for future in pending:
        assert list(future._waiters) == []


def test_every_iterable_will_do(lib: ModuleType) -> None:
    futures = [future_in(lib, "FINISHED") for _ in range(3)]
    for given in [tuple(futures), set(futures), dict.fromkeys(futures), iter(futures)]:
        assert lib.wait(given).done == set(futures)
    assert lib.wait(fs=futures, timeout=None, return_when="ALL_COMPLETED").done == set(futures)
    assert lib.wait(future for future in futures).done == set(futures)


def test_duplicates_are_one(lib: ModuleType) -> None:
    future = lib.Future()
    waiting = Background(lib.wait, [future, future, future])
    until_asleep(waiting)
    future.set_result(None)
    assert waiting.outcome() == ({future}, set())


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_all_completed_waits_for_the_last(lib: ModuleType, timeout: float | None) -> None:
    futures = [lib.Future() for _ in range(4)]
    waiting = Background(lib.wait, futures, timeout)
    for future in futures[:-1]:
        until_asleep(waiting)
        future.set_result(1)
    until_asleep(waiting)
    assert waiting.is_alive()
    futures[-1].set_exception(ValueError())
    assert waiting.outcome() == (set(futures), set())


def test_first_completed_waits_for_one(lib: ModuleType) -> None:
    futures = [lib.Future() for _ in range(4)]
    waiting = Background(lib.wait, futures, None, lib.FIRST_COMPLETED)
    until_asleep(waiting)
    futures[2].set_result(1)
    done, not_done = waiting.outcome()
    assert done == {futures[2]}
    assert not_done == {futures[0], futures[1], futures[3]}
    assert not any(future._waiters for future in futures)


def test_first_completed_gives_all_that_are_done(lib: ModuleType) -> None:
    futures = [lib.Future() for _ in range(4)]
    futures[1].set_result(1)
    futures[2].set_exception(ValueError())
    done, _ = lib.wait(futures, return_when=lib.FIRST_COMPLETED)
    assert done == {futures[1], futures[2]}


def test_first_exception_waits_for_an_exception(lib: ModuleType) -> None:
    futures = [lib.Future() for _ in range(4)]
    waiting = Background(lib.wait, futures, None, lib.FIRST_EXCEPTION)
    until_asleep(waiting)
    futures[0].set_result(1)
    until_asleep(waiting)
    assert waiting.is_alive()
    futures[1].set_exception(ValueError())
    done, not_done = waiting.outcome()
    assert done == {futures[0], futures[1]}
    assert not_done == {futures[2], futures[3]}


def test_first_exception_without_one_waits_for_all(lib: ModuleType) -> None:
    futures = [lib.Future(), future_in(lib, "CANCELLED_AND_NOTIFIED"), lib.Future()]
    waiting = Background(lib.wait, futures, LIMIT, lib.FIRST_EXCEPTION)
    until_asleep(waiting)
    futures[0].set_result(1)
    until_asleep(waiting)
    futures[2].cancel()
    futures[2].set_running_or_notify_cancel()
    assert waiting.outcome() == (set(futures), set())


def test_first_exception_that_is_there_already(lib: ModuleType) -> None:
    failed, pending, finished = raised(lib, OSError()), lib.Future(), future_in(lib, "FINISHED")
    result = lib.wait([failed, pending, finished], return_when=lib.FIRST_EXCEPTION)
    assert result == ({failed, finished}, {pending})


@pytest.mark.parametrize("mode", MODES)
def test_a_cancellation_that_an_executor_takes_note_of_ends_the_wait(
    lib: ModuleType, mode: str
) -> None:
    future = lib.Future()
    waiting = Background(lib.wait, [future], None, mode)
    until_asleep(waiting)
    assert future.cancel()
    assert not future.set_running_or_notify_cancel()
    assert waiting.outcome() == ({future}, set())


@pytest.mark.parametrize("mode", MODES)
def test_a_pools_tasks(lib: ModuleType, mode: str) -> None:
    with lib.ThreadPoolExecutor(3) as pool:
        futures = {pool.submit(divmod, 1, n) for n in range(1, 50)}
        done, not_done = lib.wait(futures, LIMIT, mode)
        assert done | not_done == futures
        assert not done & not_done
        assert done
        if mode != "FIRST_COMPLETED":
            assert done == futures


def test_draining_by_repeated_waits(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        left = {pool.submit(abs, -n) for n in range(300)}
        total = 0
        while left:
            done, left = lib.wait(left, return_when=lib.FIRST_COMPLETED)
            assert done
            total += sum(future.result() for future in done)
    assert total == sum(range(300))


def test_several_threads_wait_for_the_same_futures(lib: ModuleType) -> None:
    futures = [lib.Future() for _ in range(3)]
    threads = [
        Background(lib.wait, futures[::step], LIMIT, mode) for mode in MODES for step in (1, -1)
    ]
    until_asleep(threads[-1])
    for future in futures:
        future.set_exception(ValueError())
    for thread in threads:
        done, not_done = thread.outcome()
        assert done
        assert done | not_done == set(futures)
    assert not any(future._waiters for future in futures)


def test_waits_race_with_completions(lib: ModuleType) -> None:
    for round in range(150):
        futures = [lib.Future() for _ in range(6)]
        barrier = threading.Barrier(2)

        def finish(futures: Any = futures, barrier: Any = barrier) -> None:
            barrier.wait()
            for future in futures:
                future.set_result(None)

        thread = Background(finish)
        barrier.wait()
        if round % 2:
            assert lib.wait(futures, LIMIT) == (set(futures), set())
        else:
            left = set(futures)
            while left:
                done, left = lib.wait(left, LIMIT, lib.FIRST_COMPLETED)
                assert done
        thread.outcome()


def test_subclasses_and_futures_of_ones_own_executor(lib: ModuleType) -> None:
    class Mine(lib.Future):  # type: ignore[name-defined, misc]
        """A future of another class."""

    futures = [Mine(), lib.Future()]
    waiting = Background(lib.wait, futures)
    until_asleep(waiting)
    for future in futures:
        future.set_result(None)
    assert waiting.outcome().done == set(futures)


def test_two_thousand_futures_in_one_wait(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(int) for _ in range(2000)]
        assert lib.wait(futures, LIMIT) == (set(futures), set())


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("mode", MODES)
def test_a_cancelled_future_of_another_executor_is_done_when_that_has_taken_notice(
    mode: str, state: str
) -> None:
    future = future_in(concurrent_futures, state)
    done, _ = concurrent_futures.wait([future], 0, mode)
    assert done == ({future} if state in {"CANCELLED_AND_NOTIFIED", "FINISHED"} else set())


@pytest.mark.parametrize("mode", MODES)
def test_cancelling_a_pending_task_ends_our_wait_at_once(mode: str) -> None:
    lib = concurrent_futures
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        pending = pool.submit(int)
        waiting = Background(lib.wait, [pending], None, mode)
        until_asleep(waiting)
        assert pending.cancel()
        # The only worker is still busy with something else.
        assert waiting.outcome() == ({pending}, set())


def test_our_wait_for_the_first_leaves_nothing_behind() -> None:
    lib = concurrent_futures
    pending = [lib.Future[None]() for _ in range(100)]
    finished = future_in(lib, "FINISHED")
    for _ in range(20):
        lib.wait([*pending, finished], return_when=lib.FIRST_COMPLETED)
    assert not any(future._waiters for future in pending)
