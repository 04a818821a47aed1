"""Measures free-threaded CPython: both libraries, in the build without the interpreter lock.

    python3.14t free_threaded.py                            prints the report
    python3.14t free_threaded.py --output BENCHMARKS.md     writes the report into the file
    python3.14t free_threaded.py --gil-python python3.14    compares memory with that build

The interpreter has the package, and so has the one with the lock. `make bench-free-threaded` makes
both. Contestants are interleaved as in `run.py`.
"""

import argparse
import concurrent.futures
import dataclasses
import gc
import importlib
import math
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import footprint
import report
import workloads
from contestants import OURS, STANDARD_LIBRARY, Contestant, installed
from harness import Entry, Sample, Settings, check, measure, microseconds_each
from machine import Disturbance
from pools import entries, no_op, warm
from report import FREE_THREADED, Section, Table, Target

#: The threads that submit at once.
PRODUCERS = 8
#: As many as the CPU-bound workloads have workers.
CORES = 2

ONE_THREAD = "one thread, without a pool"


def of_threads(
    workload: Callable[[Settings], Section], least: float
) -> Callable[[Settings], Section]:
    """Return a workload of pools of threads, with the target for this build."""

    def measured(settings: Settings) -> Section:
        section = workload(settings)
        target = Target.times(section.table, 0, least, "µs")
        return dataclasses.replace(section, targets=[target], part=FREE_THREADED)

    return measured


def at_once(functions: Sequence[Callable[[], object]]) -> float:
    """Call functions at the same time, each in a thread; return the seconds until all are done."""
    barrier = threading.Barrier(len(functions) + 1)

    def call(function: Callable[[], object]) -> None:
        barrier.wait()
        function()

    threads = [threading.Thread(target=call, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    workloads.join(threads)
    return time.perf_counter() - start


class Collecting:
    """Measures the seconds that the garbage collector takes while the block runs."""

    def __enter__(self) -> "Collecting":
        """Begin to measure."""
        self.seconds = 0.0
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop measuring."""
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, _: object) -> None:
        # A collection begins after the end of the one before.
        now = time.perf_counter()
        self.seconds += now if phase == "stop" else -now


def producers(settings: Settings) -> Section:
    """Submit from many threads at once."""
    count = settings.size(5_000, 500)

    def sample(run_all: Callable[[], list[object]], name: str) -> Sample:
        taken: list[int] = []

        def produce() -> None:
            taken.append(run_all().count(True))

        with Collecting() as collecting:
            elapsed = at_once([produce] * PRODUCERS)
        check(taken == [count] * PRODUCERS, name)
        both = (elapsed, collecting.seconds)
        return [microseconds_each(seconds, count * PRODUCERS) for seconds in both]

    def run(contestant: Contestant) -> Sample:
        with warm(contestant) as pool:
            return sample(lambda: pool.run_all(no_op, count), contestant.name)

    def call_all() -> list[object]:
        kept = [[no_op()] for _ in range(count)]
        return [result for (result,) in kept]

    shared = {one.name for one in installed() if one.can_be_shared}
    rows = [entry for entry in entries(run) if entry.name in shared]
    floor = f"the floor: {PRODUCERS} threads, each with its calls"
    rows.append(Entry(floor, lambda: sample(call_all, floor), is_context=True))
    table = Table(["µs per task", "of which collecting"], measure(settings.rounds, rows))
    return Section(
        f"{PRODUCERS} threads submit {count:,} no-ops each, then take their results",
        "All threads submit to one pool at the same time. The second column is the part of the "
        "garbage collector, which stops all threads. Futures and other objects that are alive make "
        "it run. Up to CPython 3.14, it runs only if the memory of the process has grown, too. So "
        "it runs more often from 3.15 on. The floor has no pool: each thread calls the function "
        "itself, and keeps each result in a list, which the collector counts as a future.",
        table,
        [Target.times(table, 0, 20, "µs")],
        FREE_THREADED,
    )


def busy(turns: int) -> int:
    """Use the processor: a loop in Python."""
    total = 1
    for turn in range(turns):
        total += turn & 3
    return total


def turns_of(microseconds: float) -> int:
    """Return how many turns `busy` makes in a time, in one thread.

    Calls of that many turns are measured: turns of longer calls have larger numbers, and take
    longer.
    """
    turns = 20.0
    calls = max(3, round(2_000 / microseconds))
    for _ in range(4):
        work = partial(_call_all, [round(turns)] * calls)
        best = min(_seconds(work) for _ in range(7)) / calls
        turns = max(1.0, turns * microseconds / (best * 1e6))
    return round(turns)


def _call_all(own: Sequence[int]) -> None:
    for turns in own:
        busy(turns)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_bound(settings: Settings) -> Section:
    """Map functions that use the processor, on as many workers as there are cores."""
    sizes = [(300, settings.size(3_000, 300)), (1, settings.size(100_000, 5_000))]
    items = [[turns_of(microseconds)] * count for microseconds, count in sizes]

    def milliseconds(mapping: Callable[..., Iterable[int]], own: Sequence[int]) -> float:
        return workloads.milliseconds(lambda: check(all(mapping(busy, own)), "all are done"))

    def in_pool(contestant: Contestant) -> Sample:
        with warm(contestant, CORES) as pool:
            return [milliseconds(pool.executor.map, own) for own in items]

    def in_one_thread() -> Sample:
        return [milliseconds(map, own) for own in items]

    def in_threads() -> Sample:
        parts = [[own[core::CORES] for core in range(CORES)] for own in items]
        return [at_once([partial(milliseconds, map, part) for part in own]) * 1e3 for own in parts]

    rows = [
        Entry(one.name, partial(in_pool, one), is_ours=one.is_ours)
        for one in (OURS, STANDARD_LIBRARY)
    ]
    rows.append(Entry(ONE_THREAD, in_one_thread, is_context=True))
    rows.append(
        Entry(f"the floor: {CORES} threads, each with its part", in_threads, is_context=True)
    )
    columns = [f"{count:,} calls of {each} µs, ms" for each, count in sizes]
    table = Table(columns, measure(settings.rounds, rows), compared=(0, 1))
    return Section(
        f"CPU-bound map on {CORES} workers",
        "A loop in Python that takes as long as the heading says in one thread. The floor has no "
        "pool. It shows the cost of memory and counts that both cores share, and the part of both "
        "cores that the machine gives.",
        table,
        [
            Target.as_fast_as(table, 0, 1.9, ONE_THREAD, "300 µs: "),
            Target.as_fast_as(table, 1, 1.5, ONE_THREAD, "1 µs: "),
        ],
        FREE_THREADED,
    )


def switches() -> int:
    """Return how often the threads of this process have waited for something, until now."""
    found = 0
    for task in Path("/proc/self/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                found += int(line.split()[1])
    return found


def full_queue(settings: Settings) -> Section:
    """Let one worker, and several, work off a queue that is full from the beginning."""
    count = settings.size(50_000, 5_000)
    turns = turns_of(5)

    def once(contestant: Contestant, workers: int) -> tuple[float, float]:
        gate: SimpleQueue[None] = SimpleQueue()
        begun = threading.Semaphore(0)

        def hold_up() -> None:
            begun.release()
            gate.get()

        task = partial(busy, turns)
        with warm(contestant, workers) as pool:
            held_up = pool.submit_all(hold_up, workers)
            for _ in held_up:
                begun.acquire()
            # The last task of the queue ends the measurement; the main thread only sleeps.
            handles = pool.submit_all(task, count)
            before = switches()
            start = time.perf_counter()
            for _ in held_up:
                gate.put(None)
            pool.take_all(handles[-1:])
            elapsed = time.perf_counter() - start
            waited = switches() - before
            check(len(pool.take_all(handles)) == count, contestant.name)
        return microseconds_each(elapsed, count), waited * 1_000 / count

    def run(contestant: Contestant) -> Sample:
        one, _ = once(contestant, 1)
        several, waited = once(contestant, CORES)
        return [one, several, CORES * several / one, waited]

    def apart(threads: int) -> float:
        task = partial(busy, turns)

        def call_all() -> None:
            for _ in range(count // threads):
                task()

        return microseconds_each(at_once([call_all] * threads), count)

    def in_threads() -> Sample:
        one, several = apart(1), apart(CORES)
        return [one, several, CORES * several / one, math.nan]

    rows = [
        Entry(one.name, partial(run, one), is_ours=one.is_ours) for one in (OURS, STANDARD_LIBRARY)
    ]
    rows.append(Entry("the floor: threads, each with its part", in_threads, is_context=True))
    columns = [
        "one worker, µs per task",
        f"{CORES} workers, µs per task",
        "share of the ideal time",
        "waits of threads per 1,000 tasks",
    ]
    table = Table(columns, measure(settings.rounds, rows), compared=(1,))
    return Section(
        f"A full queue of {count:,} tasks of 5 µs: does a lock serialize workers?",
        f"The workers are held up until all tasks are queued. {CORES} workers ideally take half "
        "the time of one. The third column is 1 then, and 2 if each task needed a lock to itself. "
        "The last column counts the voluntary context switches of all threads, by the kernel. The "
        "count grows each time that a thread waits for a lock or for a task. The floor has no pool "
        "and no queue. Its share of the ideal time shows what both cores have in common.",
        table,
        [
            Target.at_most(table, 2, 1.15, "of the ideal time", ""),
            Target.at_most(table, 3, 2, "waits per 1,000 tasks", ""),
        ],
        FREE_THREADED,
    )


def memory(settings: Settings, with_lock: str | None) -> Section:
    """Measure pending futures in this build, and in one with the interpreter lock."""
    count = settings.size(50_000, 10_000)

    def run(python: str, contestant: Contestant) -> Sample:
        command = [python, footprint.__file__, contestant.name, str(count)]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return [float(child.stdout)]

    both = (OURS, STANDARD_LIBRARY)
    rows = [Entry(one.name, partial(run, sys.executable, one), is_ours=one.is_ours) for one in both]
    if with_lock is not None:
        rows += [
            Entry(f"{one.name}, with the lock", partial(run, with_lock, one), is_context=True)
            for one in both
        ]
    table = Table(["bytes"], measure(min(settings.rounds, 3), rows))
    targets = []
    if with_lock is not None:
        ours, its = table.rows[0].figures[0].median, table.rows[2].figures[0].median
        promise = "at most 1.2 times the bytes of the build with the lock"
        targets = [Target(promise, f"× {ours / its:.2f}", ours <= 1.2 * its)]
    return Section(
        "Bytes for a pending future, without the lock",
        "Measured as in the section on threads. The rows in italics are the same in the build of "
        "CPython with the lock.",
        table,
        targets,
        FREE_THREADED,
    )


WORKLOADS: dict[str, Callable[[Settings], Section]] = {
    "submit": of_threads(workloads.submit, 15),
    "round-trip": of_threads(workloads.round_trip, 5),
    "map": of_threads(workloads.map_, 20),
    "as-completed": of_threads(workloads.as_completed, 15),
    "callbacks": of_threads(workloads.callbacks, 10),
    "producers": producers,
    "cpu-bound": cpu_bound,
    "full-queue": full_queue,
}


def obstacle(python: str | None) -> str | None:
    """Return the reason why there is nothing to measure, if there is one."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this is no free-threaded build of CPython"
    if concurrent.futures.ThreadPoolExecutor.__module__ != "concurrent.futures.thread":
        return "the standard library's thread pool has been replaced: nothing to compare with"
    importlib.import_module("concurrent_futures")
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        return "the interpreter lock is on, by PYTHON_GIL or by a module that needs it"
    if python is not None:
        code = (
            "import sysconfig, concurrent_futures;"
            "assert not sysconfig.get_config_var('Py_GIL_DISABLED')"
        )
        if subprocess.run([python, "-c", code], check=False).returncode:
            return f"{python} is no build with the lock, or does not have the package"
    return None


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", metavar="NAMES", help=f"some of {', '.join([*WORKLOADS, 'memory'])}")
    add("--rounds", type=int, default=5, help="how many times each contestant runs")
    add("--quick", action="store_true", help="small sizes: does everything run?")
    add("--gil-python", metavar="PATH", help="an interpreter with the lock, for its memory")
    add("--output", metavar="FILE", type=Path, help="where the report goes")
    arguments = parser.parse_args()
    if problem := obstacle(arguments.gil_python):
        print(problem, file=sys.stderr)
        return 1
    settings = Settings(arguments.quick, arguments.rounds)
    disturbance = Disturbance()
    sections = []
    known = WORKLOADS | {"memory": partial(memory, with_lock=arguments.gil_python)}
    for name in arguments.only.split(",") if arguments.only else known:
        print(f"\n{name} ", end="", file=sys.stderr, flush=True)
        sections.append(known[name](settings))
    print(file=sys.stderr)
    text = report.render(sections, settings, disturbance.share())
    if arguments.output is None:
        print(*text.values(), end="")
    else:
        report.write_into(arguments.output, text)
        print(f"written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
