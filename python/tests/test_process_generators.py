"""Tests that `map` of process pools returns a value that behaves as the standard library's
generator."""

import collections.abc
import gc
import inspect
import operator
import types
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, Background, eventually
from tasks import Flag


def wait_for(flag: Flag) -> bool:
    flag.wait()
    return True


@pytest.fixture
def pool(lib: ModuleType, forking: Any) -> Iterator[Any]:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        yield pool


def test_it_is_a_generator_to_those_who_ask(pool: Any) -> None:
    results = pool.map(tasks.identity, range(5))
    assert inspect.isgenerator(results)
    assert isinstance(results, types.GeneratorType)
    assert isinstance(results, collections.abc.Generator)
    assert iter(results) is results
    assert inspect.getgeneratorstate(results) == "GEN_CREATED"
    assert inspect.isframe(results.gi_frame)
    assert inspect.iscode(results.gi_code)
    next(results)
    assert inspect.getgeneratorstate(results) == "GEN_SUSPENDED"
    assert inspect.isframe(results.gi_frame)
    assert not results.gi_running
    assert list(results) == [1, 2, 3, 4]
    assert inspect.getgeneratorstate(results) == "GEN_CLOSED"
    assert results.gi_frame is None
    assert next(results, None) is None


def test_it_has_the_attributes_of_generators_of_this_python(pool: Any) -> None:
    names = {name for name in dir(types.GeneratorType) if name.startswith("gi_")}
    assert names <= set(dir(pool.map(tasks.identity, [])))


@pytest.mark.parametrize("way", ["close", "throw", "an exception"])
def test_how_it_ends(pool: Any, way: str) -> None:
    results = pool.map(int, ["1", "x", "3"])
    assert next(results) == 1
    if way == "close":
        results.close()
        results.close()
    elif way == "throw":
        with pytest.raises(KeyError, match="thrown"):
            results.throw(KeyError("thrown"))
    else:
        with pytest.raises(ValueError, match="invalid literal"):
            next(results)
    assert inspect.getgeneratorstate(results) == "GEN_CLOSED"
    assert list(results) == []
    with pytest.raises(LookupError):
        results.throw(LookupError)


def test_a_sent_value_has_no_effect(pool: Any) -> None:
    results = pool.map(tasks.identity, range(3))
    with pytest.raises(TypeError, match="can't send non-None value to a just-started generator"):
        results.send(1)
    assert results.send(None) == 0
    assert results.send("something") == 1
    assert list(results) == [2]
    with pytest.raises(StopIteration):
        results.send(None)


@pytest.mark.parametrize("thrown", [KeyError, KeyError("with a value")])
def test_a_thrown_exception_is_raised(pool: Any, thrown: Any) -> None:
    results = pool.map(tasks.identity, range(3))
    with pytest.raises(KeyError):
        results.throw(thrown)
    assert list(results) == []


def test_throw_refuses_objects_that_are_no_exceptions(pool: Any) -> None:
    results = pool.map(tasks.identity, range(3))
    next(results)
    with pytest.raises(TypeError, match="exceptions must be classes or instances"):
        results.throw(5)


def test_a_generator_that_delegates(pool: Any) -> None:
    def around() -> Iterator[Any]:
        yield from pool.map(tasks.identity, range(3))

    generator: Any = around()
    assert next(generator) == 0
    assert generator.send(1) == 1
    with pytest.raises(KeyError):
        generator.throw(KeyError)
    assert list(generator) == []


def test_a_thread_that_meets_another(pool: Any, release: Flag) -> None:
    results = pool.map(wait_for, [release])
    waiting = Background(next, results)
    eventually(lambda: results.gi_running)
    assert inspect.getgeneratorstate(results) == "GEN_RUNNING"
    for meet in (lambda: next(results), results.close, lambda: results.throw(KeyError)):
        with pytest.raises(ValueError, match="generator already executing"):
            meet()
    release.set()
    assert waiting.outcome() is True


@pytest.mark.parametrize("started", [False, True])
def test_an_exception_leaves_a_loop(pool: Any, started: bool) -> None:
    results = pool.map(tasks.identity, range(500))
    if started:
        next(results)
    with pytest.raises(ZeroDivisionError):
        for _ in results:
            operator.floordiv(1, 0)
    del results
    gc.collect()
    assert pool.submit(tasks.identity, 5).result(LIMIT) == 5
