"""Tests of map of partial calls on processes: workers know those whose parts are immutable."""

import functools
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from multiprocessing import reduction
from types import ModuleType
from typing import Any

import pytest

import tasks


@pytest.fixture
def pool(lib: ModuleType, forking: Any) -> Iterator[Any]:
    """Make a pool of one process."""
    with lib.ProcessPoolExecutor(1, mp_context=forking) as made:
        yield made


class Shifted(functools.partial):  # type: ignore[type-arg]
    """A subclass of `functools.partial`."""

    def __call__(self, *args: Any) -> Any:
        return "shifted", super().__call__(*args)


def replaced(value: Any) -> Any:
    """Stands for a function that a test replaces."""
    return "before", value


def replacement(value: Any) -> Any:
    """Replaces the function `replaced`."""
    return "after", value


def replace_and_call(function: Callable[[Any], Any], value: Any) -> Any:
    """Calls its argument, and puts another function in its place."""
    globals()["replaced"] = replacement
    return function(value)


def collect(into: list[Any], value: Any) -> list[Any]:
    """Appends to its first argument."""
    into.append(value)
    return into


def has_no_pickler() -> bool:
    """Return whether no thread pickles calls."""
    return all("-pickler" not in thread.name for thread in threading.enumerate())


PARTS = [
    (),
    (1, 2.5, None, True),
    ("text", b"bytes", -(1 << 40)),
    ((1, "a", None), ()),
    (len, tasks.First, tasks.identity),
]


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("parts", PARTS, ids=len)
def test_a_partial_call_has_its_parts(lib: ModuleType, start: str, parts: tuple[Any, ...]) -> None:
    keywords = {f"k{number}": part for number, part in enumerate(parts)}
    function = functools.partial(tasks.capture, *parts, **keywords)
    with lib.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(start)) as pool:
        assert list(pool.map(function, range(40))) == [function(n) for n in range(40)]
        assert list(pool.map(function, "ab", "cd")) == [function("a", "c"), function("b", "d")]
        assert list(pool.map(function, range(9), chunksize=4)) == [function(n) for n in range(9)]


def test_immutable_parts_are_pickled_by_no_thread(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        for parts in PARTS:
            assert len(list(pool.map(functools.partial(tasks.capture, *parts), range(9)))) == 9
            assert has_no_pickler()
        assert list(pool.map(functools.partial(collect, []), range(9))) == [[n] for n in range(9)]
        assert not has_no_pickler()


def test_parts_that_can_be_changed_are_copied_for_each_item(pool: Any) -> None:
    function = functools.partial(collect, [])
    assert list(pool.map(function, range(20))) == [[n] for n in range(20)]
    nested = functools.partial(tasks.capture, ([1],), k={"a": 1})
    assert list(pool.map(nested, range(3))) == [nested(n) for n in range(3)]


def test_a_partial_call_that_is_changed_between_maps_is_sent_anew(pool: Any) -> None:
    function = functools.partial(tasks.capture, 1)
    assert list(pool.map(function, [0])) == [function(0)]
    function.__setstate__((tasks.capture, (2, 3), {"k": 4}, {}))  # type: ignore[attr-defined]
    assert list(pool.map(function, [0])) == [((2, 3, 0), {"k": 4})]
    for number in range(600):
        function = functools.partial(tasks.capture, number)
        assert list(pool.map(function, [0])) == [((number, 0), {})]


def test_parts_that_are_rebound_in_the_worker_are_replaced_for_the_next_item(pool: Any) -> None:
    function = functools.partial(replace_and_call, replaced)
    assert list(pool.map(function, range(3))) == [("before", 0), ("after", 1), ("after", 2)]


def test_a_part_that_is_not_what_its_name_says_is_refused(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = functools.partial(replace_and_call, replaced)
    monkeypatch.setattr("test_process_partial.replaced", replacement)
    with pytest.raises(Exception, match="not the same object"):
        list(pool.map(function, range(3)))


def test_other_kinds_of_partial_calls_keep_their_kind(pool: Any) -> None:
    function = Shifted(tasks.capture, 1)
    assert list(pool.map(function, range(3))) == [function(n) for n in range(3)]


def test_a_reducer_for_partial_calls_is_used(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def reduce_other(call: Any) -> Any:
        return functools.partial, (tasks.capture, "reduced", *call.args)

    reducers = reduction.ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    monkeypatch.setitem(reducers, functools.partial, reduce_other)
    function = functools.partial(tasks.identity, 1)
    assert list(pool.map(function, range(2))) == [(("reduced", 1, n), {}) for n in range(2)]
