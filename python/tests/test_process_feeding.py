"""Tests that a thread of the pool pickles calls in the order of submission, unless no program can
notice another way."""

import asyncio
import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, Background, eventually, prints


@pytest.fixture
def pool(lib: ModuleType, forking: Any) -> Iterator[Any]:
    """Make a pool of one process."""
    with lib.ProcessPoolExecutor(1, mp_context=forking) as made:
        yield made


class Locked:
    """An object that is locked while it is pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.number = 0

    def __getstate__(self) -> dict[str, Any]:
        with self.lock:
            return {"number": self.number}


class Pickled:
    """An object whose pickling reports its time and its thread, and waits until it may go on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.thread: threading.Thread | None = None

    def __reduce__(self) -> tuple[object, ...]:
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.go_on.wait(LIMIT)
        return str, ("pickled",)


def free() -> Pickled:
    """Makes an object whose pickling need not wait."""
    pickled = Pickled()
    pickled.go_on.set()
    return pickled


def resident() -> int:
    """Return the bytes of memory that this process has."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_a_call_may_be_submitted_under_a_lock_that_pickling_it_takes(pool: Any) -> None:
    value = Locked()
    with value.lock:
        value.number = 7
        future = pool.submit(tasks.number_of, value)
        keyword = pool.submit(tasks.number_of, value=value)
    assert future.result(LIMIT) == 7
    assert keyword.result(LIMIT) == 7


def test_a_method_of_a_locked_object_may_be_submitted(pool: Any) -> None:
    value = tasks.LockedCounter()
    with value.lock:
        future = pool.submit(value.count, 3)
    assert future.result(LIMIT) == 3


def test_submit_does_not_wait_for_pickling(pool: Any) -> None:
    value = Pickled()
    future = pool.submit(tasks.identity, value)
    assert value.begun.wait(LIMIT)
    assert not future.done()
    value.go_on.set()
    assert future.result(LIMIT) == "pickled"
    assert value.thread is not threading.current_thread()


def test_calls_begin_in_the_order_of_submission_whatever_their_arguments_are(pool: Any) -> None:
    first = Pickled()
    futures = [pool.submit(tasks.note, first)]
    assert first.begun.wait(LIMIT)
    for number in range(20):
        futures.append(pool.submit(tasks.note, number))
        futures.append(pool.submit(tasks.note, free()))
    first.go_on.set()
    noted = [future.result(LIMIT) for future in futures]
    assert noted == list(range(1, 42))


def test_a_call_that_is_cancelled_before_its_turn_is_not_pickled(
    package: ModuleType, forking: Any
) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        first, second = Pickled(), free()
        running = pool.submit(tasks.identity, first)
        assert first.begun.wait(LIMIT)
        waiting = pool.submit(tasks.identity, second)
        assert waiting.cancel()
        first.go_on.set()
        assert running.result(LIMIT) == "pickled"
        assert pool.submit(tasks.identity, free()).result(LIMIT) == "pickled"
        assert second.thread is None
        assert waiting.cancelled()


def test_a_call_that_cannot_be_pickled_fails_by_a_callback(pool: Any) -> None:
    called: list[BaseException | None] = []
    future = pool.submit(tasks.identity, tasks.Unpicklable())
    future.add_done_callback(lambda done: called.append(done.exception()))
    eventually(lambda: called)
    assert type(called[0]).__name__ == "PicklingError"
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_the_end_of_a_pool_waits_for_calls_that_are_being_pickled(
    lib: ModuleType, forking: Any
) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    value = Pickled()
    futures = [pool.submit(tasks.identity, value), pool.submit(abs, -1)]
    assert value.begun.wait(LIMIT)
    end = Background(pool.shutdown)
    eventually(lambda: pool._shutdown_thread)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, -2)
    value.go_on.set()
    end.outcome()
    assert [future.result(0) for future in futures] == ["pickled", 1]


def test_shutdown_cancels_calls_that_wait_to_be_pickled(package: ModuleType, forking: Any) -> None:
    pool = package.ProcessPoolExecutor(1, mp_context=forking)
    value = Pickled()
    first = pool.submit(tasks.identity, value)
    assert value.begun.wait(LIMIT)
    others = [pool.submit(tasks.identity, free()) for _ in range(5)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in others[1:])
    value.go_on.set()
    assert first.result(LIMIT) == "pickled"


def test_a_dropped_pool_pickles_the_calls_that_it_has_accepted(
    lib: ModuleType, forking: Any
) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    value = Pickled()
    future = pool.submit(tasks.identity, value)
    del pool
    value.go_on.set()
    assert future.result(LIMIT) == "pickled"


def test_a_pool_that_breaks_fails_the_calls_that_wait_to_be_pickled(
    lib: ModuleType, forking: Any
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        pid = pool.submit(os.getpid).result(LIMIT)
        value = Pickled()
        futures = [pool.submit(tasks.identity, item) for item in (value, free(), 3)]
        assert value.begun.wait(LIMIT)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pool._broken)
        value.go_on.set()
        for future in futures:
            assert isinstance(future.exception(LIMIT), BrokenProcessPool)


def test_pickling_may_submit_calls_to_the_same_pool(pool: Any) -> None:
    inner: list[Any] = []

    class Submits:
        def __reduce__(self) -> tuple[object, ...]:
            inner.append(pool.submit(tasks.identity, free()))
            inner.append(pool.submit(abs, -5))
            return str, ("outer",)

    assert pool.submit(tasks.identity, Submits()).result(LIMIT) == "outer"
    assert [future.result(LIMIT) for future in inner] == ["pickled", 5]


def test_asyncio_does_not_pickle_in_its_loop(pool: Any) -> None:
    value = free()

    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, tasks.identity, value)

    assert asyncio.run(main()) == "pickled"
    assert value.thread is not threading.current_thread()


def test_a_bound_on_pending_tasks_holds_for_calls_that_wait_to_be_pickled(
    package: ModuleType, forking: Any
) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking, max_pending=2) as pool:
        value = Pickled()
        futures = [pool.submit(tasks.identity, value), pool.submit(tasks.identity, free())]
        assert value.begun.wait(LIMIT)
        third = Background(pool.submit, tasks.identity, free())
        futures[1].cancel()
        futures.append(third.outcome())
        value.go_on.set()
        assert futures[0].result(LIMIT) == futures[2].result(LIMIT) == "pickled"
        for _ in range(10):  # Failures and cancellations give their places back.
            pool.submit(tasks.identity, tasks.Unpicklable()).exception(LIMIT)
        assert pool.submit(tasks.identity, free()).result(LIMIT) == "pickled"


class Held:
    """A pool of one process, with a worker that waits, and with room for two more calls."""

    def __init__(self, pool: Any, running: Any, release: Any) -> None:
        self.pool = pool
        self.release = release
        self.first = pool.submit(tasks.hold, running, release)
        running.wait()

    def fill(self) -> None:
        """Submit as many calls as there is room for."""
        pickled = [free(), free()]
        for value in pickled:
            self.pool.submit(tasks.identity, value)
        for value in pickled:
            assert value.begun.wait(LIMIT)


def test_calls_for_which_there_is_room_are_pickled_while_all_workers_are_busy(
    pool: Any, running: Any, release: Any
) -> None:
    Held(pool, running, release).fill()
    release.set()


@pytest.mark.parametrize("kind", ["object", "list", "dictionary", "list in a keyword"])
def test_a_call_without_room_takes_its_arguments_as_they_are_when_there_is_room(
    pool: Any, running: Any, release: Any, kind: str
) -> None:
    held = Held(pool, running, release)
    held.fill()
    value: Any = {"object": tasks.Point(1), "dictionary": {}}.get(kind, [])
    if kind == "list in a keyword":
        future = pool.submit(tasks.identity, value=value)
    else:
        future = pool.submit(tasks.identity, value)
    later = pool.submit(abs, -2)
    if kind == "object":
        value.tags.append("changed")
    elif kind == "dictionary":
        value["changed"] = True
    else:
        value.append("changed")
    release.set()
    assert future.result(LIMIT) == value
    assert later.result(LIMIT) == 2


def test_a_call_without_room_fails_to_be_pickled_only_when_there_is_room(
    pool: Any, running: Any, release: Any
) -> None:
    held = Held(pool, running, release)
    held.fill()
    future = pool.submit(tasks.identity, tasks.Unpicklable())
    behind = free()
    pool.submit(tasks.identity, behind)
    assert not future.done()
    assert behind.thread is None
    release.set()
    assert type(future.exception(LIMIT)).__name__ == "PicklingError"


def test_calls_that_are_cancelled_without_room_are_never_pickled(
    pool: Any, running: Any, release: Any
) -> None:
    held = Held(pool, running, release)
    held.fill()
    values = [free() for _ in range(10)]
    futures = [pool.submit(tasks.identity, value) for value in values]
    assert all(future.cancel() for future in futures)
    release.set()
    assert pool.submit(tasks.identity, free()).result(LIMIT) == "pickled"
    assert all(value.thread is None for value in values)


def test_cancelled_calls_make_room_for_others(
    package: ModuleType, forking: Any, running: Any, release: Any
) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        Held(pool, running, release)
        plain = [pool.submit(abs, -1) for _ in range(5)]
        value = free()
        future = pool.submit(tasks.identity, value)
        assert not value.begun.is_set()
        assert all(future.cancel() for future in plain)
        assert value.begun.wait(LIMIT)
        release.set()
        assert future.result(LIMIT) == "pickled"


@pytest.mark.parametrize("cancels", [False, True])
def test_the_end_of_a_pool_settles_calls_without_room(
    lib: ModuleType, forking: Any, running: Any, release: Any, cancels: bool
) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    Held(pool, running, release).fill()
    values = [free() for _ in range(5)]
    futures = [pool.submit(tasks.identity, value) for value in values]
    pool.shutdown(wait=False, cancel_futures=cancels)
    release.set()
    if cancels:
        eventually(lambda: all(future.cancelled() for future in futures))
        assert all(value.thread is None for value in values)
    else:
        assert [future.result(LIMIT) for future in futures] == ["pickled"] * 5


def test_a_pool_that_breaks_fails_calls_without_room(
    lib: ModuleType, forking: Any, running: Any, release: Any
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        Held(pool, running, release).fill()
        futures = [pool.submit(tasks.identity, free()) for _ in range(5)]
        (pid,) = pool._processes
        os.kill(pid, signal.SIGKILL)
        for future in futures:
            assert isinstance(future.exception(LIMIT), BrokenProcessPool)


def test_a_long_argument_of_many_pending_calls_is_in_memory_once(
    pool: Any, running: Any, release: Any
) -> None:
    Held(pool, running, release)
    before = resident()
    text = "x" * 100_000
    for value in (tasks.Point(1, tags=[text]), text, text.encode(), [text]):
        futures = [pool.submit(tasks.identity, value) for _ in range(1_000)]
        assert resident() - before < 30 << 20
        assert all(future.cancel() for future in futures[10:])
    release.set()


def test_calls_with_and_without_room_take_turns(pool: Any) -> None:
    """Some are cancelled on the way. The others run in their order."""
    chance = random.Random(20261130)
    for _ in range(20):
        futures = []
        for number in range(200):
            value = chance.choice([number, [number], free()])
            futures.append(pool.submit(tasks.note, value))
            if chance.random() < 0.2:
                chance.choice(futures).cancel()
        noted = [future.result(LIMIT) for future in futures if not future.cancelled()]
        assert noted == sorted(noted)


def test_long_arguments_all_arrive_though_few_are_pickled_ahead(pool: Any) -> None:
    values = [bytes([number]) * (6 << 20) for number in range(8)]
    futures = [pool.submit(tasks.length_and_first, [value]) for value in values]
    assert [future.result(LIMIT) for future in futures] == [(6 << 20, n) for n in range(8)]


def test_a_program_ends_after_its_submitted_calls(lib: ModuleType) -> None:
    code = """
        import multiprocessing, threading, time, tasks
        class Slow:
            def __reduce__(self):
                time.sleep(0.05)
                return str, ("slow",)
        context = multiprocessing.get_context("fork")
        pool = futures.ProcessPoolExecutor(1, mp_context=context)
        for value in (Slow(), Slow(), 3):
            future = pool.submit(tasks.identity, value)
            future.add_done_callback(lambda done: print(done.result()))
    """
    assert prints(lib, code, forks=True) == "slow\nslow\n3\n"


def test_no_thread_of_the_pool_is_left_after_its_end(lib: ModuleType, forking: Any) -> None:
    before = set(threading.enumerate())
    for _ in range(20):
        with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
            assert pool.submit(repr, object).result() == repr(object)
        assert set(threading.enumerate()) <= before
