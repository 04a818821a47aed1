"""Tests that process pools refuse wrong arguments as the standard library does. Each call is made
with both libraries, and must raise the same type with the same text, or return the same value."""

import concurrent.futures
import math
import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT

LIBRARIES = [concurrent.futures, concurrent_futures]


class NotCallable:
    """An object that cannot be called."""


class Index:
    """An object that is a number by `__index__` only."""

    def __index__(self) -> int:
        return 1


def made(lib: Any, *args: Any, **settings: Any) -> tuple[Any, ...]:
    """Makes a pool without using it; returns its notes."""
    pool = lib.ProcessPoolExecutor(*args, **settings)
    noted = (pool._max_workers, pool._max_tasks_per_child, pool._mp_context.get_start_method())
    pool.shutdown()
    return noted


def context(method: str) -> Any:
    """Return a context of multiprocessing."""
    return multiprocessing.get_context(method)


CONSTRUCTORS: dict[str, Callable[[Any], object]] = {
    "nothing": lambda lib: made(lib),
    "None": lambda lib: made(lib, None),
    "one": lambda lib: made(lib, 1),
    "True": lambda lib: made(lib, True),
    "zero": lambda lib: made(lib, 0),
    "False": lambda lib: made(lib, False),
    "less than zero": lambda lib: made(lib, -1),
    "far less than zero": lambda lib: made(lib, -(1 << 70)),
    "minus infinity": lambda lib: made(lib, -math.inf),
    "a float": lambda lib: made(lib, 2.0),
    "not a whole number": lambda lib: made(lib, 1.5),
    "text": lambda lib: made(lib, "2"),
    "a list": lambda lib: made(lib, [2]),
    "complex": lambda lib: made(lib, 2j),
    "by keyword": lambda lib: made(lib, max_workers=3),
    "twice": lambda lib: made(lib, 2, max_workers=3),
    "unknown keyword": lambda lib: made(lib, workers=3),
    "too many": lambda lib: made(lib, 1, None, None, (), 3),
    "initializer by place": lambda lib: made(lib, 1, context("fork"), print, ("a",)),
    "initializer None": lambda lib: made(lib, 1, None, None),
    "initializer not callable": lambda lib: made(lib, 1, initializer=NotCallable()),
    "initializer a number": lambda lib: made(lib, 1, initializer=0),
    "initializer a text": lambda lib: made(lib, 1, None, "print"),
    "no initializer but arguments": lambda lib: made(lib, 1, initargs=(1,)),
    "tasks for a child": lambda lib: made(lib, 1, context("spawn"), max_tasks_per_child=2),
    "tasks True": lambda lib: made(lib, 1, context("spawn"), max_tasks_per_child=True),
    "tasks with the default": lambda lib: made(lib, 1, max_tasks_per_child=2),
    "tasks with fork": lambda lib: made(lib, 1, context("fork"), max_tasks_per_child=2),
    "tasks with forkserver": lambda lib: made(lib, 1, context("forkserver"), max_tasks_per_child=2),
    "no tasks": lambda lib: made(lib, 1, context("spawn"), max_tasks_per_child=0),
    "no tasks with fork": lambda lib: made(lib, 1, context("fork"), max_tasks_per_child=0),
    "less than no tasks": lambda lib: made(lib, 1, context("spawn"), max_tasks_per_child=-1),
    "tasks by float": lambda lib: made(lib, 1, context("spawn"), max_tasks_per_child=1.0),
    "tasks by text": lambda lib: made(lib, 1, context("spawn"), max_tasks_per_child="1"),
    "tasks by index": lambda lib: made(lib, 1, context("spawn"), max_tasks_per_child=Index()),
    "context by name": lambda lib: made(lib, 1, "fork"),
    "context a number": lambda lib: made(lib, 1, 3),
    "several wrong": lambda lib: made(lib, 0, initializer=3, max_tasks_per_child=0),
}


def kind_of(call: Callable[..., Any], *args: Any, **kwargs: Any) -> object:
    """Return the type of the exception of an iterator that cannot be made or used."""
    try:
        return list(call(*args, **kwargs))
    except Exception as error:
        return type(error)


def used(lib: Any, call: Callable[[Any], object]) -> object:
    """Return the result of a call on a pool of one process."""
    with lib.ProcessPoolExecutor(1, mp_context=context("fork")) as pool:
        return call(pool)


CALLS: dict[str, Callable[[Any], object]] = {
    "submit nothing": lambda pool: pool.submit(),
    "submit by keyword": lambda pool: pool.submit(fn=abs),
    "submit what is not callable": lambda pool: pool.submit(3).result(LIMIT),
    "submit None": lambda pool: pool.submit(None).result(LIMIT),
    "submit with too few arguments": lambda pool: pool.submit(pow).result(LIMIT),
    "submit with an unknown keyword": lambda pool: pool.submit(abs, x=1).result(LIMIT),
    "map nothing": lambda pool: pool.map(),
    "map without iterables": lambda pool: list(pool.map(abs)),
    "map by keyword": lambda pool: list(pool.map(fn=abs)),
    "map what cannot be iterated": lambda pool: pool.map(abs, 3),
    "map with one of two that cannot": lambda pool: pool.map(pow, [1], 3),
    "map what is not callable": lambda pool: list(pool.map(None, [1])),
    "map over nothing": lambda pool: list(pool.map(abs, [])),
    "map with chunksize 0": lambda pool: pool.map(abs, [1], chunksize=0),
    "map with chunksize -1": lambda pool: pool.map(abs, [1], chunksize=-1),
    "map with chunksize False": lambda pool: pool.map(abs, [1], chunksize=False),
    "map with chunksize True": lambda pool: list(pool.map(abs, [1, -2], chunksize=True)),
    "map with chunksize by text": lambda pool: pool.map(abs, [1], chunksize="1"),
    "map with chunksize None": lambda pool: list(pool.map(abs, [1], chunksize=None)),
    "map with a great chunksize": lambda pool: list(pool.map(abs, [1, -2], chunksize=1 << 20)),
    "map with a timeout by a list": lambda pool: kind_of(pool.map, abs, [1], timeout=[1]),
    "map with an unknown keyword": lambda pool: pool.map(abs, [1], size=3),
    "shutdown by text": lambda pool: pool.shutdown("now"),
    "shutdown with two by place": lambda pool: pool.shutdown(True, True),
    "shutdown with an unknown keyword": lambda pool: pool.shutdown(now=True),
    "shutdown twice": lambda pool: (pool.shutdown(), pool.shutdown()),
    "submit after shutdown": lambda pool: (pool.shutdown(), pool.submit(abs, 1)),
    "map after shutdown": lambda pool: (pool.shutdown(), pool.map(abs, [1])),
    "map over nothing after shutdown": lambda pool: (pool.shutdown(), list(pool.map(abs, []))),
    "enter after shutdown": lambda pool: pool.shutdown() or type(pool.__enter__()).__name__,
}


def outcome(call: Callable[[], object]) -> tuple[str, object]:
    """Return the result of a call, or its exception."""
    try:
        return "gives", call()
    except Exception as error:
        # The caller's code words the error for a call or an operation that does not fit.
        text = "" if "()" in str(error) or "operand" in str(error) else str(error)
        return f"raises {type(error).__name__}", text


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_arguments_that_the_constructor_accepts_and_refuses(name: str) -> None:
    theirs, ours = (outcome(lambda lib=lib: CONSTRUCTORS[name](lib)) for lib in LIBRARIES)  # type: ignore[misc]
    assert ours == theirs


@pytest.mark.parametrize("name", CALLS)
def test_arguments_that_methods_accept_and_refuse(name: str) -> None:
    theirs, ours = (outcome(lambda lib=lib: used(lib, CALLS[name])) for lib in LIBRARIES)  # type: ignore[misc]
    assert ours == theirs
