"""Tests with all calls at once, for some seconds; `CONCURRENT_FUTURES_STRESS=120` makes it two
minutes."""

import concurrent.futures
import contextlib
import functools
import gc
import os
import random
import threading
import time
from typing import Any

import pytest

import concurrent_futures
from concurrent_futures import CancelledError, Future, ThreadPoolExecutor, as_completed, wait
from support import LIMIT, STRESS, Background

SEED = int(os.environ.get("CONCURRENT_FUTURES_SEED", "1"))
MODES = ["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]


class FailedError(Exception):
    """The exception that some tasks raise."""


class Tally:
    """Counts of outcomes, which all threads share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: dict[str, int] = {}

    def add(self, what: str, number: int = 1) -> None:
        """Counts some more outcomes."""
        with self._lock:
            self.counts[what] = self.counts.get(what, 0) + number


def task(tally: Tally, pool: Any, seed: int, depth: int) -> int:
    """Compute, fail, sleep, or let other tasks do some of the work."""
    tally.add("run")
    choice = random.Random(seed)
    kind = choice.random()
    if kind < 0.1:
        raise FailedError(seed)
    if kind < 0.15:
        time.sleep(choice.random() / 1000)
    elif kind < 0.25 and depth:
        futures = [pool.submit(task, tally, pool, choice.random(), depth - 1) for _ in range(2)]
        tally.add("submitted", 2)
        for future in futures:
            future.exception()
    return seed


def check(future: Any, tally: Tally) -> None:
    """Count the outcome of a future, which must be done."""
    assert future.done()
    try:
        future.result(0)
    except CancelledError:
        assert future.cancelled()
        tally.add("cancelled")
    except FailedError:
        assert isinstance(future.exception(0), FailedError)
        tally.add("failed")
    else:
        assert future.exception(0) is None
        tally.add("succeeded")


def take(futures: list[Any], choice: random.Random) -> None:
    """Takes all results, in one of the ways to wait."""
    library: Any = choice.choice([concurrent_futures, concurrent_futures, concurrent.futures])
    way = choice.randrange(5)
    if way == 0:
        assert library.wait(futures, LIMIT) == (set(futures), set())
    elif way == 1:
        seen = list(library.as_completed(futures, LIMIT))
        assert len(seen) == len(futures)
        assert set(seen) == set(futures)
    elif way == 2:
        left = set(futures)
        end = time.monotonic() + LIMIT
        while left:
            assert time.monotonic() < end
            mode = choice.choice(MODES)
            left = library.wait(left, choice.choice([LIMIT, 0, 0.001]), mode).not_done
    elif way == 3:
        for future in futures:
            with contextlib.suppress(FailedError, CancelledError):
                future.result(LIMIT)
    else:
        called = threading.Semaphore(0)
        for future in futures:
            future.add_done_callback(lambda _: called.release())
        for _ in futures:
            assert called.acquire(timeout=LIMIT)


def user(seed: int, end: float, tally: Tally, pools: list[Any]) -> None:
    """Submits to pools and takes the results, until the time is over."""
    choice = random.Random(seed)
    while time.monotonic() < end:
        pool = choice.choice(pools)
        number = choice.choice([1, 2, 10, 100])
        futures: list[Any] = [
            pool.submit(task, tally, pool, choice.random(), 2) for _ in range(number)
        ]
        tally.add("submitted", number)
        if choice.random() < 0.3:
            for future in choice.sample(futures, number // 2):
                future.cancel()
        own: list[Any] = []
        if choice.random() < 0.3:
            own = [Future[int]() for _ in range(3)]
            Background(lambda own=own: [future.set_result(1) for future in own])
        take(futures + own, choice)
        for future in futures:
            check(future, tally)
        if choice.random() < 0.1:
            assert sorted(pool.map(abs, range(-10, 0))) == list(range(1, 11))
        if choice.random() < 0.02:
            gc.collect()


@pytest.mark.parametrize("workers", [1, 4])
def test_many_threads_with_many_pools(workers: int) -> None:
    tally = Tally()
    end = time.monotonic() + STRESS / 4
    pools = [ThreadPoolExecutor(workers), ThreadPoolExecutor(workers, max_pending=5)]
    users = [Background(user, SEED * 1000 + n, end, tally, pools) for n in range(4)]
    for each in users:
        each.outcome()
    for pool in pools:
        pool.shutdown()
    counts = tally.counts
    assert counts["submitted"] == counts["run"] + counts.get("cancelled", 0)


def test_pools_that_come_and_go() -> None:
    choice = random.Random(SEED)
    end = time.monotonic() + STRESS / 4
    while time.monotonic() < end:
        ran: list[int] = []
        pool = ThreadPoolExecutor(choice.randint(1, 5))
        number = choice.choice([0, 1, 10, 100])
        futures = [pool.submit(ran.append, n) for n in range(number)]
        way = choice.randrange(5)
        if way == 0:
            pool.shutdown()
        elif way == 1:
            pool.shutdown(wait=False)
        elif way == 2:
            pool.shutdown(cancel_futures=True)
        elif way == 3:
            threads = [Background(pool.shutdown, wait) for wait in (True, False, True)]
            for thread in threads:
                thread.outcome()
        del pool
        wait(futures, LIMIT)
        assert all(future.done() for future in futures)
        cancelled = sum(future.cancelled() for future in futures)
        assert len(ran) == number - cancelled
        assert way == 2 or not cancelled


def test_futures_that_everybody_fights_for() -> None:
    end = time.monotonic() + STRESS / 4
    while time.monotonic() < end:
        futures = [Future[int]() for _ in range(10)]
        outcomes: list[list[str]] = [[] for _ in futures]
        called = [0] * len(futures)
        barrier = threading.Barrier(6)

        def count(n: int, _: Any, called: list[int] = called) -> None:
            called[n] += 1

        def fight(
            how: str,
            futures: list[Future[int]] = futures,
            outcomes: list[list[str]] = outcomes,
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait(LIMIT)
            for future, won in zip(futures, outcomes, strict=True):
                try:
                    if how == "result":
                        future.set_result(1)
                    elif how == "exception":
                        future.set_exception(FailedError())
                    elif future.cancel():
                        future.set_running_or_notify_cancel()
                    else:
                        continue
                    won.append(how)
                except concurrent_futures.InvalidStateError:
                    pass

        def look(
            how: str, futures: list[Future[int]] = futures, b: threading.Barrier = barrier
        ) -> int:
            b.wait(LIMIT)
            if how == "wait":
                return len(wait(futures, LIMIT).done)
            return len(list(as_completed(futures, LIMIT)))

        threads = [Background(fight, how) for how in ("result", "exception", "cancel")]
        threads += [Background(look, how) for how in ("wait", "as_completed")]
        barrier.wait(LIMIT)
        for n, future in enumerate(futures):
            future.add_done_callback(functools.partial(count, n))
        assert [thread.outcome() for thread in threads[3:]] == [10, 10]
        for thread in threads[:3]:
            thread.outcome()
        for future, won in zip(futures, outcomes, strict=True):
            assert len(won) == 1, won
            assert future.cancelled() is (won == ["cancel"])
        assert called == [1] * 10
