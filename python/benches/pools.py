"""Shared parts of the workloads: warm pools, no-ops, and a row for each contestant."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from contestants import Contestant, Pool, installed
from harness import Entry, Sample, Settings, check, measure, microseconds_each
from report import Table

WORKERS = 4


def no_op() -> bool:
    """Do nothing."""
    return True


def identity(item: int) -> int:
    """Return the item."""
    return item


@contextmanager
def warm(contestant: Contestant, workers: int = WORKERS) -> Iterator[Pool]:
    """Make a pool whose workers have all run a task and have come to rest."""
    # No task passes before all workers are there.
    barrier = threading.Barrier(workers)
    with contestant.open(workers) as pool:
        pool.run_all(barrier.wait, workers)
        time.sleep(0.01)
        yield pool


def entries(run: Callable[[Contestant], Sample]) -> list[Entry]:
    """Return an entry for each contestant."""
    return [Entry(one.name, partial(run, one), is_ours=one.is_ours) for one in installed()]


def table_of_tasks(settings: Settings, count: int, work: Callable[[Pool], bool]) -> Table:
    """Time `work` with a warm pool; `work` returns whether the tasks were done."""

    def run(contestant: Contestant) -> Sample:
        with warm(contestant) as pool:
            start = time.perf_counter()
            is_done = work(pool)
            elapsed = time.perf_counter() - start
        check(is_done, contestant.name)
        return [microseconds_each(elapsed, count)]

    return Table(["µs per task"], measure(settings.rounds, entries(run)))
