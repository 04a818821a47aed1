"""The workloads of tasks; memory and asyncio have files of their own."""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from awake import awake
from contestants import Contestant, Pool
from harness import Entry, Sample, Settings, check, measure, microseconds_each
from pools import WORKERS, entries, identity, no_op, table_of_tasks, warm
from report import Section, Table, Target

#: The number of tasks that may be done and not taken yet, in a drain at a measured pace.
_AHEAD = 16
_SLEEPERS = 100
_SLEEPS = 1_000
_SLEEP = 0.010


def milliseconds(work: Callable[[], object]) -> float:
    """Return the milliseconds that a call takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def start_threads(target: Callable[[], object]) -> list[threading.Thread]:
    """Start as many threads as there are sleepers."""
    threads = [threading.Thread(target=target) for _ in range(_SLEEPERS)]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    """Wait until all threads have ended."""
    for thread in threads:
        thread.join()


def submit(settings: Settings) -> Section:
    """Submit many, then take all results."""
    count = settings.size(20_000, 2_000)

    def run(contestant: Contestant) -> Sample:
        with warm(contestant) as pool:
            start = time.perf_counter()
            handles = pool.submit_all(no_op, count)
            submitted = time.perf_counter()
            results = pool.take_all(handles)
            taken = time.perf_counter()
        check(results == [True] * count, contestant.name)
        return [
            microseconds_each(taken - start, count),
            microseconds_each(submitted - start, count),
        ]

    table = Table(["µs per task", "of which submitting"], measure(settings.rounds, entries(run)))
    return Section(
        f"Submit {count:,} no-ops, then take all results",
        "One thread submits all tasks and keeps their futures in a list; then it takes the results "
        "in that order.",
        table,
        [Target.times(table, 0, 20, "µs")],
    )


def round_trip(settings: Settings) -> Section:
    """Submit one task, and wait for it before the next."""
    count = settings.size(5_000, 500)

    def run(contestant: Contestant) -> Sample:
        with warm(contestant) as pool:
            start, processor = time.perf_counter(), time.process_time()
            results = pool.round_trips(no_op, count)
            elapsed, used = time.perf_counter() - start, time.process_time() - processor
        check(results == [True] * count, contestant.name)
        return [microseconds_each(elapsed, count), microseconds_each(used, count)]

    table = Table(
        ["µs per round trip", "CPU µs per round trip"], measure(settings.rounds, entries(run))
    )
    return Section(
        "Round trip, one at a time",
        "One thread submits a no-op and waits for its result before it submits the next. The CPU "
        "time, of all threads, shows which pools wait by spinning.",
        table,
        [Target.times(table, 0, 3, "µs")],
    )


def map_(settings: Settings) -> Section:
    """Map a function over items, one item a task."""
    items = range(settings.size(20_000, 2_000))

    def work(pool: Pool) -> bool:
        return pool.map(identity, items) == list(items)

    table = table_of_tasks(settings, len(items), work)
    return Section(
        f"Map over {len(items):,} items, one item a task",
        "The function returns its argument; the results are collected into a list. multiprocessing "
        "and pebble have `chunksize=1`, joblib `batch_size=1`.",
        table,
        [Target.times(table, 0, 20, "µs")],
    )


def as_completed(settings: Settings) -> Section:
    """Take results in the order in which they come."""
    count = settings.size(20_000, 2_000)
    table = table_of_tasks(
        settings, count, lambda pool: pool.as_completed(no_op, count) == [True] * count
    )
    return Section(
        f"as_completed over {count:,} no-ops",
        "One thread submits all tasks, then takes the results in the order in which they finish. "
        "Instead, multiprocessing has `imap_unordered` and joblib `generator_unordered`, which "
        "give the results without naming their tasks.",
        table,
        [Target.times(table, 0, 15, "µs")],
    )


def callbacks(settings: Settings) -> Section:
    """Submit many, each with a callback."""
    count = settings.size(20_000, 2_000)

    def work(pool: Pool) -> bool:
        called: list[object] = []
        results = pool.call_back(no_op, count, called.append)
        while len(called) < count:
            time.sleep(0)
        return results == [True] * count

    table = table_of_tasks(settings, count, work)
    return Section(
        f"Submit {count:,} no-ops with a callback",
        "Each callback appends to a list. The time ends when all results have been taken and all "
        "callbacks have run.",
        table,
        [Target.times(table, 0, 15, "µs")],
    )


def drain(settings: Settings) -> Section:
    """Wait for the first again and again."""
    count = settings.size(2_000, 200)
    paces = (1, _AHEAD, count)

    def once(contestant: Contestant, ahead: int) -> float:
        gate: SimpleQueue[None] = SimpleQueue()
        with warm(contestant) as pool:
            start = time.perf_counter()
            calls = pool.drain(gate, count, ahead)
            elapsed = time.perf_counter() - start
        check(count // ahead <= calls <= count, contestant.name)
        return microseconds_each(elapsed, count)

    def by_hand(contestant: Contestant) -> float:
        with contestant.open(WORKERS) as pool:
            start = time.perf_counter()
            calls = pool.drain_by_hand(count)
            elapsed = time.perf_counter() - start
        check(calls == count, contestant.name)
        return microseconds_each(elapsed, count)

    def run(contestant: Contestant) -> Sample:
        return [by_hand(contestant), *(once(contestant, ahead) for ahead in paces)]

    table = Table(
        [
            "by hand, µs per future",
            "one by one, µs per future",
            f"{_AHEAD} ahead, µs per future",
            "full speed, µs per future",
        ],
        measure(settings.rounds, entries(run)),
        compared=range(1 + len(paces)),
    )
    return Section(
        f"Drain {count:,} futures by repeated wait(FIRST_COMPLETED)",
        "`while pending: done, pending = wait(pending, return_when=FIRST_COMPLETED)`. By hand, "
        "the futures have no pool, and the thread that waits finishes one before each call. So "
        "the time is that of `wait`; the target is for this. The other columns are with a pool, "
        "from the submission on. A gate holds the tasks back: one may pass at the beginning, "
        "then as many as `wait` has returned. So each call finds one future done, after waking a "
        f"worker for it, which takes most of our time. If {_AHEAD} may pass at the beginning, a "
        f"call finds up to {_AHEAD}. "
        "At full speed all may pass at once, the pool is mostly through before the first call, and "
        "little but submitting is left.",
        table,
        [Target.times(table, 0, 30, "µs", "by hand: ")],
    )


def sleeps(settings: Settings) -> Section:
    """Run many short sleeps on many workers."""

    def sleep() -> bool:
        time.sleep(_SLEEP)
        return True

    def sleep_ten_times() -> None:
        for _ in range(_SLEEPS // _SLEEPERS):
            time.sleep(_SLEEP)

    def all_in(pool: Pool) -> None:
        check(pool.run_all(sleep, _SLEEPS) == [True] * _SLEEPS, "all slept")

    def on_warm_pool(contestant: Contestant) -> float:
        with warm(contestant, _SLEEPERS) as pool:
            return milliseconds(lambda: all_in(pool))

    def on_cold_pool(contestant: Contestant) -> float:
        start = time.perf_counter()
        with contestant.open(_SLEEPERS) as pool:
            all_in(pool)
            return (time.perf_counter() - start) * 1e3

    def on_warm_threads() -> float:
        gate: SimpleQueue[None] = SimpleQueue()

        def wait_and_sleep() -> None:
            gate.get()
            sleep_ten_times()

        def open_and_join() -> None:
            for _ in range(_SLEEPERS):
                gate.put(None)
            join(waiting)

        waiting = start_threads(wait_and_sleep)
        time.sleep(0.01)
        return milliseconds(open_and_join)

    def on_cold_threads() -> float:
        return milliseconds(lambda: join(start_threads(sleep_ten_times)))

    def in_turns(on_warm: Callable[[], float], on_cold: Callable[[], float]) -> Sample:
        with awake():
            while_awake = on_warm()
        return [on_warm(), while_awake, on_cold()]

    rows = entries(
        lambda contestant: in_turns(
            lambda: on_warm_pool(contestant), lambda: on_cold_pool(contestant)
        )
    )
    rows.append(
        Entry(
            f"the floor: {_SLEEPERS} threads of ten sleeps each",
            lambda: in_turns(on_warm_threads, on_cold_threads),
            is_context=True,
        )
    )
    columns = ["warm, ms", "warm and awake, ms", "cold, ms"]
    table = Table(columns, measure(settings.rounds, rows), compared=range(len(columns)))
    return Section(
        f"{_SLEEPS:,} sleeps of 10 ms on {_SLEEPERS} workers",
        "Ideal: 100 ms. Warm: every worker has already run a task; the target is for this. "
        "Awake: meanwhile, each processor runs a process that gives way to all others, so "
        "that it never goes idle. Waking an idle processor takes a while, above all in a "
        "virtual machine, and after sleeps it is most of the time. Cold: the time includes "
        "making the pool, with its threads. The floor has no pool and no queue: it shows the "
        "cost of threads and sleeps alone.",
        table,
        [
            Target.at_most(table, 0, 103, "ms", "warm: "),
            Target.at_most(table, 1, 103, "ms", "warm and awake: "),
        ],
    )
