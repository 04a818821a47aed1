"""Tests of process pools with popular code: the two libraries together, asyncio, numpy, tqdm, …"""

import asyncio
import concurrent.futures
import importlib
import io
import re
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
import loopback
import tasks
from support import LIMIT, Background, eventually, held
from tasks import Flag

MODES = ["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]


@pytest.fixture
def pool(lib: ModuleType, forking: Any) -> Iterator[Any]:
    """Makes a pool of two processes."""
    with lib.ProcessPoolExecutor(2, mp_context=forking) as made:
        yield made


@pytest.fixture
def threads(lib: ModuleType) -> Iterator[Any]:
    """Makes a pool of two threads."""
    with lib.ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture(params=[concurrent.futures, concurrent_futures], ids=["by stdlib", "by package"])
def functions(request: pytest.FixtureRequest) -> Any:
    """Return the module whose `wait` and `as_completed` are used."""
    return request.param


def test_wait_for_threads_and_processes(functions: Any, pool: Any, threads: Any) -> None:
    futures = [(pool if n % 2 else threads).submit(abs, -n) for n in range(40)]
    assert functions.wait(futures, LIMIT) == (set(futures), set())
    assert [future.result(0) for future in futures] == list(range(40))


@pytest.mark.parametrize("mode", MODES)
def test_wait_in_all_modes(
    functions: Any, pool: Any, threads: Any, mode: str, running: Flag, release: Flag
) -> None:
    not_ending = pool.submit(tasks.hold, running, release)
    running.wait()
    failing = pool.submit(tasks.fail, ValueError("no"))
    also_held = threads.submit(release.wait)
    if mode == "ALL_COMPLETED":
        threading.Timer(0.05, release.set).start()
    done, not_done = functions.wait([not_ending, failing, also_held], LIMIT, mode)
    if mode == "ALL_COMPLETED":
        assert not_done == set()
    else:
        assert (done, not_done) == ({failing}, {not_ending, also_held})
    release.set()
    assert not_ending.result(LIMIT)


@pytest.mark.parametrize("mode", ["FIRST_COMPLETED", "FIRST_EXCEPTION"])
def test_a_future_that_finishes_while_wait_looks_at_many_is_not_missed(
    lib: ModuleType, pool: Any, mode: str
) -> None:
    with lib.ThreadPoolExecutor(1) as gate, held(gate):
        others = [gate.submit(int) for _ in range(1000)]
        # The gate is held for a while only.
        end = time.monotonic() + LIMIT / 4
        for _ in range(300):
            if time.monotonic() > end:
                break
            failing = pool.submit(int, "no number")
            waiting = Background(lib.wait, [failing, *others], None, mode)
            assert waiting.outcome().done == {failing}


def test_as_completed_over_threads_and_processes(functions: Any, pool: Any, threads: Any) -> None:
    futures = [(pool if n % 2 else threads).submit(abs, -n) for n in range(40)]
    seen = list(functions.as_completed(futures, LIMIT))
    assert len(seen) == 40
    assert set(seen) == set(futures)


def test_as_completed_gives_the_first_first(
    functions: Any, pool: Any, running: Flag, release: Flag
) -> None:
    not_ending = pool.submit(tasks.hold, running, release)
    quick = [pool.submit(abs, -n) for n in range(5)]
    seen = []
    for future in functions.as_completed([not_ending, *quick], LIMIT):
        seen.append(future)
        if len(seen) == 5:
            release.set()
    assert seen[-1] is not_ending


def test_cancelled_futures_among_others(
    functions: Any, pool: Any, running: Flag, release: Flag
) -> None:
    not_ending = [pool.submit(tasks.hold, running, release) for _ in range(2)]
    running.wait()
    futures = [pool.submit(abs, -n) for n in range(10)]
    cancelled = {future for future in futures if future.cancel()}
    assert cancelled
    release.set()
    assert functions.wait(futures, LIMIT).not_done == set()
    seen = list(functions.as_completed([*not_ending, *futures], LIMIT))
    assert {future for future in seen if future.cancelled()} == cancelled


def test_a_thread_waits_for_a_process_that_a_callback_waits_for(pool: Any, threads: Any) -> None:
    def twice(number: int) -> int:
        return 2 * int(pool.submit(abs, number).result(LIMIT))

    assert list(threads.map(twice, range(-20, 0))) == [2 * n for n in range(20, 0, -1)]


def test_asyncio(pool: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(pool, abs, -1) == 1
        many = [loop.run_in_executor(pool, pow, 2, n) for n in range(50)]
        assert await asyncio.gather(*many) == [2**n for n in range(50)]
        with pytest.raises(ValueError, match="no") as caught:
            await loop.run_in_executor(pool, tasks.fail, ValueError("no"))
        assert "in fail" in str(caught.value.__cause__)
        with pytest.raises(Exception, match="not this one"):
            await loop.run_in_executor(pool, tasks.identity, tasks.Unpicklable())
        wrapped = asyncio.wrap_future(pool.submit(abs, -2))
        assert await wrapped == 2

    asyncio.run(main())


def test_asyncio_cancels_and_limits(pool: Any, running: Flag, release: Flag) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.run_in_executor(pool, tasks.hold, running, release), 0.05)
        release.set()
        # The pool goes on.
        assert await loop.run_in_executor(pool, abs, -3) == 3

    asyncio.run(main())


def test_asyncio_is_told_of_a_broken_pool(lib: ModuleType, forking: Any) -> None:
    async def main() -> None:
        with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
            loop = asyncio.get_running_loop()
            with pytest.raises(lib.process.BrokenProcessPool):
                await loop.run_in_executor(pool, tasks.exit_at_once, 1)

    asyncio.run(main())


def test_contexts_of_the_submitter_stay_here(pool: Any) -> None:
    # A context cannot be pickled, so that there is no question of sending it.
    import contextvars

    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=1)
    variable.set(2)
    assert pool.submit(abs, -1).result(LIMIT) == 1
    assert variable.get() == 2


def test_numpy_arrays(pool: Any) -> None:
    numpy = importlib.import_module("numpy")
    shapes = [(0,), (1,), (1000, 1000), (3, 0, 2), (64, 64, 64)]
    for shape in shapes:
        for kind in "f8", "i2", "c16", "U3", "M8[s]":
            if kind != "f8" and shape == (1000, 1000):
                continue
            array = numpy.arange(numpy.prod(shape)).astype("i8").astype(kind).reshape(shape)
            result = pool.submit(tasks.identity, array).result(LIMIT)
            assert result.dtype == array.dtype
            assert numpy.array_equal(result, array)
            assert result.flags.writeable
    transposed = numpy.arange(600_000).reshape(600, 1000).T
    result = pool.submit(tasks.identity, transposed).result(LIMIT)
    assert numpy.array_equal(result, transposed)
    assert result.flags.f_contiguous
    records = numpy.zeros(10, dtype=[("a", "i4"), ("b", "f8", 3)])
    assert (pool.submit(tasks.identity, records).result(LIMIT) == records).all()
    objects = numpy.array([{"a": 1}, None], dtype=object)
    assert (pool.submit(tasks.identity, objects).result(LIMIT) == objects).all()


def test_numpy_arrays_are_the_receivers_own(pool: Any) -> None:
    numpy = importlib.import_module("numpy")
    array = numpy.zeros(1_000_000)
    results = [pool.submit(numpy.add, array, n).result(LIMIT) for n in range(6)]
    # Memory that is used again must not be a result's that is still there.
    for number, result in enumerate(results):
        assert (result == number).all()
        result += 1
        assert (result == number + 1).all()
    assert (array == 0).all()
    assert [float(result[0]) for result in results] == [1, 2, 3, 4, 5, 6]


def test_parts_of_a_numpy_array_outlive_it(pool: Any) -> None:
    numpy = importlib.import_module("numpy")
    part = pool.submit(numpy.arange, 1_000_000).result(LIMIT)[10:20]
    for _ in range(4):
        pool.submit(numpy.zeros, 1_000_000).result(LIMIT)
    assert part.tolist() == list(range(10, 20))


def test_numpy_in_map(pool: Any) -> None:
    numpy = importlib.import_module("numpy")
    arrays = [numpy.full(100_000, n) for n in range(8)]
    for chunksize in 1, 3:
        assert list(map(int, pool.map(numpy.max, arrays, chunksize=chunksize))) == list(range(8))


@pytest.fixture
def installed(lib: ModuleType) -> Iterator[ModuleType]:
    """Installs the package in the place of the standard library while a test runs."""
    if lib is concurrent_futures:
        concurrent_futures.install()
        yield lib
        concurrent_futures.uninstall()
    else:
        yield lib


@pytest.mark.parametrize("name", ["process_map", "thread_map"])
def test_tqdm(installed: ModuleType, name: str) -> None:
    module = importlib.import_module("tqdm.contrib.concurrent")
    # It replaces the executor's `submit`, which `map` is to use.
    shown = io.StringIO()
    results = getattr(module, name)(
        abs, range(-200, 0), max_workers=2, file=shown, desc="working", mininterval=0, miniters=1
    )
    assert results == list(range(200, 0, -1))
    assert shown.getvalue().startswith("\rworking:   0%|")
    # Waiting threads are woken first, and then callbacks run, as in the standard library. The
    # callbacks of the workers' last calls may come when the bar is closed.
    counts = [int(count) for count in re.findall(r"(\d+)/200", shown.getvalue())]
    assert counts == sorted(counts)
    assert 198 <= counts[-1] <= 200


def test_tqdm_with_as_completed(installed: ModuleType, pool: Any) -> None:
    tqdm = importlib.import_module("tqdm").tqdm
    shown = io.StringIO()
    futures = [pool.submit(abs, -n) for n in range(50)]
    done = list(tqdm(installed.as_completed(futures), total=len(futures), file=shown))
    assert sorted(future.result() for future in done) == list(range(50))
    assert "50/50" in shown.getvalue()


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
def test_requests_futures(lib: ModuleType, kind: str, forking: Any) -> None:
    sessions = importlib.import_module("requests_futures.sessions")
    settings = {"mp_context": forking} if kind == "ProcessPoolExecutor" else {}
    requests = importlib.import_module("requests")
    with loopback.serve() as server, getattr(lib, kind)(2, **settings) as pool:
        # A session of its own, as one that was never used can be pickled.
        with sessions.FuturesSession(executor=pool, session=requests.Session()) as session:
            futures = [session.get(f"{server}/page/{n}") for n in range(1, 4)]
            answers = [future.result(LIMIT) for future in futures]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [len(answer.text) for answer in answers] == [len(loopback.page(n)) for n in range(1, 4)]


def test_isinstance_of_the_standard_librarys_executor(lib: ModuleType, forking: Any) -> None:
    # Libraries look whether they have been given threads or processes.
    pool = lib.ProcessPoolExecutor(1, mp_context=forking)
    assert isinstance(pool, concurrent.futures.ProcessPoolExecutor)
    assert not isinstance(pool, concurrent.futures.ThreadPoolExecutor)
    assert issubclass(lib.ProcessPoolExecutor, concurrent.futures.ProcessPoolExecutor)


def test_deriving_an_executor(lib: ModuleType, forking: Any) -> None:
    class Derived(lib.ProcessPoolExecutor):  # type: ignore[name-defined,misc]
        """An executor with an attribute and a constructor of its own."""

        def __init__(self, workers: int) -> None:
            super().__init__(workers, forking)
            self.submitted = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            """Count the call, and submit it."""
            self.submitted += 1
            return super().submit(fn, *args, **kwargs)

    with Derived(1) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
        assert pool.submitted == 1


def test_futures_of_processes_work_with_what_waits_by_condition(pool: Any) -> None:
    future = pool.submit(tasks.identity, "value")
    with future._condition:
        while future._state != "FINISHED":
            assert future._condition.wait(LIMIT)
    assert future._result == "value"
    assert future._exception is None


def test_a_pool_in_a_task_of_a_thread(lib: ModuleType, forking: Any, threads: Any) -> None:
    def work() -> int:
        with lib.ProcessPoolExecutor(1, mp_context=forking) as inner:
            return int(inner.submit(abs, -7).result(LIMIT))

    assert threads.submit(work).result(LIMIT) == 7


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_nested_pools(lib: ModuleType, method: str) -> None:
    import multiprocessing

    context = multiprocessing.get_context(method)
    with lib.ProcessPoolExecutor(1, mp_context=context) as pool:
        future = pool.submit(tasks.nested, lib.__name__, method, 2 if method == "fork" else 1)
        assert future.result(LIMIT) == (3 if method == "fork" else 2)


def test_tasks_may_start_processes(pool: Any, running: Flag) -> None:
    assert pool.submit(tasks.start_process, running).result(LIMIT) == 0
    assert running.is_set()


def test_a_future_cannot_be_pickled(pool: Any) -> None:
    future = pool.submit(int)
    error = pool.submit(tasks.identity, future).exception(LIMIT)
    assert isinstance(error, TypeError)
    assert "pickle" in str(error)


def test_two_pools_at_the_same_time(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as first:
        with lib.ProcessPoolExecutor(1, mp_context=forking) as second:
            futures = [(first, second)[n % 2].submit(tasks.pid) for n in range(20)]
            pids = [future.result(LIMIT) for future in futures]
            assert len(set(pids[::2])) == len(set(pids[1::2])) == 1
            assert pids[0] != pids[1]
            # The first one's worker ends though the second's was forked when it was open.
            [process] = first._processes.values()
            first.shutdown()
            assert process.exitcode == 0
            assert second.submit(abs, -1).result(LIMIT) == 1


def test_the_recursion_limit_and_switch_interval_are_left_alone(pool: Any) -> None:
    before = sys.getrecursionlimit(), sys.getswitchinterval()
    pool.submit(int).result(LIMIT)
    assert (sys.getrecursionlimit(), sys.getswitchinterval()) == before
    eventually(lambda: not pool._pending_work_items)
