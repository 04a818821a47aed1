"""Measures payloads of all sizes and kinds against the standard library's process pools.

Writes the section of payloads in BENCHMARKS.md. Each cell is measured in a process of its own for
each library, in turns; compare within a cell.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import machine
from harness import check
from payload_cell import FORMS
from report import digits, markdown

LIBRARIES = ["concurrent.futures", "concurrent_futures"]
KINDS = ["bytes", "str", "array", "dict of arrays", "dataclass"]
DIRECTIONS = ["argument", "result"]
SIZES = [100, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20, 64 << 20]
#: The sizes of a run of some minutes.
FEW_SIZES = [100, 64 << 10, 1 << 20, 8 << 20]
#: The size at which memory is measured.
LONG = 8 << 20
#: A cell is slower from here on.
SLOWER = 0.95
#: A cell takes too much memory from here on.
LARGER = 1.1
BEGIN = "<!-- payloads:begin -->"
END = "<!-- payloads:end -->"
_CELL = Path(__file__).with_name("payload_cell.py")
_REPORT = Path(__file__).parents[2] / "BENCHMARKS.md"


@dataclass(frozen=True)
class Cell:
    """A combination that is measured."""

    kind: str
    size: int
    direction: str
    form: str

    def command(self, library: str) -> list[str]:
        """Return the command that measures the cell for one library."""
        words = [library, self.kind, str(self.size), self.direction, self.form]
        return [sys.executable, str(_CELL), *words]


class Peak(threading.Thread):
    """Looks at how much memory a process and its children have, shared memory included."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Begin to watch a process."""
        super().__init__(daemon=True)
        self._process = process
        self._before = _shared()
        self.bytes = 0
        self.start()

    def run(self) -> None:
        """Note the largest use of memory until the process has ended."""
        while self._process.poll() is None:
            own = sum(_private(pid) for pid in _family(self._process.pid))
            self.bytes = max(self.bytes, own + max(0, _shared() - self._before))


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *itertools.chain.from_iterable(_family(int(child)) for child in children)]


def _private(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))


def _shared() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Shmem:"))


def times(cell: Cell, rounds: int) -> dict[str, float]:
    """Return how many times the standard library's speed ours has: medians of ratios."""
    ratios: dict[str, list[float]] = {"fresh": [], "used": []}
    for turn in range(rounds):
        taken = {}
        for library in LIBRARIES if turn % 2 == 0 else reversed(LIBRARIES):
            done = subprocess.run(
                cell.command(library), stdout=subprocess.PIPE, text=True, check=True
            )
            taken[library] = json.loads(done.stdout)
        for heap, all_of_it in ratios.items():
            theirs, ours = (taken[library][heap] for library in LIBRARIES)
            all_of_it.append(theirs / ours)
    print(".", end="", file=sys.stderr, flush=True)
    return {heap: statistics.median(all_of_it) for heap, all_of_it in ratios.items()}


def peaks(cell: Cell) -> list[int]:
    """Return the most memory that each library took."""
    found = []
    for library in LIBRARIES:
        with subprocess.Popen(cell.command(library), stdout=subprocess.PIPE, text=True) as process:
            peak = Peak(process)
            process.communicate()
            peak.join()
        check(process.returncode == 0, f"{library} with {cell}")
        found.append(peak.bytes)
    return found


def unit(size: int) -> str:
    """Return a size in words."""
    for factor, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= factor:
            return f"{size // factor} {name}"
    return f"{size} B"


def speeds(sizes: Sequence[int], rounds: int) -> str:
    """Return the table of speeds, and which cells are slower."""
    rows, slower = [], []
    for kind, direction, form in itertools.product(KINDS, DIRECTIONS, FORMS):
        row = [kind, direction, f"`{form}`"]
        for size in sizes:
            found = times(Cell(kind, size, direction, form), rounds)
            row.append(f"{found['fresh']:.2f} / {found['used']:.2f}")
            if min(found.values()) < SLOWER:
                slower.append(f"{kind}, {direction}, `{form}`, {unit(size)}")
        rows.append(row)
    table = markdown(["kind", "as", "by", *map(unit, sizes)], rows)
    verdict = "; ".join(slower) if slower else "none"
    return f"{table}\n\nSlower than the standard library by more than 5 %: {verdict}."


def memory() -> str:
    """Return the table of peaks, and which cells are larger."""
    rows, larger = [], []
    for kind, direction, form in itertools.product(["bytes", "array"], DIRECTIONS, FORMS):
        theirs, ours = peaks(Cell(kind, LONG, direction, form))
        figures = [digits(theirs / 2**20), digits(ours / 2**20), f"{ours / theirs:.2f}"]
        rows.append([kind, direction, f"`{form}`", *figures])
        if ours > theirs * LARGER:
            larger.append(f"{kind}, {direction}, `{form}`")
        print(".", end="", file=sys.stderr, flush=True)
    table = markdown(["kind", "as", "by", *LIBRARIES, "ratio"], rows)
    verdict = "; ".join(larger) if larger else "none"
    return f"{table}\n\nA larger peak than the standard library's by more than 10 %: {verdict}."


def render(sizes: Sequence[int], rounds: int) -> str:
    """Return the section as Markdown."""
    place = [machine.today(), machine.processor(), machine.kernel(), machine.interpreter()]
    disturbance = machine.Disturbance()
    tables = [speeds(sizes, rounds), memory()]
    share = disturbance.share() * 100
    return "\n\n".join(
        [
            "## Payloads of worker processes, in Python",
            " · ".join(
                [*place, f"other programs took {digits(share)} % of the processors meanwhile"]
            ),
            f"Written by `make bench-payloads`. The speed of the package with objects of these "
            f"sizes, divided by the standard library's: above 1, it is faster. Before the slash, "
            f"in fresh heaps; behind it, in used ones. Each cell is the median over {rounds} "
            "rounds, in each of which both libraries run once, in new processes with two workers.",
            tables[0],
            f"### Peak of memory in MiB, objects of {unit(LONG)}",
            "All processes together, shared memory included.",
            tables[1],
        ]
    )


def splice(existing: str, section: str) -> str:
    """Put the section in the place of the previous one, or at the end."""
    text = f"{BEGIN}\n{section.rstrip()}\n{END}"
    before, begin, rest = existing.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{text}{after}" if begin and end else f"{existing.rstrip()}\n\n{text}\n"


def main(words: Iterable[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--complete", action="store_true", help="all sizes: takes half an hour")
    parser.add_argument("--rounds", type=int, default=3, help="how often each cell is measured")
    parser.add_argument("--sizes", help="these sizes in bytes only, separated by commas")
    parser.add_argument("--print", action="store_true", help="print it, and write nothing")
    arguments = parser.parse_args(list(words))
    sizes = SIZES if arguments.complete else FEW_SIZES
    if arguments.sizes:
        sizes = [int(size) for size in arguments.sizes.split(",")]
    section = render(sizes, arguments.rounds)
    if arguments.print:
        print(section)
    else:
        _REPORT.write_text(splice(_REPORT.read_text(), section))


if __name__ == "__main__":
    main(sys.argv[1:])
