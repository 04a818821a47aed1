"""Tests of the end of process pools: by shutdown, by `with`, by being dropped; and of their
remains."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, Background, eventually, exit_code, until_asleep
from tasks import Flag

REFUSED = "^cannot schedule new futures after shutdown$"


def is_alive(process: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_shutdown_waits_for_all_tasks(lib: ModuleType, context: Any, tmp_path: Path) -> None:
    pool = lib.ProcessPoolExecutor(2, mp_context=context)
    futures = [pool.submit(tasks.append, tmp_path / "out", n) for n in range(10)]
    pids = list(pool._processes)
    pool.shutdown()
    assert all(future.done() for future in futures)
    assert len((tmp_path / "out").read_text().splitlines()) == 10
    assert not any(map(is_alive, pids))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=REFUSED):
            pool.submit(int)
        with pytest.raises(RuntimeError, match=REFUSED):
            pool.map(int, [1])
    pool.shutdown()
    pool.shutdown(wait=False, cancel_futures=True)


def test_leaving_with_waits_even_after_an_exception(
    lib: ModuleType, forking: Any, tmp_path: Path
) -> None:
    with pytest.raises(KeyError, match="inside"):
        with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
            future = pool.submit(tasks.append, tmp_path / "out", 1)
            raise KeyError("inside")
    assert future.done()
    with pytest.raises(RuntimeError, match=REFUSED):
        pool.submit(int)


def test_without_waiting_the_tasks_are_still_done(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    first = pool.submit(tasks.hold, running, release)
    others = [pool.submit(abs, -n) for n in range(10)]
    running.wait()
    manager, [process] = pool._executor_manager_thread, pool._processes.values()
    pool.shutdown(wait=False)
    assert not first.done()
    with pytest.raises(RuntimeError, match=REFUSED):
        pool.submit(int)
    release.set()
    assert first.result(LIMIT) == process.pid
    assert [each.result(LIMIT) for each in others] == list(range(10))
    manager.join(LIMIT)
    assert not manager.is_alive()
    process.join(LIMIT)
    assert process.exitcode == 0


@pytest.mark.parametrize("wait", [True, False])
def test_pending_tasks_can_be_cancelled(
    lib: ModuleType, forking: Any, running: Flag, release: Flag, wait: bool, tmp_path: Path
) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    first = pool.submit(tasks.hold, running, release)
    running.wait()
    others = [pool.submit(tasks.append, tmp_path / "out", n) for n in range(20)]
    manager = pool._executor_manager_thread
    closing = Background(lambda: pool.shutdown(wait=wait, cancel_futures=True))
    # The standard library had begun up to two of them.
    eventually(lambda: all(each.cancelled() for each in others[2:]))
    assert not first.done()
    release.set()
    closing.outcome()
    assert first.result(LIMIT)
    manager.join(LIMIT)
    assert all(each.done() for each in others)
    written = (tmp_path / "out").read_text().split() if (tmp_path / "out").exists() else []
    assert written == [str(n) for n, each in enumerate(others) if not each.cancelled()]


def test_before_the_first_task(lib: ModuleType, context: Any) -> None:
    for wait in True, False:
        pool = lib.ProcessPoolExecutor(2, mp_context=context)
        pool.shutdown(wait=wait)
        with pytest.raises(RuntimeError, match=REFUSED):
            pool.submit(int)


def test_shutdown_in_several_threads(lib: ModuleType, forking: Any) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    future = pool.submit(int)
    future.result(LIMIT)
    for _ in range(3):
        pool.shutdown()
    assert future.result() == 0


def test_shutdown_by_a_callback(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    called = threading.Event()
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)

    def close(_: object) -> None:
        pool.shutdown(wait=False)
        called.set()

    future = pool.submit(tasks.hold, running, release)
    future.add_done_callback(close)
    manager = pool._executor_manager_thread
    release.set()
    assert called.wait(LIMIT)
    manager.join(LIMIT)
    assert not manager.is_alive()
    with pytest.raises(RuntimeError, match=REFUSED):
        pool.submit(int)


def test_a_pool_that_is_forgotten_ends(lib: ModuleType, context: Any) -> None:
    pool = lib.ProcessPoolExecutor(2, mp_context=context)
    future = pool.submit(abs, -1)
    assert future.result(LIMIT) == 1
    manager, processes = pool._executor_manager_thread, list(pool._processes.values())
    alive = weakref.ref(pool)
    del pool
    eventually(lambda: (gc.collect(), alive() is None)[1])
    manager.join(LIMIT)
    assert not manager.is_alive()
    for process in processes:
        process.join(LIMIT)
        assert process.exitcode == 0
    assert future.result() == 1


def test_one_that_is_forgotten_with_work_to_do_does_it(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    first = pool.submit(tasks.hold, running, release)
    others = [pool.submit(abs, -n) for n in range(10)]
    running.wait()
    alive = weakref.ref(pool)
    del pool
    release.set()
    assert first.result(LIMIT)
    assert [each.result(LIMIT) for each in others] == list(range(10))
    eventually(lambda: (gc.collect(), alive() is None)[1])


def test_results_and_arguments_are_not_kept(lib: ModuleType, forking: Any) -> None:
    argument = tasks.Point(1)
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        future = pool.submit(tasks.identity, argument)
        result = future.result(LIMIT)
        assert result == argument
        kept = [weakref.ref(argument), weakref.ref(result), weakref.ref(future)]
        del argument, result, future
        eventually(lambda: (gc.collect(), [each() for each in kept] == [None] * 3)[1])


@pytest.fixture
def left_over() -> Iterator[None]:
    """Check that everything a test opens is gone after it: descriptors, shared memory, children,
    threads."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("cannot be seen here")
    gc.collect()
    # A fork server or a resource tracker may have been started by others before.
    shared = Path("/dev/shm")
    # The memory of the kernel is the interpreter's, once it is used.
    os.cpu_count()
    before = tasks.descriptors(), set(shared.iterdir()), threading.active_count()
    yield
    gc.collect()

    def same() -> bool:
        return not (set(shared.iterdir()) - before[1]) and threading.active_count() <= before[2]

    eventually(same)
    assert tasks.descriptors() == before[0]
    assert multiprocessing.active_children() == []
    with pytest.raises(ChildProcessError):
        # A child that was not reaped: a zombie, or a worker that still runs. A fork server and a
        # resource tracker are children that stay.
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            raise AssertionError("a zombie")
        raise ChildProcessError


@pytest.mark.usefixtures("left_over")
@pytest.mark.parametrize("wait", [True, False])
def test_nothing_is_left_after_shutdown(lib: ModuleType, forking: Any, wait: bool) -> None:
    for _ in range(5):
        pool = lib.ProcessPoolExecutor(2, mp_context=forking)
        assert list(pool.map(len, [b"x" * 200_000] * 5)) == [200_000] * 5
        manager, processes = pool._executor_manager_thread, list(pool._processes.values())
        pool.shutdown(wait=wait)
        manager.join(LIMIT)
        for process in processes:
            process.join(LIMIT)
        # As a Process object keeps its descriptor.
        del pool, manager, process, processes


@pytest.mark.usefixtures("left_over")
def test_nothing_is_left_of_a_broken_pool(lib: ModuleType, forking: Any) -> None:
    for _ in range(3):
        pool = lib.ProcessPoolExecutor(2, mp_context=forking)
        with pytest.raises(lib.BrokenExecutor):
            pool.submit(tasks.die, signal.SIGKILL).result(LIMIT)
        pool.shutdown()
        del pool


@pytest.mark.usefixtures("left_over")
def test_nothing_is_left_of_a_pool_that_was_never_used(lib: ModuleType, forking: Any) -> None:
    for _ in range(3):
        pool = lib.ProcessPoolExecutor(2, mp_context=forking)
        pool.shutdown()
        del pool
        lib.ProcessPoolExecutor(2, mp_context=forking)
        gc.collect()


def test_nothing_is_left_with_the_other_start_methods(lib: ModuleType) -> None:
    for method in "forkserver", "spawn":
        context = multiprocessing.get_context(method)
        seen = []
        for _ in range(2):
            pool = lib.ProcessPoolExecutor(1, mp_context=context)
            assert pool.submit(abs, -1).result(LIMIT) == 1
            pool.shutdown()
            del pool
            gc.collect()
            # The first one may start the fork server and the resource tracker, which stay.
            seen.append(tasks.descriptors())
        assert seen[0] == seen[1]


def test_shutdown_waits_while_a_task_runs(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    future = pool.submit(tasks.hold, running, release)
    running.wait()
    closing = Background(pool.shutdown)
    until_asleep(closing)
    assert not future.done()
    release.set()
    closing.outcome()
    assert future.done()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the standard library has them from 3.14 on")
@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_workers_can_be_ended_by_force(
    lib: ModuleType, forking: Any, running: Flag, release: Flag, how: str
) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    future = pool.submit(tasks.hold, running, release)
    running.wait()
    [process] = pool._processes.values()
    getattr(pool, how)()
    with pytest.raises(lib.BrokenExecutor):
        future.result(LIMIT)
    assert exit_code(process) < 0


@pytest.mark.parametrize("shut_down", [False, True])
def test_workers_of_a_forgotten_pool_are_replaced(
    package: ModuleType, running: Flag, release: Flag, shut_down: bool
) -> None:
    # The standard library's cannot be, from 3.14 on: there, the other calls fail.
    context = multiprocessing.get_context("forkserver")
    pool = package.ProcessPoolExecutor(1, context, max_tasks_per_child=1)
    held = pool.submit(tasks.hold, running, release)
    others = [pool.submit(tasks.pid) for _ in range(3)]
    running.wait()
    if shut_down:
        pool.shutdown(wait=False)
    alive = weakref.ref(pool)
    del pool
    eventually(lambda: (gc.collect(), alive() is None)[1])
    release.set()
    pids = [held.result(LIMIT), *(future.result(LIMIT) for future in others)]
    assert len(set(pids)) == 4


def test_a_worker_that_has_had_its_tasks_is_not_replaced_after_the_end_by_force(
    package: ModuleType, running: Flag, release: Flag
) -> None:
    context = multiprocessing.get_context("forkserver")
    pool = package.ProcessPoolExecutor(1, context, max_tasks_per_child=1)
    held = pool.submit(tasks.hold, running, release)
    others = [pool.submit(tasks.pid) for _ in range(3)]
    running.wait()
    manager = pool._executor_manager_thread
    pool.kill_workers()
    with pytest.raises(package.BrokenExecutor):
        held.result(LIMIT)
    for future in others:
        with pytest.raises((package.CancelledError, package.BrokenExecutor)):
            future.result(LIMIT)
    manager.join(LIMIT)
    assert not manager.is_alive()


def test_a_wrong_way_to_end_by_force_is_refused(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, forking) as pool:
        with pytest.raises(ValueError, match="Unsupported operation: 'hang'"):
            pool._force_shutdown(operation="hang")
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_cancelling_while_workers_start_breaks_nothing(lib: ModuleType, context: Any) -> None:
    pool = lib.ProcessPoolExecutor(5, mp_context=context)
    calls = [pool.submit(time.sleep, 0.01) for _ in range(50)]
    pool.shutdown(cancel_futures=True)
    assert any(call.cancelled() for call in calls)
    assert [call.exception() for call in calls if not call.cancelled()] == [None] * sum(
        not call.cancelled() for call in calls
    )
