"""Tests of callbacks of process pools: the threads that call them, and what callbacks may do."""

import os
import signal
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from concurrent_futures.process import TaskTimeoutError, WorkerDiedError
from support import LIMIT, Background, eventually, prints, until_asleep
from tasks import Flag


class Blocked:
    """A callback that blocks until the test ends it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.end = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self, _: object) -> None:
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.end.wait(LIMIT)


@pytest.fixture
def blocked() -> Any:
    """Returns a callback that blocks until the test ends, at the latest."""
    callback = Blocked()
    yield callback
    callback.end.set()


class Gate:
    """Lets calls go on only after callbacks were added to their futures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0

    def submit(self, pool: Any, *callbacks: Any) -> Any:
        """Submits a call that returns a number, with callbacks."""
        self.number += 1
        names = [self.folder / f"{name}-{self.number}" for name in ("running", "release")]
        running, release = map(Flag, names)
        future = pool.submit(tasks.hold, running, release)
        for callback in callbacks:
            future.add_done_callback(callback)
        release.set()
        return future


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Returns a gate for futures with callbacks."""
    return Gate(tmp_path)


def test_a_slow_one_delays_neither_results_nor_deaths_nor_limits(
    package: ModuleType, forking: Any, blocked: Any, gate: Gate
) -> None:
    with package.ProcessPoolExecutor(1, forking, on_worker_death="isolate") as pool:
        gate.submit(pool, blocked)
        assert blocked.begun.wait(LIMIT)
        assert pool.submit(abs, -1).result(LIMIT) == 1
        died = pool.submit(tasks.die, signal.SIGKILL)
        assert isinstance(died.exception(LIMIT), WorkerDiedError)
        late = pool.options(timeout=0.05).submit(signal.pause)
        assert isinstance(late.exception(LIMIT), TaskTimeoutError)
        # By another worker.
        assert pool.submit(abs, -2).result(LIMIT) == 2
        # One with a callback is done without it.
        called = threading.Event()
        second = gate.submit(pool, lambda _: called.set())
        assert second.result(LIMIT) in pool._processes
        assert not called.is_set()
        blocked.end.set()
        assert called.wait(LIMIT)


def test_a_slow_one_does_not_delay_that_the_pool_breaks(
    package: ModuleType, forking: Any, blocked: Any, gate: Gate
) -> None:
    with package.ProcessPoolExecutor(1, forking) as pool:
        gate.submit(pool, blocked)
        assert blocked.begun.wait(LIMIT)
        with pytest.raises(package.BrokenExecutor):
            pool.submit(tasks.exit_at_once, 1).result(LIMIT)
        blocked.end.set()


def test_shutdown_waits_for_them(
    package: ModuleType, forking: Any, blocked: Any, gate: Gate
) -> None:
    pool = package.ProcessPoolExecutor(1, forking)
    called: list[object] = []
    future = gate.submit(pool, blocked, called.append)
    assert blocked.begun.wait(LIMIT)
    closing = threading.Thread(target=pool.shutdown)
    closing.start()
    # It would end now, if it did not wait: the work is done.
    closing.join(0.2)
    assert closing.is_alive()
    blocked.end.set()
    closing.join(LIMIT)
    assert not closing.is_alive()
    assert called == [future]
    # The thread ends with the pool.
    blocked.thread.join(LIMIT)
    assert not blocked.thread.is_alive()


@pytest.mark.parametrize("wait", [True, False])
def test_one_may_shut_the_pool_down(
    package: ModuleType, forking: Any, gate: Gate, wait: bool
) -> None:
    pool = package.ProcessPoolExecutor(1, forking)
    called = threading.Event()

    def close(_: object) -> None:
        pool.shutdown(wait=wait)
        called.set()

    first = gate.submit(pool, close)
    assert called.wait(LIMIT)
    assert first.result(LIMIT) > 0
    pool.shutdown()


def test_one_may_wait_for_a_future_that_has_one_too(
    package: ModuleType, forking: Any, gate: Gate
) -> None:
    called: list[str] = []
    done = threading.Event()

    def follow(_: object) -> None:
        second = gate.submit(pool, lambda _: called.append("second"))
        # It cannot come before the end of this one.
        assert second.result(LIMIT) > 0
        assert list(pool.map(abs, range(3), timeout=LIMIT)) == [0, 1, 2]
        called.append("first")
        second.add_done_callback(lambda _: done.set())

    with package.ProcessPoolExecutor(1, forking) as pool:
        gate.submit(pool, follow)
        assert done.wait(LIMIT)
    assert called == ["first", "second"]


def test_they_come_in_order_by_one_thread_that_is_known(package: ModuleType, forking: Any) -> None:
    called: list[tuple[int, int]] = []
    threads = set()

    def call(future: Any, place: int) -> None:
        called.append((future.result(), place))
        threads.add(threading.current_thread())
        assert threading.current_thread() in threading.enumerate()

    with package.ProcessPoolExecutor(1, forking) as pool:
        for number in range(200):
            future = pool.submit(tasks.identity, number)
            for place in range(3):
                future.add_done_callback(lambda each, place=place: call(each, place))
    # Those that were added to a future that was done are called at once.
    ours = threading.current_thread()
    assert sorted(called) == [(number, place) for number in range(200) for place in range(3)]
    assert len(threads - {ours}) <= 1


def test_one_that_fails_stops_nothing(
    package: ModuleType,
    forking: Any,
    caplog: pytest.LogCaptureFixture,
    running: Flag,
    release: Flag,
) -> None:
    called: list[object] = []

    def fail(_: object) -> None:
        raise LookupError("no such thing")

    def leave(_: object) -> None:
        raise SystemExit(3)

    with package.ProcessPoolExecutor(1, forking) as pool:
        pool.submit(tasks.hold, running, release)
        futures = [pool.submit(int) for _ in range(3)]
        for future, callback in zip(futures, [fail, leave, called.append], strict=True):
            future.add_done_callback(callback)
        release.set()
        for future in futures:
            assert future.result(LIMIT) == 0
    assert len(called) == 1
    assert "exception calling callback" in caplog.text


def test_without_a_thread_they_are_called_all_the_same(
    package: ModuleType, forking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "callbacks" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    called: list[object] = []
    with package.ProcessPoolExecutor(1, forking) as pool:
        futures = [pool.submit(tasks.identity, number) for number in range(20)]
        for future in futures:
            future.add_done_callback(called.append)
    assert set(called) == set(futures)


def test_those_of_cancelled_futures_are_called(
    package: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    called: list[object] = []
    pool = package.ProcessPoolExecutor(1, forking)
    pool.submit(tasks.hold, running, release)
    running.wait()
    futures = [pool.submit(int) for _ in range(20)]
    for future in futures:
        future.add_done_callback(called.append)
    closing = Background(lambda: pool.shutdown(cancel_futures=True))
    eventually(lambda: all(future.cancelled() for future in futures))
    release.set()
    closing.outcome()
    assert set(called) == set(futures)


def test_at_the_end_of_a_program_they_are_called(package: ModuleType) -> None:
    printed = prints(
        package,
        """
        import multiprocessing, os, time

        def late(future):
            time.sleep(0.1)
            print("called", future.result(), flush=True)

        pool = futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
        for number in range(3):
            pool.submit(pow, number, 2).add_done_callback(late)
        """,
    )
    assert sorted(printed.split()) == ["0", "1", "4", "called", "called", "called"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_may_fork_while_they_run(
    package: ModuleType, forking: Any, blocked: Any, gate: Gate
) -> None:
    with package.ProcessPoolExecutor(1, forking) as pool:
        gate.submit(pool, blocked)
        assert blocked.begun.wait(LIMIT)
        child = os.fork()
        if child == 0:
            try:
                # Belongs to the parent; a new one works.
                pool.shutdown()
                with package.ProcessPoolExecutor(1, forking) as own:
                    done = threading.Event()
                    own.submit(int).add_done_callback(lambda _: done.set())
                    assert done.wait(LIMIT)
                os._exit(0)
            except BaseException:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        blocked.end.set()
    assert os.waitstatus_to_exitcode(status) == 0


def test_their_thread_ends_when_there_are_none(
    package: ModuleType, forking: Any, gate: Gate
) -> None:
    threads: list[threading.Thread] = []

    def call(_: object) -> None:
        threads.append(threading.current_thread())

    with package.ProcessPoolExecutor(1, forking) as pool:
        gate.submit(pool, call)
        eventually(lambda: threads and not threads[0].is_alive())
        gate.submit(pool, call)
        eventually(lambda: len(threads) == 2)
    assert threading.current_thread() not in threads
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


class Told:
    """A waiter like those of the standard library, which receives a future when all callbacks are
    over."""

    def __init__(self, blocked: Blocked) -> None:
        self.blocked = blocked
        self.event = threading.Event()

    def add_result(self, _: object) -> None:
        """Lets the callback before this future return, and its thread come to its end."""
        self.blocked.end.set()
        assert self.blocked.thread is not None
        self.blocked.thread.join(LIMIT)

    add_exception = add_cancelled = add_result


def test_they_are_called_if_their_thread_ends_while_the_future_gets_done(
    package: ModuleType, forking: Any, gate: Gate, blocked: Blocked
) -> None:
    called = threading.Event()
    with package.ProcessPoolExecutor(1, forking) as pool:
        gate.submit(pool, blocked)
        assert blocked.begun.wait(LIMIT)
        running, release = Flag(gate.folder / "running"), Flag(gate.folder / "release")
        future = pool.submit(tasks.hold, running, release)
        with future._condition:
            future._waiters.append(Told(blocked))
        future.add_done_callback(lambda _: called.set())
        release.set()
        # The supervisor makes it done, as the callback before it takes long.
        assert called.wait(LIMIT)


class Waiter:
    """One of the standard library's waiters, which blocks the thread that notifies it."""

    def __init__(self, begun: threading.Event, end: threading.Event) -> None:
        self._begun = begun
        self._end = end

    def add_result(self, _: object) -> None:
        self._begun.set()
        assert self._end.wait(LIMIT)


def test_callbacks_keep_their_order_while_a_future_behind_a_slow_one_is_made_done(
    package: ModuleType, forking: Any, gate: Gate, running: Flag, release: Flag
) -> None:
    # The supervisor makes the second future done, and is in the middle of that when the first
    # callback ends.
    called: list[int] = []
    helping, end = threading.Event(), threading.Event()
    callback_threads: list[threading.Thread] = []

    def first(_: object) -> None:
        callback_threads.append(threading.current_thread())
        assert helping.wait(LIMIT)
        called.append(1)

    def note(number: int) -> Any:
        return lambda _: called.append(number)

    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        futures = [gate.submit(pool, first), pool.submit(tasks.hold, running, release)]
        futures[1].add_done_callback(note(2))
        futures[1]._waiters.append(Waiter(helping, end))
        futures.append(gate.submit(pool, note(3)))
        release.set()
        assert helping.wait(LIMIT)
        # The callbacks' thread goes on until it waits for the supervisor.
        eventually(lambda: called)
        until_asleep(callback_threads[0])
        end.set()
        for future in futures:
            future.result(LIMIT)
        eventually(lambda: len(called) == 3)
    assert called == [1, 2, 3]
