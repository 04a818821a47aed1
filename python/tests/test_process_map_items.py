"""Tests of map on processes: each item is a call of its own, submitted as soon as there is one."""

import functools
import itertools
import multiprocessing
import operator
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, eventually
from tasks import Flag

# Items of all the ways in which they are sent: as they are, pickled, and as tasks of their own.
LENGTHS = [1, 100, 8 << 10, (8 << 10) + 1, 40_000, 300_000]


@pytest.fixture
def pool(lib: ModuleType, forking: Any) -> Iterator[Any]:
    """Make a pool of one process."""
    with lib.ProcessPoolExecutor(1, mp_context=forking) as made:
        yield made


class Settings:
    """An object that notes the numbers that it was called with."""

    def __init__(self) -> None:
        self.used: list[int] = []

    def use(self, number: int) -> int:
        """Note a number; return how many numbers were noted."""
        self.used.append(number)
        return len(self.used)


def use(settings: Settings, number: int) -> int:
    """Call the method `use` of the settings."""
    return settings.use(number)


def take(options: dict[str, Any], _number: int) -> Any:
    """Takes an option out of a dictionary."""
    return options.pop("name")


def grow(rows: list[Any]) -> int:
    """Change an object in the argument."""
    rows[0].append(1)
    return len(rows[0])


def grow_flat(row: list[Any]) -> int:
    """Changes its argument in place."""
    row.append(1)
    return len(row)


kept: list[list[int]] = []


def keep(number: int) -> list[int]:
    """Return the same object each time."""
    if not kept:
        kept.append([])
    kept[0].append(number)
    return kept[0]


def length_and_set(flag: Flag, content: bytes) -> int:
    """Return the length of the argument, and set a flag."""
    flag.set()
    return len(content)


def set_and_measure(both: tuple[Flag, bytes]) -> int:
    """Return the length of the argument, and set a flag, for a pair."""
    return length_and_set(*both)


def wait_and_return(flag: Flag, number: int) -> int:
    """Returns the number, when the flag is set."""
    flag.wait()
    return number


def test_each_call_has_a_copy_of_what_items_have_in_common(lib: ModuleType, context: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert set(pool.map(use, itertools.repeat(Settings()), range(60))) == {1}
        options = {"name": "n", "nested": [1]}
        assert list(pool.map(take, itertools.repeat(options), range(60))) == ["n"] * 60
        assert list(pool.map(grow, [[[], 1]] * 60)) == [1] * 60
        assert list(pool.map(grow_flat, [[]] * 60)) == [1] * 60


def test_each_call_has_a_copy_of_what_the_function_has(pool: Any) -> None:
    assert list(pool.map(Settings().use, range(60))) == [1] * 60
    settings = Settings()
    assert list(pool.map(functools.partial(use, settings), range(60))) == [1] * 60


@pytest.mark.parametrize("chunksize", [2, 4, 60])
def test_items_of_a_chunk_share_what_they_have_in_common(pool: Any, chunksize: int) -> None:
    expected = [1 + n % chunksize for n in range(60)]
    assert list(pool.map(grow, [[[], 1]] * 60, chunksize=chunksize)) == expected
    assert list(pool.map(grow_flat, [[]] * 60, chunksize=chunksize)) == expected
    repeated = itertools.repeat(Settings())
    assert list(pool.map(use, repeated, range(60), chunksize=chunksize)) == expected
    assert list(pool.map(Settings().use, range(60), chunksize=chunksize)) == expected


def test_arguments_of_one_call_share_common_objects(pool: Any) -> None:
    both = [[], 1]
    assert list(pool.map(is_same, [both] * 20, [both] * 20)) == [True] * 20
    assert list(pool.map(is_same, [both] * 20, [[[], 1]] * 20)) == [False] * 20
    assert list(pool.map(functools.partial(is_same, both), [both] * 20)) == [True] * 20


def is_same(first: Any, second: Any) -> bool:
    """Return whether both arguments are one object."""
    return first is second


def test_results_of_a_chunk_share_common_objects(pool: Any) -> None:
    alone = list(pool.map(keep, range(40)))
    assert len({id(result) for result in alone}) == 40
    assert alone[3] == [0, 1, 2, 3]
    chunks = list(pool.map(keep, range(40), chunksize=4))
    assert len({id(result) for result in chunks}) == 10
    assert chunks[0] is chunks[3]


@pytest.mark.parametrize("length", LENGTHS)
def test_an_item_runs_before_its_producer_goes_on(pool: Any, tmp_path: Path, length: int) -> None:
    def flags() -> Iterator[Flag]:
        for number in range(12):
            flag = Flag(tmp_path / str(number))
            yield flag
            flag.wait()

    contents = [b"x" * length] * 12
    assert list(pool.map(length_and_set, flags(), contents)) == [length] * 12


def test_items_run_while_their_producer_makes_others(pool: Any, tmp_path: Path) -> None:
    # The producer is some items ahead of the workers, and no more.
    flags = [Flag(tmp_path / str(number)) for number in range(200)]

    def throttled() -> Iterator[tuple[Flag, bytes]]:
        for number, flag in enumerate(flags):
            if number >= 5:
                flags[number - 5].wait()
            yield flag, b"x" * (number % 7 * 3000)

    results = pool.map(set_and_measure, throttled())
    assert list(results) == [number % 7 * 3000 for number in range(200)]


@pytest.mark.parametrize(("chunksize", "made"), [(1, 5), (2, 4), (3, 3), (9, 0)])
@pytest.mark.parametrize("length", [1, 20_000])
def test_calls_are_made_for_the_items_before_a_failure(
    pool: Any, tmp_path: Path, chunksize: int, made: int, length: int
) -> None:
    path = tmp_path / "ran"
    path.touch()

    def items() -> Iterator[str]:
        for number in range(5):
            yield str(number) * length
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        pool.map(tasks.append, itertools.repeat(path), items(), chunksize=chunksize)
    pool.shutdown()
    lines = path.read_text().splitlines()
    assert lines == [str(number) * length for number in range(made)]


def test_a_shutdown_while_items_are_made_ends_it(pool: Any, tmp_path: Path) -> None:
    path = tmp_path / "ran"

    def items() -> Iterator[int]:
        yield from range(3)
        pool.shutdown(wait=False)
        yield 3

    with pytest.raises(RuntimeError, match="shutdown"):
        pool.map(tasks.append, itertools.repeat(path), items())
    eventually(lambda: path.exists() and path.read_text().splitlines() == ["0", "1", "2"])


def test_long_and_short_items_come_back_in_their_order(pool: Any) -> None:
    items = [bytes([n % 256]) * LENGTHS[n % len(LENGTHS)] for n in range(120)]
    assert list(pool.map(tasks.identity, items)) == items
    assert list(pool.map(tasks.identity, iter(items))) == items
    pairs = [[each, number] for number, each in enumerate(items)]
    assert list(pool.map(tasks.identity, pairs)) == pairs


def test_items_that_cannot_be_pickled_fail_between_others(pool: Any) -> None:
    for items in (
        [1, tasks.Unpicklable(), 3],
        iter([b"x" * 20_000, tasks.Unpicklable(), 3]),
        [[1, [2]], tasks.Unpicklable()],
    ):
        results = pool.map(tasks.identity, items)
        assert next(results)
        with pytest.raises(Exception, match="not this one"):
            next(results)


@pytest.mark.parametrize(
    ("most", "chunksize", "runs"),
    [(1, 1, [1] * 9), (3, 1, [3, 3, 3]), (2, 1, [2, 2, 2, 2, 1]), (2, 2, [4, 4, 1])],
)
def test_a_worker_ends_after_its_number_of_items_or_chunks(
    package: ModuleType, most: int, chunksize: int, runs: list[int]
) -> None:
    # The standard library does so, too, but hangs now and then (seen with 3.13.0).
    context = multiprocessing.get_context("spawn")
    with package.ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=most) as pool:
        pids = list(pool.map(tasks.pid, range(9), chunksize=chunksize))
    assert [len(list(same)) for _, same in itertools.groupby(pids)] == runs


def test_no_worker_of_several_has_more_than_its_number_of_items(package: ModuleType) -> None:
    context = multiprocessing.get_context("forkserver")
    with package.ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=4) as pool:
        pids = list(pool.map(tasks.pid, range(40)))
    assert max(map(pids.count, pids)) <= 4


@pytest.mark.parametrize("end", ["failure", "close", "timeout"])
def test_an_iterator_that_has_ended_early_has_nothing_more(
    lib: ModuleType, pool: Any, release: Flag, end: str
) -> None:
    if end == "failure":
        results = pool.map(tasks.fails_at, range(50), [4] * 50)
        assert list(itertools.islice(results, 4)) == [0, 1, 2, 3]
        with pytest.raises(ValueError, match="4 is bad"):
            next(results)
    elif end == "close":
        results = pool.map(abs, range(50))
        assert next(results) == 0
        results.close()
    else:
        results = pool.map(wait_and_return, [release] * 20, range(20), timeout=0.05)
        with pytest.raises(TimeoutError):
            next(results)
        release.set()
    assert operator.length_hint(results) == 0
    assert list(results) == []


def test_an_iterator_knows_how_many_results_are_to_come(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        items = [b"x" * LENGTHS[n % len(LENGTHS)] for n in range(30)]
        results = pool.map(len, items)
        for left in range(30, 0, -1):
            assert operator.length_hint(results) == left
            next(results)
        assert operator.length_hint(results) == 0


def test_more_workers_are_started_for_more_items(
    lib: ModuleType, context: Any, tmp_path: Path
) -> None:
    if context.get_start_method() == "fork":
        pytest.skip("all are started at once")

    for items in [2, 2], (2 for _ in range(2)):
        folder = tmp_path / type(items).__name__
        folder.mkdir()
        with lib.ProcessPoolExecutor(2, mp_context=context) as pool:
            pids = list(pool.map(tasks.meet, [folder] * 2, items))
        assert len(set(pids)) == 2


def test_the_number_of_tasks_is_that_of_items(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        list(pool.map(abs, range(10)))
        list(pool.map(abs, iter(range(10)), chunksize=5))
        assert pool._queue_count == 12
        assert pool.submit(abs, -1).result(LIMIT) == 1
