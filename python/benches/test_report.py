"""Tests of the report: its form, and its place in the file."""

from pathlib import Path

import pytest

import contestants
from harness import Entry, Figure, Row, Settings, measure
from report import (
    INTERPRETERS,
    PROCESSES,
    THREADS,
    Section,
    Table,
    Target,
    digits,
    markdown,
    render,
    splice,
    write_into,
)

BEGIN = "<!-- python:begin -->"
END = "<!-- python:end -->"
RUST = "<!-- rust:begin -->\nrust\n<!-- rust:end -->\n"


def table(ours: float, theirs: float) -> Table:
    """Return a table of two rows."""
    figures = {contestants.OURS.name: ours, contestants.STANDARD_LIBRARY.name: theirs}
    rows = [
        Row(Entry(name, run=lambda: [0.0]), [Figure.of([value])]) for name, value in figures.items()
    ]
    return Table(["µs"], rows)


def test_a_report_is_appended_to_a_text_without_one() -> None:
    assert splice(f"# Benchmarks\n\n{RUST}", "new\n", "python") == (
        f"# Benchmarks\n\n{RUST}\n{BEGIN}\nnew\n{END}\n"
    )


def test_a_report_replaces_the_previous_one_and_nothing_else() -> None:
    existing = f"before\n{BEGIN}\nold\n{END}\nafter\n{RUST}"
    assert splice(existing, "new", "python") == f"before\n{BEGIN}\nnew\n{END}\nafter\n{RUST}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.126, "0.13"),
        (2.0, "2"),
        (9.994, "9.99"),
        (9.996, "10"),
        (12.34, "12.3"),
        (99.96, "100"),
        (1234.5, "1,234"),
        (1_234_567.0, "1,234,567"),
    ],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert digits(value) == text


def test_a_table_can_be_read_as_it_is() -> None:
    assert markdown(["", "µs"], [["one", "1"], ["seven", "77.7"]], right=True) == (
        "|       |   µs |\n|-------|-----:|\n| one   |    1 |\n| seven | 77.7 |"
    )


@pytest.mark.parametrize(("ours", "verdict"), [(5.0, "met"), (5.1, "**not met**")])
def test_a_multiple_of_speed_is_met_or_not(ours: float, verdict: str) -> None:
    assert Target.times(table(ours, 100.0), 0, 20, "µs").verdict == verdict


@pytest.mark.parametrize(("ours", "verdict"), [(103.0, "met"), (103.1, "**not met**")])
def test_a_limit_is_kept_or_not(ours: float, verdict: str) -> None:
    assert Target.at_most(table(ours, 1.0), 0, 103, "ms").verdict == verdict


def test_nobody_always_runs_first() -> None:
    order: list[str] = []

    def entry(name: str) -> Entry:
        def run() -> list[float]:
            order.append(name)
            return [float(len(order))]

        return Entry(name, run)

    rows = measure(3, [entry("a"), entry("b"), entry("c")])
    assert "".join(order) == "abcacbcab"
    assert [row.figures[0].median for row in rows] == [4.0, 6.0, 5.0]


@pytest.mark.parametrize(("ours", "met"), [(9.9, True), (10.1, False)])
def test_the_fastest_is_faster_than_all_others(ours: float, met: bool) -> None:
    target = Target.fastest(table(ours, 10.0), 0, "µs")
    assert target.met is met
    assert target.measured is not None
    assert contestants.STANDARD_LIBRARY.name in target.measured


def test_each_part_of_the_report_has_its_targets_and_pools() -> None:
    sections = [
        Section(name, "text", table(1.0, 10.0), [Target(name, "1", True)], part=name)
        for name in (INTERPRETERS, PROCESSES, THREADS)
    ]
    texts = render(sections, Settings(quick=False, rounds=2), 0.0)
    assert set(texts) == {"python", "interpreters"}
    text = texts["python"]
    assert text.index("## Threads, in Python") < text.index("## Processes, in Python")
    assert text.count("### Targets: 1 of 1 met") == 2
    assert "## Threads" not in render(sections[1:2], Settings(quick=False, rounds=2), 0.0)["python"]


def test_a_report_is_written_into_each_of_its_places(tmp_path: Path) -> None:
    path = tmp_path / "BENCHMARKS.md"
    path.write_text(f"{RUST}\n{BEGIN}\nold\n{END}\n")
    write_into(path, {"interpreters": "first"})
    write_into(path, {"python": "new", "interpreters": "second"})
    assert path.read_text() == (
        f"{RUST}\n{BEGIN}\nnew\n{END}\n\n"
        "<!-- interpreters:begin -->\nsecond\n<!-- interpreters:end -->\n"
    )


@pytest.mark.parametrize(("ours", "met"), [(5.0, True), (5.1, False)])
def test_a_multiple_of_the_speed_of_a_row(ours: float, met: bool) -> None:
    name = contestants.STANDARD_LIBRARY.name
    assert Target.as_fast_as(table(ours, 10.0), 0, 2, name, "").met is met
