"""Tests of map on processes: chunks, order, exceptions, time limits."""

import itertools
import operator
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
import tasks
from support import LIMIT, eventually
from tasks import Flag

CHUNKSIZES = [1, 2, 3, 7, 20, 1000]


@pytest.fixture
def pool(lib: ModuleType, forking: Any) -> Iterator[Any]:
    """Makes a pool of two processes."""
    with lib.ProcessPoolExecutor(2, mp_context=forking) as made:
        yield made


def add(*numbers: int) -> int:
    """Return the sum."""
    return sum(numbers)


def as_tuple(item: Any) -> tuple[Any]:
    """Return the item in a tuple."""
    return (item,)


def first(item: Any, _other: Any) -> Any:
    """Returns the first argument of two."""
    return item


def wait_for(flag: Flag) -> bool:
    """Wait for the flag."""
    return flag.wait()


def test_map_on_all_start_methods(lib: ModuleType, context: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert list(pool.map(pow, [2, 3], [5, 2])) == [32, 9]
        assert list(pool.map(str, range(50), chunksize=7)) == list(map(str, range(50)))


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_results_come_in_the_order_of_the_items(pool: Any, chunksize: int) -> None:
    results = pool.map(add, range(100), itertools.count(1), [10] * 101, chunksize=chunksize)
    assert iter(results) is results
    assert list(results) == [2 * n + 11 for n in range(100)]
    assert list(results) == []


def test_the_shortest_iterable_ends_it(pool: Any) -> None:
    assert list(pool.map(add, [1, 2, 3], [1], itertools.count())) == [2]
    assert list(pool.map(add, [], itertools.count())) == []


def test_iterables_of_all_kinds(pool: Any) -> None:
    assert list(pool.map(abs, (n for n in [-1, -2]))) == [1, 2]
    assert list(pool.map(len, {"ab": 1, "c": 2})) == [2, 1]
    assert list(pool.map(str.upper, "abc", chunksize=2)) == ["A", "B", "C"]
    assert list(pool.map(tasks.identity, [None, (), [], {}])) == [None, (), [], {}]


def test_iterables_are_read_when_map_is_called(pool: Any) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10):
            read.append(number)
            yield number

    results = pool.map(abs, numbers())
    assert read == list(range(10))
    assert list(results) == read


def test_an_iterable_that_fails_fails_map(pool: Any) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    for chunksize in 1, 5:
        with pytest.raises(LookupError, match="no more"):
            pool.map(abs, numbers(), chunksize=chunksize)
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_an_exception_is_raised_at_its_turn(pool: Any) -> None:
    results = pool.map(tasks.fails_at, range(10), [4] * 10)
    assert list(itertools.islice(results, 4)) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="^4 is bad$") as caught:
        next(results)
    assert "in fails_at" in str(caught.value.__cause__)
    # As with any generator, that was the end.
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("chunksize", [2, 4, 100])
def test_with_chunks_an_exception_takes_the_place_of_its_chunk(pool: Any, chunksize: int) -> None:
    results = pool.map(tasks.fails_at, range(10), [5] * 10, chunksize=chunksize)
    got = []
    with pytest.raises(ValueError, match="^5 is bad$"):
        for result in results:
            got.append(result)
    assert got == list(range(5 // chunksize * chunksize))


@pytest.mark.parametrize("chunksize", [1, 3])
def test_a_time_limit_counts_from_the_call(
    pool: Any, chunksize: int, running: Flag, release: Flag
) -> None:
    results = pool.map(tasks.hold, [running] * 6, [release] * 6, timeout=0.2, chunksize=chunksize)
    running.wait()
    with pytest.raises(TimeoutError):
        next(results)
    release.set()


def test_a_time_limit_that_does_not_pass(pool: Any) -> None:
    assert list(pool.map(abs, [-1, -2], timeout=LIMIT)) == [1, 2]
    assert list(pool.map(abs, [], timeout=0)) == []


def test_dropping_the_results_cancels_the_rest(
    pool: Any, tmp_path: Path, running: Flag, release: Flag
) -> None:
    first = pool.submit(tasks.hold, running, release)
    second = pool.submit(tasks.hold, running, release)
    running.wait()
    path = tmp_path / "ran"
    results = pool.map(tasks.append, [path] * 50, range(50))
    # A generator that has not begun has nothing to clean up.
    with pytest.raises(TimeoutError):
        next(pool.map(tasks.append, [path] * 50, range(50, 100), timeout=0))
    del results
    release.set()
    first.result(LIMIT)
    second.result(LIMIT)
    pool.shutdown()
    # The standard library had handed some out already.
    ran = [int(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert len([number for number in ran if number >= 50]) <= 5


def test_results_may_be_long(pool: Any) -> None:
    results = pool.map(tasks.big, [500_000] * 12, chunksize=3)
    assert [len(result) for result in results] == [500_000] * 12


def test_chunks_run_in_several_processes(lib: ModuleType, forking: Any, tmp_path: Path) -> None:
    with lib.ProcessPoolExecutor(2, mp_context=forking) as pool:
        pids = list(pool.map(tasks.meet, [tmp_path] * 2, [2] * 2))
    assert len(set(pids)) == 2
    assert os.getpid() not in pids


def test_several_maps_at_the_same_time(pool: Any) -> None:
    maps = [pool.map(add, range(50), [n] * 50, chunksize=1 + n) for n in range(5)]
    for n, results in reversed(list(enumerate(maps))):
        assert list(results) == [each + n for each in range(50)]


def test_an_unpicklable_item_fails_at_its_turn(pool: Any) -> None:
    items = [1, tasks.Unpicklable(), 3]
    results = pool.map(tasks.identity, items)
    assert next(results) == 1
    with pytest.raises(Exception, match="not this one"):
        next(results)
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_many_tiny_items(pool: Any) -> None:
    items = range(20_000)
    assert list(pool.map(tasks.identity, items, chunksize=500)) == list(items)
    few = range(1_000)
    assert list(pool.map(tasks.identity, few)) == list(few)


SIMPLE = [
    *[0, 1, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**40],
    *[True, False, None, 0.0, -0.0, 1e300, float("inf"), "", "text", "ümläut \0", "\ud800"],
    *[b"", b"\0bytes", (), (1, "a", None), [], [True, 2.5], {}, {"a": 1, 2: b"b"}],
    *["long" * 10_000, b"long" * 10_000, [0] * 1_000, (1, (2, [3])), {"a": {"b": "c"}}],
]


@pytest.mark.parametrize("others", [[], [tasks.Point(1), {1, 2}, 3 + 4j]], ids=["simple", "mixed"])
@pytest.mark.parametrize("repeated", [1, 40])
def test_items_and_results_of_all_kinds_arrive_as_they_are(
    pool: Any, others: list[Any], repeated: int
) -> None:
    items = [*SIMPLE, *others] * repeated
    for results in (
        list(pool.map(tasks.identity, items)),
        [result for (result,) in pool.map(as_tuple, items)],
        list(pool.map(first, items, items)),
    ):
        assert [repr(result) for result in results] == [repr(item) for item in items]
        assert [type(result) for result in results] == [type(item) for item in items]


def test_an_iterator_over_results_ends_as_others_do(pool: Any) -> None:
    results = pool.map(tasks.identity, range(600))
    assert [next(results) for _ in range(599)] == list(range(599))
    assert list(results) == [599]
    assert list(results) == []
    assert next(results, None) is None


def test_a_thread_that_meets_another_in_an_iterator_is_told(forking: Any, tmp_path: Path) -> None:
    flag = Flag(tmp_path / "flag")
    with concurrent_futures.ProcessPoolExecutor(1, mp_context=forking) as pool:
        results: Any = pool.map(wait_for, [flag])
        with concurrent_futures.ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(next, results)
            eventually(lambda: operator.length_hint(results) == 0)
            with pytest.raises(ValueError, match="generator already executing"):
                next(results)
            with pytest.raises(ValueError, match="generator already executing"):
                results.close()
            flag.set()
            assert waiting.result(LIMIT) is True
        assert list(results) == []


def test_results_are_let_go_as_they_are_taken(pool: Any) -> None:
    import gc
    import weakref

    results = pool.map(tasks.Point, range(10), chunksize=5)
    first = next(results)
    alive = weakref.ref(first)
    del first
    eventually(lambda: (gc.collect(), alive() is None)[1])
    assert next(results).x == 1


def test_the_maps_of_both_kinds_of_executors_are_alike(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(2, mp_context=forking) as processes:
        with lib.ThreadPoolExecutor(2) as threads:
            for pool in processes, threads:
                assert list(pool.map(add, [1, 2], [3, 4], chunksize=2, timeout=LIMIT)) == [4, 6]


def test_a_subclass_may_replace_submit(lib: ModuleType, forking: Any) -> None:
    submitted: list[Any] = []

    class Counting(lib.ProcessPoolExecutor):  # type: ignore[name-defined,misc]
        """An executor that notes the submitted functions."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            """Note the function, and submit the call."""
            submitted.append(fn)
            return super().submit(fn, *args, **kwargs)

    with Counting(1, mp_context=forking) as pool:
        assert list(pool.map(abs, [-1, -2], chunksize=1)) == [1, 2]
        assert len(submitted) == 2
        if sys.version_info >= (3, 14):
            results = pool.map(abs, itertools.count(), chunksize=2, buffersize=2)
            assert len(submitted) == 4
            assert [next(results) for _ in range(3)] == [0, 1, 2]
            assert len(submitted) == 6
            results.close()
        elif lib is concurrent_futures:
            with pytest.raises(TypeError, match="buffersize needs the executor's own submit"):
                pool.map(abs, [1], buffersize=2)


def test_the_interface_of_map_is_the_versions() -> None:
    import concurrent.futures
    import inspect

    theirs = inspect.signature(concurrent.futures.ProcessPoolExecutor.map).parameters
    ours = inspect.signature(concurrent_futures.ProcessPoolExecutor.map).parameters
    assert [each for each in ours if each in theirs] == list(theirs)
