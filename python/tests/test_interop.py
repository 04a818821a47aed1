"""Tests of the two implementations together: the functions of each on the futures of the other."""

import concurrent.futures
import random
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, Background, eventually, future_in, held, until_asleep

LIBRARIES = [concurrent.futures, concurrent_futures]
MODES = ["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]

Futures = Callable[[int], list[Any]]


@pytest.fixture(params=["stdlib futures", "package futures", "mixed futures"])
def futures(request: pytest.FixtureRequest) -> Futures:
    """Makes futures of the one kind, of the other, or of both."""
    kinds = [lib.Future for lib in LIBRARIES]
    if request.param == "stdlib futures":
        kinds = kinds[:1]
    elif request.param == "package futures":
        kinds = kinds[1:]
    return lambda number: [kinds[n % len(kinds)]() for n in range(number)]


class Waiter:
    """A waiter of the standard library's wait for `_waiters`, which keeps the futures that it
    receives."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def was_told(self) -> bool:
        """Return whether the waiter has received a future."""
        return bool(self.told)

    def add_result(self, future: Any) -> None:
        """Receives a future that has a result."""
        self.told.append((future, "result"))

    def add_exception(self, future: Any) -> None:
        """Receives a future that has an exception."""
        self.told.append((future, "exception"))

    def add_cancelled(self, future: Any) -> None:
        """Receives a future that was cancelled."""
        self.told.append((future, "cancelled"))


def cancel(future: Any) -> None:
    """Cancels a future as an executor does."""
    future.cancel()
    future.set_running_or_notify_cancel()


FINISH: list[Callable[[Any], object]] = [
    lambda future: future.set_result(None),
    lambda future: future.set_exception(ValueError()),
    cancel,
]


@pytest.mark.parametrize("mode", MODES)
def test_wait(lib: ModuleType, futures: Futures, mode: str) -> None:
    pending = futures(6)
    waiting = Background(lib.wait, pending, LIMIT, mode)
    until_asleep(waiting)
    pending[1].set_exception(ValueError())
    if mode == "ALL_COMPLETED":
        for future in pending:
            if not future.done():
                until_asleep(waiting)
                future.set_result(None)
        assert waiting.outcome() == (set(pending), set())
    else:
        assert waiting.outcome() == ({pending[1]}, set(pending) - {pending[1]})
    assert not any(future._waiters for future in pending)


@pytest.mark.parametrize("mode", MODES)
def test_wait_with_a_time_limit_that_passes(lib: ModuleType, futures: Futures, mode: str) -> None:
    pending = futures(4)
    assert lib.wait(pending, 0.001, mode) == (set(), set(pending))
    assert not any(future._waiters for future in pending)


@pytest.mark.parametrize("mode", MODES)
def test_wait_for_done_futures(lib: ModuleType, mode: str) -> None:
    done = [
        future_in(each, state)
        for each in LIBRARIES
        for state in ["FINISHED", "CANCELLED_AND_NOTIFIED"]
    ]
    assert lib.wait(done, return_when=mode) == (set(done), set())


def test_as_completed(lib: ModuleType, futures: Futures) -> None:
    pending = futures(6)
    completed = lib.as_completed(pending, LIMIT)
    for n, finish in zip([3, 5, 0, 2, 4, 1], FINISH * 2, strict=True):
        waiting = Background(next, completed)
        until_asleep(waiting)
        finish(pending[n])
        assert waiting.outcome() is pending[n]
    assert list(completed) == []
    assert not any(future._waiters for future in pending)


def test_as_completed_with_a_time_limit_that_passes(lib: ModuleType, futures: Futures) -> None:
    pending = futures(4)
    pending[2].set_result(None)
    completed = lib.as_completed(pending, 0.001)
    assert next(completed) is pending[2]
    with pytest.raises(TimeoutError, match=r"^3 \(of 4\) futures unfinished$"):
        next(completed)
    assert not any(future._waiters for future in pending)


def test_pools_of_both_kinds(lib: ModuleType) -> None:
    with concurrent_futures.ThreadPoolExecutor(2) as ours:
        with concurrent.futures.ThreadPoolExecutor(2) as theirs:
            futures = [(ours if n % 2 else theirs).submit(abs, -n) for n in range(200)]
            seen = list(lib.as_completed(futures, LIMIT))
            assert len(seen) == 200
            assert sum(future.result() for future in seen) == sum(range(200))
            assert lib.wait(futures).done == set(futures)


def test_a_cancelled_task_ends_the_standard_librarys_wait() -> None:
    # It takes a cancelled future for done only when the executor has taken note.
    with concurrent_futures.ThreadPoolExecutor(1) as pool:
        with held(pool):
            tasks = [pool.submit(int) for _ in range(3)]
            waits: list[Background] = []
            for mode in MODES:
                waits.append(Background(concurrent.futures.wait, tasks, LIMIT, mode))
            waits.append(Background(list, concurrent.futures.as_completed(tasks, LIMIT)))
            until_asleep(waits[-1])
            assert all(task.cancel() for task in tasks)
        for waiting in waits[:3]:
            assert waiting.outcome().done
        assert set(waits[3].outcome()) == set(tasks)
        eventually(lambda: all(task._state == "CANCELLED_AND_NOTIFIED" for task in tasks))
        assert concurrent.futures.wait(tasks) == (set(tasks), set())


def test_a_cancelled_task_of_a_shut_down_pool_does_too() -> None:
    pool = concurrent_futures.ThreadPoolExecutor(1)
    with held(pool) as release:
        tasks = [pool.submit(int) for _ in range(3)]
        waiting = Background(concurrent.futures.wait, tasks, LIMIT)
        until_asleep(waiting)
        pool.shutdown(wait=False, cancel_futures=True)
        release.set()
        assert waiting.outcome() == (set(tasks), set())


@pytest.mark.parametrize("finish", FINISH)
def test_a_waiter_is_told_once(lib: ModuleType, finish: Callable[[Any], object]) -> None:
    future = lib.Future()
    waiters = [Waiter(), Waiter()]
    with future._condition:
        future._waiters.extend(waiters)
        assert future._waiters == waiters
    finish(future)
    told = ["result", "exception", "cancelled"][FINISH.index(finish)]
    for waiter in waiters:
        assert waiter.told == [(future, told)]


def test_a_waiter_that_was_removed_is_not_told(lib: ModuleType) -> None:
    future = lib.Future()
    stays, goes = Waiter(), Waiter()
    with future._condition:
        future._waiters.append(stays)
        future._waiters.append(goes)
    with future._condition:
        future._waiters.remove(goes)
    future.set_result(None)
    assert goes.told == []
    assert stays.told == [(future, "result")]
    with future._condition:
        future._waiters.remove(stays)
    assert list(future._waiters) == []


def test_a_waiter_that_comes_too_late_is_not_told(lib: ModuleType) -> None:
    future = lib.Future()
    future.set_result(None)
    waiter = Waiter()
    with future._condition:
        assert future._state == "FINISHED"
        future._waiters.append(waiter)
    assert waiter.told == []
    with future._condition:
        future._waiters.remove(waiter)


@pytest.mark.parametrize("how", ["by hand", "by a pool"])
def test_nothing_finishes_while_its_condition_is_held(lib: ModuleType, how: str) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        for round in range(100):
            release = threading.Event()
            if how == "by hand":
                future = lib.Future()
            else:
                future = pool.submit(release.wait, LIMIT)
                eventually(future.running)
            waiter = Waiter()
            with future._condition:
                finishing = Background(future.set_result, True) if how == "by hand" else None
                release.set()
                if round % 3 == 0:
                    # This lets go of it for a while.
                    future._condition.wait(0.0001 * (round % 10))
                done = future._state == "FINISHED"
                for _ in range(20):
                    assert (future._state == "FINISHED") is done
                future._waiters.append(waiter)
            if finishing is not None:
                finishing.outcome()
            assert future.result(LIMIT) is True
            if not done:
                eventually(waiter.was_told)
            assert waiter.told == ([] if done else [(future, "result")])


def test_a_waiter_that_is_added_while_the_future_finishes_is_told_or_sees_it(
    lib: ModuleType,
) -> None:
    seen = told = 0
    with lib.ThreadPoolExecutor(2) as pool:
        for _ in range(1000):
            future = pool.submit(int)
            waiter = Waiter()
            with future._condition:
                done = future._state in ["CANCELLED_AND_NOTIFIED", "FINISHED"]
                future._waiters.append(waiter)
            future.result()
            if done:
                seen += 1
                assert waiter.told == []
            else:
                told += 1
                eventually(waiter.was_told)
                assert waiter.told == [(future, "result")]
    assert seen + told == 1000


@pytest.mark.parametrize("seed", range(3))
def test_completions_race_with_everything_that_waits(
    lib: ModuleType, futures: Futures, seed: int
) -> None:
    """Checks that no waiting function misses a completion or counts one twice."""
    choice = random.Random(seed)
    for _ in range(60):
        pending = futures(12)
        barrier = threading.Barrier(5)
        finish = [choice.choice(FINISH) for _ in pending]

        def work(half: int, pending: Any = pending, b: Any = barrier, how: Any = finish) -> None:
            b.wait()
            for n in range(half, len(pending), 2):
                how[n](pending[n])

        def completed(pending: Any = pending, b: Any = barrier) -> list[Any]:
            b.wait()
            return list(lib.as_completed(pending, LIMIT))

        def all_done(pending: Any = pending, b: Any = barrier) -> Any:
            b.wait()
            return lib.wait(pending, LIMIT)

        threads = [Background(work, 0), Background(work, 1)]
        iterating, waiting = Background(completed), Background(all_done)
        barrier.wait()
        left = set(pending)
        while left:
            done, left = lib.wait(left, LIMIT, lib.FIRST_COMPLETED)
            assert done
        seen = iterating.outcome()
        assert len(seen) == len(pending)
        assert set(seen) == set(pending)
        assert waiting.outcome() == (set(pending), set())
        for thread in threads:
            thread.outcome()
        assert not any(future._waiters for future in pending)


def test_the_standard_librarys_functions_on_a_busy_pool() -> None:
    choice = random.Random(5)
    with concurrent_futures.ThreadPoolExecutor(3) as pool:
        for round in range(150):
            tasks: list[Any] = [pool.submit(abs, n) for n in range(20)]
            cancelled = {task for task in tasks if choice.random() < 0.2 and task.cancel()}
            if round % 3 == 0:
                seen = list(concurrent.futures.as_completed(tasks, LIMIT))
                assert len(seen) == 20
                assert set(seen) == set(tasks)
            elif round % 3 == 1:
                assert concurrent.futures.wait(tasks, LIMIT) == (set(tasks), set())
            else:
                left = set(tasks)
                while left:
                    done, left = concurrent.futures.wait(left, LIMIT, "FIRST_COMPLETED")
                    assert done
            assert {task for task in tasks if task.cancelled()} == cancelled
            assert not any(task._waiters for task in tasks)


def test_other_kinds_of_futures_will_do(lib: ModuleType) -> None:
    class Foreign(concurrent.futures.Future):  # type: ignore[type-arg]
        """A future of an executor of another library."""

    mixed = [Foreign(), concurrent_futures.Future[None](), Foreign()]
    waiting = Background(lib.wait, mixed, LIMIT)
    until_asleep(waiting)
    for future in mixed:
        future.set_result(None)
    assert waiting.outcome() == (set(mixed), set())


def test_one_future_passes_its_result_on_to_the_other_kind() -> None:
    def pass_on(source: Any, target: Any) -> None:
        source.add_done_callback(lambda done: target.set_result(done.result()))

    for source, target in [LIBRARIES, LIBRARIES[::-1]]:
        first, second = source.Future(), target.Future()
        pass_on(first, second)
        first.set_result(8)
        assert second.result() == 8


def test_the_standard_librarys_executor_may_make_our_futures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As `install()` has it for code that looks the name up later.
    monkeypatch.setattr(concurrent.futures._base, "Future", concurrent_futures.Future)
    with concurrent.futures.thread.ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(divmod, 7, n) for n in range(3)]
        assert all(type(future) is concurrent_futures.Future for future in futures)
        done, _ = concurrent_futures.wait(futures)
        assert done == set(futures)
        assert futures[2].result() == (3, 1)
        assert isinstance(futures[0].exception(), ZeroDivisionError)
