"""Tests of exceptions that one thread sends to another, by `PyThreadState_SetAsyncExc`."""

import ctypes
import threading
from types import ModuleType

import pytest

import concurrent_futures
from support import LIMIT, eventually, held, until_asleep


class SentError(BaseException):
    """The exception that is sent."""


def send(thread: threading.Thread) -> None:
    """Sends the exception to the thread, which raises it as soon as it is in Python code."""
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert set_exception(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SentError)) == 1


def test_one_for_an_idle_worker_ends_its_thread(
    lib: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    pool = lib.ThreadPoolExecutor(1)
    pool.submit(int).result(LIMIT)
    (thread,) = pool._threads
    until_asleep(thread)
    send(thread)
    # In the standard library, the task that wakes the thread is lost.
    pool.submit(int)
    eventually(lambda: not thread.is_alive())
    assert [record.message for record in caplog.records] == ["Exception in worker"]
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[0] is SentError
    pool.shutdown(wait=lib is concurrent_futures)


def test_another_worker_takes_its_place(package: ModuleType) -> None:
    with package.ThreadPoolExecutor(2) as pool:
        barrier = threading.Barrier(2)
        for task in [pool.submit(barrier.wait, LIMIT) for _ in range(2)]:
            task.result(LIMIT)
        threads = set(pool._threads)
        for thread in threads:
            until_asleep(thread)
            send(thread)
        tasks = [pool.submit(barrier.wait, LIMIT) for _ in range(10)]
        assert sorted(task.result(LIMIT) for task in tasks) == [0] * 5 + [1] * 5
        # They may still be on their way out.
        eventually(lambda: not any(thread.is_alive() for thread in threads))
        assert len(pool._threads) == 2
        assert not threads & pool._threads


def test_one_for_a_worker_that_works_is_that_tasks(lib: ModuleType) -> None:
    def spin() -> None:
        while True:
            pass

    with lib.ThreadPoolExecutor(1) as pool:
        task = pool.submit(spin)
        (thread,) = pool._threads
        eventually(task.running)
        send(thread)
        assert isinstance(task.exception(LIMIT), SentError)
        with held(pool):
            assert thread.is_alive()
