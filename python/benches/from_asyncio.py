"""Executors under asyncio."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

import contestants
from contestants import Contestant
from harness import Entry, Sample, Settings, check, measure, microseconds_each
from pools import entries, no_op, warm
from report import Section, Table, Target

#: Calls a no-op in an executor.
Call = Callable[[Executor], Awaitable[bool]]


def from_asyncio(settings: Settings) -> Section:
    """Await calls in an executor, one at a time and many at once."""
    single, many = settings.size(5_000, 500), settings.size(20_000, 2_000)

    def run(contestant: Contestant, call: Call) -> Sample:
        with warm(contestant) as pool:
            executor = pool.executor
            return [
                _time(one_at_a_time(executor, call, single), single),
                _time(all_at_once(executor, call, many), many),
            ]

    rows = entries(lambda contestant: run(contestant, _in_executor))
    if contestants.OURS.is_installed:
        name = f"{contestants.OURS.name}, its futures awaited"
        rows.append(Entry(name, lambda: run(contestants.OURS, _submitted), is_context=True))
    table = Table(
        ["one at a time, µs", f"gather of {many:,}, µs each"],
        measure(settings.rounds, rows),
        compared=(0, 1),
    )
    return Section(
        "run_in_executor, from asyncio",
        "`await loop.run_in_executor(pool, no_op)`, one after the other; and many of them in one "
        "`asyncio.gather`. multiprocessing and joblib have no executor. The row in italics awaits "
        "the pool's future itself, `await pool.submit(no_op)`. One at a time, the event loop "
        "sleeps nearly all the time until the worker wakes it. Often the worker sleeps until the "
        "loop wakes it. The target is for many.",
        table,
        [Target.times(table, 1, 2, "µs", "gather: ")],
    )


async def one_at_a_time(executor: Executor, call: Call, count: int) -> list[bool]:
    """Await each call before the next."""
    return [await call(executor) for _ in range(count)]


async def all_at_once(executor: Executor, call: Call, count: int) -> list[bool]:
    """Begin all calls, then await them."""
    return await asyncio.gather(*[call(executor) for _ in range(count)])


def _in_executor(executor: Executor) -> Awaitable[bool]:
    return asyncio.get_running_loop().run_in_executor(executor, no_op)


def _submitted(executor: Executor) -> Awaitable[bool]:
    future: Any = executor.submit(no_op)
    awaitable: Awaitable[bool] = future
    return awaitable


def _time(calls: Coroutine[Any, Any, list[bool]], count: int) -> float:
    async def timed() -> float:
        start = time.perf_counter()
        results = await calls
        elapsed = time.perf_counter() - start
        check(results == [True] * count, "all calls returned")
        return elapsed

    return microseconds_each(asyncio.run(timed()), count)
