"""Tests of threads that cannot be started, or whose start is interrupted."""

import contextlib
import threading
from collections.abc import Callable

import pytest

from concurrent_futures import ThreadPoolExecutor
from support import LIMIT, eventually, held

PREFIX = "without"

start = threading.Thread.start


def workers() -> int:
    """Returns the number of worker threads of this module's pools."""
    return sum(thread.name.startswith(PREFIX) for thread in threading.enumerate())


def refuse(thread: threading.Thread) -> None:
    """Refuses to start a worker."""
    if thread.name.startswith(PREFIX):
        raise RuntimeError("can't start new thread")
    start(thread)


def interrupt(thread: threading.Thread) -> None:
    """Starts a worker, and raises an interrupt before the start returns, as Ctrl-C does."""
    start(thread)
    if thread.name.startswith(PREFIX):
        raise KeyboardInterrupt


def test_without_any_worker_submitting_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    with ThreadPoolExecutor(2, PREFIX) as pool:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(ran.append, 1)
        monkeypatch.undo()
        assert pool.submit(ran.append, 2).result(LIMIT) is None
        assert pool.submit(abs, -1).result(LIMIT) == 1
    # A refused task is not run later.
    assert ran == [2]


def test_the_workers_that_there_are_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(3, PREFIX) as pool:
        with held(pool):
            monkeypatch.setattr(threading.Thread, "start", refuse)
            futures = [pool.submit(abs, -n) for n in range(50)]
        assert [future.result(LIMIT) for future in futures] == list(range(50))
        assert workers() == 1
        monkeypatch.undo()
        barrier = threading.Barrier(3)
        for future in [pool.submit(barrier.wait, LIMIT) for _ in range(3)]:
            future.result(LIMIT)
        assert workers() == 3


@pytest.mark.parametrize("fault", [refuse, interrupt])
def test_the_pool_is_as_good_as_before(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[threading.Thread], None]
) -> None:
    for _ in range(20):
        with ThreadPoolExecutor(3, PREFIX) as pool:
            monkeypatch.setattr(threading.Thread, "start", fault)
            for _ in range(4):
                with contextlib.suppress(RuntimeError, KeyboardInterrupt):
                    pool.submit(int)
            monkeypatch.undo()
            for _ in range(20):
                futures = [pool.submit(abs, -n) for n in range(10)]
                assert [future.result(LIMIT) for future in futures] == list(range(10))
            assert workers() <= 3
            assert len(pool._threads) <= 3
        assert workers() == 0


def test_shutting_down_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPoolExecutor(1, PREFIX)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        pool.submit(int)
    pool.shutdown()
    pool = ThreadPoolExecutor(1, PREFIX)
    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.submit(int)
    pool.shutdown()
    # The pool does not know the thread whose start was interrupted, as in the standard library.
    eventually(lambda: workers() == 0)
