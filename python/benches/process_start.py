"""The time to make a pool of processes, to take its first result, and to end it."""

import math
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from contestants import OURS, STANDARD_LIBRARY
from harness import Entry, Sample, Settings, check, measure
from process_contestants import ProcessContestant, installed
from report import PROCESSES, Section, Table, targets

_PROGRAMS = Path(__file__).parent / "programs"
_METHODS = ("fork", "forkserver", "spawn")
_PROGRAM_OF = {
    OURS.name: "ours.py",
    STANDARD_LIBRARY.name: "standard_library.py",
    "multiprocessing.Pool": "multiprocessing_pool.py",
    "loky": "loky_executor.py",
    "pebble.ProcessPool": "pebble_pool.py",
    "mpire": "mpire_pool.py",
    "joblib": "joblib_parallel.py",
}
#: Programs that import a class by its name.
_BY_NAME = {OURS.name: "ours_by_name.py", STANDARD_LIBRARY.name: "standard_library_by_name.py"}
#: The contestants whose only start method starts a new interpreter, as spawn does.
_LIKE_SPAWN = ("loky", "joblib")


def start(settings: Settings) -> Section:
    """Start pools, take their first results, and end them."""
    repeated = settings.size(7, 1)

    def median(program: str | None, method: str) -> float:
        if program is None:
            return math.nan
        command = [sys.executable, str(_PROGRAMS / program), method, str(repeated)]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        times = [float(line) for line in child.stdout.splitlines()]
        check(len(times) == repeated, program)
        return statistics.median(times)

    def run(contestant: ProcessContestant) -> Sample:
        program = _PROGRAM_OF[contestant.name]
        if contestant.name in _LIKE_SPAWN:
            times = [math.nan, math.nan, median(program, "spawn")]
        else:
            times = [median(program, method) for method in _METHODS]
        return [*times, median(_BY_NAME.get(contestant.name), "spawn")]

    entries = [Entry(one.name, partial(run, one), is_ours=one.is_ours) for one in installed()]
    columns = [*_METHODS, "spawn, imported by name"]
    table = Table(
        [f"{column}, ms" for column in columns],
        measure(settings.rounds, entries),
        compared=range(len(columns)),
    )
    return Section(
        "Start processes, take the first result, shut down",
        "From making a pool of 2 workers to the end of all that were started, with one no-op. "
        "Each contestant has a small program of its own (in `python/benches/programs`), which "
        "imports nothing but its package. Its worker processes import the package once more "
        f"where they are no forks of it. The program makes {repeated + 1} pools one after the "
        "other. The first pool does not count, as it starts the fork server and the resource "
        "tracker. The median of the other pools is the figure of a round. Programs begin by "
        "`import concurrent.futures`, or ours in its place. In the last column, they begin by "
        "`from concurrent.futures import ProcessPoolExecutor`, with which spawned workers load "
        "the executors without need. The start method of loky and joblib is their own: a new "
        "interpreter, as with spawn.",
        table,
        targets(table, [1.25] * len(columns), "ms", [f"{column}: " for column in columns]),
        PROCESSES,
    )
