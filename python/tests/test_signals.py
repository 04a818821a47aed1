"""Tests of signals to a program whose main thread waits: Ctrl-C ends the wait at once, and handlers
run.

Each program says "blocked" when its main thread is, and gets a real signal then. The event that the
program waits for cannot come before the signal did its work: if the wait went on, the program would
hang."""

import signal
import subprocess
import sys
import threading
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from concurrent_futures._private import WorkQueue
from support import IS_FREE, LIMIT, environment, held, prints, program

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to processes")

# A pool with one task, which runs until `release` is set. `blocked` says when the main thread
# is in a wait.
SETTING = """
import os, signal, threading
from support import until_asleep
release = threading.Event()
settings = {{"max_pending": 1}} if {bounded} else {{}}
pool = futures.ThreadPoolExecutor(1, **settings)
task = pool.submit(release.wait)
while not task.running():
    pass
pending = pool.submit(int)
main = threading.main_thread()
def say():
    until_asleep(main)
    os.write(1, b"blocked\\n")
def watch():
    threading.Thread(target=say, daemon=True).start()
def block():
    {block}
"""

INTERRUPTED = """
watch()
try:
    block()
except KeyboardInterrupt:
    print("interrupted", flush=True)
release.set()
print(task.result(), pending.cancelled() or pending.result())
"""

WAITS = [
    "task.result()",
    "pending.result()",
    "task.result(10_000)",
    "task.exception()",
    "futures.Future().result()",
    "futures.wait([task])",
    "futures.wait([task, pending], 10_000)",
    "futures.wait([task, pending], return_when='FIRST_COMPLETED')",
    "futures.wait([task, pending], return_when='FIRST_EXCEPTION')",
    "next(futures.as_completed([task, pending]))",
    "next(futures.as_completed([task], 10_000))",
    "list(futures.as_completed([task, pending]))",
    "next(pool.map(int, [1]))",
    "next(pool.map(int, [1], timeout=10_000))",
    "pool.shutdown()",
    "pool.__exit__(None, None, None)",
]


def run_with_signals(
    lib: ModuleType, code: str, block: str, signals: list[int], *, bounded: bool = False
) -> tuple[int, str, str]:
    """Runs a program in the setting, and sends it a signal each time that it prints "blocked".
    Returns the exit code, what else it printed, and its errors."""
    setting = SETTING.format(block=block, bounded=bounded)
    with subprocess.Popen(
        program(lib, setting + code),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        for each in signals:
            line = process.stdout.readline()
            if line != "blocked\n":
                process.kill()
                raise AssertionError((line, *process.communicate()))
            process.send_signal(each)
        try:
            out, err = process.communicate(timeout=2 * LIMIT)
        finally:
            process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize("block", WAITS)
def test_ctrl_c_ends_the_wait_at_once(lib: ModuleType, block: str) -> None:
    code, out, err = run_with_signals(lib, INTERRUPTED, block, [signal.SIGINT])
    assert (code, out, err) == (0, "interrupted\nTrue 0\n", "")


@pytest.mark.parametrize(
    "block", ["pool.submit(print)", "pool.map(print, [1])", "list(pool.map(print, [1, 2]))"]
)
def test_ctrl_c_ends_the_wait_for_room_at_once(package: ModuleType, block: str) -> None:
    code, out, err = run_with_signals(package, INTERRUPTED, block, [signal.SIGINT], bounded=True)
    assert (code, out, err) == (0, "interrupted\nTrue 0\n", "")


@pytest.mark.parametrize("block", WAITS[:6])
def test_a_handler_runs_while_the_main_thread_waits(lib: ModuleType, block: str) -> None:
    # It does not raise anything, so the wait goes on, and ends when the handler has set what
    # it is for.
    code, out, err = run_with_signals(
        lib,
        """
        foreign = futures.Future()
        def handler(number, frame):
            print("handled", flush=True)
            release.set()
            foreign.set_result("by the handler")
        signal.signal(signal.SIGUSR1, handler)
        watch()
        if "Future()" in %r:
            print(foreign.result())
        else:
            block()
        print(task.result(), pending.result(), foreign.result())
        """.replace("\n        ", "\n")
        % block,
        block,
        [signal.SIGUSR1],
    )
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "handled"
    assert lines[-1] == "True 0 by the handler"
    assert err == ""


def test_a_wait_goes_on_after_signals_that_nobody_cares_about(lib: ModuleType) -> None:
    code, out, err = run_with_signals(
        lib,
        """
seen = []
def handler(number, frame):
    seen.append(number)
    if len(seen) == 5:
        release.set()
    else:
        watch()
signal.signal(signal.SIGUSR1, handler)
watch()
block()
print(len(seen), task.done())
""",
        "futures.wait([task])",
        [signal.SIGUSR1] * 5,
    )
    assert (code, out, err) == (0, "5 True\n", "")


@pytest.mark.parametrize("block", ["task.result()", "futures.wait([task])", "pool.shutdown()"])
def test_a_handlers_exception_comes_out_of_the_wait(lib: ModuleType, block: str) -> None:
    code, out, err = run_with_signals(
        lib,
        """
def handler(number, frame):
    raise LookupError("from the handler")
signal.signal(signal.SIGUSR1, handler)
watch()
try:
    block()
except LookupError as error:
    print(error, flush=True)
release.set()
pool.shutdown()
""",
        block,
        [signal.SIGUSR1],
    )
    assert (code, out, err) == (0, "from the handler\n", "")


def test_a_handler_may_use_the_pool(lib: ModuleType) -> None:
    code, out, err = run_with_signals(
        lib,
        """
late = []
def handler(number, frame):
    late.append(pool.submit(pow, 2, 3))
    print(pending.cancel(), task.done(), len(futures.wait([pending, task], 0.001).not_done) > 0)
    release.set()
signal.signal(signal.SIGUSR1, handler)
watch()
block()
print(late[0].result())
""",
        "task.result()",
        [signal.SIGUSR1],
    )
    assert (code, out, err) == (0, "True False True\n8\n", "")


def test_the_first_ctrl_c_leaves_the_block_and_the_second_the_waiting(lib: ModuleType) -> None:
    code, out, err = run_with_signals(
        lib,
        """
watch()
try:
    with pool:
        try:
            block()
        finally:
            watch()
except KeyboardInterrupt:
    print("interrupted", flush=True)
release.set()
""",
        "task.result()",
        [signal.SIGINT, signal.SIGINT],
    )
    assert (code, out, err) == (0, "interrupted\n", "")


def test_a_program_that_does_not_catch_it_dies_of_it(lib: ModuleType) -> None:
    code, out, err = run_with_signals(
        lib,
        """
watch()
try:
    block()
finally:
    release.set()
""",
        "task.result()",
        [signal.SIGINT],
    )
    assert code == -signal.SIGINT, (out, err)
    assert err.endswith("KeyboardInterrupt\n")


def test_the_future_is_as_good_as_before(package: ModuleType) -> None:
    # In the standard library, what an interrupted wait has registered stays.
    code, out, err = run_with_signals(
        package,
        """
for _ in range(3):
    watch()
    try:
        block()
    except KeyboardInterrupt:
        pass
print(task._state, len(list(task._waiters)), flush=True)
release.set()
print(task.result(), futures.wait([task]).done == {task})
""",
        "futures.wait([task, pending])",
        [signal.SIGINT] * 3,
    )
    assert (code, out, err) == (0, "RUNNING 0\nTrue True\n", "")


@pytest.mark.parametrize("there", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(threading.Thread, "__init__"), (threading.Thread, "start"), (WorkQueue, "add_thread")],
)
def test_a_handler_that_raises_while_a_thread_is_started(
    owner: type, name: str, moment: str, there: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InterruptedByHandlerError(Exception):
        """The exception that the signal handler raises."""

    def raise_it(*_args: object) -> None:
        raise InterruptedByHandlerError

    original = getattr(owner, name)

    def interrupted(*args: Any, **keywords: Any) -> Any:
        monkeypatch.undo()
        if moment == "before":
            signal.raise_signal(signal.SIGUSR1)
        original(*args, **keywords)
        if moment == "after":
            signal.raise_signal(signal.SIGUSR1)
        return None

    before = signal.signal(signal.SIGUSR1, raise_it)
    try:
        with concurrent_futures.ThreadPoolExecutor(3) as pool, held(pool, there):
            monkeypatch.setattr(owner, name, interrupted)
            with pytest.raises(InterruptedByHandlerError):
                pool.submit(int)
            # There may still be as many as ever, and no more.
            barrier = threading.Barrier(3 - there)
            numbers = [pool.submit(barrier.wait, LIMIT) for _ in range(3 - there)]
            assert sorted(number.result(LIMIT) for number in numbers) == list(range(3 - there))
            threads = set(pool._threads)
            assert len(threads) == 3
        assert not any(thread.is_alive() for thread in threads)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_permanent_error_of_a_thread_start_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(threads: WorkQueue, thread: Any) -> None:
        raise TypeError("no such thread is known here")

    with concurrent_futures.ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(WorkQueue, "add_thread", fail)
            with pytest.raises(TypeError, match="no such thread"):
                pool.submit(int)
        assert pool.submit(abs, -1).result(LIMIT) == 1


@pytest.mark.parametrize("cancel", ["pending.cancel()", "pool.shutdown(cancel_futures=True)"])
@pytest.mark.parametrize(
    "submit",
    [
        "pool.submit(print, Interrupted())",
        "pool.submit(print, *[Interrupted()] * 2)",
        "pool.submit(print, *range(20), Interrupted())",
        "pool.submit(print, end=Interrupted())",
        "pool.submit(Interrupted().method)",
    ],
)
def test_an_interrupt_while_cancelling_drops_the_arguments(
    lib: ModuleType, submit: str, cancel: str
) -> None:
    """In the standard library, a worker drops those of `cancel`, and no handler runs there."""
    if lib is not concurrent_futures and "shutdown" in cancel:
        pytest.skip("the standard library's shutdown drops them, and loses the interrupt")
    if lib is not concurrent_futures and IS_FREE:
        pytest.skip("without the interpreter lock, the main thread drops them for the worker")
    out = subprocess.run(
        program(
            lib,
            f"""
            import signal, threading, time
            class Interrupted:
                def method(self):
                    pass
                def __del__(self):
                    signal.raise_signal(signal.SIGINT)
                    list(map(str, range(1000)))
                    print("dropped")
            release = threading.Event()
            pool = futures.ThreadPoolExecutor(1)
            running = pool.submit(release.wait)
            while not running.running():
                pass
            pending = {submit}
            def end():
                # Not before the task is cancelled, which would run otherwise.
                while not pending.cancelled():
                    time.sleep(0.001)
                release.set()
            threading.Thread(target=end).start()
            try:
                {cancel}
                release.set()
                pool.shutdown()
                print("it is lost")
            except KeyboardInterrupt:
                print("interrupted")
            pool.shutdown()
            """,
        ),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=2 * LIMIT,
    )
    assert (out.returncode, out.stderr) == (0, "")
    assert sorted(out.stdout.split()) == ["dropped", "interrupted"]


CHANGES = {
    "result": "future.set_result(1)",
    "exception": "future.set_exception(ValueError())",
    "cancel": "future.cancel()",
    "notice": "future.set_running_or_notify_cancel()",
}


@pytest.mark.parametrize("change", CHANGES)
def test_ctrl_c_while_the_condition_is_awaited_leaves_the_future_as_it_was(
    lib: ModuleType, change: str
) -> None:
    out = prints(
        lib,
        f"""
        import signal, threading
        from support import until_asleep
        future = futures.Future()
        if {change!r} == "notice":
            future.cancel()
        holding, release = threading.Event(), threading.Event()
        def hold():
            with future._condition:
                holding.set()
                until_asleep(threading.main_thread())
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                release.wait()
        holder = threading.Thread(target=hold)
        holder.start()
        holding.wait()
        before = future._state
        try:
            {CHANGES[change]}
        except KeyboardInterrupt:
            print("interrupted", future._state == before)
        release.set()
        holder.join()
        def waits():
            with future._condition:
                future._condition.wait_for(lambda: future._state != before)
        waiter = threading.Thread(target=waits)
        waiter.start()
        {CHANGES[change]}
        if {change!r} != "notice":
            waiter.join()
        else:
            with future._condition:
                future._condition.notify_all()
        waiter.join()
        print(future._state)
        """,
    )
    states = dict.fromkeys(CHANGES, "FINISHED")
    states |= {"cancel": "CANCELLED", "notice": "CANCELLED_AND_NOTIFIED"}
    assert out == f"interrupted True\n{states[change]}\n"


def test_ctrl_c_while_pending_tasks_are_cancelled_leaves_no_thread_waiting(
    package: ModuleType,
) -> None:
    # In the standard library, the interrupt loses a pending task: it is never done.
    out = prints(
        package,
        """
        import signal, threading
        from support import until_asleep
        pool = futures.ThreadPoolExecutor(1)
        running, end = threading.Event(), threading.Event()
        pool.submit(lambda: (running.set(), end.wait()))
        running.wait()
        pending = [pool.submit(int) for _ in range(3)]
        future = pending[1]
        def waits():
            with future._condition:
                waiting.set()
                future._condition.wait_for(future.done)
        waiting, holding = threading.Event(), threading.Event()
        def hold():
            with future._condition:
                holding.set()
                until_asleep(threading.main_thread())
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                until_asleep(threading.main_thread())
        threads = [threading.Thread(target=waits), threading.Thread(target=hold)]
        threads[0].start()
        waiting.wait()
        threads[1].start()
        holding.wait()
        try:
            pool.shutdown(cancel_futures=True, wait=False)
        except KeyboardInterrupt:
            print("interrupted")
        for thread in threads:
            thread.join()
        print([each.cancelled() for each in pending])
        end.set()
        """,
    )
    assert out == "interrupted\n[True, True, True]\n"
