"""Tests of objects that are dropped while an exception is on its way, which arrives all the
same."""

import gc
import itertools
import subprocess
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, environment, eventually, future_in, held, program


class LeftError(Exception):
    """The exception that leaves a loop."""


def leaves(_: object = None) -> Any:
    raise LeftError


def loop(results: Iterator[Any]) -> None:
    for _ in results:
        leaves()


def comprehension(results: Iterator[Any]) -> None:
    [leaves(result) for result in results]


def consumer(results: Iterator[Any]) -> None:
    any(leaves(result) for result in results)


def zipped(results: Iterator[Any]) -> None:
    for _ in zip(results, itertools.count(), strict=False):
        leaves()


def mapped(results: Iterator[Any]) -> None:
    list(map(leaves, results))


def starred(results: Iterator[Any]) -> None:
    print(*(leaves(result) for result in results))


def sorts(results: Iterator[Any]) -> None:
    sorted(results, key=leaves)


def handler(results: Iterator[Any]) -> None:
    try:
        next(results)
        raise KeyError
    except KeyError:
        for _ in results:
            leaves()


def thrown(results: Iterator[Any]) -> None:
    around = (result for result in results)
    next(around)
    around.throw(LeftError)


WAYS: list[Callable[[Iterator[Any]], None]] = [
    loop,
    comprehension,
    consumer,
    zipped,
    mapped,
    starred,
    handler,
    thrown,
]


@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
def test_an_exception_leaves_a_loop_over_map(
    lib: ModuleType, leave: Callable[[Iterator[Any]], None]
) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with pytest.raises(LeftError):
            leave(pool.map(int, range(50)))
        assert pool.submit(int, "5").result(LIMIT) == 5


def test_an_exception_in_a_loop_cancels_the_rest(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        blocked = lib.ThreadPoolExecutor(1)
        with held(blocked):
            done = []

            def task(number: int) -> int:
                done.append(number)
                if number == 1:
                    blocked.submit(int).result(LIMIT)
                return number

            with pytest.raises(LeftError):
                for _ in pool.map(task, range(50)):
                    # It waits in the second, behind which all are cancelled.
                    eventually(lambda: len(done) == 2)
                    leaves()
        blocked.shutdown()
    assert done == [0, 1]


def test_callbacks_of_what_is_cancelled_do_not_see_the_exception(lib: ModuleType) -> None:
    seen: list[Any] = []

    class Pool(lib.ThreadPoolExecutor):  # type: ignore[name-defined, misc]
        def submit(self, *args: Any, **keywords: Any) -> Any:
            future = super().submit(*args, **keywords)
            future.add_done_callback(lambda future: seen.append((future.cancelled(), [*"ab"])))
            return future

    with Pool(1) as pool:
        with pytest.raises(LeftError):
            for _ in pool.map(int, range(20)):
                leaves()
    assert len(seen) == 20
    assert all(letters == ["a", "b"] for _, letters in seen)


def test_a_callback_that_fails_does_not_replace_the_exception(
    lib: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    class Pool(lib.ThreadPoolExecutor):  # type: ignore[name-defined, misc]
        def submit(self, *args: Any, **keywords: Any) -> Any:
            future = super().submit(*args, **keywords)
            future.add_done_callback(lambda _: leaves())
            return future

    with Pool(1) as pool:
        with pytest.raises(LeftError):
            for _ in pool.map(int, range(5)):
                leaves()
    assert len(caplog.records) == 5


def dropped_by_exception(make: Callable[[], Any]) -> None:
    """Drops an object with the frame that an exception leaves, while it is on its way."""

    def frame() -> None:
        made = make()
        assert made is not None
        raise LeftError

    try:
        frame()
    except LeftError as error:
        error.__traceback__ = None
        raise


def test_executors_that_are_dropped_by_an_exception(lib: ModuleType) -> None:
    done: list[int] = []

    def make() -> Any:
        pool = lib.ThreadPoolExecutor(1)
        pool.submit(done.append, 1)
        return pool

    with pytest.raises(LeftError):
        dropped_by_exception(make)
    eventually(lambda: done == [1])


def test_a_native_iterator_that_is_dropped_by_an_exception(package: ModuleType) -> None:
    """Checks the iterator from which the generator of ``map`` yields, by itself."""
    with package.ThreadPoolExecutor(1) as pool:
        with held(pool):
            cancelled: list[Any] = []
            pending = [pool.submit(int) for _ in range(3)]
            for future in pending:
                future.add_done_callback(cancelled.append)
            submitted = iter([future_in(package, "FINISHED"), *pending])
            pool.submit = lambda *_: next(submitted)

            def consume() -> None:
                results = pool._map(int, (range(4),), None, None)
                assert next(results) == 42
                leaves()

            with pytest.raises(LeftError):
                consume()
            gc.collect()
            # As in the standard library.
            assert cancelled == pending[::-1]


def test_a_process_pool_that_is_dropped_by_an_exception(lib: ModuleType, forking: Any) -> None:
    futures = []

    def make() -> Any:
        pool = lib.ProcessPoolExecutor(1, mp_context=forking)
        futures.append(pool.submit(int, "5"))
        return pool

    with pytest.raises(LeftError):
        dropped_by_exception(make)
    assert futures[0].result(LIMIT) == 5


def test_weak_references_to_dropped_objects(lib: ModuleType) -> None:
    gone: list[object] = []
    references = []

    def make() -> Any:
        future = lib.Future()
        references.append(weakref.ref(future, gone.append))
        return future

    with pytest.raises(LeftError):
        dropped_by_exception(make)
    gc.collect()
    assert gone == references


PROGRAM = """
    import itertools, sys

    def run(make, leave):
        with make() as pool:
            try:
                leave(pool)
            except ZeroDivisionError:
                pass
            else:
                sys.exit(1)
            assert pool.submit(int, "5").result() == 5

    def loop(pool):
        for _ in pool.map(int, range(40)):
            1 / 0

    def comprehension(pool):
        [1 / 0 for _ in pool.map(int, range(40))]

    def throw(pool):
        def generator():
            for each in pool.map(int, range(40)):
                yield each
        results = generator()
        next(results)
        results.throw(ZeroDivisionError)

    def first(pool):
        for _ in futures.as_completed([pool.submit(int) for _ in range(40)]):
            1 / 0

    if __name__ == "__main__":
        for _ in range(20):
            for leave in loop, comprehension, throw, first:
                run(lambda: futures.ThreadPoolExecutor(2), leave)
        for leave in loop, comprehension, throw, first:
            run(lambda: futures.ProcessPoolExecutor(2), leave)
"""


@pytest.mark.parametrize("option", ["PYTHONMALLOC=debug", "PYTHONDEVMODE=1"])
def test_exceptions_under_the_checks_of_the_interpreter(package: ModuleType, option: str) -> None:
    name, value = option.split("=")
    done = subprocess.run(
        program(package, PROGRAM, forks=True),
        env=environment() | {name: value},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
