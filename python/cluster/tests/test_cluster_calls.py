"""Calls, their outcomes, and `map`, on an embedded cluster."""

import asyncio
import os
import pickle
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import cluster_tasks as tasks
import numpy
import pytest
from cluster_support import LIMIT, embedded_executor, wait_until

import concurrent_futures
from concurrent_futures import (
    ClusterExecutor,
    Future,
    ProcessPoolExecutor,
    TaskTerminatedError,
    ThreadPoolExecutor,
    WorkerDiedError,
    as_completed,
    wait,
)
from concurrent_futures_cluster import ClusterFuture, _future, _native

pytest_plugins = ["cluster_support"]


def test_a_call_has_its_arguments_and_its_result(embedded: ClusterExecutor) -> None:
    future = embedded.submit(int, "ff", base=16)
    assert isinstance(future, Future)
    assert future.result(LIMIT) == 255
    assert future.done()
    assert not future.running()
    assert not future.cancel()


def test_a_call_runs_in_another_process(embedded: ClusterExecutor) -> None:
    assert embedded.submit(os.getpid).result(LIMIT) != os.getpid()


def test_an_exception_has_the_traceback_of_the_worker(embedded: ClusterExecutor) -> None:
    error = embedded.submit(tasks.fail, "broken").exception(LIMIT)
    assert isinstance(error, tasks.OwnError)
    assert (error.args, error.code) == (("broken",), 7)
    assert "raise OwnError" in str(error.__cause__)


@pytest.mark.parametrize("length", [10, 300_000])
def test_arrays_come_back_as_they_were_and_writable_ones_are_writable(
    embedded: ClusterExecutor, length: int
) -> None:
    array = numpy.arange(2 * length).reshape(length, 2)
    fixed = array[:, :1].copy()
    fixed.flags.writeable = False
    # Twice the same one, one in another order, one with gaps, one that is fixed, and no array.
    value: list[Any] = [
        array,
        array,
        numpy.asfortranarray(array),
        array[::2],
        fixed,
        b"x" * length,
        "text",
    ]
    back = embedded.submit(tasks.same, value).result(LIMIT)
    for sent, came in zip(value, back, strict=True):
        assert type(came) is type(sent)
        assert numpy.array_equal(came, sent)
    assert back[0] is back[1]
    assert back[2].flags.f_contiguous
    assert [came.flags.writeable for came in back[:5]] == [True, True, True, True, False]
    back[0][0, 0] = 7
    assert array[0, 0] == 0
    mapped = list(embedded.map(tasks.double, [array, fixed]))
    assert numpy.array_equal(mapped[0], 2 * array)
    assert numpy.array_equal(mapped[1], 2 * fixed)


def test_long_arrays_are_where_they_came(embedded: ClusterExecutor) -> None:
    array = numpy.zeros(1_000_000)
    owner, back = embedded.submit(tasks.change, array).result(LIMIT)
    # Of the worker: the memory that it shares with its host. The arrays are not copied there.
    assert owner == "Buffer"
    assert type(tasks.owner(back)) is _native.Content
    back += 1
    assert (back[0], back[-1], array[0]) == (8, 1, 0)


def test_an_object_that_refuses_its_buffer_fails_its_future(embedded: ClusterExecutor) -> None:
    error = embedded.submit(tasks.same, tasks.Gaps()).exception(LIMIT)
    assert isinstance(error, (BufferError, pickle.PicklingError))


def test_a_closure_and_a_lambda_travel_by_value(embedded: ClusterExecutor) -> None:
    base = 40
    assert embedded.submit(lambda value: base + value, 2).result(LIMIT) == 42


def test_an_argument_that_cannot_be_pickled_fails_its_future(embedded: ClusterExecutor) -> None:
    error = embedded.submit(tasks.double, threading.Lock()).exception(LIMIT)
    assert isinstance(error, (TypeError, pickle.PicklingError))


def test_a_result_that_cannot_be_pickled_fails_its_future(embedded: ClusterExecutor) -> None:
    error = embedded.submit(tasks.unpicklable, 3).exception(LIMIT)
    assert isinstance(error, (TypeError, pickle.PicklingError))
    assert embedded.submit(tasks.unpicklable, 4).result(LIMIT) == 4


def test_a_result_that_cannot_be_unpickled_fails_its_future(embedded: ClusterExecutor) -> None:
    error = embedded.submit(tasks.make_refusing).exception(LIMIT)
    assert isinstance(error, ValueError)
    assert str(error) == "refused to be unpickled"


def test_long_payloads_go_there_and_back(embedded: ClusterExecutor) -> None:
    payload = os.urandom(5_000_000)
    assert embedded.submit(tasks.double, payload).result(LIMIT) == payload + payload


def test_a_module_travels_by_value_if_the_executor_is_told(tmp_path: Path) -> None:
    module = types.ModuleType("of_this_machine_only")
    module.__dict__["factor"] = 21
    exec("def work(value):\n    return factor * value", module.__dict__)
    sys.modules[module.__name__] = module
    try:
        with embedded_executor(workers=1) as executor:
            error = executor.submit(module.work, 2).exception(LIMIT)
            assert isinstance(error, ModuleNotFoundError)
        for name in (module.__name__, module):
            with embedded_executor(workers=1, by_value=[name]) as executor:
                assert executor.submit(module.work, 2).result(LIMIT) == 42
    finally:
        del sys.modules[module.__name__]


def test_the_death_of_a_worker_fails_its_call_only(embedded: ClusterExecutor) -> None:
    futures = [embedded.submit(tasks.die_if, value, 2) for value in range(5)]
    error = futures[2].exception(LIMIT)
    assert isinstance(error, WorkerDiedError)
    assert error.signal == signal.SIGKILL
    assert "while it ran task #" in str(error)
    assert str(error).endswith(" (cluster_tasks.die_if)")
    assert [f.result(LIMIT) for f in futures if f is not futures[2]] == [0, 1, 3, 4]


@pytest.mark.parametrize(
    "name",
    [
        "ClusterError",
        "HostLostError",
        "NoFunctionError",
        "NoWorkersError",
        "ObjectStoreError",
        "PoisonTaskError",
        "SessionLostError",
    ],
)
def test_errors_that_no_call_has_raised_name_the_call(embedded: ClusterExecutor, name: str) -> None:
    state = embedded._state
    for function, named in ((tasks.double, "task #7 (cluster_tasks.double): "), (None, "")):
        future: ClusterFuture[int] = ClusterFuture(state.client, 7, state.recorded)
        future._fn = function
        # As the thread of the executor does it; 2 stands for such an error.
        _future.complete(future, 2, (name, "it is lost", []), None)
        error = future.exception()
        assert type(error).__name__ == name
        assert str(error) == f"{named}it is lost"


def test_a_call_is_repeated_if_its_worker_dies(tmp_path: Path) -> None:
    with embedded_executor(workers=1, retries=1) as executor:
        assert executor.submit(tasks.die_once, str(tmp_path / "once")).result(LIMIT) == "survived"


def test_a_call_that_takes_too_long_is_ended() -> None:
    with embedded_executor(workers=1, task_timeout=0.2) as executor:
        error = executor.submit(time.sleep, 1000).exception(LIMIT)
        assert isinstance(error, concurrent_futures.TaskTimeoutError)
        assert error.limit == 0.2
        assert "task #1 (time.sleep) ran longer than" in str(error)
        assert executor.submit(abs, -1).result(LIMIT) == 1


def test_a_running_call_is_terminated_and_not_cancelled(
    embedded: ClusterExecutor, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    future = embedded.submit(tasks.note_and_wait, str(begun), str(tmp_path / "never"))
    wait_until("the call runs", lambda: begun.exists() and future.running())
    assert not future.cancel()
    assert "state=running" in repr(future)
    assert future.terminate()
    assert isinstance(future.exception(LIMIT), TaskTerminatedError)
    assert not future.terminate()


def test_a_call_that_no_worker_has_begun_is_cancelled(
    embedded: ClusterExecutor, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    blocking = [embedded.submit(tasks.wait_for, str(go)) for _ in range(2)]
    wait_until("the workers are busy", lambda: all(future.running() for future in blocking))
    begun = tmp_path / "begun"
    pending = [embedded.submit(tasks.note_and_wait, str(begun), str(go)) for _ in range(4)]
    called: list[Any] = []
    pending[1].add_done_callback(called.append)
    assert all(future.cancel() for future in pending)
    assert called == [pending[1]]
    assert all(future.cancelled() for future in pending)
    done, not_done = wait(pending, LIMIT)
    assert (len(done), not_done) == (4, set())
    go.touch()
    assert [future.result(LIMIT) for future in blocking] == [None, None]
    assert not begun.exists()


def test_futures_of_threads_processes_and_the_cluster_mix(embedded: ClusterExecutor) -> None:
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1) as processes:
        executors = [threads, processes, embedded]
        futures = {executor.submit(pow, 2, n): 2**n for n in range(9) for executor in executors}
        seen = {future.result(): None for future in as_completed(futures, LIMIT)}
        assert set(seen) == set(futures.values())
        done, not_done = wait(futures, LIMIT)
        assert (len(done), not_done) == (27, set())
        assert all(future.result() == expected for future, expected in futures.items())


def test_a_callback_may_submit(embedded: ClusterExecutor) -> None:
    second: list[Any] = []
    is_there = threading.Event()

    def go_on(future: Future[int]) -> None:
        second.append(embedded.submit(abs, -future.result()))
        is_there.set()

    embedded.submit(abs, -5).add_done_callback(go_on)
    assert is_there.wait(LIMIT)
    assert second[0].result(LIMIT) == 5


def test_asyncio_waits_for_the_cluster(embedded: ClusterExecutor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        direct = embedded.submit(pow, 2, 3)
        wrapped = asyncio.wrap_future(embedded.submit(pow, 2, 4))
        return [await direct, await wrapped, await loop.run_in_executor(embedded, pow, 2, 5)]

    assert asyncio.run(main()) == [8, 16, 32]


def test_map_gives_the_results_in_order(embedded: ClusterExecutor) -> None:
    assert list(embedded.map(pow, range(2000), [2] * 2000)) == [n * n for n in range(2000)]
    assert list(embedded.map(pow, [], [])) == []


def test_map_makes_far_fewer_tasks_of_short_calls(embedded: ClusterExecutor) -> None:
    before = next(embedded._state.numbers)
    assert sum(embedded.map(abs, range(50_000))) == sum(range(50_000))
    assert next(embedded._state.numbers) - before < 500


def test_map_streams(embedded: ClusterExecutor, tmp_path: Path) -> None:
    go = tmp_path / "go"
    seconds = [0.15] * 3 + [0.0]
    # Calls of this length are a task each.
    results = embedded.map(tasks.sleep_and_wait, seconds, [str(tmp_path)] * 3 + [str(go)])
    assert [next(results) for _ in range(3)] == [0.15] * 3
    go.touch()
    assert list(results) == [0.0]


def test_map_leaves_long_calls_behind_short_ones_to_other_tasks(embedded: ClusterExecutor) -> None:
    seconds = [0.0] * 300 + [0.2] * 8
    pids = list(embedded.map(tasks.sleep_and_tell, seconds))
    assert len(pids) == 308
    assert len(set(pids[-8:])) == 2


def test_map_gives_each_result_once_if_tasks_are_left_unfinished(
    embedded: ClusterExecutor,
) -> None:
    seconds = [0.0] * 200 + [0.06, 0.0, 0.0] * 10
    assert list(embedded.map(tasks.sleep_and_wait, seconds)) == seconds


@pytest.mark.parametrize("chunksize", [1, 400])
def test_map_gives_results_while_a_later_call_of_their_task_runs_on(
    embedded: ClusterExecutor, tmp_path: Path, chunksize: int
) -> None:
    # The first calls are short. So the blocking one shares a task with some of them.
    paths = [str(tmp_path)] * 400
    paths[350] = str(tmp_path / "go")
    results = embedded.map(tasks.wait_for, paths, range(400), chunksize=chunksize)
    assert [next(results) for _ in range(350)] == list(range(350))
    (tmp_path / "go").touch()
    assert list(results) == list(range(350, 400))


def test_map_raises_an_exception_while_a_later_call_of_its_task_runs_on(
    embedded: ClusterExecutor, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    calls = [(abs, -1), (tasks.fail, "broken"), (tasks.wait_for, str(go))]
    results = embedded.map(tasks.call, *zip(*calls, strict=True), chunksize=3)
    assert next(results) == 1
    with pytest.raises(tasks.OwnError, match="broken"):
        next(results)
    go.touch()


def test_map_gives_a_long_result_while_a_later_call_of_its_task_runs_on(
    embedded: ClusterExecutor, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    calls = [(bytes, 1_000_000), (tasks.wait_for, str(go))]
    results = embedded.map(tasks.call, *zip(*calls, strict=True), chunksize=2)
    assert next(results) == bytes(1_000_000)
    go.touch()
    assert list(results) == [None]


def test_map_takes_a_result_as_it_is_when_its_task_is_done_if_it_cannot_be_sent_before(
    embedded: ClusterExecutor, tmp_path: Path
) -> None:
    go, refused = tmp_path / "go", tmp_path / "refused"
    calls = [(tasks.make_unfinished, (str(go), str(refused))), (tasks.wait_for, str(go))]
    results = embedded.map(tasks.call, *zip(*calls, strict=True), chunksize=2)
    wait_until("it was to be sent early", refused.exists)
    go.touch()
    assert list(results) == ["finished", None]


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map_raises_the_exception_of_a_call_at_its_place(
    embedded: ClusterExecutor, chunksize: int
) -> None:
    results = embedded.map(divmod, [1] * 10, [1, 2, 3, 4, 5, 0, 6, 7, 8, 9], chunksize=chunksize)
    if chunksize == 1:
        assert [next(results) for _ in range(5)] == [divmod(1, n) for n in range(1, 6)]
    with pytest.raises(ZeroDivisionError) as caught:
        list(results)
    assert "worker" not in str(caught.value)
    assert "Traceback" in str(caught.value.__cause__)


def test_map_keeps_results_beside_one_that_cannot_be_pickled(embedded: ClusterExecutor) -> None:
    results = embedded.map(tasks.unpicklable, range(5), chunksize=5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises((TypeError, pickle.PicklingError)):
        next(results)


def test_map_keeps_results_beside_an_argument_that_cannot_be_pickled(
    embedded: ClusterExecutor,
) -> None:
    results = embedded.map(tasks.double, [1, 2, threading.Lock()], chunksize=3)
    assert [next(results) for _ in range(2)] == [2, 4]
    with pytest.raises((TypeError, pickle.PicklingError)):
        next(results)


def test_map_keeps_results_beside_a_call_that_kills_its_worker(embedded: ClusterExecutor) -> None:
    results = embedded.map(tasks.die_if, range(3000), [2500] * 3000)
    assert [next(results) for _ in range(2500)] == list(range(2500))
    with pytest.raises(WorkerDiedError):
        next(results)


def test_map_takes_no_more_items_than_its_buffer_has(embedded: ClusterExecutor) -> None:
    taken = []

    def items() -> Any:
        for n in range(100):
            taken.append(n)
            yield n

    results = embedded.map(tasks.double, items(), buffersize=10)
    assert len(taken) <= 10
    for n in range(100):
        assert next(results) == 2 * n
        assert len(taken) <= n + 11
    assert list(results) == []


def test_map_times_out(embedded: ClusterExecutor, tmp_path: Path) -> None:
    go = tmp_path / "go"
    results = embedded.map(tasks.wait_for, [str(tmp_path), str(go)], [1, 2], timeout=1)
    assert next(results) == 1
    with pytest.raises(TimeoutError):
        next(results)
    go.touch()


def test_map_refuses_sizes_that_make_no_sense(embedded: ClusterExecutor) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        embedded.map(abs, [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize"):
        embedded.map(abs, [1], buffersize=0)
    with pytest.raises(TypeError, match="buffersize"):
        embedded.map(abs, [1], buffersize=1.5)  # type: ignore[arg-type]
