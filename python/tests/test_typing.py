"""Tests of the types that a type checker sees in the package. Checked by mypy, and true when it
runs."""

import asyncio
import concurrent.futures
from collections.abc import Iterable
from typing import assert_type

from concurrent_futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
    wait,
)


def text(number: int, *, prefix: str = "") -> str:
    return f"{prefix}{number}"


def test_submit_knows_parameters_and_result() -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(text, 1, prefix="n")
        assert_type(future, Future[str])
        assert_type(future.result(), str)
        assert_type(future.exception(), BaseException | None)
        pool.submit(text, "1")  # type: ignore[arg-type]
        pool.submit(text, wrong=1).exception()  # type: ignore[call-arg]


def test_map_knows_its_results() -> None:
    with ThreadPoolExecutor(1) as pool:
        results = pool.map(text, [1, 2], buffersize=1)
        assert_type(next(results), str)
        results.close()


def test_callbacks_may_take_either_kind_of_future() -> None:
    def ours(future: Future[str]) -> None:
        seen.append(future)

    def theirs(future: concurrent.futures.Future[str]) -> None:
        seen.append(future)

    seen: list[concurrent.futures.Future[str]] = []
    future = Future[str]()
    future.add_done_callback(ours)
    future.add_done_callback(theirs)
    future.add_done_callback(lambda future: seen.append(future))
    future.set_result("text")
    assert seen == [future] * 3


def test_a_future_is_one_of_the_standard_library() -> None:
    future: concurrent.futures.Future[str] = Future[str]()
    pool: concurrent.futures.ThreadPoolExecutor = ThreadPoolExecutor(1)
    executors: list[Executor] = [pool, ProcessPoolExecutor(1)]
    for executor in executors:
        executor.shutdown()
    assert not future.done()


def test_wait_and_as_completed_return_the_same_futures() -> None:
    with ThreadPoolExecutor(1) as pool:
        pending = {pool.submit(text, number) for number in range(3)}
        of_number = {future: number for number, future in enumerate(pending)}
        for future in as_completed(of_number):
            assert_type(future, Future[str])
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            assert_type(done, set[Future[str]])
            assert_type(pending, set[Future[str]])


def test_futures_of_both_kinds_in_one_call() -> None:
    theirs = concurrent.futures.Future[str]()
    theirs.set_result("theirs")
    ours = Future[str]()
    ours.set_result("ours")
    mixed = [theirs, ours]
    assert_type(wait(mixed).done, set[concurrent.futures.Future[str]])
    assert_type([each.result() for each in as_completed(mixed)], list[str])
    done: Iterable[concurrent.futures.Future[str]] = concurrent.futures.wait(mixed).done
    assert set(done) == {theirs, ours}


def test_await_gives_the_result() -> None:
    async def main() -> str:
        with ThreadPoolExecutor(1) as pool:
            result = await pool.submit(text, 1)
            assert_type(result, str)
            return result

    assert asyncio.run(main()) == "1"
