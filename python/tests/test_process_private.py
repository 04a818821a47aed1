"""Tests of the private parts of process pools, as popular code reads, replaces and overrides
them."""

import importlib
import multiprocessing
import queue
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, prints
from tasks import Flag, hold


def process_module(lib: ModuleType) -> Any:
    """Returns the module of the process pools."""
    return importlib.import_module(f"{lib.__name__}.process")


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_are_started_before_there_are_tasks(lib: ModuleType, method: str) -> None:
    # As PyTorch does.
    pool = lib.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))
    with pool:
        for _ in range(2):
            pool._adjust_process_count()
        pool._start_executor_manager_thread()
        before = set(pool._processes)
        assert len(before) == 2
        assert pool.submit(abs, -1).result(LIMIT) == 1
        assert set(pool._processes) == before


def test_workers_that_were_started_end_without_tasks(lib: ModuleType, forking: Any) -> None:
    pool = lib.ProcessPoolExecutor(2, mp_context=forking)
    pool._start_executor_manager_thread()
    processes = list(pool._processes.values())
    assert len(processes) == 2
    pool.shutdown()
    assert [process.exitcode for process in processes] == [0, 0]


def test_all_workers_are_started_at_once(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(3, mp_context=forking) as pool:
        pool._spawn_process()
        assert len(pool._processes) == 1
        pool._launch_processes()
        assert len(pool._processes) == 3
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_pending_work_items_have_their_futures(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        first = pool.submit(hold, running, release)
        running.wait()
        futures = [pool.submit(abs, -n) for n in range(6)]
        items = dict(pool._pending_work_items)
        assert {item.future for item in items.values()} == {first, *futures}
        assert all(isinstance(key, int) for key in items)
        cancelled = [future for future in futures if future.cancel()]
        # The standard library has handed some over.
        assert len(cancelled) >= 4
        release.set()
    assert not pool._pending_work_items


def test_more_workers_are_allowed(lib: ModuleType, running: Flag, release: Flag) -> None:
    spawn = multiprocessing.get_context("spawn")
    with lib.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        first = pool.submit(hold, running, release)
        running.wait()
        pool._max_workers = 2
        assert pool._max_workers == 2
        assert pool.submit(abs, -1).result(LIMIT) == 1
        assert len(pool._processes) == 2
        release.set()
        first.result(LIMIT)


def test_an_overridden_spawn_process_is_called(lib: ModuleType, forking: Any) -> None:
    calls: list[Any] = []

    class Pool(lib.ProcessPoolExecutor):  # type: ignore[misc, name-defined]
        def _spawn_process(self) -> None:
            calls.append(1)
            super()._spawn_process()

    with Pool(2, mp_context=forking) as pool:
        futures = [pool.submit(abs, -1), pool.submit(abs, -2)]
        assert [future.result(LIMIT) for future in lib.as_completed(futures)]
        assert all(isinstance(future, lib.Future) for future in futures)
        assert list(pool.map(abs, [-3, -4], chunksize=2)) == [3, 4]
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["_adjust_process_count", "_start_executor_manager_thread"])
def test_other_overridden_methods_are_called(lib: ModuleType, name: str) -> None:
    calls: list[Any] = []
    spawn = multiprocessing.get_context("spawn")

    def overridden(self: Any) -> None:
        calls.append(name)
        getattr(super(pool_class, self), name)()

    pool_class = type("Pool", (lib.ProcessPoolExecutor,), {name: overridden})
    with pool_class(1, mp_context=spawn) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
        assert pool.submit(abs, -2).result(LIMIT) == 2
    assert calls == [name] * 2


def test_a_pool_has_the_attributes_of_this_versions_standard_library(package: ModuleType) -> None:
    original = importlib.import_module("concurrent.futures").ProcessPoolExecutor(1)
    with original, package.ProcessPoolExecutor(1) as pool:
        assert [name for name in vars(original) if not hasattr(pool, name)] == []
        if hasattr(original, "_force_shutting_down"):
            assert pool._force_shutting_down is False
            pool.terminate_workers()
            assert pool._force_shutting_down is True


def test_a_queue_of_ids_that_is_replaced_is_used(lib: ModuleType, forking: Any) -> None:
    ids = []

    class Ids(queue.Queue[Any]):
        def put(self, item: Any, *args: Any, **kwargs: Any) -> None:
            ids.append(item)
            super().put(item, *args, **kwargs)

    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        pool._work_ids = Ids()
        assert pool.submit(abs, -1).result(LIMIT) == 1
    assert ids == [0]


def test_a_queue_that_is_replaced_too_late(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
        with pytest.raises(AttributeError, match="_work_ids .* only before the first task"):
            pool._work_ids = queue.Queue()
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_a_pool_that_was_marked_as_shut_down_refuses(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
        pool._shutdown_thread = True
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            pool.submit(abs, -1)


def test_a_pool_that_was_marked_as_broken_refuses(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
        pool._broken = "it is full of holes"
        with pytest.raises(process_module(lib).BrokenProcessPool, match="full of holes"):
            pool.submit(abs, -1)
        with pytest.raises(process_module(lib).BrokenProcessPool, match="full of holes"):
            list(pool.map(abs, [-1]))
        pool._broken = False
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_the_holder_of_the_lock_keeps_others_from_submitting(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
        with pool._shutdown_lock:
            submitting = threading.Thread(target=pool.submit, args=(abs, -1))
            submitting.start()
            submitting.join(0.05)
            assert submitting.is_alive()
        submitting.join(LIMIT)
        assert not submitting.is_alive()
        assert list(pool.map(abs, [-1, -2])) == [1, 2]


def test_the_manager_thread_is_registered_with_its_wakeup(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
        wakeup = process_module(lib)._threads_wakeups[pool._executor_manager_thread]
        assert wakeup is pool._executor_manager_thread_wakeup
        wakeup.wakeup()
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_the_end_of_the_interpreter_called_by_hand_ends_the_workers(lib: ModuleType) -> None:
    program = f"""
    import {lib.__name__}.process, multiprocessing
    fork = multiprocessing.get_context("fork")
    pool = futures.ProcessPoolExecutor(1, mp_context=fork)
    print(pool.submit(abs, -1).result())
    workers = list(pool._processes.values())
    {lib.__name__}.process._python_exit()
    print([worker.is_alive() for worker in workers])
    """
    assert prints(lib, program, forks=True) == "1\n[False]\n"


@pytest.mark.parametrize(
    "options",
    [
        {"on_worker_death": "isolate"},
        {"task_timeout": 1},
        {"memory_limit": 1 << 40},
        {"max_pending": 1},
        {"cloudpickle": True},
    ],
    ids=str,
)
def test_an_option_of_the_engine_on_a_class_that_overrides(
    package: ModuleType, options: dict[str, Any]
) -> None:
    if "cloudpickle" in options:
        pytest.importorskip("cloudpickle")

    class Pool(package.ProcessPoolExecutor):  # type: ignore[misc, name-defined]
        def _spawn_process(self) -> None:
            """Start nothing."""

    (name,) = options
    with pytest.raises(ValueError, match=f"{name} is not available, as .*Pool overrides private"):
        Pool(1, **options)


def test_a_pool_that_works_as_the_standard_librarys_ends_by_force(
    package: ModuleType, forking: Any
) -> None:
    class Pool(package.ProcessPoolExecutor):  # type: ignore[misc, name-defined]
        def _spawn_process(self) -> None:
            super()._spawn_process()

    pool = Pool(1, mp_context=forking)
    task = pool.submit(time.sleep, 2 * LIMIT)
    pool.kill_workers()
    with pytest.raises(process_module(package).BrokenProcessPool):
        task.result(LIMIT)
    assert getattr(pool, "_force_shutting_down", True)
    with pytest.raises(RuntimeError, match="options need the engine"):
        pool.options(timeout=1).submit(abs, -1)
