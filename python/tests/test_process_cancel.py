"""Tests of calls that were dispatched to a worker which has not begun them, and are pending."""

import asyncio
import concurrent.futures
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT
from tasks import Flag


@contextmanager
def stopped(pool: Any) -> Iterator[None]:
    """Stops the only worker of a pool until the block ends."""
    # So that calls are known to be short, and many are handed over at a time.
    for _ in range(300):
        pool.submit(abs, -1).result(LIMIT)
    [process] = pool._processes
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.fixture
def pool(package: ModuleType, forking: Any) -> Iterator[Any]:
    """Make a pool of one process."""
    with package.ProcessPoolExecutor(1, forking) as made:
        yield made


def test_they_are_not_running_and_can_be_cancelled(pool: Any, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    with stopped(pool):
        futures = [pool.submit(tasks.append, path, number) for number in range(50)]
        assert not any(future.running() or future.done() for future in futures)
        assert {future._state for future in futures} == {"PENDING"}
        assert "state=pending" in repr(futures[0])
        kept = futures[7::10]
        cancelled = [future for future in futures if future not in kept]
        assert all(future.cancel() for future in cancelled)
        assert all(future.cancelled() and future.done() for future in cancelled)
        assert all(future.cancel() for future in cancelled)
        assert not any(future.done() for future in kept)
    for future in kept:
        future.result(LIMIT)
    assert path.read_text().split() == ["7", "17", "27", "37", "47"]
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_wait_returns_recalled_and_cancelled_calls(pool: Any, package: ModuleType) -> None:
    called: list[Any] = []
    with stopped(pool):
        futures = [pool.submit(int) for _ in range(10)]
        futures[0].add_done_callback(called.append)
        assert futures[0].cancel()
        # By the thread that cancels, as for any other.
        assert called == [futures[0]]
        assert all(future.cancel() for future in futures)
        done, rest = package.wait(futures, LIMIT)
        assert (len(done), len(rest)) == (10, 0)
        # The standard library's functions wait until an executor has taken notice.
        done, rest = concurrent.futures.wait(futures, LIMIT)
        assert (len(done), len(rest)) == (10, 0)
    with pytest.raises(package.CancelledError):
        futures[3].result()


def test_terminate_cancels_them(pool: Any) -> None:
    with stopped(pool):
        first, second = pool.submit(int), pool.submit(abs, -1)
        assert first.terminate()
        assert first.cancelled()
        [process] = pool._processes
    assert second.result(LIMIT) == 1
    assert list(pool._processes) == [process]


def test_a_cancelled_task_makes_room_for_another(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, forking, max_pending=2) as pool, stopped(pool):
        futures = [pool.submit(int), pool.submit(int)]
        assert futures[1].cancel()
        # It would wait for ever.
        futures.append(pool.submit(int))
        assert futures[0].cancel()
        assert futures[2].cancel()


def test_asyncio_cancels_them(pool: Any, tmp_path: Path) -> None:
    path = tmp_path / "ran"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        awaited = loop.run_in_executor(pool, tasks.append, path, 1)
        await asyncio.sleep(0)
        assert awaited.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaited

    with stopped(pool):
        asyncio.run(main())
    pool.submit(tasks.append, path, 2).result(LIMIT)
    assert path.read_text().split() == ["2"]


def test_cancelling_races_with_beginning_and_one_of_them_wins(pool: Any, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    path.touch()
    cancelled: set[int] = set()
    number = 0
    # As many as it takes until both have won, some more, and not for ever.
    while number < 3000 or ((not cancelled or len(cancelled) == number) and number < 300_000):
        futures = {n: pool.submit(tasks.append, path, n) for n in range(number, number + 30)}
        number += 30
        for n, future in reversed(futures.items()):
            if future.cancel():
                cancelled.add(n)
                assert future.cancelled()
        for n, future in futures.items():
            if n not in cancelled:
                assert future.result(LIMIT) is None
    assert 0 < len(cancelled) < number
    assert set(map(int, path.read_text().split())) == set(range(number)) - cancelled


def test_one_that_runs_is_running_and_stays(pool: Any, running: Flag, release: Flag) -> None:
    future = pool.submit(tasks.hold, running, release)
    running.wait()
    assert future.running()
    assert future._state == "RUNNING"
    assert not future.cancel()
    release.set()
    assert future.result(LIMIT) in pool._processes


def test_no_more_are_running_than_there_are_workers(
    package: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    with package.ProcessPoolExecutor(2, forking) as pool:
        for _ in range(300):
            pool.submit(abs, -1).result(LIMIT)
        futures = [pool.submit(tasks.hold, running, release) for _ in range(100)]
        running.wait()
        for _ in range(100):
            assert sum(future.running() for future in futures) <= 2
        release.set()
        for future in futures:
            future.result(LIMIT)
