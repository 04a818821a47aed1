"""Tests of process pools with all calls at once, for some seconds; see `test_stress` for the
settings."""

import contextlib
import gc
import random
import signal
import threading
import time
from collections import Counter
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
import tasks
from concurrent_futures import CancelledError, ProcessPoolExecutor
from concurrent_futures.process import TaskTerminatedError, TaskTimeoutError, WorkerDiedError
from support import LIMIT, STRESS, Background
from test_stress import SEED


def mixed(seed: int, deadly: bool) -> int:
    """Returns, fails, sleeps, or ends its worker."""
    choice = random.Random(seed)
    kind = choice.random()
    if kind < 0.05:
        raise LookupError(seed)
    if kind < 0.1:
        time.sleep(choice.random() / 200)
    elif kind < 0.11 and deadly:
        tasks.die(signal.SIGKILL)
    return seed


def check(future: Any, seed: int) -> str:
    """Return the kind of a future's outcome, which must be the outcome of its task."""
    kind = random.Random(seed).random()
    try:
        result = future.result(LIMIT)
    except CancelledError:
        return "cancelled"
    except LookupError as error:
        return "failed" if kind < 0.05 and error.args == (seed,) else repr(error)
    except (TaskTerminatedError, TaskTimeoutError):
        return "ended"
    except WorkerDiedError:
        return "died"
    assert result == seed
    assert kind >= 0.05
    return "finished"


def use(pool: Any, seed: int, until: float, deadly: bool) -> Counter[str]:
    """Use all methods of a pool at random, in one thread."""
    choice = random.Random(seed)
    seen: Counter[str] = Counter()
    while time.monotonic() < until:
        seeds = [choice.getrandbits(40) for _ in range(choice.choice([1, 5, 60]))]
        futures = {pool.submit(mixed, each, deadly): each for each in seeds}
        for future in futures:
            if choice.random() < 0.05:
                future.cancel()
            elif deadly and choice.random() < 0.01:
                future.terminate()
        mode = choice.choice(["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION", "as", ""])
        if mode == "as":
            for future in concurrent_futures.as_completed(list(futures), LIMIT):
                assert future.done()
        elif mode:
            assert concurrent_futures.wait(list(futures), LIMIT, mode).done
        for future, each in futures.items():
            seen[check(future, each)] += 1
        if choice.random() < 0.1:
            items = range(choice.randrange(300))
            size = choice.choice([1, 1, 7, 50])
            with contextlib.suppress(WorkerDiedError):
                assert list(pool.map(abs, items, chunksize=size)) == list(items)
        if choice.random() < 0.05:
            value = choice.randbytes(choice.randrange(2_000_000))
            with contextlib.suppress(WorkerDiedError):
                assert pool.submit(tasks.identity, value).result(LIMIT) == value
    return seen


@pytest.mark.parametrize("deadly", [False, True])
def test_many_threads_with_one_pool(forking: Any, deadly: bool) -> None:
    settings: Any = {"on_worker_death": "isolate", "task_timeout": LIMIT} if deadly else {}
    until = time.monotonic() + STRESS / 5
    with ProcessPoolExecutor(2, forking, **settings) as pool:
        threads = [Background(use, pool, SEED + n, until, deadly) for n in range(4)]
        seen = sum((thread.outcome() for thread in threads), Counter[str]())
        assert pool.submit(abs, -1).result(LIMIT) == 1
    assert seen["finished"]
    assert seen["failed"]
    assert set(seen) <= {"finished", "failed", "cancelled", "ended", "died"}
    if not deadly:
        assert not seen["died"]


def test_many_pools_one_after_another(lib: ModuleType, forking: Any) -> None:
    # Also garbage of the ones before, which is collected at any time.
    until = time.monotonic() + STRESS / 10
    number = 0
    while time.monotonic() < until:
        pool = lib.ProcessPoolExecutor(1 + number % 3, mp_context=forking)
        pool.me = pool
        futures = [pool.submit(abs, -n) for n in range(number % 10)]
        if number % 4 == 0:
            pool.shutdown(wait=False)
        for n, future in enumerate(futures):
            assert future.result(LIMIT) == n
        if number % 4 == 1:
            pool.shutdown()
        number += 1
        del pool, futures
    gc.collect()
    assert number


def test_pools_in_several_threads(package: ModuleType, forking: Any) -> None:
    # Each forks while the others are in the middle of something. The standard library's hang
    # here now and then.
    until = time.monotonic() + STRESS / 10
    errors: list[BaseException] = []

    def make() -> None:
        try:
            while time.monotonic() < until:
                with package.ProcessPoolExecutor(2, mp_context=forking) as pool:
                    assert list(pool.map(abs, range(-20, 0))) == list(range(20, 0, -1))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
