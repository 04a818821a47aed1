"""Tests of process pools where the standard library's fail, which run on the package only."""

import multiprocessing
import os
import re
import signal
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, exit_code, prints
from tasks import Flag
from test_process_programs import ended, start


def test_futures_are_the_packages(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        assert type(pool.submit(int)) is package.Future
        [future] = [pool.submit(int)]
        assert isinstance(future, package.Future)


def test_replaced_workers_with_tasks_that_wait_in_line(package: ModuleType) -> None:
    # The standard library's 3.13.0 hangs here now and then.
    context = multiprocessing.get_context("forkserver")
    with package.ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=2) as pool:
        futures = [pool.submit(tasks.pid) for _ in range(12)]
        pids = [future.result(LIMIT) for future in futures]
    assert all(pids.count(each) <= 2 for each in pids)
    assert len(set(pids)) >= 6


def test_an_exception_that_needs_several_arguments_arrives(
    package: ModuleType, forking: Any
) -> None:
    # It breaks the standard library's pool.
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        error = pool.submit(tasks.fail_making, "TwoArgumentsError", 404, "not found").exception(
            LIMIT
        )
        assert type(error) is tasks.TwoArgumentsError
        assert str(error) == "404: not found"
        assert (error.code, error.reason) == (404, "not found")
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_map_reads_its_items_as_it_goes(package: ModuleType, forking: Any) -> None:
    # In the standard library from 3.14 on.
    read: list[int] = []

    def numbers() -> Any:
        for number in range(1_000_000):
            read.append(number)
            yield number

    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        results = pool.map(abs, numbers(), buffersize=5)
        assert len(read) == 5
        assert [next(results) for _ in range(10)] == list(range(10))
        assert len(read) == 15
        results.close()
        chunks = pool.map(abs, numbers(), buffersize=2, chunksize=10)
        assert [next(chunks) for _ in range(30)] == list(range(30))
        assert len(read) <= 15 + 60
        chunks.close()
        for wrong in 0, -1:
            with pytest.raises(ValueError, match="buffersize must be None or > 0"):
                pool.map(abs, [1], buffersize=wrong)
        with pytest.raises(TypeError, match="buffersize must be an integer or None"):
            pool.map(abs, [1], buffersize="1")


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_workers_can_be_ended_by_force(
    package: ModuleType, forking: Any, running: Flag, release: Flag, how: str
) -> None:
    # In the standard library from 3.14 on.
    pool = package.ProcessPoolExecutor(1, mp_context=forking)
    future = pool.submit(tasks.hold, running, release)
    running.wait()
    [process] = pool._processes.values()
    getattr(pool, how)()
    with pytest.raises(package.BrokenExecutor):
        future.result(LIMIT)
    assert exit_code(process) == -(signal.SIGKILL if how == "kill_workers" else signal.SIGTERM)
    with pytest.raises(RuntimeError):
        pool.submit(int)


def test_ending_by_force_what_was_not_begun_or_is_over(package: ModuleType, forking: Any) -> None:
    for how in "terminate_workers", "kill_workers":
        pool = package.ProcessPoolExecutor(1, mp_context=forking)
        getattr(pool, how)()
        getattr(pool, how)()
        pool = package.ProcessPoolExecutor(1, mp_context=forking)
        assert pool.submit(abs, -1).result(LIMIT) == 1
        pool.shutdown()
        getattr(pool, how)()


def test_a_cancelled_task_of_a_shut_down_pool_ends_wait(
    package: ModuleType, forking: Any, running: Flag, release: Flag
) -> None:
    pool = package.ProcessPoolExecutor(1, mp_context=forking)
    held = pool.submit(tasks.hold, running, release)
    running.wait()
    pending = [pool.submit(abs, -n) for n in range(5)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert package.wait(pending[2:], LIMIT).not_done == set()
    release.set()
    assert held.result(LIMIT)
    assert package.wait(pending, LIMIT).not_done == set()


def test_a_pool_in_a_forked_child(package: ModuleType) -> None:
    # It belongs to the parent: the child is told so, and the parent's goes on.
    out = prints(
        package,
        """
        import multiprocessing, os, signal, warnings
        warnings.simplefilter("ignore")
        context = multiprocessing.get_context("fork")
        pool = futures.ProcessPoolExecutor(1, mp_context=context)
        print(pool.submit(abs, -1).result(), flush=True)
        child = os.fork()
        if not child:
            signal.alarm(60)
            status = 9
            try:
                pool.submit(abs, -2).result()
            except RuntimeError as error:
                status = 5 if "fork" in str(error) else 6
            else:
                status = 4
            pool.shutdown()
            # One of its own works.
            with futures.ProcessPoolExecutor(1, mp_context=context) as own:
                assert own.submit(abs, -3).result() == 3
            os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(pool.submit(abs, -4).result())
        pool.shutdown()
        """,
        forks=True,
    )
    assert out == "1\n5\n4\n"


def test_a_worker_that_cannot_be_started_does_not_keep_the_pool_from_ending(
    package: ModuleType,
) -> None:
    context = multiprocessing.get_context("spawn")
    pool = package.ProcessPoolExecutor(1, context, tasks.keep, (tasks.Unpicklable(),))
    for _ in range(2):
        with pytest.raises(Exception, match="not this one"):
            pool.submit(int)
    pool.shutdown()


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_no_shared_memory_left(package: ModuleType) -> None:
    # A limit for the size of files is one for shared memory.
    out = prints(
        package,
        """
        import multiprocessing, resource, signal
        context = multiprocessing.get_context("fork")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        pool = futures.ProcessPoolExecutor(1, mp_context=context)
        try:
            pool.submit(abs, -1).result()
        except OSError as error:
            print(type(error).__name__)
        else:
            print("OSError")
        pool.shutdown()
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            print(pool.submit(abs, -2).result())
            # And once it works.
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
            print(len(pool.submit(bytes, 9_000_000).result()))
            print(pool.submit(len, bytes(9_000_000)).result())
        """,
        forks=True,
    )
    assert out == "OSError\n2\n9000000\n9000000\n"


@pytest.mark.parametrize("isolated", [False, True])
def test_a_module_that_changed_before_a_worker_was_replaced(
    package: ModuleType, tmp_path: Path, isolated: bool
) -> None:
    # The new worker does not find the function: the error says so, and nothing hangs.
    (tmp_path / "changing.py").write_text("def one():\n    return 1\ndef two():\n    return 2\n")
    settings = "on_worker_death='isolate'" if isolated else ""
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            f"""
            import multiprocessing, pathlib
            import concurrent_futures as futures
            import changing
            if __name__ == "__main__":
                context = multiprocessing.get_context("spawn")
                with futures.ProcessPoolExecutor(
                    1, mp_context=context, max_tasks_per_child=1, {settings}
                ) as pool:
                    print(pool.submit(changing.one).result())
                    gone = pool.submit(changing.one)
                    gone.result()
                    pathlib.Path("changing.py").write_text("def two(): return 'other'")
                    print([type(pool.submit(changing.one).exception()).__name__ for _ in "ab"][-1])
                    if {isolated}:
                        while pool.submit(changing.two).result() != "other":
                            pass
                        print(pool.submit(changing.two).result())
            """
        )
    )
    process = start(["-B", "program.py"], cwd=tmp_path)
    code, out, err = ended(process)
    if isolated:
        assert (code, out.splitlines()[0], out.splitlines()[-1]) == (0, "1", "other"), err
    else:
        assert out.startswith("1\n"), err
        assert "BrokenProcessPool" in out + err
        assert re.search("(Can't get|no) attribute 'one'", err)


def test_a_thousand_pools_one_after_another_leave_nothing(
    package: ModuleType, forking: Any
) -> None:
    before = len(tasks.descriptors())
    for _ in range(60):
        with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
            assert pool.submit(abs, -1).result(LIMIT) == 1
        del pool
    assert len(tasks.descriptors()) <= before + 1
    assert os.getpid()
