"""Tests of ProcessPoolExecutor: submitting, and the processes that do the work."""

import concurrent.futures
import functools
import math
import multiprocessing
import operator
import os
import re
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
import tasks
from support import LIMIT, eventually
from tasks import Flag, Point

LIBRARIES = {"stdlib": concurrent.futures, "package": concurrent_futures}


@pytest.fixture(scope="module", params=LIBRARIES)
def pool(request: pytest.FixtureRequest, context: Any) -> Iterator[Any]:
    """Returns a pool of two workers, shared by all tests that do not harm it."""
    with LIBRARIES[request.param].ProcessPoolExecutor(2, mp_context=context) as shared:
        yield shared


def lines(path: Path) -> list[str]:
    """Return the lines that tasks have appended to a file."""
    return path.read_text().splitlines() if path.exists() else []


def test_submit_calls_with_the_arguments(pool: Any) -> None:
    assert pool.submit(pow, 2, 8).result(LIMIT) == 256
    assert pool.submit(int, "ff", base=16).result(LIMIT) == 255
    assert pool.submit(tasks.capture).result(LIMIT) == ((), {})
    assert pool.submit(tasks.capture, None, a=1).result(LIMIT) == ((None,), {"a": 1})
    many = tuple(range(50))
    assert pool.submit(tasks.capture, *many).result(LIMIT) == (many, {})
    names = {"self": 1, "fn": 2, "args": 3, "kwargs": 4, "executor": 5, "timeout": 6}
    assert pool.submit(tasks.capture, **names).result(LIMIT) == ((), names)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(1 << 200),
        math.inf,
        2.5j,
        "ä\0\U0001f600",
        b"",
        b"bytes",
        bytearray(b"array"),
        [1, [2, (3, {4})]],
        {"a": {1: ()}, None: ...},
        frozenset([1, 2]),
        range(3),
        Point(1, 2, ["tag"]),
        Point,
        len,
        os.path.join,
        slice(1, 2),
        memoryview,
        LIMIT,
    ],
    ids=repr,
)
def test_values_travel_both_ways(pool: Any, value: Any) -> None:
    result = pool.submit(tasks.identity, value).result(LIMIT)
    assert result == value
    assert type(result) is type(value)


def test_a_mutable_argument_arrives_as_one_copy(pool: Any) -> None:
    shared = ["inner"]
    first, second = pool.submit(tasks.identity, (shared, shared)).result(LIMIT)
    assert first is second
    assert first is not shared
    cycle: list[Any] = []
    cycle.append(cycle)
    result = pool.submit(tasks.identity, cycle).result(LIMIT)
    assert result[0] is result


@pytest.mark.parametrize("size", [0, 1, 4095, 65_537, 2_000_000])
def test_long_values_travel_both_ways(pool: Any, size: int) -> None:
    data = os.urandom(1024) * (size // 1024 + 1)
    for kind in bytes, bytearray:
        value = kind(data[:size])
        result = pool.submit(tasks.identity, value).result(LIMIT)
        assert type(result) is kind
        assert result == value
    text = "ü" * min(size, 100_000)
    assert pool.submit(tasks.identity, text).result(LIMIT) == text


def test_a_long_bytearray_is_the_receivers_own(pool: Any) -> None:
    sent = bytearray(2_000_000)
    result = pool.submit(tasks.identity, sent).result(LIMIT)
    result[0] = 1
    result.append(2)
    assert sent[0] == 0
    assert len(sent) == 2_000_000


def test_callables_of_all_kinds(pool: Any) -> None:
    point = Point(3, 4)
    calls: list[tuple[Any, Any]] = [
        (functools.partial(pow, 2, mod=5), 5),
        (functools.partial(tasks.capture, 1, a=2), 5),
        (point.moved, 5),
        (Point.origin, None),
        (Point, 5),
        (tasks.Counter(10), 5),
        ([1, 2, 5].index, 5),
        ("a-{}".format, 5),
        (operator.itemgetter(0), [1]),
        (operator.methodcaller("bit_length"), 5),
        (dict, [(1, 2)]),
        (math.sqrt, 4),
    ]
    for function, argument in calls:
        args = () if argument is None else (argument,)
        expected = function(*args)
        if isinstance(function, tasks.Counter):
            assert expected == 15
            function = tasks.Counter(10)
        assert pool.submit(function, *args).result(LIMIT) == expected
    assert pool.submit(Point.distance, point, Point(7)).result(LIMIT) == 8


def test_an_object_is_pickled_as_it_is_at_each_submit(pool: Any) -> None:
    counter = tasks.Counter(0)
    results = []
    for _ in range(3):
        results.append(pool.submit(counter).result(LIMIT))
        counter.count += 10
    assert results == [1, 11, 21]
    assert counter.count == 30


def test_tasks_run_in_other_processes(pool: Any) -> None:
    pids = {pool.submit(tasks.pid).result(LIMIT) for _ in range(20)}
    assert os.getpid() not in pids
    assert pids <= set(pool._processes)
    assert len(pids) <= 2


def test_two_tasks_run_at_the_same_time(pool: Any, tmp_path: Path) -> None:
    futures = [pool.submit(tasks.meet, tmp_path, 2) for _ in range(2)]
    pids = {future.result(LIMIT) for future in futures}
    assert len(pids) == 2
    assert pids == set(pool._processes)


def test_workers_are_processes_of_multiprocessing(pool: Any, context: Any) -> None:
    name, parent = pool.submit(tasks.process_name).result(LIMIT)
    assert parent == os.getpid()
    process = next(each for each in pool._processes.values() if each.name == name)
    assert isinstance(process, multiprocessing.process.BaseProcess)
    assert type(process) is context.Process
    assert process.is_alive()
    assert process.exitcode is None
    assert process in multiprocessing.active_children()


def test_exceptions_come_with_the_workers_traceback(pool: Any) -> None:
    future = pool.submit(tasks.fail, LookupError("not there"))
    with pytest.raises(LookupError, match="^'?not there'?$") as caught:
        future.result(LIMIT)
    assert caught.value is future.exception()
    assert type(caught.value) is LookupError
    cause = caught.value.__cause__
    assert type(cause).__name__ == "_RemoteTraceback"
    text = str(cause)
    assert text.startswith('\n"""\nTraceback (most recent call last):\n  File "')
    assert text.endswith('LookupError: not there\n"""')
    assert ", in fail\n" in text
    assert 'tasks.py", line ' in text
    whole = "".join(traceback.format_exception(caught.value))
    assert "The above exception was the direct cause of the following exception:" in whole
    assert ", in fail\n" in whole


def test_the_workers_traceback_tells_causes_and_notes(pool: Any) -> None:
    with pytest.raises(ValueError, match="second") as caught:
        pool.submit(tasks.fail_with_cause).result(LIMIT)
    assert caught.value.__notes__ == ["a note"]
    text = str(caught.value.__cause__)
    assert "KeyError: 'first'" in text
    assert "direct cause" in text
    assert "a note" in text


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        KeyError("key", 2),
        OSError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "reason"),
        ExceptionGroup("group", [ValueError(1), TypeError(2)]),
        tasks.DetailedError(404, "not found"),
        SystemExit(3),
        KeyboardInterrupt("from the task"),
        GeneratorExit(),
        StopIteration(5),
        concurrent.futures.CancelledError(),
        TimeoutError("its own"),
        concurrent.futures.BrokenExecutor("its own"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_of_a_task_is_its_outcome(pool: Any, error: BaseException) -> None:
    future = pool.submit(tasks.fail, error)
    got = future.exception(LIMIT)
    assert type(got) is type(error)
    assert str(got) == str(error)
    if not isinstance(error, ExceptionGroup):
        assert got.args == error.args
    assert not future.cancelled()
    with pytest.raises(type(error)):
        future.result()
    # The worker lives on.
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_states_of_a_future(pool: Any, running: Flag, release: Flag) -> None:
    future = pool.submit(tasks.hold, running, release)
    running.wait()
    eventually(future.running)
    assert not future.done()
    assert not future.cancel()
    assert not future.cancelled()
    assert "state=running" in repr(future)
    with pytest.raises(TimeoutError):
        future.result(0.001)
    with pytest.raises(TimeoutError):
        future.exception(0)
    release.set()
    assert future.result(LIMIT) in pool._processes
    assert future.done()
    assert not future.running()
    assert future.exception() is None
    assert repr(future).endswith("state=finished returned int>")


def test_a_result_is_there_as_often_as_one_asks(pool: Any) -> None:
    future = pool.submit(tasks.identity, [1])
    assert future.result(LIMIT) is future.result()
    failed = pool.submit(tasks.fail, ValueError("again"))
    assert failed.exception(LIMIT) is failed.exception()


def test_callbacks_run_in_the_process_that_added_them(pool: Any) -> None:
    called: list[Any] = []
    done = threading.Event()
    future = pool.submit(tasks.pid)
    future.add_done_callback(lambda each: called.append((os.getpid(), each.result())))
    future.add_done_callback(lambda _: done.set())
    assert done.wait(LIMIT)
    [(process, result)] = called
    assert process == os.getpid()
    assert result in pool._processes
    late: list[Any] = []
    future.add_done_callback(late.append)
    assert late == [future]


def test_a_callback_may_submit(pool: Any) -> None:
    results: list[int] = []
    done = threading.Event()

    def again(future: Any) -> None:
        results.append(future.result())
        if len(results) < 10:
            pool.submit(abs, -len(results)).add_done_callback(again)
        else:
            done.set()

    pool.submit(abs, 0).add_done_callback(again)
    assert done.wait(LIMIT)
    assert results == list(range(10))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_output_of_workers_is_the_programs(
    lib: ModuleType, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    # Unflushed text appears when the worker ends. (That of a fork server's goes where the
    # server's does, which was started before.)
    context = multiprocessing.get_context(method)
    with lib.ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(tasks.write_output, "text").result(LIMIT)
    assert capfd.readouterr() == ("text", "text")


def test_executors_and_futures_are_the_standard_librarys(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        assert isinstance(pool.submit(int), concurrent.futures.Future)
        assert isinstance(pool, lib.Executor)
        assert isinstance(pool, lib.ProcessPoolExecutor)
        assert isinstance(pool, concurrent.futures.Executor)


def test_fork_starts_all_workers_at_the_first_task(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(3, mp_context=forking) as pool:
        assert not pool._processes
        assert pool._executor_manager_thread is None
        pool.submit(int).result(LIMIT)
        assert len(pool._processes) == 3


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_others_start_workers_on_demand(lib: ModuleType, method: str) -> None:
    context = multiprocessing.get_context(method)
    with lib.ProcessPoolExecutor(3, mp_context=context) as pool:
        assert not pool._processes
        idle = pool._idle_worker_semaphore
        for _ in range(3):
            pool.submit(int).result(LIMIT)
            # In the standard library, a worker may not yet be known to be idle.
            eventually(lambda: lib is concurrent_futures or idle._value)
        assert len(pool._processes) == 1


def test_one_worker_takes_tasks_in_order(lib: ModuleType, forking: Any, tmp_path: Path) -> None:
    path = tmp_path / "order"
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        for number in range(200):
            pool.submit(tasks.append, path, number)
    assert lines(path) == list(map(str, range(200)))


def test_a_cancelled_task_is_not_run(
    lib: ModuleType, forking: Any, tmp_path: Path, running: Flag, release: Flag
) -> None:
    path = tmp_path / "ran"
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        blocked = pool.submit(tasks.hold, running, release)
        running.wait()
        futures = [pool.submit(tasks.append, path, number) for number in range(20)]
        # The standard library has begun some that do not run yet.
        cancelled = {n for n, future in enumerate(futures) if future.cancel()}
        assert cancelled >= set(range(5, 20))
        for number in cancelled:
            assert futures[number].cancelled()
            with pytest.raises(lib.CancelledError):
                futures[number].result()
        release.set()
        assert blocked.result(LIMIT) in pool._processes
    assert set(map(int, lines(path))) == set(range(20)) - cancelled


def test_many_tasks_from_many_threads(lib: ModuleType, forking: Any) -> None:
    results: list[list[int]] = [[] for _ in range(4)]
    with lib.ProcessPoolExecutor(2, mp_context=forking) as pool:

        def submit(number: int) -> None:
            futures = [pool.submit(abs, -n) for n in range(100)]
            results[number] = [future.result(LIMIT) for future in futures]

        threads = [threading.Thread(target=submit, args=[n]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [list(range(100))] * 4


def test_the_default_number_of_workers_is_the_versions() -> None:
    ours, theirs = (each.ProcessPoolExecutor() for each in LIBRARIES.values())
    assert ours._max_workers == theirs._max_workers
    ours.shutdown()
    theirs.shutdown()


def test_the_default_context_is_the_versions() -> None:
    for settings in {}, {"max_tasks_per_child": 3}:
        ours, theirs = (each.ProcessPoolExecutor(1, **settings) for each in LIBRARIES.values())
        ways = [pool._mp_context.get_start_method() for pool in (ours, theirs)]
        assert ways[0] == ways[1]
        ours.shutdown()
        theirs.shutdown()


@pytest.mark.parametrize("tasks_each", [1, 3])
def test_workers_are_replaced_after_a_number_of_tasks(
    lib: ModuleType, tasks_each: int, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("forkserver")
    with lib.ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=tasks_each) as pool:
        pids = [pool.submit(tasks.pid).result(LIMIT) for _ in range(2 * tasks_each + 1)]
    assert len(set(pids)) == 3
    counts = [pids.count(each) for each in dict.fromkeys(pids)]
    assert counts == [tasks_each, tasks_each, 1]


def test_attributes_that_tools_read(lib: ModuleType, forking: Any) -> None:
    # dask, joblib, psutil-based monitors and the standard library's own tests do.
    pool = lib.ProcessPoolExecutor(2, mp_context=forking)
    assert pool._max_workers == 2
    assert pool._mp_context is forking
    assert pool._broken is False
    assert pool._shutdown_thread is False
    assert pool._initializer is None
    assert tuple(pool._initargs) == ()
    assert pool._max_tasks_per_child is None
    assert pool._queue_count == 0
    assert len(pool._pending_work_items) == 0
    assert pool._cancel_pending_futures is False
    pool.submit(int).result(LIMIT)
    assert pool._queue_count == 1
    eventually(lambda: len(pool._pending_work_items) == 0)
    assert sorted(pool._processes) == sorted(each.pid for each in pool._processes.values())
    assert isinstance(pool._executor_manager_thread, threading.Thread)
    assert pool._executor_manager_thread.is_alive()
    manager = pool._executor_manager_thread
    processes = list(pool._processes.values())
    pool.shutdown()
    assert pool._shutdown_thread is True
    assert not manager.is_alive()
    assert [process.exitcode for process in processes] == [0, 0]
    assert pool._processes is None
    assert pool._executor_manager_thread is None


def test_unknown_settings_are_refused(lib: ModuleType) -> None:
    with pytest.raises(TypeError, match=re.escape("workers")):
        lib.ProcessPoolExecutor(workers=2)
