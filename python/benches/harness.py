"""Runs contestants in turns, and takes medians."""

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from contestants import UnableError

_Pool = TypeVar("_Pool")

#: One run: a figure for each column of the table; NaN for a column that it cannot do.
Sample = Sequence[float]


@dataclass(frozen=True)
class Settings:
    """The amount of measuring."""

    quick: bool
    rounds: int

    def size(self, complete: int, quick: int) -> int:
        """Return one of two sizes: that of a complete run, or that of a quick one."""
        return quick if self.quick else complete


@dataclass(frozen=True)
class Entry:
    """A future row: its name and its function."""

    name: str
    run: Callable[[], Sample]
    is_ours: bool = False
    #: Whether the row is there for context: it does something else.
    is_context: bool = False


@dataclass(frozen=True)
class Figure:
    """The results of all rounds for one column of one row."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Figure":
        """Return the figure of some samples."""
        return cls(statistics.median(samples), min(samples), max(samples))


@dataclass(frozen=True)
class Row:
    """A figure for each column, or none at all for a contestant that cannot do it."""

    entry: Entry
    figures: list[Figure]


def measure(rounds: int, entries: Sequence[Entry]) -> list[Row]:
    """Run every entry once in each round.

    Each round starts with the next entry, and every second round goes backwards. So no entry always
    runs first, or always after the same other entry.
    """
    count = len(entries)
    samples: list[list[Sample]] = [[] for _ in entries]
    for turn in range(rounds):
        order = [(turn + step) % count for step in range(count)]
        for index in order if turn % 2 == 0 else reversed(order):
            _settle()
            try:
                samples[index].append(entries[index].run())
            except UnableError:
                continue
        print(".", end="", file=sys.stderr, flush=True)
    return [
        Row(entry, [Figure.of(column) for column in zip(*of_entry, strict=True)])
        for entry, of_entry in zip(entries, samples, strict=True)
    ]


def check(holds: bool, what: str) -> None:
    """Stop if a contestant has not done the measured work."""
    if not holds:
        raise AssertionError(what)


def _settle() -> None:
    """Let the previous entry's threads end, and free its memory.

    Each entry starts with as little as every other entry. The garbage collector is left as every
    program has it, switched on, and starts from zero.
    """
    time.sleep(0.005)
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def microseconds_each(seconds: float, count: int) -> float:
    """Return the time for each of a number of tasks."""
    return seconds * 1e6 / count


def time_results(
    name: str,
    pool: AbstractContextManager[_Pool],
    work: Callable[[_Pool], list[Any]],
    expected: list[Any],
) -> Sample:
    """Return the microseconds that a pool takes for each result of some work."""
    with pool as ready:
        start = time.perf_counter()
        results = work(ready)
        elapsed = time.perf_counter() - start
    check(results == expected, name)
    return [microseconds_each(elapsed, len(expected))]
