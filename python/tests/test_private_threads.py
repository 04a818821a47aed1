"""Tests of the private threads of thread pools, as popular code replaces and overrides them."""

import importlib
import threading
import weakref
from types import ModuleType
from typing import Any

import pytest

from private_support import daemon_pool, thread_module
from support import LIMIT, Background, eventually, freed, held, prints, until_asleep


def test_an_overridden_adjust_thread_count_is_called(lib: ModuleType) -> None:
    calls: list[Any] = []

    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def _adjust_thread_count(self) -> None:
            calls.append(len(self._threads))
            super()._adjust_thread_count()

    with Pool(1) as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
    assert len(calls) == 2


def test_a_mixin_overrides(lib: ModuleType) -> None:
    calls: list[Any] = []

    class Mixin:
        def _adjust_thread_count(self) -> None:
            calls.append(1)
            super()._adjust_thread_count()  # type: ignore[misc]

    class Pool(Mixin, lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        pass

    with Pool(1) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
    assert calls == [1]


@pytest.mark.parametrize("of", ["class", "instance"])
def test_a_patched_adjust_thread_count_is_called(
    lib: ModuleType, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = lib.ThreadPoolExecutor._adjust_thread_count
    calls: list[Any] = []

    def patched(*pool: Any) -> None:
        calls.append(pool)
        original(*pool or (of_instance,))

    if of == "class":
        monkeypatch.setattr(lib.ThreadPoolExecutor, "_adjust_thread_count", patched)
    with lib.ThreadPoolExecutor(1) as of_instance:
        if of == "instance":
            of_instance._adjust_thread_count = patched
        assert of_instance.submit(abs, -1).result(LIMIT) == 1
    assert len(calls) == 1


def test_a_pool_of_daemons(lib: ModuleType) -> None:
    with daemon_pool(lib)(2) as pool:
        assert pool.submit(lambda: threading.current_thread().daemon).result(LIMIT)
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_a_pool_of_daemons_lets_the_program_end(lib: ModuleType) -> None:
    assert (
        prints(
            lib,
            """
            import private_support, threading
            pool = private_support.daemon_pool(futures)(1)
            running = threading.Event()
            task = pool.submit(lambda: running.set() or threading.Event().wait())
            running.wait()
            print("the end")
            """,
        )
        == "the end\n"
    )


def test_more_workers_are_allowed_while_tasks_run(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        pool._max_workers = 3
        barrier = threading.Barrier(2)
        futures = [pool.submit(barrier.wait, LIMIT) for _ in range(2)]
        assert sorted(future.result(LIMIT) for future in futures) == [0, 1]
        assert len(pool._threads) == 3


def test_a_task_that_waits_for_a_pending_one_is_served_by_a_worker_more(lib: ModuleType) -> None:
    def outer() -> int:
        pool._max_workers = 2
        pool.submit(int)  # This is when the standard library starts threads.
        result: int = inner[0].result(LIMIT)
        return result

    with lib.ThreadPoolExecutor(1) as pool:
        ready = threading.Event()
        inner: list[Any] = []
        task = pool.submit(lambda: ready.wait(LIMIT) and outer())
        inner.append(pool.submit(int, "7"))
        ready.set()
        assert task.result(LIMIT) == 7


def test_threads_go_on_when_the_pool_is_touched(lib: ModuleType) -> None:
    started: list[int] = []
    with lib.ThreadPoolExecutor(2, initializer=lambda: started.append(1)) as pool:
        with held(pool, 2):
            before = set(pool._threads)
            assert not pool._shutdown_lock.locked()
            future = pool.submit(threading.current_thread)
        assert future.result(LIMIT) in before
        assert pool._threads == before
    assert started == [1, 1]
    assert not any(thread.is_alive() for thread in before)


def test_idle_threads_take_tasks_after_the_pool_was_touched(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.current_thread).result(LIMIT)
        eventually(lambda: pool._idle_semaphore._value == 1)
        assert pool.submit(threading.current_thread).result(LIMIT) is thread


def test_a_thread_that_waits_for_tasks_keeps_no_pool(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(2)
    worker = pool.submit(threading.current_thread).result(LIMIT)
    waiting = Background(pool._work_queue.get)
    until_asleep(waiting)
    reference = weakref.ref(pool)
    queue = pool._work_queue
    del pool
    eventually(lambda: freed(reference))
    # One for each thread: only one of them has got that of the pool's end.
    queue.put(None)
    queue.put(None)
    assert waiting.outcome() is None
    worker.join(LIMIT)
    assert not worker.is_alive()


def test_the_threads_of_a_touched_pool_end_with_it(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(2)
    threads = {pool.submit(threading.current_thread).result(LIMIT)}
    assert pool._idle_semaphore is not None
    del pool
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_the_end_of_a_program_waits_for_a_touched_pool(lib: ModuleType) -> None:
    assert (
        prints(
            lib,
            """
            import threading, time
            pool = futures.ThreadPoolExecutor(1)
            running = threading.Event()
            pool.submit(lambda: (running.set(), time.sleep(0.2), print("first")))
            pool.submit(print, "second")
            running.wait()
            pool._shutdown_lock
            pool.submit(print, "third")
            print("the end")
            """,
        )
        == "the end\nfirst\nsecond\nthird\n"
    )


def test_shutdown_waits_for_no_thread_that_was_taken_out(lib: ModuleType) -> None:
    # Found in many programs that end on Ctrl-C at once.
    pool = lib.ThreadPoolExecutor(1)
    with held(pool):
        thread = next(iter(pool._threads))
        pool._threads.clear()
        pool.shutdown()
        assert thread.is_alive()
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_a_replaced_kind_of_threads_is_used(
    lib: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Thread(threading.Thread):
        pass

    monkeypatch.setattr(threading, "Thread", Thread)
    with lib.ThreadPoolExecutor(1) as pool:
        assert type(pool.submit(threading.current_thread).result(LIMIT)) is Thread


@pytest.mark.parametrize("how", ["the worker", "the class", "a method of it"])
def test_names_that_the_standard_library_uses_are_replaced(
    lib: ModuleType, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("concurrent.futures.thread")
    calls: list[str] = []
    if how == "the worker":
        worker = module._worker

        def patched(*args: Any) -> None:
            calls.append(how)
            worker(*args)

        monkeypatch.setattr(module, "_worker", patched)
    elif how == "the class":

        class Item(module._WorkItem):  # type: ignore[misc, name-defined]
            def run(self, *args: Any) -> None:
                calls.append(how)
                super().run(*args)

        monkeypatch.setattr(module, "_WorkItem", Item)
    else:
        original = module._WorkItem.run

        def run_patched(self: Any, *args: Any) -> None:
            calls.append(how)
            original(self, *args)

        monkeypatch.setattr(module._WorkItem, "run", run_patched)
    with lib.ThreadPoolExecutor(1) as pool:
        assert pool.submit(int, "3").result(LIMIT) == 3
    assert calls == [how]


def test_threads_and_their_queues_are_known(lib: ModuleType) -> None:
    module = thread_module(lib)
    with lib.ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.current_thread).result(LIMIT)
        assert module._threads_queues[thread] is pool._work_queue


def test_the_end_of_the_interpreter_called_by_hand_ends_the_threads(lib: ModuleType) -> None:
    program = f"""
    import {lib.__name__}.thread, threading
    pool = futures.ThreadPoolExecutor(1)
    pool.submit(print, "task")
    {lib.__name__}.thread._python_exit()
    print([thread.is_alive() for thread in pool._threads])
    try:
        pool.submit(print)
    except RuntimeError as error:
        print(error)
    """
    out = prints(lib, program).splitlines()
    assert out[:2] == ["task", "[False]"]
    assert out[2].startswith("cannot schedule new futures after")
