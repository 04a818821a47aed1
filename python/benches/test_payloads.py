"""Tests of the table of payloads."""

import pytest

import payload_cell
import payloads


@pytest.mark.parametrize("form", payload_cell.FORMS)
@pytest.mark.parametrize("direction", payloads.DIRECTIONS)
@pytest.mark.parametrize("library", payloads.LIBRARIES)
def test_each_form_of_calls_is_measured(library: str, direction: str, form: str) -> None:
    measured = payload_cell.measure(library, "dataclass", 200_000, direction, form)
    assert measured.keys() == {"fresh", "used"}
    assert min(measured.values()) > 0


@pytest.mark.parametrize("kind", payloads.KINDS)
def test_objects_differ_from_one_another(kind: str) -> None:
    pytest.importorskip("numpy")
    first, again, second = (payload_cell.make(kind, 4096, number) for number in (1, 1, 2))
    assert repr(first) == repr(again) != repr(second)


def test_a_section_takes_the_place_of_the_one_before() -> None:
    report = payloads.splice("# Benchmarks\n", "first")
    assert payloads.splice(report + "rest\n", "second") == (
        f"# Benchmarks\n\n{payloads.BEGIN}\nsecond\n{payloads.END}\nrest\n"
    )


def test_sizes_are_told_in_words() -> None:
    assert [payloads.unit(size) for size in (100, 4096, 8 << 20)] == ["100 B", "4 KiB", "8 MiB"]
