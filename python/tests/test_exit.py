"""Tests of the end of programs with executors."""

import subprocess
import sys
import textwrap
from types import ModuleType

import pytest

from support import LIMIT, environment, prints, run


def test_pending_work_still_runs(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        from support import main_is_over
        pool = futures.ThreadPoolExecutor(1)
        pool.submit(main_is_over().wait)
        for n in range(5):
            pool.submit(print, n)
        """,
    )
    assert out == "0\n1\n2\n3\n4\n"


@pytest.mark.parametrize("before", ["del pool", "pool.shutdown(wait=False)", "pool.me = pool"])
def test_however_the_executor_was_left(lib: ModuleType, before: str) -> None:
    out = prints(
        lib,
        f"""
        from support import main_is_over
        pool = futures.ThreadPoolExecutor(1)
        pool.submit(main_is_over().wait)
        pool.submit(print, "done")
        {before}
        """,
    )
    assert out == "done\n"


def test_cancelled_work_does_not_run(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        import threading
        from support import main_is_over
        started, over = threading.Event(), main_is_over()
        def first():
            started.set()
            over.wait()
            print("first")
        pool = futures.ThreadPoolExecutor(1)
        pool.submit(first)
        started.wait()
        pool.submit(print, "second")
        pool.shutdown(wait=False, cancel_futures=True)
        """,
    )
    assert out == "first\n"


def test_submitting_after_the_interpreters_shutdown(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        import atexit, threading
        def last():
            try:
                pool.submit(print, "too late")
            except RuntimeError as error:
                print(error)
        atexit.register(last)
        pool = futures.ThreadPoolExecutor(1)
        pool.submit(print, "first").result()
        """,
    )
    assert out.startswith("first\ncannot schedule new futures after ")


def test_a_task_that_submits_while_the_interpreter_ends(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        from support import main_is_over
        over = main_is_over()
        def task():
            over.wait()
            try:
                while True:
                    pool.submit(int).result()
            except RuntimeError as error:
                print(error)
        pool = futures.ThreadPoolExecutor(2)
        pool.submit(task)
        """,
    )
    assert out.startswith("cannot schedule new futures after ")


def test_a_new_executor_while_the_interpreter_ends(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        import atexit
        futures.ThreadPoolExecutor(1).submit(int).result()
        def last():
            try:
                futures.ThreadPoolExecutor(1).submit(print, "too late")
            except RuntimeError as error:
                print(error)
        atexit.register(last)
        """,
    )
    assert out == "cannot schedule new futures after interpreter shutdown\n"


@pytest.mark.parametrize("is_shut_down", [False, True])
def test_a_pool_that_has_ended_with_the_interpreter(lib: ModuleType, is_shut_down: bool) -> None:
    out = prints(
        lib,
        f"""
        import atexit
        pool = futures.ThreadPoolExecutor(1)
        if {is_shut_down}:
            pool.shutdown()
        else:
            pool.submit(int).result()
        def last():
            try:
                pool.submit(print, "too late")
            except RuntimeError as error:
                print(error)
        atexit.register(last)
        """,
    )
    assert out == "cannot schedule new futures after shutdown\n"


@pytest.mark.parametrize(
    ("how", "status"),
    [("sys.exit(3)", 3), ("raise SystemExit(4)", 4), ("raise KeyError('main')", 1)],
)
def test_the_exit_code_is_the_main_threads(lib: ModuleType, how: str, status: int) -> None:
    process = run(
        lib,
        f"""
        import sys
        from support import main_is_over
        pool = futures.ThreadPoolExecutor(1)
        pool.submit(main_is_over().wait)
        pool.submit(print, "done")
        {how}
        """,
        status=status,
    )
    assert process.stdout == "done\n"
    assert ("KeyError: 'main'" in process.stderr) == (status == 1)


def test_a_tasks_exception_is_not_the_programs(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        import sys
        pool = futures.ThreadPoolExecutor(2)
        pool.submit(divmod, 1, 0)
        pool.submit(sys.exit, 5)
        pool.submit(print, "done")
        """,
    )
    assert out == "done\n"


def test_callbacks_of_late_tasks_are_called(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        from support import main_is_over
        pool = futures.ThreadPoolExecutor(1)
        pool.submit(main_is_over().wait)
        pool.submit(pow, 2, 5).add_done_callback(lambda done: print(done.result()))
        """,
    )
    assert out == "32\n"


def test_futures_and_executors_that_are_left_to_the_end(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        import threading
        class Keeper:
            kept = []
        finished = futures.Future(); finished.set_result([1])
        failed = futures.Future(); failed.set_exception(ValueError("kept"))
        pending = futures.Future(); pending.add_done_callback(print)
        cycle = futures.Future(); cycle.add_done_callback(lambda _, c=cycle: None)
        cycle.me = cycle
        pools = [futures.ThreadPoolExecutor(2) for _ in range(3)]
        Keeper.kept = [pools, finished, failed, pending, cycle, Keeper]
        results = pools[0].map(abs, range(100))
        next(results)
        completed = futures.as_completed([finished, pending])
        next(completed)
        print("end")
        """,
    )
    assert out == "end\n"


@pytest.mark.parametrize(
    "block",
    [
        "futures.Future().result()",
        "futures.Future().exception()",
        "futures.wait([futures.Future()])",
        "futures.wait([futures.Future(), futures.Future()], return_when='FIRST_COMPLETED')",
        "next(futures.as_completed([futures.Future()]))",
        "futures.Future().result(10_000)",
        "futures.wait([futures.Future()], 10_000)",
    ],
)
def test_daemon_threads_that_wait_forever(lib: ModuleType, block: str) -> None:
    out = prints(
        lib,
        f"""
        import threading
        from support import until_asleep
        for _ in range(3):
            thread = threading.Thread(target=lambda: {block}, daemon=True)
            thread.start()
        until_asleep(thread)
        print("end")
        """,
    )
    assert out == "end\n"


@pytest.mark.parametrize(
    "work",
    [
        "futures.wait([pending], 0.0001)",
        "next(futures.as_completed([pending], 0.0001), None)",
        "pending.result(0.0001)",
        "pool.submit(int).result()",
        "list(pool.map(abs, range(10)))",
        "futures.ThreadPoolExecutor(1).submit(int).result()",
        "futures.Future().add_done_callback(print)",
    ],
)
def test_daemon_threads_that_are_at_work(lib: ModuleType, work: str) -> None:
    # They come back from waiting while the interpreter goes away under them.
    run(
        lib,
        f"""
        import threading
        pending = futures.Future()
        pool = futures.ThreadPoolExecutor(2)
        at_work = threading.Semaphore(0)
        def work():
            while True:
                try:
                    {work}
                except TimeoutError:
                    pass
                except RuntimeError:
                    return
                at_work.release()
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        for _ in range(20):
            at_work.acquire()
        """,
    )


def test_a_daemon_thread_that_waits_for_room(package: ModuleType) -> None:
    out = prints(
        package,
        """
        import threading
        from support import until_asleep
        release = threading.Event()
        pool = futures.ThreadPoolExecutor(1, max_pending=1)
        running = pool.submit(release.wait)
        while not running.running():
            pass
        pool.submit(print, "pending")
        thread = threading.Thread(target=pool.submit, args=[print, "no room"], daemon=True)
        threading.excepthook = lambda _: None
        thread.start()
        until_asleep(thread)
        release.set()
        """,
    )
    assert out in ("pending\n", "pending\nno room\n")


def test_a_thread_that_waits_for_a_task_at_the_end(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        import threading
        from support import main_is_over
        pool = futures.ThreadPoolExecutor(1)
        pool.submit(main_is_over().wait)
        late = pool.submit(pow, 2, 6)
        threading.Thread(target=lambda: print(late.result())).start()
        """,
    )
    assert out == "64\n"


def test_many_pools_at_the_end(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        pools = [futures.ThreadPoolExecutor(2) for _ in range(30)]
        tasks = [pool.submit(abs, -n) for n, pool in enumerate(pools)]
        for pool in pools[::3]:
            pool.shutdown(wait=False)
        print(sum(task.result() for task in tasks))
        """,
    )
    assert out == "435\n"


def test_the_package_may_be_imported_in_a_thread(lib: ModuleType) -> None:
    out = prints(
        lib,
        f"""
        import sys, threading
        code = "import {lib.__name__} as f; f.ThreadPoolExecutor(1).submit(print, 'done')"
        thread = threading.Thread(target=exec, args=[code])
        thread.start()
        thread.join()
        """,
    )
    assert out == "done\n"


def test_a_program_that_ends_at_once(lib: ModuleType) -> None:
    run(
        lib,
        """
        import os
        pool = futures.ThreadPoolExecutor(2)
        tasks = [pool.submit(sum, range(1000)) for _ in range(100)]
        os._exit(6)
        """,
        status=6,
    )


def prints_program(code: str) -> str:
    """Returns the output of a program, which imports the library at any place."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=2 * LIMIT,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize("order", ["earlier", "later"])
@pytest.mark.parametrize("block", ["future.result()", "futures.wait([future])"])
def test_daemon_threads_work_until_all_functions_of_atexit_were_called(
    lib: ModuleType, block: str, order: str
) -> None:
    name = lib.__name__
    out = prints_program(
        f"""
        import atexit, importlib, threading
        from support import until_asleep

        def end():
            future.set_result(None)
            thread.join()
            print(thread.is_alive())

        if {order == "earlier"}:
            atexit.register(end)
        futures = importlib.import_module({name!r})
        if {order == "later"}:
            atexit.register(end)
        future = futures.Future()
        thread = threading.Thread(target=lambda: ({block}, print("done")), daemon=True)
        thread.start()
        until_asleep(thread)
        """
    )
    assert out == "done\nFalse\n"


@pytest.mark.parametrize(
    "work",
    [
        "future.add_done_callback(block); future.set_result(1)",
        "future.set_result(1); future.add_done_callback(block)",
        "future.add_done_callback(block); future.cancel()",
        "future.set_result(Blocking()); repr(future.result())",
        "futures.Future().set_result(Blocking())",
        "list(pool.map(abs, items(1)))",
        "list(Blocks(1).map(abs, [1]))",
        "futures.wait(items(done))",
        "list(futures.as_completed(items(done)))",
    ],
)
def test_a_daemon_thread_that_runs_python_code_at_the_end(lib: ModuleType, work: str) -> None:
    out = prints(
        lib,
        f"""
        import threading
        import time

        def block(*_):
            begun.set()
            while True:
                time.sleep(0)
        def items(first):
            yield first
            block()
        class Blocking:
            __del__ = __repr__ = block
        class Blocks(futures.ThreadPoolExecutor):
            submit = block
        def work():
            {work}

        begun = threading.Event()
        pool = futures.ThreadPoolExecutor(1)
        done, future = futures.Future(), futures.Future()
        done.set_result(None)
        threading.Thread(target=work, daemon=True).start()
        begun.wait()
        print("end")
        """,
    )
    assert out == "end\n"


def test_names_are_there_for_objects_that_are_dropped_at_the_end(lib: ModuleType) -> None:
    out = prints(
        lib,
        """
        class Late:
            def __del__(self):
                print(isinstance(1, futures.Future), futures.wait is not None)
        late = Late()
        with futures.ThreadPoolExecutor(1) as pool:
            pool.submit(int).result()
        """,
    )
    assert out == "False True\n"
