"""Tests that wrong arguments are refused as the standard library refuses them."""

import concurrent.futures
import copy
import fractions
import math
import pickle
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

import concurrent_futures
from support import future_in


class Index:
    """An object that converts to an integer."""

    def __index__(self) -> int:
        return 0


class Float:
    """An object that converts to a float."""

    def __float__(self) -> float:
        return 0.0


class Seconds(float):
    """A subclass of float."""


def named(lib: Any, *settings: Any) -> int:
    """Runs a task in a pool with a thread name, and perhaps an initializer."""
    with lib.ThreadPoolExecutor(1, *settings) as pool:
        return int(pool.submit(abs, -1).result())


FUTURE_CALLS: dict[str, Callable[[Any, Any], object]] = {
    "result by text": lambda lib, f: f.result("1"),
    "result by list": lambda lib, f: f.result([1]),
    "result with two arguments": lambda lib, f: f.result(1, 2),
    "result with an unknown keyword": lambda lib, f: f.result(seconds=1),
    "result with complex": lambda lib, f: f.result(1j),
    "result of infinity": lambda lib, f: f.result(math.inf),
    "result of minus infinity": lambda lib, f: f.result(-math.inf),
    "result of more than can be": lambda lib, f: f.result(threading.TIMEOUT_MAX * 2),
    "result of far more": lambda lib, f: f.result(10**30),
    "result of far less": lambda lib, f: f.result(-(10**30)),
    "result by Decimal": lambda lib, f: f.result(Decimal("0.001")),
    "result by index": lambda lib, f: f.result(Index()),
    "result by float": lambda lib, f: f.result(Float()),
    "result by a float of another class": lambda lib, f: f.result(Seconds(0.001)),
    "result by Fraction": lambda lib, f: f.result(fractions.Fraction(1, 1000)),
    "exception by text": lambda lib, f: f.exception("1"),
    "exception with two arguments": lambda lib, f: f.exception(1, 2),
    "exception of infinity": lambda lib, f: f.exception(math.inf),
    "callback without one": lambda lib, f: f.add_done_callback(),
    "two callbacks": lambda lib, f: f.add_done_callback(print, print),
    "set_result without one": lambda lib, f: f.set_result(),
    "set_result with two": lambda lib, f: f.set_result(1, 2),
    "set_exception without one": lambda lib, f: f.set_exception(),
    "set_exception(None), then result": lambda lib, f: (f.set_exception(None), f.result()),
    "set_exception(5), then result": lambda lib, f: (f.set_exception(5), f.result()),
    "set_exception(class), then result": lambda lib, f: (f.set_exception(KeyError), f.result()),
    "cancel with an argument": lambda lib, f: f.cancel(1),
    "done with an argument": lambda lib, f: f.done(1),
    "running with an argument": lambda lib, f: f.running(1),
    "cancelled with an argument": lambda lib, f: f.cancelled(1),
    "set_running with an argument": lambda lib, f: f.set_running_or_notify_cancel(1),
    "order": lambda lib, f: f < f,
    "length": lambda lib, f: len(f),
    "iteration": lambda lib, f: list(f),
    "call": lambda lib, f: f(),
    "unknown attribute": lambda lib, f: f.nothing,
    "pickle": lambda lib, f: pickle.dumps(f),
    "deep copy": lambda lib, f: copy.deepcopy(f),
    "wait by text": lambda lib, f: lib.wait([f], "1"),
    "wait by index": lambda lib, f: lib.wait([f], Index()),
    "wait by a float of another class": lambda lib, f: lib.wait([f], Seconds(0.001)),
    "wait for what raises": lambda lib, f: lib.wait(f if n else 1 / n for n in (1, 0)),
    "wait by Decimal": lambda lib, f: lib.wait([f], Decimal("0.001")),
    "wait of infinity": lambda lib, f: lib.wait([f], math.inf),
    "wait of too much": lambda lib, f: lib.wait([f], 10**30),
    "wait for what there is not": lambda lib, f: lib.wait([f], 0, "LAST_COMPLETED"),
    "wait for None": lambda lib, f: lib.wait([f], 0, None),
    "wait for a number": lambda lib, f: lib.wait([f], 0, 1),
    "wait for a list": lambda lib, f: lib.wait([f], 0, []),
    "wait for what is not iterable": lambda lib, f: lib.wait(f, 0),
    "wait for a future and a number": lambda lib, f: lib.wait([f, 1], 0),
    "wait for a future and None": lambda lib, f: lib.wait([f, None], 0),
    "wait for a future and text": lambda lib, f: lib.wait([f, "f"], 0),
    "wait for a future and a list": lambda lib, f: lib.wait([f, []], 0),
    "wait with four arguments": lambda lib, f: lib.wait([f], 0, "ALL_COMPLETED", 1),
    "wait with an unknown keyword": lambda lib, f: lib.wait([f], seconds=0),
    "as_completed by text": lambda lib, f: list(lib.as_completed([f], "1")),
    "as_completed of minus infinity": lambda lib, f: list(lib.as_completed([f], -math.inf)),
    "as_completed by Decimal": lambda lib, f: list(lib.as_completed([f], Decimal("0.001"))),
    "as_completed by index": lambda lib, f: list(lib.as_completed([f], Index())),
    "as_completed by a float of another class": (
        lambda lib, f: list(lib.as_completed([f], Seconds(0.001)))
    ),
    "as_completed for what raises": (
        lambda lib, f: list(lib.as_completed(f if n else 1 / n for n in (1, 0)))
    ),
    "as_completed for a future": lambda lib, f: list(lib.as_completed(f)),
    "as_completed for a future and a number": lambda lib, f: list(lib.as_completed([f, 1], 0)),
    "as_completed for a future and a list": lambda lib, f: list(lib.as_completed([f, []], 0)),
    "as_completed with three arguments": lambda lib, f: list(lib.as_completed([f], 0, 1)),
}

CALLS: dict[str, Callable[[Any], object]] = {
    "a future of something": lambda lib: lib.Future(1),
    "a future with a keyword": lambda lib: lib.Future(result=1),
    "wait for nothing": lambda lib: lib.wait(),
    "wait for None": lambda lib: lib.wait(None),
    "wait for a number": lambda lib: lib.wait(5),
    "wait for numbers": lambda lib: lib.wait([1, 2]),
    "wait for no futures in no way": lambda lib: lib.wait([], return_when="NEVER"),
    "wait for no futures by text": lambda lib: lib.wait([], "1"),
    "wait for a class": lambda lib: lib.wait([lib.Future], 0),
    "as_completed for nothing": lambda lib: lib.as_completed(),
    "as_completed for None": lambda lib: list(lib.as_completed(None)),
    "as_completed for numbers": lambda lib: list(lib.as_completed([1, 2])),
    "as_completed for no futures by text": lambda lib: list(lib.as_completed([], "1")),
    "no workers": lambda lib: lib.ThreadPoolExecutor(0),
    "fewer than no workers": lambda lib: lib.ThreadPoolExecutor(-5),
    "workers by text": lambda lib: lib.ThreadPoolExecutor("4"),
    "workers by list": lambda lib: lib.ThreadPoolExecutor([4]),
    "half a worker less": lambda lib: lib.ThreadPoolExecutor(-0.5),
    "an initializer that is none": lambda lib: lib.ThreadPoolExecutor(1, "", "initialize"),
    "a name that is a number": lambda lib: named(lib, 5),
    "a name that is nothing": lambda lib: named(lib, None),
    "a name that is bytes": lambda lib: named(lib, b"name"),
    "initargs that are a list": lambda lib: named(lib, "x", int, ["5"]),
    "initargs that are an iterator": lambda lib: named(lib, "x", int, iter(["5"])),
    "an unknown setting": lambda lib: lib.ThreadPoolExecutor(1, workers=1),
    "too many settings": lambda lib: lib.ThreadPoolExecutor(1, "", None, (), 1, 2, 3),
    "pickle an executor": lambda lib: _pickled(lib.ThreadPoolExecutor(1)),
}


def _pickled(value: object) -> None:
    try:
        pickle.dumps(value)
    except pickle.PicklingError as error:
        # Which of the two it is depends on what cannot be pickled first.
        raise TypeError from error


POOL_CALLS: dict[str, Callable[[Any], object]] = {
    "submit nothing": lambda pool: pool.submit(),
    "submit by keyword": lambda pool: pool.submit(fn=int),
    "submit keywords only": lambda pool: pool.submit(x=1),
    "submit what cannot be called": lambda pool: pool.submit(5).result(),
    "submit None": lambda pool: pool.submit(None, 1).result(),
    "too many arguments": lambda pool: pool.submit(int, 1, 2, 3).result(),
    "unknown keywords": lambda pool: pool.submit(int, unknown=1).result(),
    "keywords that are no text": lambda pool: pool.submit(dict, **{5: 1}),  # type: ignore[arg-type]
    "map nothing": lambda pool: pool.map(),
    "map None": lambda pool: list(pool.map(None, [1])),
    "map without iterables": lambda pool: list(pool.map(int)),
    "map what is not iterable": lambda pool: pool.map(int, 5),
    "map some that is not": lambda pool: pool.map(int, [1], 5),
    "map by text": lambda pool: pool.map(int, [1], timeout="1"),
    "map none by text": lambda pool: pool.map(int, [], timeout="1"),
    "map by list": lambda pool: pool.map(int, [1], timeout=[]),
    "map with an unknown keyword": lambda pool: pool.map(int, [1], chunks=1),
    "map with unpleasant chunks": lambda pool: list(pool.map(int, [1], chunksize="1")),
    "map with unpleasant values": lambda pool: list(pool.map(int, ["x"])),
    "shutdown by position": lambda pool: pool.shutdown(True, True),
    "shutdown with an unknown keyword": lambda pool: pool.shutdown(cancel=True),
    "shutdown with odd values": lambda pool: pool.shutdown("no", cancel_futures=[]),
    "iteration": lambda pool: list(pool),
    "call": lambda pool: pool(),
    "unknown attribute": lambda pool: pool.nothing,
}


def outcome(call: Callable[..., object], *arguments: Any) -> object:
    """Return the type of a call's exception, or that it returned."""
    try:
        call(*arguments)
    except Exception as error:
        return type(error)
    return "returned"


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED"])
@pytest.mark.parametrize("name", FUTURE_CALLS)
def test_futures_refuse_what_the_standard_librarys_do(name: str, state: str) -> None:
    call = FUTURE_CALLS[name]
    ours, theirs = (
        outcome(call, lib, future_in(lib, state))
        for lib in (concurrent_futures, concurrent.futures)
    )
    assert ours == theirs


@pytest.mark.parametrize("name", CALLS)
def test_functions_refuse_what_the_standard_librarys_do(name: str) -> None:
    assert outcome(CALLS[name], concurrent_futures) == outcome(CALLS[name], concurrent.futures)


@pytest.mark.parametrize("name", POOL_CALLS)
def test_executors_refuse_what_the_standard_librarys_do(name: str) -> None:
    outcomes = []
    for lib in (concurrent_futures, concurrent.futures):
        with lib.ThreadPoolExecutor(1) as pool:
            outcomes.append(outcome(POOL_CALLS[name], pool))
    assert outcomes[0] == outcomes[1]
