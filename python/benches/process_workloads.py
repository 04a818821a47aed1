"""The workloads of process pools."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module

from contestants import OURS
from harness import Entry, Sample, Settings, check, measure, time_results
from process_contestants import ProcessContestant, ProcessPool, installed
from process_tasks import echo, exit_at, identity, no_op, pause
from report import PROCESSES, Section, Table, Target, targets

WORKERS = 2
_CRASHING = 200
_MEBIBYTE = 1 << 20


@contextmanager
def warm(contestant: ProcessContestant) -> Iterator[ProcessPool]:
    """Make a pool whose workers have all run a task and have come to rest."""
    with contestant.processes(WORKERS, None) as pool:
        for _ in range(2):
            pool.run_all(pause, WORKERS)
        time.sleep(0.01)
        yield pool


def entries(run: Callable[[ProcessContestant], Sample]) -> list[Entry]:
    """Return an entry for each contestant."""
    return [Entry(one.name, partial(run, one), is_ours=one.is_ours) for one in installed()]


def milliseconds_since(start: float) -> float:
    """Return the milliseconds since a moment."""
    return (time.perf_counter() - start) * 1e3


def submit(settings: Settings) -> Section:
    """Submit many, then take all results."""
    count = settings.size(5_000, 500)

    def work(pool: ProcessPool) -> list[object]:
        handles = [pool.submit(no_op) for _ in range(count)]
        return [pool.take(handle) for handle in handles]

    def run(contestant: ProcessContestant) -> Sample:
        return time_results(contestant.name, warm(contestant), work, [True] * count)

    table = Table(["µs per task"], measure(settings.rounds, entries(run)))
    return Section(
        f"Submit {count:,} no-ops to processes, then take all results",
        "One thread submits all tasks and keeps their futures in a list; then it takes the results "
        "in that order. joblib knows whole loops only.",
        table,
        targets(table, [30], "µs"),
        PROCESSES,
    )


def round_trip(settings: Settings) -> Section:
    """Submit one call, and wait for its result before the next."""
    count = settings.size(2_000, 200)

    def work(pool: ProcessPool) -> list[object]:
        return [pool.call(no_op) for _ in range(count)]

    def run(contestant: ProcessContestant) -> Sample:
        return time_results(contestant.name, warm(contestant), work, [True] * count)

    table = Table(["µs per round trip"], measure(settings.rounds, entries(run)))
    return Section(
        "Round trip to a process, one at a time",
        "One thread submits a no-op and waits for its result before it submits the next.",
        table,
        targets(table, [10], "µs"),
        PROCESSES,
    )


def _map(settings: Settings, items: range, work: Callable[[ProcessPool], list[int]]) -> Table:
    def run(contestant: ProcessContestant) -> Sample:
        return time_results(contestant.name, warm(contestant), work, list(items))

    return Table(["µs per item"], measure(settings.rounds, entries(run)))


def map_one_by_one(settings: Settings) -> Section:
    """Map a function over items, one item a task."""
    items = range(settings.size(20_000, 1_000))
    table = _map(settings, items, lambda pool: pool.map_one_by_one(identity, items))
    return Section(
        f"Map over {len(items):,} items on processes, one item a task",
        "The function returns its argument; the results are collected into a list. All have "
        "`chunksize=1`, which is called `chunk_size` by mpire, `batch_size` by joblib.",
        table,
        targets(table, [30], "µs"),
        PROCESSES,
    )


def map_by_default(settings: Settings) -> Section:
    """Map a function over items, with the pool's default chunks."""
    items = range(settings.size(200_000, 5_000))
    # The standard library's takes half a minute for as many, and all that is compared is the
    # time for one item.
    rounds = Settings(settings.quick, min(settings.rounds, 3))
    table = _map(rounds, items, lambda pool: pool.map(identity, items))
    return Section(
        f"Map over {len(items):,} items on processes, with each pool's own chunks",
        "The same without a setting. The standard library, loky and pebble make a task of each "
        "item then; multiprocessing, mpire and joblib choose for themselves. As some take half a "
        "minute, there are at most three rounds.",
        table,
        targets(table, [100], "µs"),
        PROCESSES,
    )


def long_values(settings: Settings) -> Section:
    """Send long values there and back."""
    numpy = import_module("numpy")
    values = (b"x" * 1_000_000, numpy.arange(_MEBIBYTE, dtype="f8"))
    counts = (settings.size(200, 20), settings.size(40, 5))

    def once(pool: ProcessPool, value: object, count: int) -> float:
        pool.call(echo, value)
        start = time.perf_counter()
        for _ in range(count):
            result = pool.call(echo, value)
        elapsed = milliseconds_since(start)
        equal = result == value if isinstance(value, bytes) else numpy.array_equal(result, value)
        check(bool(equal), "the value came back")
        return elapsed / count

    def run(contestant: ProcessContestant) -> Sample:
        with warm(contestant) as pool:
            return [once(pool, *each) for each in zip(values, counts, strict=True)]

    table = Table(
        ["1 MB of bytes, ms", "8 MiB numpy array, ms"],
        measure(settings.rounds, entries(run)),
        compared=(0, 1),
    )
    return Section(
        "Echo of long values from a process",
        "A task returns its argument; each result is waited for before the next is submitted, and "
        "replaces the one before.",
        table,
        targets(table, [3, 6], "ms", ["bytes: ", "array: "]),
        PROCESSES,
    )


def crash(settings: Settings) -> Section:
    """Let one of many tasks exit its worker."""
    count = _CRASHING

    def run(contestant: ProcessContestant) -> Sample:
        with contestant.crashing(WORKERS, None) as pool:
            begun = time.perf_counter()
            answers = pool.survivors(exit_at, count, count // 2)
            return [float(count - 1 - answers), milliseconds_since(begun)]

    table = Table(
        ["results lost", "ms"], measure(min(settings.rounds, 3), entries(run)), compared=()
    )
    lost = table.median(OURS, 0)
    measured = None if lost is None else f"{count - 1 - lost:.0f} results"
    return Section(
        f"One of {count} tasks exits its worker",
        f"The number of the other {count - 1} results that are lost, and the time to get the rest. "
        "`on_worker_death` is `isolate` for ours; the others have no such setting. mpire's "
        "pool may hang at its end then, and is left out.",
        table,
        [Target(f"{count - 1} results", measured, lost == 0)],
        PROCESSES,
    )
