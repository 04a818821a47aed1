"""Tests of time limits of all kinds: which ones the running version takes, and its errors for the
rest."""

import concurrent.futures
import decimal
import fractions
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, held


class Index:
    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number

    def __gt__(self, other: object) -> bool:
        return self.number > other  # type: ignore[operator]


class Float:
    """An object that can be converted to a float, and has no other number's methods."""

    def __float__(self) -> float:
        return 0.001

    def __gt__(self, other: object) -> bool:
        return True


class Sum:
    """An object whose sum with a number is a float."""

    def __add__(self, other: Any) -> Any:
        return 0.001 + other


class OddSum:
    """An object whose sum with a number is an object that knows the time that is left."""

    def __add__(self, other: Any) -> Any:
        return self

    def __sub__(self, other: Any) -> Any:
        return 0.001


class Refusing:
    """An object that cannot be compared."""

    def __gt__(self, other: object) -> bool:
        raise LookupError("no comparison")


class Subclass(float):
    pass


LIMITS: dict[str, Any] = {
    "0": 0,
    "-0.0": -0.0,
    "-1": -1,
    "minus infinity": -math.inf,
    "a small float": 1e-9,
    "infinity": math.inf,
    "1e300": 1e300,
    "1e10": 1e10,
    "-1e300": -1e300,
    "10**30": 10**30,
    "10**400": 10**400,
    "-10**400": -(10**400),
    "False": False,
    "Decimal": decimal.Decimal("0.001"),
    "Decimal of nothing": decimal.Decimal(0),
    "Decimal that is negative": decimal.Decimal(-1),
    "Fraction": fractions.Fraction(1, 1000),
    "Fraction that is negative": fractions.Fraction(-1, 1000),
    "a text": "1",
    "bytes": b"1",
    "a complex number": 1j,
    "a list": [1],
    "an object": object(),
    "an index": Index(0),
    "a large index": Index(10**30),
    "a negative index": Index(-1),
    "a float by a method": Float(),
    "a sum": Sum(),
    "an odd sum": OddSum(),
    "what cannot be compared": Refusing(),
    "a float of a subclass": Subclass(0.001),
}

try:
    import numpy
except ImportError:
    pass
else:
    LIMITS |= {
        "float16": numpy.float16(0.001),
        "float32": numpy.float32(0.001),
        "float64": numpy.float64(0.001),
        "longdouble": numpy.longdouble(0.001),
        "int32": numpy.int32(0),
        "an array": numpy.array(0.001),
        "an array of two": numpy.array([0.001, 0.001]),
    }

CALLS: dict[str, Callable[[ModuleType, Any, Any, Any], object]] = {
    "result": lambda lib, pool, future, limit: future.result(limit),
    "exception": lambda lib, pool, future, limit: future.exception(limit),
    "wait": lambda lib, pool, future, limit: len(lib.wait([future], limit).done),
    "as_completed": lambda lib, pool, future, limit: len(list(lib.as_completed([future], limit))),
    "map": lambda lib, pool, future, limit: list(pool.map(int, "12", timeout=limit)),
}


def outcome(call: Callable[[], object]) -> str:
    try:
        return repr(call())
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def outcomes(lib: ModuleType, call: str, limit: Any, is_done: bool) -> str:
    with lib.ThreadPoolExecutor(1) as pool:
        if is_done:
            future = pool.submit(int)
            future.result(LIMIT)
            # By now, the results of a map have to be there, too.
            return outcome(lambda: CALLS[call](lib, pool, future, limit))
        with held(pool):
            future = pool.submit(int)
            return outcome(lambda: CALLS[call](lib, pool, future, limit))


@pytest.mark.parametrize(
    ("limit", "call", "is_done"),
    [
        (limit, call, is_done)
        for limit in LIMITS
        for call in CALLS
        for is_done in (False, True)
        # There, it is a matter of luck whether a result comes in time.
        if (call, is_done) != ("map", True)
        # The sum with the clock is rounded, into the past perhaps.
        if (limit not in ("float16", "float32") or call not in ("as_completed", "map"))
        # Whether that one is refused or has passed depends on how fast the machine is.
        if (limit, call, is_done) != ("longdouble", "as_completed", False)
        # That one never ends.
        if (limit, call, is_done) != ("an odd sum", "as_completed", False)
    ],
)
def test_a_limit_is_taken_as_by_the_standard_library(limit: str, call: str, is_done: bool) -> None:
    value = LIMITS[limit]
    expected = outcomes(concurrent.futures, call, value, is_done)
    assert outcomes(concurrent_futures, call, value, is_done) == expected


@pytest.mark.parametrize("call", ["result", "exception", "wait"])
def test_a_limit_of_nan_has_passed(lib: ModuleType, call: str) -> None:
    told = outcomes(lib, call, math.nan, is_done=False)
    assert told in {"TimeoutError: ", "0", "ValueError: Invalid value NaN (not a number)"}
    expected = outcomes(concurrent.futures, call, math.nan, is_done=False)
    assert told == expected


def test_true_is_a_second(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool) as release:
            future = pool.submit(int, "5")
            release.set()
            assert lib.wait([future], timeout=True).done == {future}


@pytest.mark.parametrize("limit", [decimal.Decimal(60), fractions.Fraction(60), Index(60)])
def test_limits_are_not_looked_at_without_waiting(lib: ModuleType, limit: Any) -> None:
    future = lib.Future()
    future.set_result(1)
    assert future.result(limit) == 1
    assert lib.wait([future], limit).done == {future}
