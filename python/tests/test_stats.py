"""The figures of executors: `executor.stats()`."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import concurrent_futures as cf
import tasks
from concurrent_futures import ProcessPoolExecutor, ThreadPoolExecutor
from support import LIMIT, eventually


def counts(pool: Any) -> tuple[int, int, int, int, int]:
    """Return pending, running, finished, failed, and cancelled tasks."""
    stats = pool.stats()
    assert isinstance(stats, cf.ExecutorStats)
    assert isinstance(stats.queued, cf.QueueTimes)
    return stats.pending, stats.running, stats.finished, stats.failed, stats.cancelled


def fail() -> None:
    raise KeyError("as the test wants")


def _kinds() -> list[str]:
    kinds = ["threads", "processes"]
    return [*kinds, "InterpreterPoolExecutor"] if "InterpreterPoolExecutor" in cf.__all__ else kinds


@pytest.fixture(params=_kinds())
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "threads":
        made: Any = ThreadPoolExecutor(1)
    elif request.param == "processes":
        made = ProcessPoolExecutor(1)
    else:
        # Its workers find the functions of the tests.
        made = importlib.import_module("interpreter_support").pool_of(cf)
    with made:
        yield made


def test_each_task_is_counted_in_its_phase(pool: Any, tmp_path: Path) -> None:
    assert counts(pool) == (0, 0, 0, 0, 0)
    begun, end = tasks.Flag(tmp_path / "begun"), tasks.Flag(tmp_path / "end")
    held = pool.submit(tasks.hold, begun, end)
    begun.wait()
    pending = [pool.submit(pow, n, 2) for n in range(5)]
    failing = pool.submit(fail)
    eventually(lambda: counts(pool) == (6, 1, 0, 0, 0))
    assert pending[1].cancel()
    assert pending[3].cancel()
    assert counts(pool) == (4, 1, 0, 0, 2)
    end.set()
    held.result(LIMIT)
    assert isinstance(failing.exception(LIMIT), KeyError)
    # A worker may not have passed all cancelled tasks over.
    assert counts(pool) == (0, 0, 4, 1, 2)
    stats = pool.stats()
    assert (stats.workers, stats.restarts) == (1, 0)
    assert 0 < stats.busy <= stats.measured
    # The one that held the worker, too.
    assert stats.queued.count == 5
    times = stats.queued
    assert 0 < times.p50 <= times.p95 <= times.p99 <= times.longest <= stats.measured


def test_a_result_that_a_thread_has_is_counted(pool: Any) -> None:
    for done in range(1, 300):
        pool.submit(pow, 2, 3).result(LIMIT)
        assert counts(pool) == (0, 0, done, 0, 0)


def test_map_counts_its_calls(pool: Any) -> None:
    assert sum(pool.map(abs, range(500))) == 124_750
    assert pool.stats().finished == 500


def test_times_in_the_queue_are_those_of_the_tasks() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.stats()
        end = threading.Event()
        submitting = time.monotonic()
        held = pool.submit(end.wait)
        futures = [pool.submit(pow, 2, 3) for _ in range(100)]
        submitted = time.monotonic()
        while time.monotonic() < submitted + 0.002:
            pass
        opened = time.monotonic()
        end.set()
        assert held.result(LIMIT)
        for future in futures:
            future.result(LIMIT)
        queued = pool.stats().queued
        assert queued.count == 101
        assert opened - submitted <= queued.longest <= time.monotonic() - submitting


def test_a_submitted_future_that_a_program_has_cancelled_by_hand() -> None:
    with ThreadPoolExecutor(1) as pool:
        end = threading.Event()
        running = pool.submit(end.wait)
        eventually(running.running)
        future = pool.submit(pow, 2, 3)
        future.cancel()
        future.set_running_or_notify_cancel()
        assert counts(pool)[0] == 0
        end.set()
        pool.submit(pow, 2, 3).result(LIMIT)
        assert counts(pool) == (0, 0, 2, 0, 1)


def test_a_worker_process_that_died_is_a_restart() -> None:
    with ProcessPoolExecutor(1, on_worker_death="isolate") as pool:
        for deaths in range(3):
            assert pool.submit(pow, 2, 3).result(LIMIT) == 8
            stats = pool.stats()
            assert (stats.failed, stats.restarts) == (deaths, deaths)
            killed = pool.submit(tasks.die, signal.SIGKILL)
            assert isinstance(killed.exception(LIMIT), cf.WorkerDiedError)


def test_a_pool_of_the_standard_librarys_code_has_none() -> None:
    class Counting(ThreadPoolExecutor):
        def _adjust_thread_count(self) -> None:
            super()._adjust_thread_count()

    with Counting(1) as pool, pytest.raises(RuntimeError, match="keeps no figures"):
        pool.stats()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_has_figures_of_its_own() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(pow, 2, 3).result(LIMIT)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                if counts(pool) == (0, 0, 0, 0, 0):
                    pool.submit(pow, 2, 3).result(LIMIT)
                    future = pool.submit(pow, 2, 3)
                    future.cancel()
                    status = 0 if sum(counts(pool)) == 2 else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert counts(pool) == (0, 0, 1, 0, 0)


def test_many_threads_that_submit_and_cancel_lose_no_count() -> None:
    threads, rounds = 16, 200
    with ThreadPoolExecutor(2) as pool:

        def work() -> None:
            for _ in range(rounds):
                pool.submit(pow, 2, 3)
                pool.submit(fail)
                pool.submit(pow, 2, 3).cancel()

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        total = 3 * rounds * threads
        eventually(lambda: sum(counts(pool)[2:]) == total)
        pending, running, finished, failed, cancelled = counts(pool)
        assert (pending, running) == (0, 0)
        assert failed == rounds * threads
        assert finished == total - failed - cancelled
