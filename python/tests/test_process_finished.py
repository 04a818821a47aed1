"""Tests of calls of map that have finished before their worker dies: their results count."""

import os
import pickle
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, Background, eventually
from tasks import Flag


def until_broken(package: ModuleType, results: Iterable[Any]) -> list[Any]:
    """Return the results that an iterator yields before it raises that the pool is broken."""
    got = []
    with pytest.raises(package.process.BrokenProcessPool):
        for result in results:
            got.append(result)
    return got


class Marks:
    """A file with a byte for each item, which its call sets when it is about to return."""

    def __init__(self, path: Path, items: int) -> None:
        self.path = path
        path.write_bytes(bytes(items))

    def set(self, item: int, mark: int = 1) -> None:
        """Marks an item."""
        file = os.open(self.path, os.O_WRONLY)
        os.pwrite(file, bytes([mark]), item)
        os.close(file)

    def all(self) -> list[int]:
        """Return the marks."""
        return list(self.path.read_bytes())


def value_of(item: int, kind: str) -> Any:
    """Returns a result of this kind."""
    values: dict[str, Callable[[], Any]] = {
        "number": lambda: item,
        "large number": lambda: item << 70,
        "nothing": lambda: None,
        "float": lambda: item / 7,
        "flag": lambda: item % 2 == 0,
        "text": lambda: f"täxt {item}",
        "surrogate": lambda: f"\ud800 {item}",
        "bytes": lambda: bytes([item % 256]) * 3,
        "tuple": lambda: (item, str(item), None, b"", 0.5),
        "nested": lambda: ([item], {"item": (item,)}),
        "list": lambda: [item, True],
        "dict": lambda: {item: "item", "other": item},
        "object": lambda: tasks.Point(item, tags=["a tag"]),
        "three kilobytes": lambda: "x" * 3000 + str(item),
        "a hundred kilobytes": lambda: bytes([item % 256]) * 100_000,
        "two megabytes": lambda: f"{item} " * 300_000,
    }
    return values[kind]()


KINDS = [
    "number",
    "large number",
    "nothing",
    "float",
    "flag",
    "text",
    "surrogate",
    "bytes",
    "tuple",
    "nested",
    "list",
    "dict",
    "object",
    "three kilobytes",
    "a hundred kilobytes",
    "two megabytes",
]


def value_until(item: int, kind: str, end: int, submitted: Flag) -> Any:
    """Returns a result of this kind; the worker ends at one item, when all items are submitted."""
    if item == end:
        submitted.wait()
        os._exit(3)
    return value_of(item, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_results_of_all_kinds_come_back(package: ModuleType, forking: Any, kind: str) -> None:
    items = 30 if kind == "two megabytes" else 500
    with package.ProcessPoolExecutor(2, forking) as pool:
        got = list(pool.map(value_of, range(items), [kind] * items))
    expected = [value_of(item, kind) for item in range(items)]
    assert got == expected
    assert [type(value) for value in got] == [type(value) for value in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_has_finished_comes_before_the_error(
    package: ModuleType, forking: Any, kind: str, tmp_path: Path
) -> None:
    for end in 0, 1, 3, 49:
        with package.ProcessPoolExecutor(1, forking) as pool:
            # So that the worker gets many at a time.
            assert list(pool.map(abs, range(1000))) == list(range(1000))
            submitted = Flag(tmp_path / f"submitted-{end}")
            arguments = [range(60), [kind] * 60, [end] * 60, [submitted] * 60]
            results = pool.map(value_until, *arguments)
            submitted.set()
            got = until_broken(package, results)
        assert got == [value_of(item, kind) for item in range(end)]


def test_on_all_start_methods(package: ModuleType, context: Any) -> None:
    with package.ProcessPoolExecutor(1, context) as pool:
        assert until_broken(package, pool.map(tasks.exit_at, range(10), [3] * 10)) == [0, 1, 2]


def test_with_chunks_whole_chunks_have_finished(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, forking) as pool:
        results = pool.map(tasks.exit_at, range(20), [9] * 20, chunksize=4)
        assert until_broken(package, results) == list(range(8))


def kill_at(item: int, bad: int, submitted: Flag) -> int:
    """Returns the item; at the bad item, the worker kills itself by a signal that no handler
    catches."""
    if item == bad:
        submitted.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_worker_that_kills_itself(package: ModuleType, forking: Any, tmp_path: Path) -> None:
    for bad in 1, 17, 1500:
        with package.ProcessPoolExecutor(1, forking) as pool:
            assert list(pool.map(abs, range(2000))) == list(range(2000))
            submitted = Flag(tmp_path / f"submitted-{bad}")
            results = pool.map(kill_at, range(2000), [bad] * 2000, [submitted] * 2000)
            submitted.set()
            got = until_broken(package, results)
            assert got == list(range(bad))


def mark(item: int, marks: Marks) -> int:
    """Marks the item, and returns it."""
    marks.set(item)
    return item


def test_a_worker_that_is_killed_at_any_time(
    package: ModuleType, forking: Any, tmp_path: Path
) -> None:
    random = Random(1)
    items = 100_000
    for _ in range(10):
        marks = Marks(tmp_path / "marks", items)
        with package.ProcessPoolExecutor(1, forking) as pool:
            pid = pool.submit(os.getpid).result(LIMIT)
            results = pool.map(mark, range(items), [marks] * items)
            more = sum(marks.all()) + random.randrange(3000)

            def kill(pid: int = pid, marks: Marks = marks, more: int = more) -> None:
                eventually(lambda: sum(marks.all()) > more)
                os.kill(pid, signal.SIGKILL)

            killer = Background(kill)
            got = until_broken(package, results)
            killer.join(LIMIT)
        finished = sum(marks.all())
        assert more < finished < items
        assert got == list(range(len(got)))
        # The last call may not have returned.
        assert len(got) in (finished - 1, finished)


def mark_or_die(item: int, marks: Marks, bad: int, last: int, submitted: Flag) -> int:
    """Marks the item with a number of the worker; at the bad item, marks the last one and dies."""
    number = 1 + os.getpid() % 255
    if item == bad:
        submitted.wait()
        marks.set(last, number)
        os.kill(os.getpid(), signal.SIGKILL)
    marks.set(item, number)
    return item


def test_with_several_workers_results_come_up_to_the_first_item_that_has_none(
    package: ModuleType, forking: Any, tmp_path: Path
) -> None:
    items = 3000
    for bad in 0, 1, 100, 1234, 2999:
        marks = Marks(tmp_path / "marks", items + 1)
        with package.ProcessPoolExecutor(3, forking) as pool:
            list(pool.map(abs, range(10_000)))
            submitted = Flag(tmp_path / f"submitted-{bad}")
            arguments = [[marks] * items, [bad] * items, [items] * items, [submitted] * items]
            results = pool.map(mark_or_die, range(items), *arguments)
            submitted.set()
            got = until_broken(package, results)
        assert got == list(range(len(got)))
        assert len(got) <= bad
        *made, killer = marks.all()
        assert all(made[: len(got)])
        # Another worker may have been in the middle of it when the pool ended it.
        assert made[len(got)] != killer


def fork_at(item: int, places: list[int]) -> int:
    """Returns the item. At some items, the worker forks, and the child returns from here, too."""
    if item in places:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
    return item


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_call_that_forks_answers_once(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, forking) as pool:
        list(pool.map(abs, range(2000)))
        got = list(pool.map(fork_at, range(100), [[0, 5, 50, 99]] * 100))
        assert got == list(range(100))
        assert pool.submit(abs, -1).result(LIMIT) == 1


def fail_or_exit(item: int) -> int:
    """Returns the item; the third item fails, the sixth ends the worker."""
    if item == 3:
        raise LookupError("the third")
    if item == 6:
        os._exit(3)
    return item


def test_an_exception_counts_as_finished(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, forking) as pool:
        list(pool.map(abs, range(2000)))
        got = []
        with pytest.raises(LookupError, match="the third"):
            for result in pool.map(fail_or_exit, range(10)):
                got.append(result)
        assert got == [0, 1, 2]


class OnlyThere:
    """An object that can be unpickled only in the process that has made it."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __reduce__(self) -> tuple[object, ...]:
        return _made_by, (self.pid,)


def _made_by(pid: int) -> OnlyThere:
    if pid != os.getpid():
        raise pickle.UnpicklingError("not here")
    return OnlyThere()


def garbled_at(item: int, bad: int) -> Any:
    """Return the item, or in place of one item an object that cannot be unpickled."""
    return OnlyThere() if item == bad else item


@pytest.mark.parametrize("bad", [0, 1, 20])
def test_a_result_that_cannot_be_unpickled_breaks_the_pool_at_its_turn(
    package: ModuleType, forking: Any, tmp_path: Path, bad: int
) -> None:
    gate = Flag(tmp_path / "gate")
    with package.ProcessPoolExecutor(1, forking) as pool:
        list(pool.map(abs, range(2000)))
        # A pool that breaks before all calls are submitted has no results.
        pool.submit(gate.wait)
        results = pool.map(garbled_at, range(30), [bad] * 30)
        gate.set()
        got = until_broken(package, results)
        assert got == list(range(bad))


def unpicklable_at(item: int, bad: int) -> Any:
    """Return the item, or in place of one item an object that cannot be pickled."""
    return tasks.Unpicklable() if item == bad else item


@pytest.mark.parametrize("bad", [0, 1, 20])
def test_a_result_that_cannot_be_pickled_is_that_items_failure(
    package: ModuleType, forking: Any, bad: int
) -> None:
    with package.ProcessPoolExecutor(1, forking) as pool:
        list(pool.map(abs, range(2000)))
        got = []
        with pytest.raises(pickle.PicklingError, match="not this one"):
            for result in pool.map(unpicklable_at, range(30), [bad] * 30):
                got.append(result)
        assert got == list(range(bad))
        assert pool.submit(abs, -1).result(LIMIT) == 1
