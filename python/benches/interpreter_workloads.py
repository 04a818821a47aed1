"""The workloads of pools of interpreters, from CPython 3.14 on."""

import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from contestants import OURS, STANDARD_LIBRARY, Contestant
from harness import Entry, Sample, Settings, check, measure, microseconds_each, time_results
from report import INTERPRETERS, Section, Table, Target

WORKERS = 2

#: Why there is nothing to measure, if there is nothing.
OBSTACLE = None if sys.version_info >= (3, 14) else "CPython has interpreters from 3.14 on"


def no_op() -> bool:
    """Do nothing. The function goes to an interpreter by its code."""
    return True


def identity(item: int) -> int:
    """Return the item."""
    return item


@contextmanager
def warm(contestant: Contestant) -> Iterator[Any]:
    """Make a pool whose workers have all run a task and have come to rest."""
    name = "concurrent_futures" if contestant.is_ours else "concurrent.futures"
    with importlib.import_module(name).InterpreterPoolExecutor(WORKERS) as pool:
        # Each of them is there before the first is ready.
        for future in [pool.submit(time.sleep, 0.05) for _ in range(WORKERS)]:
            future.result()
        list(pool.map(identity, range(10 * WORKERS)))
        for _ in range(10):
            pool.submit(no_op).result()
        time.sleep(0.01)
        yield pool


def entries(run: Callable[[Contestant], Sample]) -> list[Entry]:
    """Return an entry for each contestant."""
    return [
        Entry(one.name, partial(run, one), is_ours=one.is_ours) for one in (OURS, STANDARD_LIBRARY)
    ]


def floors(function: Callable[..., object], arguments: tuple[Any, ...], count: int) -> list[Entry]:
    """Return entries for calls without a pool, in a thread of their own as in a pool."""
    interpreters: Any = importlib.import_module("concurrent.interpreters")
    module: Any = importlib.import_module("concurrent.futures.interpreter")
    call: Any = importlib.import_module("_interpreters").call

    def in_thread(work: Callable[[], float]) -> Sample:
        results: list[float] = []
        thread = threading.Thread(target=lambda: results.append(work()))
        thread.start()
        thread.join()
        return results

    def time_of(once: Callable[[], object]) -> float:
        once()
        start = time.perf_counter()
        for _ in range(count):
            once()
        return microseconds_each(time.perf_counter() - start, count)

    def bare() -> float:
        interpreter = interpreters.create()
        try:
            return time_of(lambda: call(interpreter.id, function, arguments))
        finally:
            interpreter.close()

    def with_context() -> float:
        context = module.WorkerContext(None)
        context.initialize()
        try:
            return time_of(lambda: context.run((function, arguments, {})))
        finally:
            context.finalize()

    return [
        Entry("the floor: `_interpreters.call`", lambda: in_thread(bare), is_context=True),
        Entry("`WorkerContext.run`", lambda: in_thread(with_context), is_context=True),
    ]


ROWS = (
    "The rows in italics have no pool. A thread makes the same calls itself: by "
    "`_interpreters.call`, and by the standard library's code for a call, which also carries "
    "exceptions over."
)


def submit(settings: Settings) -> Section:
    """Submit many, then take all results."""
    count = settings.size(5_000, 500)

    def run(contestant: Contestant) -> Sample:
        with warm(contestant) as pool:
            start = time.perf_counter()
            futures = [pool.submit(no_op) for _ in range(count)]
            submitted = time.perf_counter()
            results = [future.result() for future in futures]
            taken = time.perf_counter()
        check(results == [True] * count, contestant.name)
        return [
            microseconds_each(taken - start, count),
            microseconds_each(submitted - start, count),
        ]

    rows = measure(settings.rounds, entries(run))
    table = Table(["µs per task", "of which submitting"], rows, compared=(0, 1))
    return Section(
        f"Submit {count:,} no-ops to interpreters, then take all results",
        "One thread submits all tasks and keeps their futures in a list; then it takes the results "
        "in that order.",
        table,
        [
            Target.times(table, 0, 3, "µs"),
            Target.times(table, 1, 3, "µs", "submitting: "),
        ],
        INTERPRETERS,
    )


def round_trip(settings: Settings) -> Section:
    """Submit one call, and wait for its result before the next."""
    count = settings.size(2_000, 200)

    def work(pool: Any) -> list[object]:
        return [pool.submit(no_op).result() for _ in range(count)]

    def run(contestant: Contestant) -> Sample:
        return time_results(contestant.name, warm(contestant), work, [True] * count)

    rows = measure(settings.rounds, [*entries(run), *floors(no_op, (), count)])
    table = Table(["µs per round trip"], rows)
    return Section(
        "Round trip to an interpreter, one at a time",
        f"One thread submits a no-op and waits for its result before it submits the next. {ROWS}",
        table,
        [Target.times(table, 0, 3, "µs")],
        INTERPRETERS,
    )


def map_(settings: Settings) -> Section:
    """Map a function over items, one item a task."""
    items = range(settings.size(5_000, 500))

    def work(pool: Any) -> list[object]:
        return list(pool.map(identity, items))

    def run(contestant: Contestant) -> Sample:
        return time_results(contestant.name, warm(contestant), work, list(items))

    rows = measure(settings.rounds, [*entries(run), *floors(identity, (5,), len(items))])
    table = Table(["µs per task"], rows)
    return Section(
        f"Map over {len(items):,} items in interpreters",
        f"The function returns its argument; the results are collected into a list. {ROWS}",
        table,
        [Target.times(table, 0, 3, "µs")],
        INTERPRETERS,
    )
