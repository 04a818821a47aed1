"""Tests of the extensions of the package's process pools, which are opt-in."""

import contextlib
import importlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import concurrent_futures
import tasks
from concurrent_futures import ProcessPoolExecutor, ThreadPoolExecutor, _process_workers
from concurrent_futures.process import (
    BrokenProcessPool,
    TaskTerminatedError,
    TaskTimeoutError,
    WorkerDiedError,
)
from support import LIMIT, Background, eventually, until_asleep
from tasks import Flag


@pytest.fixture
def pool(forking: Any) -> Iterator[ProcessPoolExecutor]:
    """Makes a pool of two workers, which survives their deaths."""
    with ProcessPoolExecutor(2, forking, on_worker_death="isolate") as made:
        yield made


def test_a_dying_worker_costs_one_task(pool: Any) -> None:
    futures = [pool.submit(tasks.exit_at, n, 77) for n in range(200)]
    errors = {n: future.exception(LIMIT) for n, future in enumerate(futures)}
    assert [n for n, error in errors.items() if error is not None] == [77]
    assert [future.result() for n, future in enumerate(futures) if n != 77] == [
        n for n in range(200) if n != 77
    ]
    assert isinstance(errors[77], WorkerDiedError)
    assert pool._broken is False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_the_error_names_the_signal(pool: Any, number: signal.Signals) -> None:
    error = pool.submit(tasks.die, number).exception(LIMIT)
    assert isinstance(error, WorkerDiedError)
    assert error.signal is number
    assert error.exitcode == -number
    assert number.name in str(error)
    assert "while it ran task #" in str(error)
    assert str(error).endswith(" (tasks.die)")
    assert error.pid not in (None, os.getpid())
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_the_error_names_the_signal_when_the_program_takes_the_exit_status_first(
    forking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ProcessPoolExecutor(1, forking, on_worker_death="isolate")
    assert pool.submit(abs, -1).result(LIMIT) == 1
    [process] = pool._processes.values()
    waitpid, program = os.waitpid, threading.current_thread()
    taken, noted = threading.Event(), threading.Event()
    refused = []

    def take(pid: int, flags: int) -> tuple[int, int]:
        if pid != process.pid:
            return waitpid(pid, flags)
        if threading.current_thread() is program:
            status = waitpid(pid, flags)
            taken.set()
            # The pool looks for the code while this thread has it and has not noted it.
            assert noted.wait(LIMIT)
            return status
        assert taken.wait(LIMIT)
        try:
            return waitpid(pid, flags)
        except ChildProcessError:
            refused.append(flags)
            if len(refused) == 3:
                noted.set()
            raise

    monkeypatch.setattr(os, "waitpid", take)
    # The pool looks for a while only, which the program's thread may miss on a slow machine.
    monkeypatch.setattr(_process_workers, "_CHECKS_OF_EXIT_CODE", int(1000 * LIMIT))
    future = pool.submit(tasks.die, signal.SIGKILL)
    process.join()
    error = future.exception(LIMIT)
    assert isinstance(error, WorkerDiedError)
    assert error.exitcode == -signal.SIGKILL
    pool.shutdown()


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_error_names_the_exit_code(pool: Any, code: int) -> None:
    error = pool.submit(tasks.exit_at_once, code).exception(LIMIT)
    assert isinstance(error, WorkerDiedError)
    assert error.signal is None
    assert error.exitcode == code
    assert str(code) in str(error)
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_existing_handlers_of_errors_catch_it(pool: Any) -> None:
    for kind in BrokenProcessPool, concurrent_futures.BrokenExecutor, RuntimeError:
        with pytest.raises(kind):
            pool.submit(tasks.exit_at_once, 1).result(LIMIT)


def test_the_errors_can_be_pickled(pool: Any) -> None:
    error = pool.submit(tasks.exit_at_once, 3).exception(LIMIT)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.pid, copy.exitcode) == (
        WorkerDiedError,
        str(error),
        error.pid,
        3,
    )


def test_each_worker_may_die_again_and_again(pool: Any) -> None:
    # Other calls run between the deaths, and after them.
    futures = [pool.submit(tasks.exit_at, n, n if n % 5 == 0 else -1) for n in range(60)]
    for number, future in enumerate(futures):
        if number % 5 == 0:
            assert isinstance(future.exception(LIMIT), WorkerDiedError)
        else:
            assert future.result(LIMIT) == number
    eventually(lambda: len(pool._processes) <= 2)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_with_the_other_start_methods(method: str) -> None:
    import multiprocessing

    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context, on_worker_death="isolate") as pool:
        futures = [pool.submit(tasks.exit_at, n, 1) for n in range(4)]
        assert isinstance(futures[1].exception(LIMIT), WorkerDiedError)
        assert [futures[n].result(LIMIT) for n in (0, 2, 3)] == [0, 2, 3]


def test_a_worker_that_dies_while_it_is_idle_is_replaced(pool: Any) -> None:
    pids = set(pool._processes or [])
    pool.submit(int).result(LIMIT)
    pids = set(pool._processes)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for number in range(20):
        assert pool.submit(abs, -number).result(LIMIT) == number
    eventually(lambda: not pids & set(pool._processes))


def test_map_on_an_isolating_pool_raises_at_the_dead_workers_item(pool: Any) -> None:
    results = pool.map(tasks.exit_at, range(10), [3] * 10)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(WorkerDiedError):
        next(results)
    assert list(pool.map(abs, [-1, -2])) == [1, 2]


@pytest.mark.parametrize("how", ["raise", "exit", "os._exit", "kill"])
def test_an_argument_that_fails_while_it_is_unpickled_fails_alone(pool: Any, how: str) -> None:
    error = pool.submit(tasks.identity, tasks.OnUnpickling(how)).exception(LIMIT)
    if how == "raise":
        assert "on purpose" in str(error) + str(error.__cause__)
    elif how == "exit":
        assert isinstance(error, (SystemExit, WorkerDiedError))
    else:
        assert isinstance(error, WorkerDiedError)
    assert pool.submit(abs, -1).result(LIMIT) == 1
    assert pool._broken is False


@pytest.mark.parametrize("how", ["os._exit", "kill"])
def test_a_result_that_ends_the_worker_while_it_is_pickled_fails_alone(pool: Any, how: str) -> None:
    error = pool.submit(tasks.make, "OnPickling", how).exception(LIMIT)
    assert isinstance(error, WorkerDiedError)
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_a_result_that_cannot_be_unpickled_fails_alone(pool: Any) -> None:
    future = pool.submit(tasks.make, "OnUnpickling", "raise")
    error = future.exception(LIMIT)
    assert error is future.exception()
    assert "on purpose" in f"{error!r} {error.__cause__}"
    with pytest.raises(type(error)):
        future.result()
    assert pool.submit(abs, -1).result(LIMIT) == 1
    assert pool._broken is False


def test_wait_as_completed_and_callbacks_see_it(pool: Any) -> None:
    called: list[Any] = []
    future = pool.submit(tasks.die, signal.SIGKILL)
    future.add_done_callback(called.append)
    other = pool.submit(abs, -1)
    assert concurrent_futures.wait([future, other], LIMIT).done == {future, other}
    assert set(concurrent_futures.as_completed([future, other])) == {future, other}
    eventually(lambda: called == [future])


def test_workers_that_are_killed_at_random_cost_only_what_they_ran(
    forking: Any, tmp_path: Path
) -> None:
    stop = threading.Event()
    kills = 0
    with ProcessPoolExecutor(2, forking, on_worker_death="isolate") as pool:
        futures = [pool.submit(tasks.now_and_then_late, n) for n in range(2_000)]

        def kill() -> None:
            nonlocal kills
            seen = -1
            while not stop.wait(0.01):
                done = sum(future.done() for future in futures)
                if done == seen:
                    # Were it killed before it can work, time after time, the pool would give up.
                    continue
                seen = done
                for pid in list(pool._processes or [])[:1]:
                    # It may have ended, and be about to be replaced.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    kills += 1

        killing = Background(kill)
        died = 0
        for number, future in enumerate(futures):
            error = future.exception(LIMIT)
            if error is None:
                assert future.result() == number
            else:
                assert isinstance(error, WorkerDiedError)
                died += 1
        stop.set()
        killing.outcome()
        assert 0 < died <= kills
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_a_pool_with_a_working_worker_outlives_workers_that_die_at_start(
    forking: Any, running: Flag, release: Flag, tmp_path: Path
) -> None:
    told, meeting = tmp_path / "told", tmp_path / "meeting"
    meeting.mkdir()
    with ProcessPoolExecutor(
        2, forking, tasks.exit_while_told, (told,), on_worker_death="isolate"
    ) as pool:
        held = pool.submit(tasks.hold, running, release)
        running.wait()
        going = pool.submit(tasks.pid).result(LIMIT)
        told.touch()
        os.kill(going, signal.SIGKILL)
        eventually(lambda: told.stat().st_size >= 5)
        release.set()
        staying = held.result(LIMIT)
        for _ in range(10):
            assert pool.submit(tasks.pid).result(LIMIT) == staying
        told.unlink()
        # Both at a time: there are two again.
        futures = [pool.submit(tasks.meet, meeting, 2) for _ in range(2)]
        assert len({future.result(LIMIT) for future in futures}) == 2


def test_an_initializer_that_fails_still_breaks_the_pool(forking: Any) -> None:
    # It would fail again and again.
    with ProcessPoolExecutor(
        1, forking, tasks.fail, (ValueError("no"),), on_worker_death="isolate"
    ) as pool:
        with pytest.raises(BrokenProcessPool):
            pool.submit(int).result(LIMIT)


def test_by_default_the_cause_tells_how_the_worker_died(forking: Any) -> None:
    with ProcessPoolExecutor(1, forking) as pool:
        error = pool.submit(tasks.exit_at_once, 42).exception(LIMIT)
        assert type(error) is BrokenProcessPool
        assert isinstance(error.__cause__, WorkerDiedError)
        assert error.__cause__.exitcode == 42


# ---- time limits


def test_a_task_that_overruns_is_ended(forking: Any, running: Flag, release: Flag) -> None:
    with ProcessPoolExecutor(1, forking, task_timeout=0.3, on_worker_death="isolate") as pool:
        future = pool.submit(tasks.hold, running, release)
        error = future.exception(LIMIT)
        assert isinstance(error, TaskTimeoutError)
        assert isinstance(error, TimeoutError)
        assert error.limit == 0.3
        assert running.is_set()
        assert pool.submit(abs, -1).result(LIMIT) == 1
        assert error.pid not in pool._processes


def test_tasks_within_the_limit_are_not_ended(forking: Any) -> None:
    with ProcessPoolExecutor(1, forking, task_timeout=LIMIT) as pool:
        [pid] = {pool.submit(tasks.pid).result(LIMIT) for _ in range(20)}
        assert list(pool._processes or []) == [pid]


def test_the_time_in_line_does_not_count(forking: Any) -> None:
    with ProcessPoolExecutor(1, forking, task_timeout=5, on_worker_death="isolate") as pool:
        futures = [pool.submit(tasks.pid) for _ in range(100)]
        assert len({future.result(LIMIT) for future in futures}) == 1


def test_a_call_may_have_a_limit_of_its_own(pool: Any, running: Flag, release: Flag) -> None:
    limited = pool.options(timeout=0.2)
    future = limited.submit(tasks.hold, running, release)
    other = pool.submit(tasks.pid)
    assert isinstance(future.exception(LIMIT), TaskTimeoutError)
    assert future.exception().limit == 0.2
    assert other.result(LIMIT)
    assert limited.submit(pow, 2, mod=5, exp=3).result(LIMIT) == 3
    # Without a limit, another one runs as long as it likes.
    again = pool.submit(tasks.hold, running, release)
    with pytest.raises(TimeoutError):
        again.result(0.5)
    release.set()
    assert again.result(LIMIT)


def test_a_task_that_holds_the_interpreter_is_ended(pool: Any) -> None:
    # A thread in the worker could not: this is one long call in C.
    future = pool.options(timeout=0.2).submit(pow, 7, 10**9)
    assert isinstance(future.exception(LIMIT), TaskTimeoutError)
    assert pool.submit(abs, -1).result(LIMIT) == 1


@pytest.mark.parametrize("value", [0, -1, "1", float("nan"), [1]])
def test_wrong_limits_are_refused(forking: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        ProcessPoolExecutor(1, forking, task_timeout=value)
    with ProcessPoolExecutor(1, forking) as pool:
        with pytest.raises((TypeError, ValueError)):
            pool.options(timeout=value).submit(int)


# ---- retries


def fails_until(path: Path, times: int) -> int:
    """Ends its worker a number of times, and returns after that."""
    tasks.append(path, "called")
    called = len(path.read_text().splitlines())
    if called <= times:
        os._exit(1)
    return called


def test_a_call_is_repeated_when_its_worker_dies(pool: Any, tmp_path: Path) -> None:
    future = pool.options(retries=3).submit(fails_until, tmp_path / "calls", 2)
    assert future.result(LIMIT) == 3


def test_the_last_repetition_may_fail(pool: Any, tmp_path: Path) -> None:
    path = tmp_path / "calls"
    error = pool.options(retries=2).submit(fails_until, path, 100).exception(LIMIT)
    assert isinstance(error, WorkerDiedError)
    assert len(path.read_text().splitlines()) == 3
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_an_exception_is_an_outcome_and_not_repeated(pool: Any, tmp_path: Path) -> None:
    path = tmp_path / "calls"
    future = pool.options(retries=3).submit(append_and_fail, path)
    assert isinstance(future.exception(LIMIT), LookupError)
    assert path.read_text() == "called\n"


def append_and_fail(path: Path) -> None:
    """Appends a line to a file, and raises an error."""
    tasks.append(path, "called")
    raise LookupError("as tasks do")


@pytest.mark.parametrize("value", [-1, "1", 1.5, None])
def test_wrong_retries_are_refused(pool: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        pool.options(retries=value).submit(int)


# ---- ending a running task


def test_a_running_task_can_be_terminated(pool: Any, running: Flag, release: Flag) -> None:
    future = pool.submit(tasks.hold, running, release)
    running.wait()
    waiting = Background(future.result)
    until_asleep(waiting)
    assert future.terminate()
    with pytest.raises(TaskTerminatedError):
        waiting.outcome()
    assert isinstance(future.exception(), WorkerDiedError)
    assert not future.terminate()
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_terminating_a_pending_task_cancels_it(forking: Any, running: Flag, release: Flag) -> None:
    with ProcessPoolExecutor(1, forking, on_worker_death="isolate") as pool:
        held = pool.submit(tasks.hold, running, release)
        running.wait()
        pending: Any = pool.submit(int)
        assert pending.terminate()
        assert pending.cancelled()
        assert held.running()
        release.set()
        assert held.result(LIMIT)


def test_terminating_a_done_call_does_nothing(pool: Any) -> None:
    future = pool.submit(abs, -1)
    assert future.result(LIMIT) == 1
    assert not future.terminate()
    assert future.result() == 1


# ---- limits of memory, and of pending tasks


def test_a_worker_may_have_a_memory_limit() -> None:
    # A fork of this process may have reserved more already, in a free-threaded build.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, fresh, memory_limit=1 << 30, on_worker_death="isolate") as pool:
        assert isinstance(pool.submit(tasks.big, 1 << 31).exception(LIMIT), MemoryError)
        assert len(pool.submit(tasks.big, 1 << 20).result(LIMIT)) == 1 << 20


@pytest.mark.parametrize("value", [0, -1, "1", 1.5])
def test_wrong_memory_limits_are_refused(forking: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        ProcessPoolExecutor(1, forking, memory_limit=value)


def test_submit_waits_for_room(forking: Any, running: Flag, release: Flag) -> None:
    with ProcessPoolExecutor(1, forking, max_pending=3) as pool:
        held = pool.submit(tasks.hold, running, release)
        running.wait()
        # A running task holds no permit.
        pending = [pool.submit(abs, -n) for n in range(3)]
        submitting = Background(pool.submit, abs, -5)
        until_asleep(submitting)
        # A cancelled task releases its permit.
        assert pending[1].cancel()
        assert submitting.outcome() is not None
        last = Background(pool.submit, abs, -6)
        until_asleep(last)
        release.set()
        assert last.outcome().result(LIMIT) == 6
        assert submitting.outcome().result(LIMIT) == 5
        assert held.result(LIMIT)
        assert [pool.submit(abs, -n).result(LIMIT) for n in range(50)] == list(range(50))


def test_the_bound_is_that_of_threads(forking: Any, running: Flag, release: Flag) -> None:
    processes = ProcessPoolExecutor(1, forking, max_pending=1)
    for pool in processes, ThreadPoolExecutor(1, max_pending=1):
        with pool:
            futures = [pool.submit(tasks.hold, running, release)]
            running.wait()
            futures.append(pool.submit(int))
            submitting = Background(pool.submit, int)
            until_asleep(submitting)
            assert [future.running() for future in futures] == [True, False]
            release.set()
            assert submitting.outcome().result(LIMIT) == 0
            release.path.unlink()
            running.path.unlink()


@pytest.mark.parametrize("value", [0, -1, "1", 1.5])
def test_wrong_bounds_are_refused(forking: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        ProcessPoolExecutor(1, forking, max_pending=value)


@pytest.mark.parametrize("value", ["", "Isolate", None, True])
def test_wrong_ways_to_take_deaths_are_refused(forking: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        ProcessPoolExecutor(1, forking, on_worker_death=value)


# ---- lambdas and closures


def test_lambdas_and_closures_travel_by_cloudpickle(context: Any) -> None:
    importlib.import_module("cloudpickle")
    base = 10
    with ProcessPoolExecutor(1, context, cloudpickle=True) as pool:
        assert pool.submit(lambda x: x + base, 5).result(LIMIT) == 15
        assert list(pool.map(lambda x: x * base, range(3))) == [0, 10, 20]
        assert pool.submit(tasks.identity, lambda: base).result(LIMIT)() == 10

        def nested() -> Any:
            return lambda: base + 1

        assert pool.submit(nested).result(LIMIT)() == 11
        assert pool.submit(abs, -1).result(LIMIT) == 1
