"""Tests of workers that die, at every stage of a task: by default the pool breaks."""

import contextlib
import os
import re
import signal
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, Background, eventually, exit_code, until_asleep
from tasks import Flag

RUNNING = (
    "A process in the process pool was terminated abruptly while the future was running or pending."
)
BROKEN = "A child process terminated abruptly, the process pool is not usable anymore"


def assert_broken(lib: ModuleType, pool: Any) -> None:
    """Checks that the pool accepts no more tasks."""
    eventually(lambda: pool._broken)
    assert pool._broken == BROKEN
    for _ in range(2):
        with pytest.raises(lib.process.BrokenProcessPool, match=f"^{re.escape(BROKEN)}$"):
            pool.submit(int)
        with pytest.raises(lib.BrokenExecutor, match=f"^{re.escape(BROKEN)}$"):
            pool.map(int, [1])


WAYS: list[tuple[Any, int]] = [
    (tasks.exit_at_once, 0),
    (tasks.exit_at_once, 3),
    (tasks.exit_at_once, 255),
    (tasks.die, signal.SIGKILL),
    (tasks.die, signal.SIGTERM),
    (tasks.die, signal.SIGSEGV),
    (tasks.die, signal.SIGABRT),
]


@pytest.mark.parametrize(("how", "number"), WAYS)
def test_a_task_that_ends_its_worker_breaks_the_pool(
    lib: ModuleType, forking: Any, how: Any, number: int
) -> None:
    with lib.ProcessPoolExecutor(2, mp_context=forking) as pool:
        pool.submit(int).result(LIMIT)
        processes = list(pool._processes.values())
        future = pool.submit(how, number)
        with pytest.raises(lib.process.BrokenProcessPool, match=f"^{re.escape(RUNNING)}$") as got:
            future.result(LIMIT)
        assert isinstance(got.value, lib.BrokenExecutor)
        assert isinstance(got.value, RuntimeError)
        assert future._state == "FINISHED"
        assert_broken(lib, pool)
    # The others are ended too.
    for process in processes:
        assert exit_code(process) is not None


def test_on_all_start_methods(lib: ModuleType, context: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.raises(lib.process.BrokenProcessPool):
            pool.submit(tasks.die, signal.SIGKILL).result(LIMIT)
        assert_broken(lib, pool)


def test_all_pending_futures_are_told(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    called: list[Any] = []
    with lib.ProcessPoolExecutor(2, mp_context=forking) as pool:
        futures = [pool.submit(tasks.hold, running, release) for _ in range(32)]
        futures[9].add_done_callback(called.append)
        running.wait()
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        assert lib.wait(futures, LIMIT).not_done == set()
        for future in futures:
            assert isinstance(future.exception(), lib.process.BrokenProcessPool)
        eventually(lambda: called == [futures[9]])


def test_results_that_were_there_before_stay(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        done = [pool.submit(tasks.identity, [n]) for n in range(5)]
        lib.wait(done, LIMIT)
        failed = pool.submit(tasks.fail, ValueError("before"))
        assert isinstance(failed.exception(LIMIT), ValueError)
        with pytest.raises(lib.BrokenExecutor):
            pool.submit(tasks.exit_at_once, 1).result(LIMIT)
        assert [future.result() for future in done] == [[n] for n in range(5)]
        assert isinstance(failed.exception(), ValueError)


def test_a_worker_killed_while_it_is_idle(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(2, mp_context=forking) as pool:
        assert pool.submit(int).result(LIMIT) == 0
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        assert_broken(lib, pool)


def test_a_worker_killed_while_it_runs_a_task(
    lib: ModuleType, context: Any, running: Flag, release: Flag
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=context) as pool:
        future = pool.submit(tasks.hold, running, release)
        running.wait()
        waiting = Background(future.result)
        until_asleep(waiting)
        [process] = pool._processes.values()
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(lib.process.BrokenProcessPool):
            waiting.outcome()
        assert exit_code(process) == -signal.SIGKILL
        assert_broken(lib, pool)


def test_a_worker_killed_while_its_initializer_runs(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    with lib.ProcessPoolExecutor(1, forking, tasks.hold, (running, release)) as pool:
        future = pool.submit(int)
        running.wait()
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        with pytest.raises(lib.process.BrokenProcessPool):
            future.result(LIMIT)


def test_a_worker_killed_while_the_pool_shuts_down(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    future = pool.submit(tasks.hold, running, release)
    pending = pool.submit(int)
    running.wait()
    [process] = pool._processes
    closing = Background(pool.shutdown)
    until_asleep(closing)
    os.kill(process, signal.SIGKILL)
    closing.outcome()
    for each in future, pending:
        assert isinstance(each.exception(LIMIT), lib.process.BrokenProcessPool)


def test_all_workers_killed_at_once(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    with lib.ProcessPoolExecutor(3, mp_context=forking) as pool:
        futures = [pool.submit(tasks.hold, running, release) for _ in range(6)]
        running.wait()
        for process in list(pool._processes):
            # The pool ends the others when it notices the first.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for future in futures:
            with pytest.raises(lib.process.BrokenProcessPool):
                future.result(LIMIT)


def test_workers_killed_by_their_process_objects(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(2, mp_context=forking) as pool:
        pool.submit(int).result(LIMIT)
        for process in list(pool._processes.values()):
            process.terminate()
        assert_broken(lib, pool)


def test_a_map_is_told(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        results = pool.map(tasks.exit_at, range(10), [3] * 10)
        got = []
        with pytest.raises(lib.process.BrokenProcessPool):
            for result in results:
                got.append(result)
        # Only results that were finished before may have come.
        assert got == [0, 1, 2][: len(got)]


def test_callbacks_are_called_once_and_may_look(lib: ModuleType, forking: Any) -> None:
    called: list[BaseException] = []
    done = threading.Event()

    def look(future: Any) -> None:
        called.append(future.exception())
        try:
            pool.submit(int)
        except RuntimeError as error:
            called.append(error)
        done.set()

    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        pool.submit(int).result(LIMIT)
        future = pool.submit(tasks.exit_at_once, 1)
        lib.wait([future], LIMIT)
        future.add_done_callback(look)
        assert done.wait(LIMIT)
        assert_broken(lib, pool)
    assert [type(error) for error in called] == [lib.process.BrokenProcessPool] * 2


def test_the_next_pool_works(lib: ModuleType, forking: Any) -> None:
    for _ in range(3):
        with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
            with pytest.raises(lib.BrokenExecutor):
                pool.submit(tasks.exit_at_once, 1).result(LIMIT)
        with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
            assert pool.submit(abs, -1).result(LIMIT) == 1


def test_a_worker_that_dies_leaves_the_threads_alone(
    lib: ModuleType, forking: Any, tmp_path: Path
) -> None:
    with lib.ThreadPoolExecutor(1) as threads:
        with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
            mixed = [pool.submit(tasks.exit_at_once, 1), threads.submit(abs, -1)]
            done = lib.wait(mixed, LIMIT, return_when="ALL_COMPLETED").done
            assert len(done) == 2
            assert threads.submit(abs, -2).result() == 2


def test_a_stopped_worker_is_no_dead_worker(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        future = pool.submit(tasks.hold, running, release)
        running.wait()
        [process] = pool._processes
        os.kill(process, signal.SIGSTOP)
        release.set()
        with pytest.raises(TimeoutError):
            future.result(0.2)
        os.kill(process, signal.SIGCONT)
        assert future.result(LIMIT) == process
