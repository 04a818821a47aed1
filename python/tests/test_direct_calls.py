"""Tests of direct calls: those that another native module submits to a pool of processes."""

import gc
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import concurrent_futures
import tasks
from concurrent_futures import ProcessPoolExecutor, _process_workers
from concurrent_futures.process import TaskTerminatedError, TaskTimeoutError, WorkerDiedError
from direct_support import CANCELLED, OTHER, VALUE, Client, DirectCall
from support import LIMIT
from tasks import Flag


@pytest.fixture
def pool(forking: Any) -> Iterator[ProcessPoolExecutor]:
    """Makes a pool of two workers that has begun."""
    with ProcessPoolExecutor(2, forking, on_worker_death="isolate") as made:
        made.submit(abs, -1).result(LIMIT)
        yield made


@pytest.fixture
def client(pool: ProcessPoolExecutor) -> Iterator[Client]:
    """Makes a client of the pool."""
    made = Client(pool, tasks.call)
    yield made
    made.release()


def accepted(call: DirectCall | None) -> DirectCall:
    """Return a call that must have been accepted."""
    assert call is not None
    return call


def blocked(client: Client, folder: Path) -> tuple[Flag, list[DirectCall]]:
    """Give both workers a call to run, and return the event that ends them."""
    release = Flag(folder / "release")
    calls = []
    for number in range(2):
        running = Flag(folder / f"running{number}")
        calls.append(accepted(client.submit(tasks.hold, running, release)))
        assert running.wait()
    return release, calls


@pytest.mark.parametrize("size", [0, 1, 255, 256, 60_000])
def test_bytes_come_back(client: Client, size: int) -> None:
    call = accepted(client.submit(tasks.big, size))
    assert call.end() == (VALUE, tasks.big(size))
    call.release()


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_the_number_comes_with_the_bytes(client: Client, number: int) -> None:
    call = accepted(client.submit(repr, "number", number=number))
    assert call.outcome() == repr(number)
    call.release()


@pytest.mark.parametrize("value", [None, 7, "text", [1, [2]], {"key": (1.5, True)}, {1, 2}])
def test_other_results_are_objects(client: Client, value: object) -> None:
    call = accepted(client.submit(tasks.identity, value))
    assert call.outcome() == value
    call.release()


def test_long_bytes_are_objects(client: Client) -> None:
    call = accepted(client.submit(tasks.big, 5_000_000))
    assert call.outcome() == tasks.big(5_000_000)
    call.release()


def test_an_exception_is_raised_with_its_cause(client: Client) -> None:
    call = accepted(client.submit(tasks.fail, LookupError("lost")))
    with pytest.raises(LookupError, match="lost") as caught:
        call.outcome()
    assert "in fail" in str(caught.value.__cause__)
    call.release()


def test_a_result_that_cannot_be_pickled_raises(client: Client) -> None:
    call = accepted(client.submit(threading.Lock))
    with pytest.raises(TypeError, match="pickle"):
        call.outcome()
    call.release()


def test_many_calls_end_once_each(client: Client) -> None:
    calls = [accepted(client.submit(tasks.big, number)) for number in range(2_000)]
    assert [call.end() for call in calls] == [(VALUE, tasks.big(number)) for number in range(2_000)]
    for call in calls:
        call.release()


def test_a_thread_that_has_submitted_receives_the_reply(client: Client) -> None:
    for _ in range(100):
        call = accepted(client.submit(tasks.big, 3))
        client.calls.receive_soon(client.calls.pool)
        assert call.end() == (VALUE, tasks.big(3))
        call.release()


def test_a_call_that_waits_can_be_cancelled(
    client: Client, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    release, running = blocked(client, tmp_path)
    waiting = [accepted(client.submit(tasks.append, tmp_path / "ran", n)) for n in range(20)]
    assert all(call.cancel() for call in waiting)
    assert all(call.cancel() for call in waiting)
    assert {call.end() for call in waiting} == {(CANCELLED, b"")}
    assert not any(call.cancel() for call in running)
    release.set()
    assert all(call.outcome() in pool._processes for call in running)
    assert pool.submit(abs, -1).result(LIMIT) == 1
    assert not (tmp_path / "ran").exists()


def test_a_call_that_runs_can_be_terminated(client: Client, tmp_path: Path) -> None:
    _, running = blocked(client, tmp_path)
    assert all(call.terminate() for call in running)
    for call in running:
        with pytest.raises(TaskTerminatedError):
            call.outcome()
        assert not call.terminate()
        call.release()


def test_a_call_that_waits_can_be_terminated(client: Client, tmp_path: Path) -> None:
    release, running = blocked(client, tmp_path)
    waiting = [accepted(client.submit(tasks.append, tmp_path / "ran", n)) for n in range(20)]
    # A termination is for calls that a worker has. One that waits is for a cancellation.
    ended = [call for call in waiting if call.terminate()]
    for call in ended:
        with pytest.raises(TaskTerminatedError):
            call.outcome()
    assert all(call.cancel() for call in waiting if call not in ended)
    release.set()
    assert {call.end()[0] for call in running} == {OTHER}
    assert not (tmp_path / "ran").exists()


def test_a_dead_worker_is_named(client: Client) -> None:
    call = accepted(client.submit(tasks.die, signal.SIGKILL))
    with pytest.raises(WorkerDiedError, match=r"SIGKILL.* while it ran task #\d+ \(tasks.call\)"):
        call.outcome()
    assert accepted(client.submit(tasks.big, 1)).end() == (VALUE, tasks.big(1))


def test_a_call_is_repeated_if_its_worker_dies(client: Client, tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.touch()
    call = accepted(client.submit(tasks.exit_while_told, told, retries=2))
    with pytest.raises(WorkerDiedError):
        call.outcome()
    assert told.read_text() == "..."


def test_a_time_limit_ends_a_call(client: Client, tmp_path: Path) -> None:
    never = Flag(tmp_path / "never")
    call = accepted(client.submit(tasks.Flag.wait, never, time_limit=0.05))
    with pytest.raises(TaskTimeoutError, match=r"tasks.call"):
        call.outcome()


def test_a_closed_pool_refuses_calls(client: Client, pool: ProcessPoolExecutor) -> None:
    pool.shutdown()
    assert client.submit(tasks.big, 1) is None


def test_a_pool_that_is_shut_down_finishes_its_calls(
    client: Client, pool: ProcessPoolExecutor
) -> None:
    calls = [accepted(client.submit(tasks.big, n)) for n in range(500)]
    pool.shutdown()
    assert [call.ends for call in calls] == [[(VALUE, tasks.big(n))] for n in range(500)]


def test_a_shutdown_can_cancel_calls(
    client: Client, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    release, running = blocked(client, tmp_path)
    waiting = [accepted(client.submit(tasks.append, tmp_path / "ran", n)) for n in range(50)]
    pool.shutdown(wait=False, cancel_futures=True)
    release.set()
    # As in the standard library, some calls count as running.
    ends = [call.end() for call in waiting]
    ran = len((tmp_path / "ran").read_text().splitlines()) if (tmp_path / "ran").exists() else 0
    assert ends.count((CANCELLED, b"")) == 50 - ran > 40
    assert {call.end()[0] for call in running} == {OTHER}


def test_workers_that_are_ended_fail_their_calls(
    client: Client, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    _, running = blocked(client, tmp_path)
    pool.kill_workers()
    for call in running:
        with pytest.raises(concurrent_futures.TaskTerminatedError):
            call.outcome()


def test_the_pool_knows_futures_beside_direct_calls(
    client: Client, pool: Any, tmp_path: Path
) -> None:
    release, running = blocked(client, tmp_path)
    waiting = accepted(client.submit(tasks.big, 1))
    future = pool.submit(abs, -1)
    assert pool._unfinished_futures() == [future]
    assert pool.stats().pending + pool.stats().running >= 4
    release.set()
    assert future.result(LIMIT) == 1
    assert waiting.end() == (VALUE, tasks.big(1))
    assert {call.end()[0] for call in running} == {OTHER}


def test_calls_of_python_go_on_when_direct_calls_leave_the_pool(
    client: Client, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    # Arguments that may change are pickled when the pool has room.
    release, running = blocked(client, tmp_path)
    waiting = [accepted(client.submit(tasks.big, n)) for n in range(20)]
    futures = [pool.submit(tasks.identity, [n]) for n in range(20)]
    # Calls that wait for their pickling come first.
    assert client.submit(tasks.big, 1) is None
    release.set()
    assert [future.result(LIMIT) for future in futures] == [[n] for n in range(20)]
    assert [call.end() for call in waiting] == [(VALUE, tasks.big(n)) for n in range(20)]
    assert {call.end()[0] for call in running} == {OTHER}


def test_a_recording_leaves_calls_to_python(client: Client) -> None:
    with concurrent_futures.recording():
        assert client.submit(tasks.big, 1) is None
    assert accepted(client.submit(tasks.big, 1)).end() == (VALUE, tasks.big(1))


def test_pools_that_cannot_take_direct_calls_offer_none(forking: Any) -> None:
    with ProcessPoolExecutor(1, forking) as fresh:
        # Python code starts the supervisor by the first call.
        assert fresh._direct_calls(tasks.call) is None
        fresh.submit(abs, -1).result(LIMIT)
        assert fresh._direct_calls(tasks.call) is not None
        assert fresh._direct_calls(lambda *_: None) is None
    assert fresh._direct_calls(tasks.call) is None
    with ProcessPoolExecutor(1, forking, max_pending=3) as bounded:
        bounded.submit(abs, -1).result(LIMIT)
        assert bounded._direct_calls(tasks.call) is None


def test_a_call_starts_the_worker_that_the_pool_wants(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as pool:
        pool.submit(abs, -1).result(LIMIT)
        client = Client(pool, tasks.call)
        release, calls = blocked(client, tmp_path)
        assert any(call.wants_worker for call in calls)
        release.set()
        assert {call.outcome() for call in calls} == set(pool._processes)
        client.release()


def test_a_call_fails_if_its_worker_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as pool:
        pool.submit(abs, -1).result(LIMIT)
        client = Client(pool, tasks.call)
        running, release = Flag(tmp_path / "running"), Flag(tmp_path / "release")
        monkeypatch.setattr(_process_workers.Workers, "start", _refuse)
        calls: list[DirectCall] = []
        while not (calls and calls[-1].wants_worker):
            assert len(calls) < 10
            calls.append(accepted(client.submit(tasks.hold, running, release, starts=False)))
        # Some may go to the worker that is busy, but not the last one.
        waiting = [accepted(client.submit(tasks.big, 1, starts=False)) for _ in range(20)]
        last = waiting.pop()
        with pytest.raises(OSError, match="no more processes"):
            client.calls.start_worker(last.tasks[0])
        with pytest.raises(OSError, match="no more processes"):
            last.outcome()
        monkeypatch.undo()
        release.set()
        assert {call.end()[0] for call in calls} == {OTHER}
        assert {call.end() for call in waiting} == {(VALUE, tasks.big(1))}
        assert accepted(client.submit(tasks.big, 1)).end() == (VALUE, tasks.big(1))
        client.release()


def _refuse(*_: object) -> int:
    raise OSError("no more processes")


def test_calls_in_a_fork_are_refused(client: Client) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0 if client.submit(tasks.big, 1) is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_reference_to_the_pool_does_not_keep_the_executor(forking: Any) -> None:
    pool = ProcessPoolExecutor(1, forking)
    pool.submit(abs, -1).result(LIMIT)
    client = Client(pool, tasks.call)
    call = accepted(client.submit(tasks.big, 2))
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    # The pool finishes what it has accepted.
    assert call.end() == (VALUE, tasks.big(2))
    assert client.submit(tasks.big, 1) is None
    call.release()
    client.release()


def test_calls_that_are_dropped_end_all_the_same(client: Client, pool: ProcessPoolExecutor) -> None:
    for number in range(200):
        accepted(client.submit(tasks.big, number)).release()
    pool.shutdown()
    assert not client._pending
