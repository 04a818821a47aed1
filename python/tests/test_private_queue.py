"""Tests of the private queue of thread pools, as popular code reads and replaces it."""

import queue
import threading
from types import ModuleType
from typing import Any

import pytest

from private_support import args_of, run_item
from support import LIMIT, Background, eventually, held


class Ordered:
    """A task of a priority queue."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __lt__(self, other: "Ordered") -> bool:
        return bool(args_of(self.item) < args_of(other.item))


class PriorityQueue(queue.PriorityQueue[Any]):
    """A queue from which tasks with the least arguments come first, and the marks that wake workers
    last."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Adds a task."""
        super().put((item is None, item and Ordered(item)), block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes a task."""
        is_wake_up, ordered = super().get(block, timeout)
        return None if is_wake_up else ordered.item


def test_the_queue_counts_pending_tasks(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        assert pool._work_queue.empty()
        futures = [pool.submit(int) for _ in range(3)]
        assert pool._work_queue.qsize() == 3
        assert not pool._work_queue.empty()
    assert [future.result() for future in futures] == [0, 0, 0]


def test_pending_tasks_are_taken_out_of_the_queue_and_cancelled(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        futures = [pool.submit(int) for _ in range(3)]
        items = []
        with pytest.raises(queue.Empty):
            while True:
                items.append(pool._work_queue.get(block=False))
        assert [item.future for item in items] == futures
        assert all(item.future.cancel() for item in items)
        last = pool.submit(int, "4")
    assert all(future.cancelled() for future in futures)
    assert last.result(LIMIT) == 4


def test_the_queue_is_drained_after_shutdown(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(1)
    with held(pool):
        futures = [pool.submit(int) for _ in range(3)]
        pool.shutdown(wait=False)
        with pytest.raises(queue.Empty):
            while True:
                item = pool._work_queue.get_nowait()
                if item is not None:
                    item.future.cancel()
    assert [future.cancelled() for future in futures] == [True] * 3
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(int)
    pool._work_queue.put(None)  # It was drained, too.
    for thread in pool._threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_a_task_from_the_queue_knows_its_call_and_can_be_run(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        future = pool.submit(int, "11", base=2)
        item = pool._work_queue.get_nowait()
        assert args_of(item) == ("11",)
        run_item(pool, item)
        assert future.result() == 3
        failing = pool.submit(int, "x")
        run_item(pool, pool._work_queue.get(timeout=LIMIT))
        assert isinstance(failing.exception(), ValueError)


def test_a_task_that_was_taken_is_put_back(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            future = pool.submit(int, "5")
            pool._work_queue.put(pool._work_queue.get_nowait())
        assert future.result(LIMIT) == 5


def test_tasks_stay_in_their_order_when_the_queue_is_touched(lib: ModuleType) -> None:
    order: list[int] = []
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            for number in range(50):
                pool.submit(order.append, number)
            pool._work_queue.put(pool._work_queue.get_nowait())
            for number in range(50, 100):
                pool.submit(order.append, number)
    assert order == [*range(1, 50), 0, *range(50, 100)]


def test_map_goes_on_when_the_queue_is_touched(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            waiting = Background(list, pool.map(abs, [-1, -2]))
            failing = pool.map(int, ["7", "x"])
            powers = pool.map(pow, [2, 3, 4], [1, 2, 3])
            pool._work_queue.put(pool._work_queue.get_nowait())
            late = pool.map(str, [8, 9])
        assert waiting.outcome() == [1, 2]
        assert next(failing) == 7
        with pytest.raises(ValueError, match="'x'"):
            next(failing)
        assert list(powers) == [2, 9, 64]
        assert list(late) == ["8", "9"]


def test_calls_of_map_are_cancelled_after_the_queue_was_touched(lib: ModuleType) -> None:
    called: list[int] = []
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            results = pool.map(called.append, range(5), timeout=0)
            pool._work_queue.put(pool._work_queue.get_nowait())
            with pytest.raises(TimeoutError):
                next(results)
            last = pool.submit(int)
        assert last.result(LIMIT) == 0
    assert called == []


def test_the_call_of_map_that_code_takes_from_the_queue_is_that_of_the_iterator(
    lib: ModuleType,
) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        results = pool.map(pow, [2, 3], [5, 2])
        for _ in range(2):
            run_item(pool, pool._work_queue.get_nowait())
        assert list(results) == [32, 9]


def test_a_cancelled_task_is_notified_by_a_worker(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            future = pool.submit(int)
            pool._work_queue.put(pool._work_queue.get_nowait())
            assert future.cancel()
        eventually(lambda: future._state == "CANCELLED_AND_NOTIFIED")
        assert lib.wait([future], LIMIT).done == {future}


@pytest.mark.parametrize("when", ["in the constructor", "before tasks"])
def test_a_bounded_queue_blocks_submit(lib: ModuleType, when: str) -> None:
    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(1)
            if when == "in the constructor":
                self._work_queue: Any = queue.Queue(2)

    with Pool() as pool:
        if when == "before tasks":
            pool._work_queue = queue.Queue(2)
        check_bound(pool)


def test_a_queue_that_is_replaced_while_a_task_runs(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(2)
    with held(pool):
        before = pool._work_queue
        pool._work_queue = queue.Queue(2)
        # The thread that is there stays with its queue.
        future = pool.submit(threading.current_thread)
        assert future.result(LIMIT) in pool._threads
        assert len(pool._threads) == 2
        before.put(None)
    # A thread that is told so before the shutdown goes on.
    pool.shutdown(wait=False)
    before.put(None)
    pool.shutdown()
    assert not any(thread.is_alive() for thread in pool._threads)


def check_bound(pool: Any) -> None:
    """Checks that one task runs, two are pending, and no more are submitted."""
    with held(pool):
        futures = [pool.submit(int) for _ in range(2)]
        submitting = threading.Thread(target=lambda: futures.append(pool.submit(int)))
        submitting.start()
        submitting.join(0.05)
        assert submitting.is_alive()
    submitting.join(LIMIT)
    assert [future.result(LIMIT) for future in futures] == [0] * 3


def test_a_priority_queue_decides_which_task_comes_first(lib: ModuleType) -> None:
    done: list[int] = []
    pool = lib.ThreadPoolExecutor(1)
    pool._work_queue = PriorityQueue()
    with pool:
        with held(pool):
            for number in (3, 1, 2):
                pool.submit(done.append, number)
    assert done == [1, 2, 3]


def test_a_pool_whose_queue_was_set_before_its_constructor_ran(lib: ModuleType) -> None:
    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            before: Any = queue.Queue()
            self._work_queue = before
            super().__init__(1)

    with Pool() as pool:
        assert pool.submit(int, "1").result(LIMIT) == 1
