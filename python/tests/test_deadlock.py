"""Tests of tasks that wait for tasks: every task that can finish does, and a cycle is an error."""

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from concurrent_futures import (
    FIRST_COMPLETED,
    DeadlockError,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from support import LIMIT, eventually, held, prints


def ring(pools: list[ThreadPoolExecutor], length: int, ask: Callable[[Any], Any]) -> list[Any]:
    """Make each of `length` tasks `ask` the next task, and the last task the first. Return their
    futures when they are done."""
    go, running = threading.Event(), threading.Semaphore(0)
    futures: list[Any] = []

    def task(n: int) -> Any:
        running.release()
        assert go.wait(LIMIT)
        return ask(futures[(n + 1) % length])

    for n in range(length):
        futures.append(pools[n % len(pools)].submit(task, n))
    for _ in range(min(length, sum(pool._max_workers for pool in pools))):
        assert running.acquire(timeout=LIMIT)
    go.set()
    for future in futures:
        future.exception(LIMIT)
    return futures


def deadlocks(futures: list[Any]) -> list[DeadlockError]:
    """Returns the distinct errors that report a deadlock."""
    errors = {id(error): error for future in futures if (error := future.exception())}
    assert all(isinstance(error, DeadlockError) for error in errors.values())
    return [error for error in errors.values() if isinstance(error, DeadlockError)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_calls_of_map_that_wait_for_the_task_that_waits_for_them(workers: int) -> None:
    known = threading.Event()
    outer: list[Future[Any]] = []

    def inner(_: int) -> Any:
        return outer[0].result()

    with ThreadPoolExecutor(workers) as pool:

        def wait_for_inner() -> list[Any]:
            assert known.wait(LIMIT)
            return list(pool.map(inner, [1]))

        outer.append(pool.submit(wait_for_inner))
        known.set()
        assert isinstance(outer[0].exception(LIMIT), DeadlockError)
        assert list(pool.map(abs, [-3])) == [3]


def test_the_first_program_of_pythons_documentation(package: ModuleType) -> None:
    """Two tasks wait for each other's result; one of them gets the error."""
    out = prints(
        package,
        """
        import threading
        all_there = threading.Barrier(3)
        def ask_second():
            all_there.wait()
            return second.result() + 1
        def ask_first():
            all_there.wait()
            return first.result() + 1
        pool = futures.ThreadPoolExecutor(max_workers=2)
        first = pool.submit(ask_second)
        second = pool.submit(ask_first)
        all_there.wait()
        for future in (first, second):
            print(type(future.exception()).__name__)
        """,
    )
    assert out == "DeadlockError\nDeadlockError\n"


def test_the_second_program_of_pythons_documentation(package: ModuleType) -> None:
    """The only worker waits for a task of its pool, which gets another worker."""
    out = prints(
        package,
        """
        def outer():
            return pool.submit(pow, 5, 2).result()
        pool = futures.ThreadPoolExecutor(max_workers=1)
        task = pool.submit(outer)
        print(task.result())
        """,
    )
    assert out == "25\n"


@pytest.mark.parametrize("method", ["result", "exception"])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_cycle_is_an_error(length: int, method: str) -> None:
    for _ in range(20):
        with ThreadPoolExecutor(length) as pool:
            futures = ring([pool], length, lambda future: getattr(future, method)())
            if method == "result":
                # The error came to one of them, which passed it on.
                assert len(deadlocks(futures)) == 1
                assert all(future.exception() is not None for future in futures)
            else:
                assert 1 <= len(deadlocks(futures)) <= length
            assert pool.submit(abs, -1).result(LIMIT) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cycle_of_more_tasks_than_workers(workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        assert len(deadlocks(ring([pool], 6, lambda future: future.result()))) == 1


def test_a_cycle_through_several_pools() -> None:
    for _ in range(20):
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
            assert len(deadlocks(ring([one, two], 2, lambda future: future.result()))) == 1


def test_the_message_names_the_waiting_tasks_and_their_targets() -> None:
    with ThreadPoolExecutor(3) as pool:
        [error] = deadlocks(ring([pool], 3, lambda future: future.result()))
    assert str(error).count(" waits for ") == 3, str(error)


def test_a_task_may_catch_the_error() -> None:
    def ask(future: Any) -> str:
        try:
            return str(future.result())
        except DeadlockError:
            return "caught"

    with ThreadPoolExecutor(2) as pool:
        futures = ring([pool], 2, ask)
        assert [future.result() for future in futures] == ["caught", "caught"]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_tasks_may_wait_for_their_own_subtasks(workers: int) -> None:
    def total(low: int, high: int) -> int:
        if high - low < 4:
            return sum(range(low, high))
        middle = (low + high) // 2
        left, right = pool.submit(total, low, middle), pool.submit(total, middle, high)
        return int(left.result() + right.result())

    with ThreadPoolExecutor(workers) as pool:
        assert pool.submit(total, 0, 1000).result(LIMIT) == sum(range(1000))


@pytest.mark.parametrize("method", ["result", "exception"])
def test_the_task_that_is_waited_for_is_the_only_one_that_runs(method: str) -> None:
    ran: list[str] = []

    def inner() -> int:
        ran.append("wanted")
        return threading.get_ident()

    def outer() -> int:
        others = [pool.submit(ran.append, "other") for _ in range(5)]
        wanted = pool.submit(inner)
        if method == "exception":
            assert wanted.exception() is None
        assert wanted.result() != threading.get_ident()
        assert ran == ["wanted"]
        assert not any(other.done() for other in others)
        return len(ran)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(outer).result(LIMIT) == 1
    assert ran == ["wanted"] + ["other"] * 5


def test_errors_and_callbacks_of_subtasks() -> None:
    called: list[Any] = []

    def outer() -> str:
        inner = pool.submit(divmod, 1, 0)
        inner.add_done_callback(called.append)
        with pytest.raises(ZeroDivisionError):
            inner.result()
        assert called == [inner]
        assert repr(inner).endswith("state=finished raised ZeroDivisionError>")
        return "through"

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(outer).result(LIMIT) == "through"


def test_a_cancelled_subtask_is_not_run() -> None:
    def outer() -> bool:
        inner = pool.submit(ran.append, 1)
        inner.cancel()
        try:
            inner.result()
        except Exception:
            return inner.cancelled()
        return False

    ran: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(outer).result(LIMIT)
    assert ran == []


def test_wait_and_as_completed_and_map_within_tasks() -> None:
    def outer() -> list[int]:
        futures = [pool.submit(abs, -n) for n in range(10)]
        done, not_done = wait(futures)
        assert len(done) == 10
        assert not not_done
        futures = [pool.submit(abs, -n) for n in range(10)]
        assert wait(futures, return_when=FIRST_COMPLETED).done
        assert len(list(as_completed(futures))) == 10
        return list(pool.map(abs, range(-5, 0)))

    for workers in (1, 2):
        with ThreadPoolExecutor(workers) as pool:
            assert pool.submit(outer).result(LIMIT) == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_forty_tasks_one_within_the_other(workers: int) -> None:
    def nest(depth: int) -> int:
        return int(pool.submit(nest, depth - 1).result()) + 1 if depth else 0

    with ThreadPoolExecutor(workers) as pool:
        assert pool.submit(nest, 40).result(LIMIT) == 40


@pytest.mark.parametrize("workers", [1, 2])
def test_a_thousand_finish_or_tell_a_deadlock(workers: int) -> None:
    def nest(depth: int) -> int:
        return int(pool.submit(nest, depth - 1).result()) + 1 if depth else 0

    with ThreadPoolExecutor(workers) as pool:
        future = pool.submit(nest, 1000)
        error = future.exception(LIMIT)
        assert error is None or isinstance(error, DeadlockError | RecursionError)
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_waiting_for_a_future_that_another_thread_sets_is_no_deadlock() -> None:
    futures = [Future[int]() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(future.result) for future in futures]
        eventually(lambda: all(task.running() for task in tasks))
        for n, future in enumerate(futures):
            future.set_result(n)
        assert [task.result(LIMIT) for task in tasks] == [0, 1]


def test_waiting_for_a_busy_pool_is_no_deadlock() -> None:
    with ThreadPoolExecutor(1) as busy, ThreadPoolExecutor(1) as waiting:
        with held(busy):
            pending = busy.submit(pow, 3, 2)
            task = waiting.submit(pending.result)
            eventually(task.running)
        assert task.result(LIMIT) == 9


def test_tasks_that_wait_for_earlier_ones_are_no_deadlock() -> None:
    for workers in (1, 2, 3):
        with ThreadPoolExecutor(workers) as pool:
            futures: list[Any] = []

            def task(n: int, needed: list[Any]) -> int:
                for future in needed:
                    future.result()
                return n

            for n in range(1000):
                needed = [futures[n - back] for back in (1, 7, 30) if back <= n]
                futures.append(pool.submit(task, n, needed))
            assert [future.result(LIMIT) for future in futures] == list(range(1000))
