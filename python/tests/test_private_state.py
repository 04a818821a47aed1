"""Tests of the private state of thread pools, as popular code reads, sets and overrides it."""

import importlib
import queue
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from private_support import daemon_pool, thread_module
from support import LIMIT, held, run


def test_a_pool_that_was_marked_as_shut_down_refuses(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(1)
    pool._shutdown = True
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(int)
    pool._shutdown = False
    assert pool.submit(int).result(LIMIT) == 0
    pool.shutdown()


def test_a_pool_that_was_marked_as_broken_refuses(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        pool._broken = "it is full of holes"
        with pytest.raises(thread_module(lib).BrokenThreadPool, match="full of holes"):
            pool.submit(int)


def test_the_holder_of_the_lock_keeps_others_from_submitting(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with pool._shutdown_lock:
            submitting = threading.Thread(target=pool.submit, args=(int,))
            submitting.start()
            submitting.join(0.05)
            assert submitting.is_alive()
        submitting.join(LIMIT)
        assert not submitting.is_alive()


def test_a_submit_of_its_own_with_the_standard_librarys_parts(lib: ModuleType) -> None:
    module = thread_module(lib)

    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def submit(self, fn: Any, /, *args: Any) -> Any:
            with self._shutdown_lock:
                if self._shutdown:
                    raise RuntimeError("closed")
                future = lib.Future()
                parts: tuple[Any, ...]
                if hasattr(self, "_resolve_work_item_task"):
                    parts = (self._resolve_work_item_task(fn, args, {}),)
                else:
                    parts = (fn, args, {})
                self._work_queue.put(module._WorkItem(future, *parts))
                self._adjust_thread_count()
                return future

    with Pool(2) as pool:
        assert pool.submit(int, "7").result(LIMIT) == 7
        assert list(pool.map(int, "123")) == [1, 2, 3]
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(int)


def test_an_initializer_that_is_set_later_is_called(lib: ModuleType) -> None:
    called: list[int] = []
    pool = lib.ThreadPoolExecutor(1)
    if not hasattr(pool, "_initializer"):
        pytest.skip("this version's pools keep it elsewhere")
    pool._initializer, pool._initargs = called.append, (1,)
    with pool:
        pool.submit(int).result(LIMIT)
    assert called == [1]


def test_a_failing_initializer_breaks_a_pool_with_overrides(lib: ModuleType) -> None:
    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        failed = False

        def _initializer_failed(self) -> None:
            Pool.failed = True
            super()._initializer_failed()

    with Pool(1, initializer=lambda: 1 / 0) as pool:
        broken = thread_module(lib).BrokenThreadPool
        with pytest.raises(broken):
            pool.submit(int).result(LIMIT)
        with pytest.raises(broken):
            pool.submit(int)
    assert Pool.failed


def submit_many(pool: Any, start: threading.Barrier, futures: list[Any]) -> None:
    """Submits tasks from several threads when all threads are ready."""
    start.wait(LIMIT)
    futures.extend([pool.submit(abs, -n) for n in range(100)])


def test_submitters_while_the_pool_is_touched_lose_nothing(lib: ModuleType) -> None:
    for _ in range(20):
        with lib.ThreadPoolExecutor(3) as pool:
            results: list[Any] = []
            start = threading.Barrier(4)
            args = (pool, start, results)
            threads = [threading.Thread(target=submit_many, args=args) for _ in range(3)]
            for thread in threads:
                thread.start()
            start.wait(LIMIT)
            assert pool._idle_semaphore is not None
            for thread in threads:
                thread.join(LIMIT)
            assert sum(future.result(LIMIT) for future in results) == 3 * 4950


def test_the_standard_librarys_attributes_are_of_its_kinds(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        assert isinstance(pool._work_queue, queue.SimpleQueue)
        assert isinstance(pool._threads, set)
        assert isinstance(pool._idle_semaphore, threading.Semaphore)
        assert isinstance(pool._shutdown_lock, type(threading.Lock()))
        assert (pool._shutdown, pool._broken, pool._max_workers) == (False, False, 1)
    assert pool._shutdown is True
    for name in ("_work_queue", "_threads", "_shutdown", "_initializer"):
        assert not hasattr(lib.ThreadPoolExecutor, name)
    with pytest.raises(AttributeError):
        _ = pool._never_heard_of


def test_a_pool_has_the_attributes_of_this_versions_standard_library(package: ModuleType) -> None:
    # Other versions have other attributes, by which programs tell the versions apart.
    of_versions = {"_initializer", "_initargs", "_create_worker_context", "_resolve_work_item_task"}
    original = importlib.import_module("concurrent.futures").ThreadPoolExecutor(1)
    with original, package.ThreadPoolExecutor(1) as pool:
        theirs = set(vars(original))
        assert [name for name in theirs if not hasattr(pool, name)] == []
        assert [name for name in of_versions - theirs if hasattr(pool, name)] == []


def test_every_name_of_the_standard_librarys_modules_is_there(package: ModuleType) -> None:
    for name in ("_base", "thread", "process"):
        original = importlib.import_module(f"concurrent.futures.{name}")
        ours = importlib.import_module(f"concurrent_futures.{name}")
        assert [each for each in vars(original) if not hasattr(ours, each)] == []
        assert set(vars(original)) <= set(dir(ours))
        with pytest.raises(AttributeError, match=r"concurrent_futures\.\w+' has no attribute"):
            _ = ours.never_heard_of


def test_a_name_set_in_our_module_reaches_the_code_that_reads_it(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = thread_module(package)
    monkeypatch.setattr(ours, "_shutdown", True)
    assert importlib.import_module("concurrent.futures.thread")._shutdown is True


def test_an_option_of_the_engine_on_a_class_that_overrides(package: ModuleType) -> None:
    with pytest.raises(ValueError, match="max_pending is not available, as .*DaemonPool overrides"):
        daemon_pool(package)(1, max_pending=2)


def test_private_parts_of_a_pool_with_an_option_of_the_engine(package: ModuleType) -> None:
    with package.ThreadPoolExecutor(1, max_pending=2) as pool:
        for name in ("_idle_semaphore", "_shutdown_lock"):
            assert not hasattr(pool, name)
        with pytest.raises(AttributeError, match="max_pending"):
            pool._work_queue = queue.Queue()
        assert pool._work_queue.qsize() == 0
        assert pool.submit(int).result(LIMIT) == 0


def test_the_context_of_a_call_is_kept_when_the_pool_is_touched(package: ModuleType) -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    with package.ThreadPoolExecutor(1, copy_context=True) as pool:
        with held(pool):
            variable.set("before")
            before = pool.submit(variable.get)
            assert pool._idle_semaphore is not None
            variable.set("after")
            after = pool.submit(variable.get)
        assert (before.result(LIMIT), after.result(LIMIT)) == ("before", "after")


def test_touched_pools_after_a_fork_do_not_disturb_the_child(lib: ModuleType) -> None:
    run(
        lib,
        """
        import os
        pool = futures.ThreadPoolExecutor(1)
        pool._shutdown_lock
        pool.submit(int).result()
        child = os.fork()
        if child == 0:
            with futures.ThreadPoolExecutor(1) as own:
                assert own.submit(abs, -1).result() == 1
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        forks=True,
    )


def test_as_completed_and_wait_over_a_touched_pool(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        with held(pool, 2):
            pending = [pool.submit(time.sleep, 0) for _ in range(5)]
            pool._work_queue.put(pool._work_queue.get_nowait())
            later = [pool.submit(time.sleep, 0) for _ in range(5)]
            assert lib.wait(pending + later, timeout=0).not_done == {*pending, *later}
        assert {*lib.as_completed(pending + later, LIMIT)} == {*pending, *later}
