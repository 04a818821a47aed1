"""Tests of refusals of the system, and of exhausted limits: memory, descriptors, processes."""

import multiprocessing
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, prints
from tasks import Flag

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")

SETTING = """
import multiprocessing, os, resource, sys
context = multiprocessing.get_context("fork")
"""


def prints_within(lib: ModuleType, code: str) -> str:
    """Return the output of a program that sets limits for itself."""
    lines = code.splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return prints(lib, SETTING + "\n".join(line[indent:] for line in lines), forks=True)


@pytest.mark.once
def test_a_result_of_a_gigabyte(lib: ModuleType) -> None:
    free = next(
        int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable")
    )
    # Less if there is not the memory for some copies of it.
    size = min(1 << 30, free * 1024 // 10)
    out = prints_within(
        lib,
        f"""
        with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            result = pool.submit(bytes, {size}).result()
            print(len(result), result.count(0))
            del result
            print(pool.submit(abs, -1).result())
        """,
    )
    assert out == f"{size} {size}\n1\n"


def test_no_descriptors_left_when_the_pool_is_started(lib: ModuleType) -> None:
    out = prints_within(
        lib,
        """
        files = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                files.append(open("/dev/null"))
        except OSError:
            pass
        try:
            pool = futures.ProcessPoolExecutor(2, mp_context=context)
            pool.submit(abs, -1).result()
        except OSError as error:
            print(error.errno)
        for file in files:
            file.close()
        with futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            print(pool.submit(abs, -2).result())
        """,
    )
    assert out == "24\n2\n"


def test_no_descriptors_left_while_the_pool_works(lib: ModuleType) -> None:
    out = prints_within(
        lib,
        """
        with futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            print(pool.submit(abs, -1).result())
            files = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            try:
                while True:
                    files.append(open("/dev/null"))
            except OSError:
                pass
            print(len(pool.submit(bytes, 3_000_000).result()))
            print(sum(pool.map(abs, range(-100, 0))))
            for file in files:
                file.close()
        """,
    )
    assert out == "1\n3000000\n5050\n"


def test_a_task_that_wants_more_memory_than_there_is(lib: ModuleType) -> None:
    out = prints_within(
        lib,
        """
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        with futures.ProcessPoolExecutor(1, mp_context=context, initializer=limit) as pool:
            print(type(pool.submit(bytes, 1 << 40).exception()).__name__)
            print(pool.submit(abs, -1).result())
        """,
    )
    assert out == "MemoryError\n1\n"


def test_many_workers(lib: ModuleType, forking: Any, tmp_path: Path) -> None:
    with lib.ProcessPoolExecutor(24, mp_context=forking) as pool:
        futures = [pool.submit(tasks.meet, tmp_path, 24) for _ in range(24)]
        assert len({future.result(LIMIT) for future in futures}) == 24


def test_more_workers_than_there_can_be(lib: ModuleType) -> None:
    # None is started before there is work for it, if it is not forked.
    for method in "forkserver", "spawn":
        context = multiprocessing.get_context(method)
        pool = lib.ProcessPoolExecutor(10_000, mp_context=context)
        assert pool._max_workers == 10_000
        assert pool.submit(abs, -1).result(LIMIT) == 1
        assert len(pool._processes) == 1
        pool.shutdown()


def test_many_pending_tasks(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(2, mp_context=forking) as pool:
        futures = [pool.submit(abs, -n) for n in range(3_000)]
        assert [future.result(LIMIT) for future in futures] == list(range(3_000))


def test_long_arguments_that_all_wait(lib: ModuleType, forking: Any) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        futures = [pool.submit(len, b"x" * 1_500_000) for _ in range(20)]
        assert [future.result(LIMIT) for future in futures] == [1_500_000] * 20


def test_long_values_both_ways_at_once(lib: ModuleType, forking: Any) -> None:
    # Both sides have more to write than fits between them.
    value = b"x" * 3_000_000
    with lib.ProcessPoolExecutor(2, mp_context=forking) as pool:
        futures = [pool.submit(tasks.identity, value) for _ in range(12)]
        assert all(future.result(LIMIT) == value for future in futures)


def test_a_worker_killed_while_long_values_travel(lib: ModuleType, forking: Any) -> None:
    value = b"x" * 3_000_000
    for _ in range(3):
        with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
            futures = [pool.submit(tasks.identity, value) for _ in range(6)]
            futures[0].result(LIMIT)
            next(iter(pool._processes.values())).kill()
            done = lib.wait(futures, LIMIT).done
            assert len(done) == 6
            for future in futures:
                error = future.exception()
                assert error is None or isinstance(error, lib.process.BrokenProcessPool)


def test_output_of_a_task_that_fills_a_pipe(lib: ModuleType) -> None:
    out = prints_within(
        lib,
        """
        with futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            tasks = [pool.submit(print, "x" * 100_000, flush=True) for _ in range(4)]
            futures.wait(tasks)
        """,
    )
    assert out.count("x") == 400_000


def test_workers_that_cannot_be_replaced_break_the_pool(
    package: ModuleType, running: Flag, release: Flag
) -> None:
    context = multiprocessing.get_context("forkserver")
    with package.ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        held = pool.submit(tasks.hold, running, release)
        others = [pool.submit(int) for _ in range(3)]
        running.wait()

        def refuse(_: int) -> tuple[int, int]:
            raise OSError("no process is to be had")

        pool._workers.start = refuse
        release.set()
        assert held.result(LIMIT)
        for future in others:
            with pytest.raises(package.BrokenExecutor) as caught:
                future.result(LIMIT)
            assert "no process is to be had" in str(caught.value.__cause__)


def test_calls_that_cannot_be_pickled_start_as_many_workers_as_others(
    lib: ModuleType, context: Any
) -> None:
    # Programs count them, and the standard library's tests do.
    with lib.ProcessPoolExecutor(3, mp_context=context) as pool:
        for started in range(1, 6):
            future = pool.submit(lambda: None)
            with pytest.raises(Exception, match="pickle"):
                future.result(LIMIT)
            expected = 3 if context.get_start_method() == "fork" else min(started, 3)
            assert len(pool._processes) == expected
