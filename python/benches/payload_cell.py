"""Measures one cell of the table of payloads, in a process of its own, and prints it as JSON.

The process is new, so that its heap is; so are those of the workers. The first pass is that of a
fresh heap, the others are those of a used one. All objects are new in each pass.
"""

import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

WORKERS = 2
_PASSES = 4
#: About how many bytes go through a pool in one pass, and how many tasks at most and at least.
_BYTES = 24 << 20
_MOST, _LEAST = 200, 4
#: The number of calls in one task, or ahead of the iteration.
_AT_A_TIME = 4


@dataclass
class Record:
    """An object with a long field."""

    name: str
    numbers: list[int]
    content: bytes


def make(kind: str, size: int, number: int) -> Any:
    """Return a new object of about `size` bytes, which differs from the one before."""
    if kind == "bytes":
        return bytes([number % 251]) * size
    if kind == "str":
        return chr(97 + number % 26) * size
    if kind == "dataclass":
        return Record("record", [number] * 4, bytes([number % 251]) * size)
    numpy = import_module("numpy")
    if kind == "array":
        return numpy.full(size, number % 251, dtype=numpy.uint8)
    return {key: numpy.full(max(1, size // 32), number, dtype=numpy.float64) for key in "abcd"}


def take(value: object) -> bool:
    """Take a payload, and check it."""
    return value is not None


def give(order: tuple[str, int, int]) -> Any:
    """Return a payload."""
    return make(*order)


def _submit(pool: Any, function: Callable[..., Any], items: Iterable[Any]) -> None:
    futures = deque(pool.submit(function, item) for item in items)
    while futures:
        futures.popleft().result()


def _map(pool: Any, function: Callable[..., Any], items: Iterable[Any]) -> None:
    deque(pool.map(function, items), maxlen=0)


def _chunks(pool: Any, function: Callable[..., Any], items: Iterable[Any]) -> None:
    deque(pool.map(function, items, chunksize=_AT_A_TIME), maxlen=0)


def _ahead(pool: Any, function: Callable[..., Any], items: Iterable[Any]) -> None:
    try:
        results = pool.map(function, items, buffersize=_AT_A_TIME)
    except TypeError:
        # The standard library has that from 3.14 on; programs do this before.
        futures: deque[Any] = deque()
        for item in items:
            futures.append(pool.submit(function, item))
            if len(futures) == _AT_A_TIME:
                futures.popleft().result()
        while futures:
            futures.popleft().result()
        return
    deque(results, maxlen=0)


FORMS: dict[str, Callable[[Any, Callable[..., Any], Iterable[Any]], None]] = {
    "submit": _submit,
    "map": _map,
    "map(chunksize)": _chunks,
    "map(buffersize)": _ahead,
}


def measure(library: str, kind: str, size: int, direction: str, form: str) -> dict[str, float]:
    """Return the microseconds for a task in a fresh heap, and in a used one."""
    count = max(_LEAST, min(_MOST, _BYTES // size))
    passes = []
    with import_module(library).ProcessPoolExecutor(WORKERS) as pool:
        _map(pool, abs, range(2 * WORKERS))
        for turn in range(_PASSES):
            numbers = range(turn * count, (turn + 1) * count)
            if direction == "argument":
                function: Callable[..., Any] = take
                items = [make(kind, size, number) for number in numbers]
            else:
                function = give
                items = [(kind, size, number) for number in numbers]
            start = time.perf_counter()
            FORMS[form](pool, function, items)
            passes.append((time.perf_counter() - start) / count * 1e6)
            del items
    return {"fresh": passes[0], "used": statistics.median(passes[1:])}


if __name__ == "__main__":
    _, _library, _kind, _size, _direction, _form = sys.argv
    json.dump(measure(_library, _kind, int(_size), _direction, _form), sys.stdout)
