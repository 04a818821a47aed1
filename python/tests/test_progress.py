"""Progress bars of ``map`` and ``as_completed``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import concurrent_futures as cf

tqdm = pytest.importorskip("tqdm", reason="tqdm is not installed")


class Bars:
    """The text that bars have written."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def bars(capsys: pytest.CaptureFixture[str]) -> Bars:
    return Bars(capsys)


@pytest.fixture(params=["threads", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    kind = cf.ThreadPoolExecutor if request.param == "threads" else cf.ProcessPoolExecutor
    with kind(2) as executor:
        yield executor


def last(bars: Bars) -> str:
    """The last state of the one bar, up to the times."""
    text = bars.getvalue()
    assert text.count("\n") == 1, text
    return re.sub(r"\|.*\| ", "| ", text.strip().rpartition("\r")[2]).partition(" [")[0]


def double(n: int) -> int:
    return 2 * n


def no_seven(n: int) -> int:
    if n == 7:
        raise KeyError(n)
    return n


def test_map_shows_name_and_total(executor: Any, bars: Bars) -> None:
    assert list(executor.map(double, range(10), progress=True)) == list(range(0, 20, 2))
    assert last(bars) == "double: 100%| 10/10"


def test_the_number_of_items_without_a_length_is_known_afterwards(
    executor: Any, bars: Bars
) -> None:
    assert list(executor.map(max, range(10), (0 for _ in range(5)), progress=True))
    assert last(bars) == "max: 100%| 5/5"


def test_with_a_buffersize_the_number_stays_unknown(executor: Any, bars: Bars) -> None:
    items = (n for n in range(5))
    assert list(executor.map(double, items, buffersize=2, progress=True)) == [0, 2, 4, 6, 8]
    assert last(bars) == "double: 5it"


def test_an_error_ends_the_bar_where_it_is(executor: Any, bars: Bars) -> None:
    results = executor.map(no_seven, range(10), progress=True)
    with pytest.raises(KeyError):
        list(results)
    assert last(bars) == "no_seven:  70%| 7/10"


def test_a_closed_iterator_closes_its_bar(executor: Any, bars: Bars) -> None:
    results = executor.map(double, range(10), progress=True)
    assert bars.getvalue() == ""
    assert next(results) == 0
    results.close()
    assert last(bars) == "double:  10%| 1/10"
    assert list(results) == []


def test_as_completed_counts_each_future_once(executor: Any, bars: Bars) -> None:
    futures = [executor.submit(no_seven, n) for n in range(10)]
    cancelled = cf.Future[int]()
    assert cancelled.cancel() and not cancelled.set_running_or_notify_cancel()
    done = list(cf.as_completed([*futures, *futures, cancelled], progress=True))
    assert set(done) == {*futures, cancelled}
    assert last(bars) == "futures: 100%| 11/11"


def test_a_bar_of_the_program_is_the_only_one(executor: Any, bars: Bars) -> None:
    items = tqdm.tqdm(range(3), desc="own")
    assert list(executor.map(double, items, progress=True)) == [0, 2, 4]
    assert last(bars) == "own: 100%| 3/3"


def test_without_tqdm_a_warning_says_so(
    executor: Any, bars: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.warns(RuntimeWarning, match="tqdm is not installed"):
        assert list(executor.map(double, [1], progress=True)) == [2]
    assert bars.getvalue() == ""
