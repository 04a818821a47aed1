"""The report: tables and targets as markdown, and their place in BENCHMARKS.md."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import contestants
import machine
import process_contestants
from harness import Figure, Row, Settings

#: The parts of the report.
THREADS, PROCESSES, INTERPRETERS = "Threads", "Processes", "Interpreters"
FREE_THREADED = "Threads without the interpreter lock"

#: Share of the processors that other programs may use before the figures are not to be trusted.
_DISTURBED = 0.05


@dataclass(frozen=True)
class Table:
    """A table of contestants."""

    #: The headings of the figures, with their units.
    columns: Sequence[str]
    rows: Sequence[Row]
    #: The columns for which it is told how many times better than the standard library's they are.
    compared: Sequence[int] = (0,)

    def median(self, contestant: contestants.Contestant, column: int) -> float | None:
        """Return a contestant's figure, if there is one."""
        for row in self.rows:
            if row.entry.name == contestant.name and row.figures:
                return row.figures[column].median
        return None

    def times(self, figure: Figure, column: int) -> float:
        """Return how many times better than the standard library's a figure is."""
        theirs = self.median(contestants.STANDARD_LIBRARY, column)
        assert theirs is not None, "the standard library takes part everywhere"
        return theirs / figure.median


@dataclass(frozen=True)
class Target:
    """A promised figure, and the measured one."""

    promise: str
    #: Nothing if ours does not take part.
    measured: str | None
    met: bool

    @classmethod
    def times(cls, table: Table, column: int, least: float, unit: str, what: str = "") -> "Target":
        """Return the target of a multiple of the standard library's speed."""
        promise = f"{what}{least:g} times the standard library's speed"
        ours = table.median(contestants.OURS, column)
        theirs = table.median(contestants.STANDARD_LIBRARY, column)
        if ours is None or theirs is None:
            return cls(promise, None, False)
        measured = f"× {theirs / ours:.2f} ({digits(theirs)} to {digits(ours)} {unit})"
        return cls(promise, measured, theirs / ours >= least)

    @classmethod
    def as_fast_as(cls, table: Table, column: int, least: float, row: str, what: str) -> "Target":
        """Return the target of a multiple of the speed of a row, by its name."""
        promise = f"{what}at least {least:g} times as fast as {row}"
        ours = table.median(contestants.OURS, column)
        (theirs,) = [each.figures[column].median for each in table.rows if each.entry.name == row]
        if ours is None:
            return cls(promise, None, False)
        return cls(promise, f"× {theirs / ours:.2f}", theirs / ours >= least)

    @classmethod
    def at_most(cls, table: Table, column: int, most: float, unit: str, what: str = "") -> "Target":
        """Return the target of a figure that is not above a limit."""
        promise = f"{what}at most {most:g} {unit}"
        ours = table.median(contestants.OURS, column)
        if ours is None:
            return cls(promise, None, False)
        return cls(promise, f"{ours:.1f} {unit}", ours <= most)

    @classmethod
    def fastest(cls, table: Table, column: int, unit: str, what: str = "") -> "Target":
        """Return the target of a figure that no other contestant is below."""
        promise = f"{what}faster than every other pool"
        ours = table.median(contestants.OURS, column)
        others = [
            (row.figures[column].median, row.entry.name)
            for row in table.rows
            if row.figures and row.entry.name != contestants.OURS.name and not row.entry.is_context
        ]
        others = [other for other in others if not math.isnan(other[0])]
        if ours is None or not others:
            return cls(promise, None, False)
        best, name = min(others)
        measured = f"× {best / ours:.2f} ({name}: {digits(best)} {unit})"
        return cls(promise, measured, ours < best)

    @property
    def verdict(self) -> str:
        """Return whether the promise was met, in words."""
        if self.measured is None:
            return "not measured"
        return "met" if self.met else "**not met**"


def targets(
    table: Table, times: Sequence[float], unit: str, what: Sequence[str] = ("",)
) -> list[Target]:
    """Return a target for each column: a multiple of the standard library's speed."""
    promised = []
    for column, (least, name) in enumerate(zip(times, what, strict=True)):
        promised.append(Target.times(table, column, least, unit, name))
        promised.append(Target.fastest(table, column, unit, name))
    return promised


@dataclass(frozen=True)
class Section:
    """A workload's part of the report."""

    title: str
    #: Describes the workload and the rows.
    text: str
    table: Table
    targets: Sequence[Target] = field(default=())
    #: The part of the report that the section belongs to.
    part: str = THREADS


@dataclass(frozen=True)
class Part:
    """A part of the report: the pools of one kind."""

    name: str
    #: The kind of the pools, and their state.
    pools: str
    contestants: Sequence[contestants.Contestant]
    #: The name of the place in BENCHMARKS.md that has the part.
    place: str
    #: The command that writes the part.
    command: str = "python python/benches/run.py"
    #: Whether the targets are set for one version of CPython, and not for all that have the part.
    is_of_one_version: bool = True


_BOTH = (contestants.OURS, contestants.STANDARD_LIBRARY)
PARTS = (
    Part(THREADS, "4 workers", contestants.ALL, "python"),
    Part(PROCESSES, "2 workers, forked", process_contestants.ALL, "python"),
    Part(
        INTERPRETERS,
        "2 workers",
        _BOTH,
        "interpreters",
        command="make bench-interpreters",
        is_of_one_version=False,
    ),
    Part(
        FREE_THREADED,
        "4 workers",
        contestants.ALL,
        "free-threaded",
        command="make bench-free-threaded",
        is_of_one_version=False,
    ),
)


def write_into(path: Path, report: Mapping[str, str]) -> None:
    """Write a report into its places in a file, and leave the rest of the file to its owners."""
    text = path.read_text() if path.exists() else "# Benchmarks\n"
    for place, own in report.items():
        text = splice(text, own, place)
    path.write_text(text)


def splice(existing: str, report: str, place: str) -> str:
    """Put a report in the place of the previous one, or at the end of a text without one."""
    begin, end = f"<!-- {place}:begin -->", f"<!-- {place}:end -->"
    text = f"{begin}\n{report.rstrip()}\n{end}"
    before, found, rest = existing.partition(begin)
    _, found_end, after = rest.partition(end)
    if found and found_end:
        return f"{before}{text}{after}"
    return f"{existing.rstrip()}\n\n{text}\n"


def render(
    sections: Sequence[Section], settings: Settings, disturbance: float
) -> Mapping[str, str]:
    """Return the whole report: the text of each place."""
    texts: dict[str, list[str]] = {}
    for part in PARTS:
        if own := [section for section in sections if section.part == part.name]:
            texts.setdefault(part.place, []).extend(
                [_introduction(part, settings, disturbance), _targets(own)]
            )
            for section in own:
                parts = [f"### {section.title}", section.text, _table(section.table)]
                texts[part.place].extend(parts)
    return {place: "\n\n".join(parts) + "\n" for place, parts in texts.items()}


def _introduction(part: Part, settings: Settings, disturbance: float) -> str:
    place = [
        machine.today(),
        machine.processor(),
        machine.kernel(),
        machine.interpreter(),
        contestants.versions(part.contestants),
        f"other programs took {digits(disturbance * 100)} % of the processors meanwhile",
    ]
    warnings = []
    if settings.quick:
        warnings.append("**A quick run: the sizes are too small to compare.**")
    if disturbance > _DISTURBED:
        warnings.append(
            "**The machine was busy with something else: measure again before you believe a figure "
            "or a verdict.**"
        )
    if part.is_of_one_version and not machine.is_of_the_targets():
        warnings.append("The targets are set for CPython 3.13.")
    if missing := contestants.missing(part.contestants):
        warnings.append(f"**Not installed: {', '.join(missing)}.**")
    warnings.append(
        f"Written by `{part.command}`. Contestants are interleaved: each of "
        f"{settings.rounds} rounds runs all of them once, in one process, in an order that "
        f"changes from round to round. Each contestant has a fresh pool of {part.pools} (unless "
        "said otherwise) which have all run a task already. The garbage collector is on, as in "
        "every program. A "
        "cell shows the median over the rounds, and in parentheses the lowest and the highest; "
        "lower is better. A column × tells how many times better than that of `concurrent.futures` "
        "a median is: above 1, it is faster, or smaller. A dash: cannot do it. Rows in *italics* "
        "are there for context and do something else, as the text above the table says."
    )
    return "\n\n".join([f"## {part.name}, in Python", " · ".join(place), " ".join(warnings)])


def _targets(sections: Sequence[Section]) -> str:
    targets = [(section, target) for section in sections for target in section.targets]
    met = sum(target.met for _, target in targets)
    rows = [
        [section.title, target.promise, target.measured or "–", target.verdict]
        for section, target in targets
    ]
    table = markdown(["workload", "target", "measured", ""], rows)
    return f"### Targets: {met} of {len(targets)} met\n\n{table}"


def _table(table: Table) -> str:
    headings = ["", *table.columns]
    for column in table.compared:
        headings.append("×" if len(table.columns) == 1 else f"× ({table.columns[column]})")
    rows = []
    for row in table.rows:
        cells = [_cell(figure) for figure in row.figures]
        if row.figures:
            cells += [_times(table.times(row.figures[one], one)) for one in table.compared]
        else:
            cells = ["–"] * (len(headings) - 1)
        rows.append([_name(row), *cells])
    return markdown(headings, rows, right=True)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = False) -> str:
    """Return a table that can be read as it is; all columns but the first may go to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1])]
        padded += [cell.rjust(wide) if right else cell.ljust(wide) for cell, wide in others]
        return f"| {' | '.join(padded)} |"

    rules = ["-" * (width + 2) for width in widths]
    if right:
        rules[1:] = [f"{rule[:-1]}:" for rule in rules[1:]]
    return "\n".join([line(headings), f"|{'|'.join(rules)}|", *map(line, rows)])


def _name(row: Row) -> str:
    if row.entry.is_ours:
        return f"**{row.entry.name}**"
    return f"*{row.entry.name}*" if row.entry.is_context else row.entry.name


def _times(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _cell(figure: Figure) -> str:
    if math.isnan(figure.median):
        return "–"
    median, lowest, highest = map(digits, (figure.median, figure.lowest, figure.highest))
    return median if lowest == highest else f"{median} ({lowest}–{highest})"


def digits(value: float) -> str:
    """Return a number in three digits, or more if there are more before the point."""
    if abs(value) >= 99.95 or abs(value - round(value)) < 0.005:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
