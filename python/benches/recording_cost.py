"""The cost of a recording, for each task."""

import statistics
import time
from queue import SimpleQueue

from concurrent_futures import Executor, ThreadPoolExecutor, recording

import contestants
from harness import Entry, Sample, Settings, check, measure
from pools import no_op
from report import Section, Table, Target

#: The most nanoseconds that a recording may cost a task.
_LIMIT = 300


def recording_cost(settings: Settings) -> Section:
    """Run the same tasks with a recording and without, in turns."""
    count, pairs = settings.size(10_000, 1_000), settings.size(21, 3)

    def run() -> Sample:
        with ThreadPoolExecutor(1) as pool:
            _turn(pool, count)
            without, recorded = [], []
            for _ in range(pairs):
                without.append(_turn(pool, count))
                with recording():
                    recorded.append(_turn(pool, count))
        differences = [late - early for early, late in zip(without, recorded, strict=True)]
        return [statistics.median(times) for times in (without, recorded, differences)]

    rows = measure(settings.rounds, [Entry(contestants.OURS.name, run, is_ours=True)])
    table = Table(["ns per task", "while recording", "difference"], rows, compared=())
    return Section(
        "The cost of a recording",
        f"The worker of a pool is held up while {count:,} no-ops are submitted; then their results "
        f"are taken. Such turns, with a recording and without, follow each other. A round's figure "
        f"is the median over {pairs} pairs of turns, and of the differences within the pairs.",
        table,
        [Target.at_most(table, 2, _LIMIT, "ns a task")],
    )


def _turn(pool: Executor, count: int) -> float:
    """Return the nanoseconds for each of some tasks."""
    gate: SimpleQueue[None] = SimpleQueue()
    start = time.perf_counter_ns()
    held = pool.submit(gate.get)
    tasks = [pool.submit(no_op) for _ in range(count)]
    gate.put(None)
    held.result()
    done = sum(task.result() for task in tasks)
    elapsed = time.perf_counter_ns() - start
    check(done == count, "recording")
    return elapsed / count
