"""Measures the package against other thread and process pools, and writes BENCHMARKS.md.

Contestants are interleaved: every round runs each of them once, in an order that changes, and the
report shows medians over the rounds. Compare within one table: the machine's mood moves all rows
together.
"""

import argparse
import concurrent.futures
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import contestants
import interpreter_workloads
import process_contestants
import process_start
import process_workloads
import report
import workloads
from footprint import footprint
from from_asyncio import from_asyncio
from harness import Settings
from machine import Disturbance
from recording_cost import recording_cost

WORKLOADS: dict[str, Callable[[Settings], report.Section]] = {
    "submit": workloads.submit,
    "round-trip": workloads.round_trip,
    "map": workloads.map_,
    "as-completed": workloads.as_completed,
    "callbacks": workloads.callbacks,
    "drain": workloads.drain,
    "recording": recording_cost,
    "sleeps": workloads.sleeps,
    "memory": footprint,
    "asyncio": from_asyncio,
    "process-submit": process_workloads.submit,
    "process-round-trip": process_workloads.round_trip,
    "process-map": process_workloads.map_one_by_one,
    "process-chunks": process_workloads.map_by_default,
    "process-values": process_workloads.long_values,
    "process-start": process_start.start,
    "process-crash": process_workloads.crash,
    "interpreter-submit": interpreter_workloads.submit,
    "interpreter-round-trip": interpreter_workloads.round_trip,
    "interpreter-map": interpreter_workloads.map_,
}
_REPORT = Path(__file__).parents[2] / "BENCHMARKS.md"


def main() -> int:
    """Run the command line."""
    arguments = parse(sys.argv[1:])
    if problem := obstacle(arguments.output):
        print(problem, file=sys.stderr)
        return 1
    settings = Settings(arguments.quick, arguments.rounds)
    disturbance = Disturbance()
    sections = []
    for name in arguments.only:
        if interpreter_workloads.OBSTACLE and name.startswith("interpreter-"):
            print(f"\n{name} skipped: {interpreter_workloads.OBSTACLE}", file=sys.stderr)
            continue
        print(f"\n{name} ", end="", file=sys.stderr, flush=True)
        sections.append(WORKLOADS[name](settings))
    print(file=sys.stderr)
    text = report.render(sections, settings, disturbance.share())
    if arguments.output is None:
        print(*text.values(), sep="\n", end="")
    else:
        report.write_into(arguments.output, text)
        print(f"written to {arguments.output}")
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the settings; a partial run replaces a complete one's figures only if told to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only",
        type=names,
        metavar="NAMES",
        default=list(WORKLOADS),
        help=f"measure these workloads only, separated by commas: {', '.join(WORKLOADS)}",
    )
    parser.add_argument(
        "--rounds", type=positive, metavar="N", help="how many times each contestant runs"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and two rounds: does everything run?"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="where the report goes, - prints it; without this, a complete run writes "
        "BENCHMARKS.md, and one with --quick or --only prints",
    )
    arguments = parser.parse_args(words)
    if arguments.rounds is None:
        arguments.rounds = 2 if arguments.quick else 5
    if arguments.output is None:
        is_partial = arguments.quick or arguments.only != list(WORKLOADS)
        arguments.output = None if is_partial else _REPORT
    else:
        arguments.output = None if arguments.output == "-" else Path(arguments.output)
    return arguments


def names(text: str) -> list[str]:
    """Return the workloads of a list."""
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in WORKLOADS]:
        raise argparse.ArgumentTypeError(f"no workload is called {', '.join(unknown)}")
    return [name for name in WORKLOADS if name in chosen]


def positive(text: str) -> int:
    """Return a number of at least one."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def obstacle(output: Path | None) -> str | None:
    """Return the reason why figures would be meaningless, if there is one."""
    if concurrent.futures.ThreadPoolExecutor.__module__ != "concurrent.futures.thread":
        return "the standard library's thread pool has been replaced: nothing to compare with"
    missing = sorted(
        {*contestants.missing(), *contestants.missing(process_contestants.ALL), *_missing_numpy()}
    )
    if missing and output is not None:
        return f"a report needs all contestants; not installed: {', '.join(missing)}"
    return None


def _missing_numpy() -> list[str]:
    return [] if find_spec("numpy") else ["numpy"]


if __name__ == "__main__":
    sys.exit(main())
