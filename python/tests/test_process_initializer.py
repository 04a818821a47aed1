"""Tests of initializers of worker processes, and of their arguments."""

import contextlib
import multiprocessing
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import IS_FREE, LIMIT, eventually, run
from tasks import Flag
from test_process_programs import is_gone

BROKEN = "A child process terminated abruptly, the process pool is not usable anymore"


def test_each_worker_is_initialized_once(lib: ModuleType, forking: Any, tmp_path: Path) -> None:
    path, meeting = tmp_path / "initialized", tmp_path / "meeting"
    meeting.mkdir()
    with lib.ProcessPoolExecutor(
        2, mp_context=forking, initializer=tasks.initialize_by_appending, initargs=(path,)
    ) as pool:
        futures = [pool.submit(tasks.meet, meeting, 2) for _ in range(2)]
        pids = {future.result(LIMIT) for future in futures}
        for _ in range(10):
            assert pool.submit(tasks.kept).result(LIMIT) == ["initialized"]
    assert sorted(path.read_text().splitlines()) == sorted(map(str, pids))


def test_initializers_on_all_start_methods(lib: ModuleType, context: Any) -> None:
    value = {"key": [1, 2]}
    with lib.ProcessPoolExecutor(1, context, tasks.keep, (value, "second")) as pool:
        assert pool.submit(tasks.kept).result(LIMIT) == [value, "second"]


def test_locks_and_shared_values_may_be_given(lib: ModuleType, context: Any) -> None:
    # They can be given to a process only while it is started.
    lock, value = context.Lock(), context.Value("i", 0, lock=False)
    with lib.ProcessPoolExecutor(2, context, tasks.keep, (lock, value)) as pool:
        before = [pool.submit(tasks.add_one_with_lock) for _ in range(40)]
        assert sorted(each.result(LIMIT) for each in before) == list(range(40))
    assert value.value == 40


def test_queues_may_be_given(lib: ModuleType, context: Any) -> None:
    queue = context.SimpleQueue()
    with lib.ProcessPoolExecutor(2, context, tasks.keep, (queue,)) as pool:
        for number in range(5):
            pool.submit(tasks.put_into_queue, number)
        assert sorted(queue.get() for _ in range(5)) == list(range(5))
    queue.close()


def test_initargs_may_be_a_list(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(1, forking, tasks.keep, [1, 2]) as pool:
        assert pool.submit(tasks.kept).result(LIMIT) == [1, 2]


def test_a_replaced_worker_is_initialized(lib: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "initialized"
    context = multiprocessing.get_context("forkserver")
    with lib.ProcessPoolExecutor(
        1, context, tasks.initialize_by_appending, (path,), max_tasks_per_child=1
    ) as pool:
        pids = [pool.submit(tasks.pid).result(LIMIT) for _ in range(2)]
    lines = path.read_text().splitlines()
    assert lines[:2] == list(map(str, pids))


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_one_that_fails_breaks_the_pool(
    lib: ModuleType, forking: Any, error: BaseException
) -> None:
    pool = lib.ProcessPoolExecutor(2, forking, tasks.fail, (error,))
    futures = []
    with contextlib.suppress(lib.BrokenExecutor):  # It may be so quick.
        futures.append(pool.submit(int))
        futures.append(pool.submit(int))
    for future in futures:
        with pytest.raises(lib.process.BrokenProcessPool):
            future.result(LIMIT)
    eventually(lambda: pool._broken)
    with pytest.raises(lib.process.BrokenProcessPool, match=f"^{BROKEN}$"):
        pool.submit(int)
    pool.shutdown()


def test_the_worker_tells_why_it_failed(lib: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    with lib.ProcessPoolExecutor(1, context, tasks.fail, (LookupError("no such thing"),)) as pool:
        with pytest.raises(lib.BrokenExecutor):
            pool.submit(int).result(LIMIT)
    told = capfd.readouterr().err
    assert told.startswith("Exception in initializer:\nTraceback (most recent call last):\n")
    assert told.endswith("LookupError: no such thing\n")


@pytest.mark.parametrize("how", ["os._exit", "kill"])
def test_one_that_ends_the_worker_breaks_the_pool(lib: ModuleType, forking: Any, how: str) -> None:
    with lib.ProcessPoolExecutor(1, forking, tasks.misbehave, (how,)) as pool:
        # The worker may be gone before the task is there.
        with pytest.raises(lib.process.BrokenProcessPool):
            pool.submit(int).result(LIMIT)


def test_tasks_wait_for_the_initializer(
    lib: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    with lib.ProcessPoolExecutor(1, forking, tasks.hold, (running, release)) as pool:
        future = pool.submit(abs, -1)
        running.wait()
        assert not future.done()
        with pytest.raises(TimeoutError):
            future.result(0.01)
        release.set()
        assert future.result(LIMIT) == 1


def test_an_argument_that_cannot_be_pickled_is_an_error_of_submit(lib: ModuleType) -> None:
    # Except with fork, where nothing is pickled.
    context = multiprocessing.get_context("spawn")
    pool = lib.ProcessPoolExecutor(1, context, tasks.keep, (tasks.Unpicklable(),))
    with pytest.raises(Exception, match="not this one"):
        pool.submit(int)
    pool.shutdown(wait=False)


def test_with_fork_anything_can_be_given(lib: ModuleType, forking: Any) -> None:
    given = [lambda: 5, tasks.Unpicklable()]
    with lib.ProcessPoolExecutor(
        1, forking, lambda *values: tasks.keep(len(values), values[0]()), given
    ) as pool:
        assert pool.submit(tasks.kept).result(LIMIT) == [2, 5]


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_workers_whose_initializer_hangs_can_be_ended(
    package: ModuleType, context: Any, running: Flag, release: Flag, how: str
) -> None:
    pool = package.ProcessPoolExecutor(1, context, tasks.hold, (running, release))
    futures = [pool.submit(int) for _ in range(3)]
    running.wait()
    assert not any(future.running() for future in futures)
    # No call has begun: each can be cancelled.
    assert futures[2].cancel()
    [process] = pool._processes.values()
    supervisor = pool._executor_manager_thread
    getattr(pool, how)()
    for future in futures:
        with pytest.raises((package.CancelledError, package.BrokenExecutor)):
            future.result(LIMIT)
    # It takes the exit code, for which one thread at a time may ask a process.
    supervisor.join(LIMIT)
    assert process.exitcode in (-signal.SIGTERM, -signal.SIGKILL)
    with pytest.raises(RuntimeError):
        pool.submit(int)


def test_one_that_hangs_ends_with_the_program(package: ModuleType, running: Flag) -> None:
    code = """
    import multiprocessing, os, signal, sys, time

    def hang(path):
        with open(path, "w") as file:
            print(os.getpid(), file=file, flush=True)
        time.sleep(1000)

    context = multiprocessing.get_context("fork")
    path = PATH
    pool = futures.ProcessPoolExecutor(1, context, hang, (path,))
    pool.submit(int)
    while not os.path.exists(path) or not open(path).read():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    run(package, code.replace("PATH", repr(str(running.path))), status=-signal.SIGKILL, forks=True)
    worker = int(running.path.read_text())
    eventually(lambda: is_gone(worker))


def eat(size: int) -> None:
    """Keep this many bytes of memory in use."""
    tasks.keep(bytearray(size))


def test_a_memory_limit_holds_for_the_initializer(package: ModuleType, context: Any) -> None:
    if IS_FREE and context.get_start_method() == "fork":
        pytest.skip("a fork has the memory that its parent has reserved, without limit")
    limit = 1 << 30
    with package.ProcessPoolExecutor(1, context, eat, (1 << 20,), memory_limit=limit) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
    with package.ProcessPoolExecutor(1, context, eat, (1 << 31,), memory_limit=limit) as pool:
        with pytest.raises(package.BrokenExecutor) as caught:
            pool.submit(abs, -1).result(LIMIT)
    assert "the initializer failed" in str(caught.value.__cause__)


def test_signals_are_not_blocked_in_workers_nor_in_their_children(
    lib: ModuleType, context: Any, tmp_path: Path
) -> None:
    path = tmp_path / "blocked"
    with lib.ProcessPoolExecutor(1, context, tasks.note_blocked_signals, (path,)) as pool:
        pool.submit(tasks.note_blocked_signals, path).result(LIMIT)
        pool.submit(tasks.note_blocked_signals_at_the_end, path).result(LIMIT)
    assert path.read_text().splitlines() == ["[] []"] * 3
