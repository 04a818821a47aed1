"""Tests of Executor.map: order, errors, time limits, and how far it runs ahead."""

import concurrent.futures
import contextlib
import gc
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, Background, eventually, freed, held

# The standard library has `buffersize` from 3.14.
WITH_BUFFERSIZE = [concurrent_futures]
if sys.version_info >= (3, 14):
    import concurrent.futures

    WITH_BUFFERSIZE.append(concurrent.futures)


@pytest.fixture(params=WITH_BUFFERSIZE, ids=[module.__name__ for module in WITH_BUFFERSIZE])
def buffering(request: pytest.FixtureRequest) -> ModuleType:
    """Returns each implementation that knows `buffersize`."""
    module: ModuleType = request.param
    return module


class Object:
    """An object that can be referred to weakly."""


def note(folder: Path, number: int) -> None:
    """Note in a folder that a call has run, and give others time."""
    (folder / str(number)).touch()
    time.sleep(0.002)


def stop(_: object) -> None:
    """Raise the exception that ends iterators."""
    raise StopIteration("from a task")


def test_results_come_in_the_order_of_the_items(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(abs, range(-50, 50))) == [abs(n) for n in range(-50, 50)]
        assert list(pool.map(pow, range(10), range(10))) == [n**n for n in range(10)]
        assert list(pool.map(lambda *all: all, "ab", range(5), [None] * 3)) == [
            ("a", 0, None),
            ("b", 1, None),
        ]
        assert list(pool.map(abs, [])) == []
        assert list(pool.map(abs)) == []


def test_a_later_item_that_is_done_first_waits_for_its_turn(lib: ModuleType) -> None:
    second = threading.Event()

    def task(n: int) -> int:
        if n == 0:
            assert second.wait(LIMIT)
        else:
            second.set()
        return n

    with lib.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(task, [0, 1])) == [0, 1]


def test_a_result_does_not_wait_for_the_calls_after_it(lib: ModuleType) -> None:
    # Many short calls, then one that goes on when all results before it were taken.
    every = 500
    gates = [threading.Event() for _ in range(20)]

    def task(n: int) -> int:
        if n % every == every - 1:
            assert gates[n // every].wait(LIMIT)
        return n

    with lib.ThreadPoolExecutor(1) as pool:
        for n, result in enumerate(pool.map(task, range(every * len(gates)))):
            assert result == n
            if n % every == every - 2:
                gates[n // every].set()


def test_the_iterator_is_an_iterator(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        results = pool.map(abs, [-1])
        assert isinstance(pool.map(abs, []), Iterator)
        assert iter(results) is results
        assert next(results) == 1
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(results)
        results.close()


@pytest.mark.parametrize("chunksize", [1, 3, 1000, 0, -1])
def test_threads_make_no_chunks(lib: ModuleType, chunksize: int) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(abs, range(10), chunksize=chunksize)) == list(range(10))


def test_tasks_are_submitted_before_anyone_asks_for_results(lib: ModuleType) -> None:
    ran: list[int] = []
    pool = lib.ThreadPoolExecutor(2)
    pool.map(ran.append, range(10))
    pool.shutdown()
    assert sorted(ran) == list(range(10))


def test_results_can_be_taken_after_shutdown(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        results = pool.map(abs, range(-20, 0))
    assert sum(results) == 210


def test_the_executor_may_go_before_its_results(lib: ModuleType) -> None:
    results = lib.ThreadPoolExecutor(2).map(abs, range(-20, 0))
    gc.collect()
    assert sum(results) == 210


def test_an_exception_comes_in_its_turn(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        results = pool.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
        assert next(results) == (0, 1)
        assert next(results) == (0, 1)
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)


def test_an_exception_cancels_pending_tasks(lib: ModuleType) -> None:
    ran: list[int] = []
    second, release = threading.Event(), threading.Event()

    def task(n: int) -> None:
        if n == 0:
            assert second.wait(LIMIT)
            raise KeyError(n)
        ran.append(n)
        assert release.wait(LIMIT)

    with lib.ThreadPoolExecutor(1) as pool:
        results = pool.map(task, range(5))
        second.set()
        with pytest.raises(KeyError):
            next(results)
        # The worker may be at the next one already, but not further.
        release.set()
    assert ran in ([], [1])


def test_stop_iteration_of_a_task_does_not_end_the_iterator_silently(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError) as caught:
        list(pool.map(stop, [1, 2]))
    assert isinstance(caught.value.__cause__, StopIteration)


def test_closing_cancels_what_is_pending(lib: ModuleType) -> None:
    ran: list[int] = []
    with lib.ThreadPoolExecutor(1) as pool:
        results = pool.map(ran.append, [0])
        next(results)
        first = threading.Event()

        def task(n: int) -> int:
            if n > 0:
                assert first.wait(LIMIT)
            ran.append(n)
            return n

        with contextlib.closing(pool.map(task, range(5))) as results:
            assert next(results) == 0
        # The worker may be at the next one already, but not further.
        first.set()
    assert ran[:2] == [0, 0]
    assert set(ran[2:]) <= {1}


def test_dropping_the_iterator_cancels_what_is_pending(lib: ModuleType) -> None:
    ran: list[int] = []
    release = threading.Event()

    def task(n: int) -> int:
        if n > 0:
            assert release.wait(LIMIT)
        ran.append(n)
        return n

    with lib.ThreadPoolExecutor(1) as pool:
        for result in pool.map(task, range(5)):
            assert result == 0
            break
        gc.collect()
        release.set()
    assert ran in ([0], [0, 1])


def test_the_last_call_is_cancelled_first(lib: ModuleType) -> None:
    """Then a worker that becomes free meanwhile starts the first one that is left."""
    cancelled: list[int] = []
    release = threading.Event()

    class Noting(lib.ThreadPoolExecutor):  # type: ignore[name-defined, misc]
        submitted = 0

        def submit(self, *args: Any) -> Any:
            future = super().submit(*args)
            future.add_done_callback(partial(self.note, self.submitted))
            self.submitted += 1
            return future

        @staticmethod
        def note(number: int, future: Any) -> None:
            if future.cancelled():
                cancelled.append(number)

    with Noting(1) as pool:
        results = pool.map(lambda n: n == 0 or release.wait(LIMIT), range(6))
        assert next(results)
        # The worker is at the next one, or about to start it.
        results.close()
        release.set()
    assert cancelled in ([5, 4, 3, 2], [5, 4, 3, 2, 1])


@pytest.mark.parametrize("chunksize", [1, 2])
def test_a_process_pool_begins_no_call_behind_a_cancelled_one(
    lib: ModuleType, tmp_path: Path, chunksize: int
) -> None:
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        with lib.ProcessPoolExecutor(1) as pool:
            results = pool.map(note, [folder] * 40, range(40), chunksize=chunksize)
            next(results)
            results.close()
        ran = sorted(int(file.name) for file in folder.iterdir())
        assert ran == list(range(len(ran)))


def test_a_time_limit_counts_from_the_call(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        ran: list[int] = []
        with held(pool):
            results = pool.map(ran.append, range(3), timeout=0)
            with pytest.raises(TimeoutError):
                next(results)
            with pytest.raises(StopIteration):
                next(results)
    # None was running, so all were cancelled.
    assert ran == []


def test_done_results_are_yielded_after_the_time_limit(lib: ModuleType) -> None:
    started, release = threading.Event(), threading.Event()

    def task(n: int) -> int:
        if n == 2:
            started.set()
            assert release.wait(LIMIT)
        return n

    with lib.ThreadPoolExecutor(1) as pool:
        done: list[int] = []
        results = pool.map(task, range(3), timeout=0)
        assert started.wait(LIMIT)
        with pytest.raises(TimeoutError):
            for result in results:
                done.append(result)
        assert done == [0, 1]
        release.set()


def test_a_time_limit_that_does_not_pass(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(abs, range(5), timeout=LIMIT)) == list(range(5))
        assert list(pool.map(abs, range(5), timeout=int(LIMIT))) == list(range(5))


def test_an_iterable_that_raises_raises_at_the_call(lib: ModuleType) -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("no more")

    ran: list[int] = []
    with lib.ThreadPoolExecutor(1) as pool, pytest.raises(LookupError, match="no more"):
        pool.map(ran.append, items())
    assert ran == [1, 2]


def test_map_after_shutdown(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.map(abs, [1])
    assert list(pool.map(abs, [])) == []


def test_the_iterator_keeps_no_results(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        for result in pool.map(lambda _: Object(), range(10)):
            reference = weakref.ref(result)
            del result
            gc.collect()
            assert reference() is None


def test_the_iterator_keeps_no_items(lib: ModuleType) -> None:
    if lib is concurrent.futures and sys.version_info >= (3, 14):
        pytest.skip("the standard library's keeps the last one")
    items = [Object() for _ in range(5)]
    references = [weakref.ref(item) for item in items]
    with lib.ThreadPoolExecutor(1) as pool:
        results = pool.map(id, items)
        items.clear()
        eventually(lambda: all(map(freed, references)))
        assert len(list(results)) == 5


def test_the_iterator_keeps_no_function(lib: ModuleType) -> None:
    if lib is concurrent.futures and sys.version_info >= (3, 14):
        pytest.skip("the standard library's keeps the last one")

    class Function:
        def __call__(self, n: int) -> int:
            return n + 1

    function = Function()
    reference = weakref.ref(function)
    with lib.ThreadPoolExecutor(2) as pool:
        results = pool.map(function, range(200))
        del function
        eventually(lambda: freed(reference))
        assert list(results) == list(range(1, 201))


def test_an_iterator_that_its_own_result_refers_to_is_collected(lib: ModuleType) -> None:
    for is_begun in (False, True):
        node: Any = Object()
        with lib.ThreadPoolExecutor(1) as pool:
            node.results = pool.map([node].pop, [0] * 3 if is_begun else [0])
            if is_begun:
                assert next(node.results) is node
                with pytest.raises(IndexError):
                    next(node.results)
                node.results = pool.map([None, node].pop, [0, 0])
                assert next(node.results) is None
        reference = weakref.ref(node)
        del node
        gc.collect()
        assert reference() is None


def test_arguments_that_are_no_iterables(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        for wrong in ([5], [[1], 5], [5, [1]]):
            with pytest.raises(TypeError, match="not iterable"):
                pool.map(abs, *wrong)
        assert list(pool.map(tuple, [(1, 2), ()])) == [(1, 2), ()]
        assert list(pool.map(lambda *all: all, [(1, 2), ()])) == [((1, 2),), ((),)]


def test_results_can_be_taken_by_several_threads_in_turn(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        results = pool.map(abs, range(20))
        taken = [Background(next, results).outcome() for _ in range(20)]
    assert taken == list(range(20))


def test_an_overridden_submit_is_called_with_buffersize(buffering: ModuleType) -> None:
    calls: list[Any] = []

    class Pool(buffering.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return super().submit(fn, *args, **kwargs)

    with Pool(1) as pool:
        results = pool.map(abs, itertools.count(), buffersize=2)
        assert len(calls) == 2
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        assert len(calls) == 5
        results.close()


@pytest.mark.parametrize("buffersize", [1, 2, 3, 100])
def test_buffersize_keeps_the_results_and_their_order(
    buffering: ModuleType, buffersize: int
) -> None:
    with buffering.ThreadPoolExecutor(2) as pool:
        results = pool.map(pow, range(20), itertools.repeat(2), buffersize=buffersize)
        assert list(results) == [n * n for n in range(20)]
        assert list(pool.map(abs, [], buffersize=buffersize)) == []
        assert list(pool.map(abs, buffersize=buffersize)) == []


@pytest.mark.parametrize("buffersize", [1, 2, 5])
def test_buffersize_bounds_how_far_items_are_taken_ahead(
    buffering: ModuleType, buffersize: int
) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for n in itertools.count():
            taken += 1
            yield n

    with buffering.ThreadPoolExecutor(2) as pool:
        results = pool.map(abs, items(), buffersize=buffersize)
        assert taken == buffersize
        for n in range(10):
            assert next(results) == n
            assert taken == buffersize + n + 1
        results.close()
        assert taken == buffersize + 10


def test_buffersize_and_errors(buffering: ModuleType) -> None:
    with buffering.ThreadPoolExecutor(2) as pool:
        results = pool.map(divmod, [1, 1, 1], [1, 0, 1], buffersize=1)
        assert next(results) == (1, 0)
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)
        with held(pool, 2):
            results = pool.map(abs, itertools.count(), buffersize=2, timeout=0)
            with pytest.raises(TimeoutError):
                next(results)


@pytest.mark.parametrize("wrong", [0, -1])
def test_buffersize_must_be_positive(buffering: ModuleType, wrong: int) -> None:
    pool = buffering.ThreadPoolExecutor(1)
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        pool.map(abs, [1], buffersize=wrong)


@pytest.mark.parametrize("wrong", ["1", 1.5, [1]])
def test_buffersize_must_be_a_number(buffering: ModuleType, wrong: Any) -> None:
    pool = buffering.ThreadPoolExecutor(1)
    with pytest.raises(TypeError, match="buffersize must be an integer or None"):
        pool.map(abs, [1], buffersize=wrong)


def test_buffersize_of_none_is_no_bound(buffering: ModuleType) -> None:
    items = iter(range(100))
    with buffering.ThreadPoolExecutor(1) as pool:
        results = pool.map(abs, items, buffersize=None)
        assert next(items, None) is None
        assert list(results) == list(range(100))


def test_map_submits_by_a_submit_that_was_replaced(lib: ModuleType) -> None:
    # As tqdm does, to see the futures.
    with lib.ThreadPoolExecutor(1) as pool:
        original, futures = pool.submit, []

        def submit(*args: Any, **kwargs: Any) -> Any:
            futures.append(original(*args, **kwargs))
            return futures[-1]

        pool.submit = submit
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
    assert [future.result() for future in futures] == [1, 2]
