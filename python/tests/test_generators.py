"""Tests of the return values of `map` and `as_completed`, which are generators, as in the standard
library."""

import collections.abc
import gc
import inspect
import threading
import types
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, Background, eventually, held


@pytest.fixture
def pool(lib: ModuleType) -> Iterator[Any]:
    with lib.ThreadPoolExecutor(1) as pool:
        yield pool


def of_map(lib: ModuleType, pool: Any) -> Any:
    return pool.map(int, range(5))


def of_as_completed(lib: ModuleType, pool: Any) -> Any:
    return lib.as_completed([pool.submit(int) for _ in range(5)])


both = pytest.mark.parametrize("make", [of_map, of_as_completed], ids=["map", "as_completed"])
Make = Callable[[ModuleType, Any], Any]


@both
def test_they_are_generators(lib: ModuleType, pool: Any, make: Make) -> None:
    results = make(lib, pool)
    assert inspect.isgenerator(results)
    assert isinstance(results, types.GeneratorType)
    assert isinstance(results, collections.abc.Generator)
    assert iter(results) is results
    assert inspect.getgeneratorstate(results) == "GEN_CREATED"
    next(results)
    assert inspect.getgeneratorstate(results) == "GEN_SUSPENDED"
    assert results.gi_frame is not None
    assert not results.gi_running
    assert len(list(results)) == 4
    assert inspect.getgeneratorstate(results) == "GEN_CLOSED"
    assert next(results, None) is None


@both
def test_a_sent_value_has_no_effect(lib: ModuleType, pool: Any, make: Make) -> None:
    results = make(lib, pool)
    with pytest.raises(TypeError, match="can't send non-None value to a just-started generator"):
        results.send(1)
    results.send(None)
    results.send(1)
    assert len(list(results)) == 3
    with pytest.raises(StopIteration):
        results.send(None)


@both
def test_send_at_the_end(lib: ModuleType, pool: Any, make: Make) -> None:
    results = make(lib, pool)
    for _ in range(5):
        next(results)
    with pytest.raises(StopIteration):
        results.send("something")


@both
def test_a_thrown_exception_is_raised(lib: ModuleType, pool: Any, make: Make) -> None:
    results = make(lib, pool)
    next(results)
    with pytest.raises(KeyError, match="thrown"):
        results.throw(KeyError("thrown"))
    assert list(results) == []


@both
def test_throw_before_the_start(lib: ModuleType, pool: Any, make: Make) -> None:
    results = make(lib, pool)
    with pytest.raises(KeyError):
        results.throw(KeyError)
    assert list(results) == []


@both
def test_closing(lib: ModuleType, pool: Any, make: Make) -> None:
    for started in (False, True):
        results = make(lib, pool)
        if started:
            next(results)
        results.close()
        results.close()
        assert list(results) == []


def test_delegation(lib: ModuleType, pool: Any) -> None:
    def generator() -> Iterator[Any]:
        yield from pool.map(int, "12")
        yield from (f.result() for f in lib.as_completed([pool.submit(int, "3")]))

    assert list(generator()) == [1, 2, 3]


def test_throwing_cancels_the_rest_of_map(pool: Any) -> None:
    ran: list[int] = []
    gate = threading.Event()

    def task(number: int) -> int:
        ran.append(number)
        if number:
            gate.wait(LIMIT)
        return number

    results = pool.map(task, range(10))
    next(results)
    eventually(lambda: ran == [0, 1])
    with pytest.raises(KeyError):
        results.throw(KeyError)
    gate.set()
    pool.submit(int).result(LIMIT)
    assert ran == [0, 1]


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("way", ["close", "drop"])
def test_closing_the_iterator_of_map_cancels_calls(pool: Any, started: bool, way: str) -> None:
    ran: list[int] = []
    with held(pool) as release:
        if started:
            release.set()
        results = pool.map(ran.append, range(5))
        if started:
            next(results)
        if way == "close":
            results.close()
        del results
        gc.collect()
    pool.submit(int).result(LIMIT)
    if not started:
        assert ran == [0, 1, 2, 3, 4]


def test_a_generator_that_two_threads_enter(lib: ModuleType, pool: Any) -> None:
    for name in "map", "as_completed":
        gate = threading.Event()
        if name == "map":
            results = pool.map(gate.wait, [LIMIT])
        else:
            results = lib.as_completed([pool.submit(gate.wait)])
        waiting = Background(next, results)
        eventually(lambda results=results: results.gi_running)  # type: ignore[misc]
        with pytest.raises(ValueError, match="generator already executing"):
            next(results)
        with pytest.raises(ValueError, match="generator already executing"):
            results.close()
        gate.set()
        waiting.outcome()


def test_as_completed_looks_at_its_arguments_when_it_is_asked(lib: ModuleType, pool: Any) -> None:
    futures = [pool.submit(int)]
    results = lib.as_completed(futures)
    futures.append(pool.submit(int))
    assert set(results) == set(futures)
    wrong = lib.as_completed(5)
    with pytest.raises(TypeError, match="not iterable"):
        next(wrong)
    wrong = lib.as_completed([], "text")
    with pytest.raises(TypeError, match="concatenate"):
        next(wrong)


def test_the_time_of_as_completed_begins_when_it_is_asked(lib: ModuleType, pool: Any) -> None:
    with held(pool):
        results = lib.as_completed([pool.submit(int)], -1)
        with pytest.raises(TimeoutError, match=r"1 \(of 1\) futures unfinished"):
            next(results)
        assert list(results) == []


def test_as_completed_in_time_for_some(lib: ModuleType, pool: Any) -> None:
    """Checks that futures that were done at first are yielded, and no others after the time
    limit."""
    done = pool.submit(int)
    done.result(LIMIT)
    with held(pool) as release:
        late = pool.submit(int)
        results = lib.as_completed([done, late], 0.001)
        assert next(results) is done
        release.set()
        late.result(LIMIT)
        # The time has passed by now, or does while this thread waits.
        clock = threading.Event()
        clock.wait(0.01)
        with pytest.raises(TimeoutError, match=r"1 \(of 2\) futures unfinished"):
            next(results)


def test_map_looks_at_its_arguments_at_once(pool: Any) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        pool.map(int, 5)
    with pytest.raises(ZeroDivisionError):
        pool.map(int, (1 / n for n in (1, 0)))
    with pytest.raises(TypeError, match="concatenate"):
        pool.map(int, [], timeout="text")


def test_a_task_of_map_that_raises_stop_iteration(pool: Any) -> None:
    def task(_: int) -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        list(pool.map(task, [1]))


@both
def test_yielded_results_are_not_kept(lib: ModuleType, pool: Any, make: Make) -> None:
    class Result:
        pass

    results: Any
    if make is of_map:
        results = pool.map(lambda _: Result(), range(2))
    else:
        results = lib.as_completed([pool.submit(Result) for _ in range(2)])
    first = next(results)
    import weakref

    reference = weakref.ref(first)
    del first
    pool.submit(int).result(LIMIT)
    eventually(lambda: (gc.collect(), reference() is None)[1])
    results.close()


def test_map_is_named_as_the_method_of_all_executors(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with pytest.raises(TypeError, match=r"^Executor\.map\(\) missing 1 required"):
            pool.map()
        assert repr(pool.map(abs, [1])).startswith("<generator object Executor.map.<locals>.")
