"""No task starves: neither behind tasks of native code, nor behind workers that never pause."""

import functools
import mmap
import os
import sys
import time
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
import tasks
from support import IS_FREE, LIMIT, Background, eventually


def test_native_code_that_blocks_does_not_keep_the_others_from_working(lib: ModuleType) -> None:
    reader, writer = os.pipe()
    with lib.ThreadPoolExecutor(3) as pool:
        blocked = [pool.submit(os.read, reader, 1) for _ in range(2)]
        eventually(lambda: all(future.running() for future in blocked))
        # The third worker does all of these, while the first ones are in the kernel.
        assert list(pool.map(abs, range(-500, 0))) == list(range(500, 0, -1))
        assert not any(future.done() for future in blocked)
        os.write(writer, b"ab")
        assert sorted(future.result(LIMIT) for future in blocked) == [b"a", b"b"]
    os.close(reader)
    os.close(writer)


def test_native_code_that_computes_without_a_pause(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        long = [pool.submit(pow, 7, 200_000) for _ in range(4)]
        short = [pool.submit(abs, n) for n in range(200)]
        assert [future.result(LIMIT) for future in short] == list(range(200))
        assert all(future.result(LIMIT) == 7**200_000 for future in long)


def test_python_code_that_never_ends_does_not_keep_the_others_from_working(
    lib: ModuleType,
) -> None:
    stop = False

    def endless() -> int:
        rounds = 0
        while not stop:
            rounds += 1
        return rounds

    with lib.ThreadPoolExecutor(3) as pool:
        busy = [pool.submit(endless) for _ in range(2)]
        eventually(lambda: all(future.running() for future in busy))
        assert sum(pool.map(abs, range(-50, 0))) == 1275
        assert lib.wait([pool.submit(int)], LIMIT).done
        assert not any(future.done() for future in busy)
        stop = True
        assert all(future.result(LIMIT) > 0 for future in busy)


def endless_chain(pool: Any) -> functools.partial[Any]:
    """A task of native code alone, that submits itself again when it runs."""
    task: functools.partial[Any] = functools.partial(pool.submit)
    task.__setstate__((pool.submit, (task,), {}, {}))  # type: ignore[attr-defined]
    return task


def test_a_worker_that_always_has_something_to_do_lets_others_run(lib: ModuleType) -> None:
    # Between tasks of native code, there is no Python code in which a thread is switched.
    pool = lib.ThreadPoolExecutor(1)
    task = endless_chain(pool)
    chains = [pool.submit(task) for _ in range(3)]
    assert all(chain.result(LIMIT) is not None for chain in chains)
    other = Background(lambda: sum(range(1000)))
    assert other.outcome() == 499500
    # FIFO: it comes after what is pending, and before what that submits.
    assert pool.submit(pow, 2, 3).result(LIMIT) == 8
    # The chains end when they are refused.
    Background(pool.shutdown).outcome()


def test_the_main_thread_sees_progress_while_much_is_pending(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(2)
    task = endless_chain(pool)
    pool.submit(task)
    for n in range(200):
        future = pool.submit(abs, -n)
        assert lib.wait([future], LIMIT).done == {future}
        assert next(lib.as_completed([pool.submit(abs, -n)], LIMIT)).result() == n
    pool.shutdown()


def test_two_pools_share_the_interpreter(lib: ModuleType) -> None:
    pools = [lib.ThreadPoolExecutor(1) for _ in range(2)]
    pools[0].submit(endless_chain(pools[0]))
    results = [pools[1].submit(sum, range(1000)).result(LIMIT) for _ in range(100)]
    assert results == [499500] * 100
    for pool in pools:
        pool.shutdown()


def test_tasks_start_in_order_whoever_submits(lib: ModuleType) -> None:
    order: list[tuple[int, int]] = []
    with lib.ThreadPoolExecutor(1) as pool:

        def submit(thread: int) -> None:
            for n in range(200):
                pool.submit(order.append, (thread, n))

        threads = [Background(submit, thread) for thread in range(3)]
        for each in threads:
            each.outcome()
    for thread in range(3):
        assert [n for each, n in order if each == thread] == list(range(200))


#: Forked workers have it, too.
MEMORY = mmap.mmap(-1, 1)


def mark_memory() -> None:
    MEMORY[0] = 1


@pytest.mark.skipif(IS_FREE, reason="no lock keeps the thread that unpickles from working")
def test_the_program_runs_while_many_results_are_unpickled(forking: Any) -> None:
    number = 500
    interval = sys.getswitchinterval()
    with concurrent_futures.ProcessPoolExecutor(1, forking) as pool:
        # The thread that unpickles is there from now on.
        assert len(pool.submit(tasks.points, 1).result(LIMIT)) == 1
        # It cannot work yet, so that the results wait for it.
        sys.setswitchinterval(1)
        try:
            futures = [pool.submit(tasks.points, 300) for _ in range(number)]
            pool.submit(mark_memory)
            begun = time.perf_counter()
            while not MEMORY[0] and time.perf_counter() - begun < 0.7:
                pass
        finally:
            sys.setswitchinterval(interval)
        seen = set()
        count = 0
        while count < number:
            while count < number and futures[count].done():
                count += 1
            seen.add(count)
        # Otherwise the program sees none of them, and then all.
        assert len(seen - {0, number}) >= 3
