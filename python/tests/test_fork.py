"""Tests of os.fork in programs with executors."""

import os
import subprocess
import sys
import textwrap
from types import ModuleType

import pytest

from support import LIMIT, environment, prints

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

# `child(function)` forks; the child calls the function and ends with what it returns, or 99.
SETTING = """
import os, signal, sys, threading, traceback, warnings
warnings.simplefilter("ignore", DeprecationWarning)
def child(function, end=os._exit):
    sys.stdout.flush()
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    signal.alarm(60)
    status = 99
    try:
        status = function()
    except BaseException:
        traceback.print_exc()
    end(status)
"""


def prints_with_forks(lib: ModuleType, code: str) -> str:
    """Return the output of a program that forks."""
    lines = code.splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return prints(lib, SETTING + "\n".join(line[indent:] for line in lines), forks=True)


@pytest.mark.parametrize("end", ["os._exit", "sys.exit"])
def test_a_child_may_use_executors_of_its_own(lib: ModuleType, end: str) -> None:
    out = prints_with_forks(
        lib,
        f"""
        def work():
            with futures.ThreadPoolExecutor(2) as own:
                return sum(own.map(abs, range(-4, 0)))
        pool = futures.ThreadPoolExecutor(2)
        list(pool.map(abs, range(10)))
        print(child(work, {end}))
        print(pool.submit(pow, 2, 3).result())
        """,
    )
    assert out == "10\n8\n"


@pytest.mark.parametrize("end", ["os._exit", "sys.exit"])
def test_while_tasks_are_running_and_pending(lib: ModuleType, end: str) -> None:
    out = prints_with_forks(
        lib,
        f"""
        release = threading.Event()
        pool = futures.ThreadPoolExecutor(1)
        running = pool.submit(release.wait)
        pending = pool.submit(pow, 2, 3)
        finished = futures.Future()
        finished.set_result(5)
        def look():
            assert finished.result() == 5
            assert not pending.done()
            assert not futures.wait([pending, running], 0.01).done
            assert pending.cancel()
            assert pending.cancelled()
            with futures.ThreadPoolExecutor(2) as own:
                return own.submit(pow, 2, 4).result()
        print(child(look, {end}))
        print(pending.done())
        release.set()
        print(pending.result())
        """,
    )
    assert out == "16\nFalse\n8\n"


def test_a_pool_without_threads_is_usable_in_both(lib: ModuleType) -> None:
    out = prints_with_forks(
        lib,
        """
        pool = futures.ThreadPoolExecutor(2)
        print(child(lambda: pool.submit(pow, 2, 3).result()))
        print(pool.submit(pow, 2, 4).result())
        """,
    )
    assert out == "8\n16\n"


def test_our_pools_are_usable_in_the_child_even_if_they_had_threads(package: ModuleType) -> None:
    # In the standard library, tasks that the child submits may wait for threads that it
    # does not have.
    out = prints_with_forks(
        package,
        """
        pool = futures.ThreadPoolExecutor(2)
        list(pool.map(abs, range(10)))
        print(child(lambda: pool.submit(pow, 2, 3).result()))
        print(child(lambda: sum(pool.map(abs, range(-4, 0))), sys.exit))
        print(pool.submit(pow, 2, 4).result())
        """,
    )
    assert out == "8\n10\n16\n"


def test_a_task_may_fork(lib: ModuleType) -> None:
    out = prints_with_forks(
        lib,
        """
        def work():
            with futures.ThreadPoolExecutor(2) as own:
                return own.submit(pow, 2, 3).result()
        with futures.ThreadPoolExecutor(2) as pool:
            print([pool.submit(child, work).result() for _ in range(3)])
            print(pool.submit(pow, 2, 4).result())
        """,
    )
    assert out == "[8, 8, 8]\n16\n"


def test_forking_while_other_threads_use_pools(lib: ModuleType) -> None:
    out = prints_with_forks(
        lib,
        """
        stop = threading.Event()
        pool = futures.ThreadPoolExecutor(3)
        def busy():
            while not stop.is_set():
                tasks = [pool.submit(abs, n) for n in range(20)]
                futures.wait(tasks, return_when="FIRST_COMPLETED")
                assert len(list(futures.as_completed(tasks))) == 20
                with futures.ThreadPoolExecutor(1) as other:
                    other.submit(int).result()
        threads = [threading.Thread(target=busy) for _ in range(2)]
        for thread in threads:
            thread.start()
        def work():
            with futures.ThreadPoolExecutor(2) as own:
                tasks = [own.submit(abs, -n) for n in range(5)]
                futures.wait(tasks)
                return sum(task.result() for task in futures.as_completed(tasks))
        print({child(work) for _ in range(25)})
        stop.set()
        for thread in threads:
            thread.join()
        print(pool.submit(pow, 2, 4).result())
        """,
    )
    assert out == "{10}\n16\n"


def test_grandchildren(lib: ModuleType) -> None:
    out = prints_with_forks(
        lib,
        """
        def work(depth):
            with futures.ThreadPoolExecutor(1) as own:
                own.submit(int).result()
                return child(lambda: work(depth - 1)) + 1 if depth else 0
        print(work(3))
        """,
    )
    assert out == "3\n"


def test_multiprocessing_by_fork(lib: ModuleType) -> None:
    out = prints_with_forks(
        lib,
        """
        import multiprocessing
        def work(results):
            with futures.ThreadPoolExecutor(2) as own:
                results.put(list(own.map(abs, [-1, -2])))
        pool = futures.ThreadPoolExecutor(1)
        print(pool.submit(pow, 2, 3).result())
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        process = context.Process(target=work, args=[results])
        process.start()
        process.join()
        print(results.get(), process.exitcode)
        """,
    )
    assert out == "8\n[1, 2] 0\n"


def test_a_pool_of_processes_that_fork(lib: ModuleType) -> None:
    out = prints_with_forks(
        lib,
        """
        import multiprocessing
        def work(n):
            with futures.ThreadPoolExecutor(2) as own:
                return own.submit(pow, n, 2).result()
        with futures.ThreadPoolExecutor(1) as pool:
            pool.submit(int).result()
            context = multiprocessing.get_context("fork")
            with futures.ProcessPoolExecutor(2, mp_context=context) as processes:
                tasks = [processes.submit(work, n) for n in range(5)]
                print([task.result() for task in tasks])
                print(len(futures.wait([*tasks, pool.submit(int)]).done))
        """,
    )
    assert out == "[0, 1, 4, 9, 16]\n6\n"


def test_the_end_of_a_child_waits_for_none_of_its_parents_threads(lib: ModuleType) -> None:
    # Threads that were on their way to the interpreter when the process forked never arrive in the
    # child. A child that waits for them sleeps again and again.
    out = prints_with_forks(
        lib,
        """
        pool = futures.ThreadPoolExecutor(4)
        stop = threading.Event()
        def feed():
            while not stop.is_set():
                for future in [pool.submit(int) for _ in range(50)]:
                    future.result()
        feeders = [threading.Thread(target=feed) for _ in range(2)]
        for feeder in feeders:
            feeder.start()
        sys.setswitchinterval(1e-4)
        sleeps = []
        for _ in range(10):
            process = os.fork()
            if not process:
                signal.alarm(60)
                stop.set()
                sys.exit()
            _, status, usage = os.wait4(process, 0)
            assert status == 0
            sleeps.append(usage.ru_nvcsw)
        stop.set()
        for feeder in feeders:
            feeder.join()
        print(sleeps if max(sleeps) > 100 else "few sleeps")
        """,
    )
    assert out == "few sleeps\n"


def test_a_hook_before_forks_may_wait_for_a_task_that_waits(lib: ModuleType) -> None:
    # Hooks that were registered first run last: here that of a program which loads us afterwards.
    code = f"""
    {textwrap.indent(SETTING, "    ").strip()}
    lock, forking = threading.Lock(), threading.Event()
    def before():
        forking.set()
        lock.acquire()
    os.register_at_fork(before=before, after_in_parent=lock.release, after_in_child=lock.release)
    import {lib.__name__} as futures
    pool = futures.ThreadPoolExecutor(2)
    holding, go_on = threading.Event(), threading.Event()
    def protected(other):
        with lock:
            holding.set()
            forking.wait()
            go_on.set()
            return other.result()
    outer = pool.submit(protected, pool.submit(lambda: go_on.wait() and 5))
    holding.wait()
    print(child(lambda: 3))
    print(outer.result())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, env=environment(), check=False
    )
    assert (ended.stdout, ended.stderr) == ("3\n5\n", "")


@pytest.mark.parametrize("end", ["os._exit", "sys.exit"])
@pytest.mark.parametrize("use", ["new", "old"])
def test_hooks_that_were_registered_before_ours_may_use_pools(
    lib: ModuleType, end: str, use: str
) -> None:
    # Hooks in children run in the order in which they were registered. The standard library has
    # one, too, which must have run.
    code = f"""
    {textwrap.indent(SETTING, "    ").strip()}
    import concurrent.futures.thread
    state = {{}}
    def in_child():
        if {use!r} == "new":
            state["pool"] = futures.ThreadPoolExecutor(1)
        else:
            state["pool"] = state["old"]
        print("hook", state["pool"].submit(pow, 2, 3).result(), flush=True)
    os.register_at_fork(after_in_child=in_child)
    import {lib.__name__} as futures
    state["old"] = futures.ThreadPoolExecutor(1)
    futures.ThreadPoolExecutor(1).submit(int).result()
    def work():
        return state["pool"].submit(pow, 2, 4).result()
    print(child(work, {end}))
    print(state["old"].submit(pow, 2, 5).result())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=2 * LIMIT, env=environment(), check=False
    )
    assert (ended.stdout, ended.stderr) == ("hook 8\n16\n32\n", "")


def test_a_hook_before_ours_may_use_a_pool_that_the_parent_uses(package: ModuleType) -> None:
    # In the standard library, the task waits for a thread that the child does not have.
    code = f"""
    {textwrap.indent(SETTING, "    ").strip()}
    def in_child():
        print("hook", pool.submit(pow, 2, 3).result(), flush=True)
    os.register_at_fork(after_in_child=in_child)
    import {package.__name__} as futures
    pool = futures.ThreadPoolExecutor(1)
    pool.submit(int).result()
    print(child(lambda: pool.submit(pow, 2, 4).result(), sys.exit))
    print(pool.submit(pow, 2, 5).result())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=2 * LIMIT, env=environment(), check=False
    )
    assert (ended.stdout, ended.stderr) == ("hook 8\n16\n32\n", "")


def test_garbage_is_collected_in_a_child_while_threads_of_the_parent_end_pools(
    lib: ModuleType,
) -> None:
    # A thread that waits for the end of its pool may be in the middle of any step at a fork.
    code = f"""
    {textwrap.indent(SETTING, "    ").strip()}
    import gc
    os.register_at_fork(after_in_child=gc.collect)
    import {lib.__name__} as futures
    futures.ThreadPoolExecutor
    stop = threading.Event()
    kept = []
    def busy():
        while not stop.is_set():
            with futures.ThreadPoolExecutor(1) as pool:
                kept[:] = [pool]
                pool.submit(int)
    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    print({{child(lambda: 3) for _ in range(60)}})
    stop.set()
    for thread in threads:
        thread.join()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=2 * LIMIT, env=environment(), check=False
    )
    assert (ended.stdout, ended.stderr) == ("{3}\n", "")
