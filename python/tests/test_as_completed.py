"""Tests of as_completed: each future once, in the order in which they finish."""

import gc
import itertools
import sys
import threading
import weakref
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, Background, future_in, held, raised, until_asleep


def test_each_future_comes_once(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(abs, n) for n in range(100)]
        seen = list(lib.as_completed(futures))
        assert len(seen) == 100
        assert set(seen) == set(futures)
        assert all(future.done() for future in seen)


def test_no_iterator_is_asked_how_long_it_is(
    lib: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)

    class Futures:
        def __init__(self, items: list[Any]) -> None:
            self.items = iter(items)
            self.asked = 0

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return next(self.items)

        def __length_hint__(self) -> int:
            self.asked += 1
            raise ValueError("unknown")

    done = [future_in(lib, "FINISHED") for _ in range(3)]
    several = [Futures(done) for _ in range(2)]
    assert set(lib.as_completed(several[0])) == set(done)
    assert lib.wait(several[1]).done == set(done)
    with lib.ThreadPoolExecutor(1) as pool:
        several.append(Futures([1, -2]))
        assert list(pool.map(abs, several[2])) == [1, 2]
    assert [futures.asked for futures in several] == [0, 0, 0]
    assert lost == []


def test_they_come_in_the_order_in_which_they_finish(lib: ModuleType) -> None:
    futures = [lib.Future() for _ in range(5)]
    completed = lib.as_completed(futures)
    for n in [3, 0, 4, 2, 1]:
        waiting = Background(next, completed)
        until_asleep(waiting)
        futures[n].set_result(n)
        assert waiting.outcome() is futures[n]
    with pytest.raises(StopIteration):
        next(completed)


def test_several_that_finish_between_two_looks_keep_their_order(lib: ModuleType) -> None:
    futures = [lib.Future() for _ in range(6)]
    futures[5].set_result(None)
    completed = lib.as_completed(futures)
    assert next(completed) is futures[5]
    for n in [2, 4, 0]:
        futures[n].set_result(None)
    assert [next(completed) for _ in range(3)] == [futures[2], futures[4], futures[0]]
    futures[1].set_exception(ValueError())
    futures[3].set_result(None)
    assert list(completed) == [futures[1], futures[3]]


def test_done_futures_are_yielded_first(lib: ModuleType) -> None:
    done = {
        future_in(lib, "FINISHED"),
        future_in(lib, "CANCELLED_AND_NOTIFIED"),
        raised(lib, OSError()),
    }
    pending = lib.Future()
    completed = lib.as_completed([pending, *done])
    assert set(itertools.islice(completed, 3)) == done
    pending.set_result(1)
    assert list(completed) == [pending]


def test_nothing_to_wait_for(lib: ModuleType) -> None:
    assert list(lib.as_completed([])) == []
    assert list(lib.as_completed([], timeout=0)) == []


def test_duplicates_come_once(lib: ModuleType) -> None:
    future = lib.Future()
    waiting = Background(list, lib.as_completed(itertools.repeat(future, 3)))
    until_asleep(waiting)
    future.set_result(None)
    assert waiting.outcome() == [future]
    assert list(lib.as_completed([future, future])) == [future]


def test_every_iterable_will_do(lib: ModuleType) -> None:
    futures = [future_in(lib, "FINISHED") for _ in range(3)]
    for given in [tuple(futures), set(futures), dict.fromkeys(futures, 1)]:
        assert set(lib.as_completed(given)) == set(futures)
    assert set(lib.as_completed(fs=iter(futures), timeout=None)) == set(futures)


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_the_message_of_a_time_limit_counts_unfinished_futures(
    lib: ModuleType, timeout: float
) -> None:
    futures = [
        future_in(lib, state)
        for state in ["CANCELLED_AND_NOTIFIED", "PENDING", "RUNNING", "FINISHED"]
    ]
    completed = lib.as_completed(futures, timeout)
    assert {next(completed), next(completed)} == {futures[0], futures[3]}
    with pytest.raises(TimeoutError, match=r"^2 \(of 4\) futures unfinished$"):
        next(completed)
    with pytest.raises(StopIteration):
        next(completed)
    assert not any(future._waiters for future in futures)


def test_a_time_limit_that_does_not_pass(lib: ModuleType) -> None:
    future = lib.Future()
    waiting = Background(list, lib.as_completed([future], LIMIT))
    until_asleep(waiting)
    future.set_result(1)
    assert waiting.outcome() == [future]


def test_the_iterator_is_an_iterator_that_can_be_closed(lib: ModuleType) -> None:
    done, pending = future_in(lib, "FINISHED"), lib.Future()
    completed = lib.as_completed([done, pending])
    assert iter(completed) is completed
    assert next(completed) is done
    completed.close()
    with pytest.raises(StopIteration):
        next(completed)
    assert list(pending._waiters) == []
    pending.set_result(None)


def test_an_iterator_may_be_dropped_halfway(lib: ModuleType) -> None:
    done, pending = future_in(lib, "FINISHED"), lib.Future()
    for future in lib.as_completed([done, pending]):
        assert future is done
        break
    gc.collect()
    assert list(pending._waiters) == []
    reference = weakref.ref(pending)
    del pending
    gc.collect()
    assert reference() is None


def test_several_iterators_over_the_same_futures(lib: ModuleType) -> None:
    futures = [lib.Future() for _ in range(4)]
    threads = [Background(list, lib.as_completed(futures)) for _ in range(4)]
    until_asleep(threads[-1])
    for future in futures:
        future.set_result(None)
    assert [thread.outcome() for thread in threads] == [futures] * 4


def test_yielded_results_are_not_kept(lib: ModuleType) -> None:
    futures = [lib.Future() for _ in range(6)]
    futures += [future_in(lib, "CANCELLED_AND_NOTIFIED"), future_in(lib, "FINISHED")]
    with pytest.raises(TimeoutError):
        for future in lib.as_completed(futures, timeout=0):
            futures.remove(future)
            reference = weakref.ref(future)
            del future
            gc.collect()
            assert reference() is None
    futures[0].set_result("first")
    for future in lib.as_completed(futures):
        futures.remove(future)
        reference = weakref.ref(future)
        del future
        gc.collect()
        assert reference() is None
        if futures:
            futures[0].set_result("next")
    assert futures == []


def test_results_are_not_kept_either(lib: ModuleType) -> None:
    class Result:
        """An object that can be referred to weakly."""

    with lib.ThreadPoolExecutor(2) as pool:
        for future in lib.as_completed([pool.submit(Result) for _ in range(10)]):
            result = weakref.ref(future.result())
            del future
            gc.collect()
            assert result() is None


def test_exceptions_stay_in_the_futures(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        futures = {pool.submit(divmod, 1, n): n for n in (0, 1, 2)}
        errors = {futures[future]: type(future.exception()) for future in lib.as_completed(futures)}
    assert errors == {0: ZeroDivisionError, 1: type(None), 2: type(None)}


def test_futures_may_be_finished_by_who_iterates(lib: ModuleType) -> None:
    futures = [lib.Future() for _ in range(50)]
    futures[0].set_result(0)
    order = []
    for future in lib.as_completed(futures, LIMIT):
        order.append(future.result())
        if order[-1] + 1 < len(futures):
            futures[order[-1] + 1].set_result(order[-1] + 1)
    assert order == list(range(50))


def test_tasks_submitted_while_iterating(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        pending = {pool.submit(abs, n) for n in range(5)}
        total = 0
        while pending:
            for future in lib.as_completed(pending):
                pending.remove(future)
                total += 1
                if future.result() < 20:
                    pending.add(pool.submit(abs, future.result() + 5))
                break
    assert total == 25


def test_iterating_races_with_completions(lib: ModuleType) -> None:
    for _ in range(150):
        futures = [lib.Future() for _ in range(8)]
        barrier = threading.Barrier(3)

        def finish(half: Any, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for future in half:
                future.set_result(None)

        threads = [Background(finish, futures[:4]), Background(finish, futures[4:])]
        barrier.wait()
        seen = list(lib.as_completed(futures, LIMIT))
        assert len(seen) == 8
        assert set(seen) == set(futures)
        for thread in threads:
            thread.outcome()
        assert not any(future._waiters for future in futures)


def test_a_cancelled_future_of_another_executor_is_yielded_when_that_has_taken_notice() -> None:
    lib = concurrent_futures
    cancelled = future_in(lib, "CANCELLED")
    with pytest.raises(TimeoutError):
        list(lib.as_completed([cancelled], timeout=0))
    assert not cancelled.set_running_or_notify_cancel()
    assert list(lib.as_completed([cancelled], timeout=0)) == [cancelled]


def test_cancelling_a_pending_task_yields_it_at_once() -> None:
    lib = concurrent_futures
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        pending = pool.submit(int)
        waiting = Background(list, lib.as_completed([pending]))
        until_asleep(waiting)
        assert pending.cancel()
        # The only worker is still busy with something else.
        assert waiting.outcome() == [pending]
