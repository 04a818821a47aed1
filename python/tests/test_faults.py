"""Tests of bad input, and of tasks and callbacks that misbehave."""

import contextlib
import ctypes
import dataclasses
import functools
import sys
import threading
import traceback
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, STRESS, Background, eventually, future_in, held, raised, run


class Interrupt(BaseException):
    """An exception that is no `Exception`."""


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, Interrupt, StopIteration, MemoryError]
)
def test_any_exception_of_a_task_is_its_outcome(
    lib: ModuleType, error: type[BaseException]
) -> None:
    def fails() -> None:
        raise error("from the task")

    with lib.ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.current_thread).result()
        future = pool.submit(fails)
        for _ in range(2):
            with pytest.raises(error, match="from the task"):
                future.result()
        assert type(future.exception()) is error
        assert not future.cancelled()
        # The worker lives on.
        assert pool.submit(threading.current_thread).result() is thread


def test_a_task_may_raise_the_librarys_own_errors(lib: ModuleType) -> None:
    for error in (lib.CancelledError, TimeoutError, lib.InvalidStateError, lib.BrokenExecutor):
        future = lib.Future()
        with lib.ThreadPoolExecutor(1) as pool:
            future = pool.submit(future_in(lib, "CANCELLED").result)
            assert isinstance(future.exception(), lib.CancelledError)
            assert not future.cancelled()
            failed = raised(lib, error())
            assert failed.done()
            with pytest.raises(error):
                failed.result()
            assert isinstance(failed.exception(0), error)


def test_an_exception_is_raised_as_often_as_one_asks(lib: ModuleType) -> None:
    def fails() -> None:
        raise ValueError("again")

    with lib.ThreadPoolExecutor(1) as pool:
        future = pool.submit(fails)
        for _ in range(50):
            with pytest.raises(ValueError, match="again") as caught:
                future.result()
            assert caught.value is future.exception()
        threads = [Background(future.result) for _ in range(8)]
        for thread in threads:
            with pytest.raises(ValueError, match="again"):
                thread.outcome()
    frames = traceback.extract_tb(future.exception().__traceback__)
    assert frames[-1].name == "fails"


def test_the_same_exception_in_several_futures(lib: ModuleType) -> None:
    error = ValueError("shared")
    futures = [raised(lib, error) for _ in range(5)]
    for future in futures:
        with pytest.raises(ValueError, match="shared") as caught:
            future.result()
        assert caught.value is error


def test_the_handled_exception_becomes_the_context(lib: ModuleType) -> None:
    future = raised(lib, ValueError("second"))
    first = KeyError("first")
    with pytest.raises(ValueError, match="second") as caught:
        try:
            raise first
        except KeyError:
            future.result()
    assert caught.value.__context__ is first


def test_exceptions_in_cycles(lib: ModuleType) -> None:
    def fails() -> None:
        one, two = ValueError("one"), ValueError("two")
        one.__cause__, two.__cause__ = two, one
        one.__context__, two.__context__ = two, one
        raise one

    def own_cause() -> None:
        error = ValueError("own")
        error.args = (error,)
        error.__cause__ = error
        raise error

    with lib.ThreadPoolExecutor(1) as pool:
        for task in (fails, own_cause):
            future = pool.submit(task)
            for _ in range(2):
                with pytest.raises(ValueError) as caught:  # noqa: PT011
                    future.result()
                assert caught.value is future.exception()
            assert "raised ValueError" in repr(future)


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """An exception that Python code cannot change."""

    code: int


class HostileError(Exception):
    """An exception whose methods all raise."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")

    __hash__ = None  # type: ignore[assignment]


class SlottedError(Exception):
    """An exception without a place for attributes of its own."""

    __slots__ = ()


class ArgumentsError(Exception):
    """An exception that cannot be made again from its `args`."""

    def __init__(self, one: int, *, two: int) -> None:
        super().__init__()
        self.sum = one + two


def test_exceptions_of_unpleasant_kinds(lib: ModuleType) -> None:
    for error in [FrozenError(3), SlottedError("x"), ArgumentsError(1, two=2)]:
        future = lib.Future()
        future.set_running_or_notify_cancel()
        future.set_exception(error)
        for _ in range(3):
            with pytest.raises(type(error)) as caught:
                future.result()
            assert caught.value is error
        assert future.exception() is error
        assert type(error).__name__ in repr(future)


def test_exceptions_that_are_hostile_or_false_are_exceptions() -> None:
    # The standard library asks for their truth before Python 3.14.
    class EmptyError(Exception):
        """An exception that is false."""

        def __len__(self) -> int:
            return 0

    def fails(error: Exception) -> None:
        raise error

    with concurrent_futures.ThreadPoolExecutor(1) as pool:
        for error in (EmptyError(), HostileError()):
            for future in (raised(concurrent_futures, error), pool.submit(fails, error)):
                with pytest.raises(type(error)):
                    future.result()
                assert future.exception() is error
                assert concurrent_futures.wait([future], return_when="FIRST_EXCEPTION").done
                assert f"raised {type(error).__name__}" in repr(future)


def test_results_that_are_hostile(lib: ModuleType) -> None:
    result = HostileError()
    future = lib.Future()
    future.set_result(result)
    assert future.result() is result
    assert future.exception() is None
    assert "returned HostileError" in repr(future)
    with lib.ThreadPoolExecutor(1) as pool:
        assert pool.submit(HostileError).result().args == ()
        assert len(list(pool.map(lambda _: HostileError(), range(3)))) == 3


def test_a_callback_that_would_end_a_worker_does_not_end_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # The standard library's worker is gone then, and may be the last.
    def fails(_: Any, error: type[BaseException]) -> None:
        raise error("in a callback")

    errors = [KeyboardInterrupt, SystemExit, GeneratorExit, Interrupt]
    with concurrent_futures.ThreadPoolExecutor(1) as pool:
        for error in errors:
            with held(pool):
                future = pool.submit(pow, 2, 3)
                future.add_done_callback(functools.partial(fails, error=error))
            assert future.result(LIMIT) == 8
            assert pool.submit(pow, 2, 4).result(LIMIT) == 16
        assert len(pool._threads) == 1
    assert len(caplog.records) == len(errors)


def test_an_exception_that_is_raised_into_a_worker(lib: ModuleType) -> None:
    """Sends an exception to a worker to end its task, as debuggers and some libraries do."""
    started = threading.Event()

    def task() -> None:
        started.set()
        while True:
            pass

    with lib.ThreadPoolExecutor(1) as pool:
        for error in (KeyboardInterrupt, SystemExit, ValueError):
            started.clear()
            future = pool.submit(task)
            assert started.wait(LIMIT)
            [thread] = pool._threads
            raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
            raise_in(ctypes.c_ulong(thread.ident), ctypes.py_object(error))
            assert type(future.exception(LIMIT)) is error
        assert pool.submit(pow, 2, 3).result(LIMIT) == 8


def test_a_future_that_is_dropped_while_its_task_runs(lib: ModuleType) -> None:
    ran: list[int] = []
    with lib.ThreadPoolExecutor(2) as pool:
        started, release = threading.Event(), threading.Event()

        def task() -> None:
            started.set()
            assert release.wait(LIMIT)
            ran.append(1)

        future = pool.submit(task)
        future.add_done_callback(lambda _: ran.append(2))
        assert started.wait(LIMIT)
        del future
        pool.submit(divmod, 1, 0)
        release.set()
    assert ran == [1, 2]


def test_finishing_a_pools_future_oneself(lib: ModuleType) -> None:
    # The result that came first stays, and the worker lives on.
    with lib.ThreadPoolExecutor(1) as pool:
        started, release = threading.Event(), threading.Event()

        def task() -> str:
            started.set()
            assert release.wait(LIMIT)
            return "the task's"

        future = pool.submit(task)
        assert started.wait(LIMIT)
        if lib is concurrent_futures:
            with contextlib.suppress(lib.InvalidStateError):
                future.set_result("ours")
        release.set()
        assert future.result(LIMIT) in ("ours", "the task's")
        assert pool.submit(pow, 2, 3).result(LIMIT) == 8


def test_finishing_a_pending_future_oneself_does_not_end_the_worker() -> None:
    with concurrent_futures.ThreadPoolExecutor(1) as pool:
        with held(pool):
            futures: list[Any] = [pool.submit(pow, 2, 3) for _ in range(3)]
            futures[0].set_result("ours")
            futures[1].set_running_or_notify_cancel()
        assert futures[0].result(LIMIT) == "ours"
        assert futures[2].result(LIMIT) == 8
        assert pool.submit(pow, 2, 4).result(LIMIT) == 16


def test_callbacks_that_recurse_deeply(lib: ModuleType) -> None:
    """Deep recursion ends in a RecursionError, which is logged, and not in a crash."""
    # Logging recurses, too, and may fail itself.
    process = run(
        lib,
        """
        import logging, threading
        logging.getLogger("concurrent.futures").disabled = True
        def add_again(future):
            global depth
            depth += 1
            future.add_done_callback(add_again)
        def finish_next(future):
            following = chain.pop()
            following.add_done_callback(finish_next)
            following.set_result(None)
        def all_of_it():
            global depth, chain
            depth = 0
            chain = [futures.Future() for _ in range(50_000)]
            done = futures.Future()
            done.set_result(None)
            add_again(done)
            start = futures.Future()
            start.add_done_callback(finish_next)
            start.set_result(None)
            with futures.ThreadPoolExecutor(1) as pool:
                pool.submit(int).add_done_callback(add_again)
            print(depth > 50)
        all_of_it()
        thread = threading.Thread(target=all_of_it)
        thread.start()
        thread.join()
        """,
    )
    assert process.stdout == "True\nTrue\n"


@pytest.mark.parametrize(
    "link",
    [
        "one.add_done_callback(two.set_result)",
        "one.add_done_callback(two.set_exception)",
        "one.add_done_callback(partial(two.set_result))",
        "one.add_done_callback(lambda _, two=two: two.cancel())",
    ],
)
def test_a_long_chain_of_futures_that_finish_each_other(lib: ModuleType, link: str) -> None:
    """Uses no Python code that could notice how deep the chain of futures is."""
    process = run(
        lib,
        f"""
        import logging, threading
        from functools import partial
        logging.getLogger("concurrent.futures").disabled = True
        def all_of_it():
            chain = [futures.Future() for _ in range(50_000)]
            for one, two in zip(chain, chain[1:]):
                {link}
            chain[0].set_result(None)
            print(all(future.done() for future in chain[:5]))
        all_of_it()
        thread = threading.Thread(target=all_of_it)
        thread.start()
        thread.join()
        """,
    )
    assert process.stdout == "True\nTrue\n"


def test_very_many_pending_futures(lib: ModuleType) -> None:
    number = 1_000_000 if STRESS >= 60 else 200_000 if lib is concurrent_futures else 20_000
    with lib.ThreadPoolExecutor(2) as pool:
        with held(pool, 2):
            futures = [pool.submit(int) for _ in range(number)]
            assert pool._work_queue.qsize() == number
            assert not futures[-1].done()
            assert all(future.cancel() for future in futures[::3])
            kept = futures[1::3]
            del futures
        done, not_done = lib.wait(kept)
        assert len(done) == len(kept)
        assert not not_done
        assert not any(future.result() for future in kept)


def test_very_many_pending_futures_are_cancelled(lib: ModuleType) -> None:
    number = 1_000_000 if STRESS >= 60 else 200_000 if lib is concurrent_futures else 20_000
    pool = lib.ThreadPoolExecutor(1)
    with held(pool):
        for _ in range(number):
            last = pool.submit(int)
        pool.shutdown(wait=False, cancel_futures=True)
        assert last.cancelled()
    pool.shutdown()


def test_tracing_and_profiling_see_the_tasks(lib: ModuleType) -> None:
    def traced_task() -> int:
        value = 40
        return value + 2

    seen: set[tuple[str, str]] = set()

    def trace(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_name == "traced_task":
            seen.add(("trace", event))
        return trace

    def profile(frame: Any, event: str, _: Any) -> None:
        if frame.f_code.co_name == "traced_task":
            seen.add(("profile", event))

    before = threading.gettrace(), threading.getprofile()
    threading.settrace(trace)
    threading.setprofile(profile)
    try:
        with lib.ThreadPoolExecutor(1) as pool:
            assert pool.submit(traced_task).result() == 42
            assert list(pool.map(lambda _: traced_task(), range(3))) == [42] * 3
    finally:
        threading.settrace(before[0])
        threading.setprofile(before[1])
    events = {("trace", event) for event in ("call", "line", "return")}
    assert seen >= events | {("profile", "call"), ("profile", "return")}


def test_a_task_may_trace_itself(lib: ModuleType) -> None:
    def inner() -> int:
        return 1

    def task() -> list[str]:
        names: list[str] = []
        sys.setprofile(lambda frame, event, _: names.append(frame.f_code.co_name))
        try:
            inner()
        finally:
            sys.setprofile(None)
        return names

    with lib.ThreadPoolExecutor(1) as pool:
        assert "inner" in pool.submit(task).result()
        assert pool.submit(sys.getprofile).result() is None


def test_tracing_sees_tasks_of_spare_workers() -> None:
    def inner_task() -> int:
        return 3

    seen: list[str] = []
    threading.setprofile(lambda frame, event, _: seen.append(frame.f_code.co_name))
    try:
        with concurrent_futures.ThreadPoolExecutor(1) as pool:
            outer = pool.submit(lambda: pool.submit(inner_task).result())
            assert outer.result(LIMIT) == 3
    finally:
        threading.setprofile(None)
    assert "inner_task" in seen


def test_current_frames_show_the_tasks(lib: ModuleType) -> None:
    release = threading.Event()

    def visible_task() -> bool:
        return release.wait(LIMIT)

    with lib.ThreadPoolExecutor(1) as pool:
        future = pool.submit(visible_task)
        eventually(future.running)
        [thread] = pool._threads

        def names() -> list[str]:
            frame = sys._current_frames()[thread.ident]
            return [each.name for each in traceback.extract_stack(frame)]

        eventually(lambda: "visible_task" in names())
        release.set()


def test_a_worker_that_recurses_too_deeply(lib: ModuleType) -> None:
    def recurse() -> int:
        return recurse() + 1

    with lib.ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            assert isinstance(pool.submit(recurse).exception(LIMIT), RecursionError)
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_the_main_threads_functions_are_refused_in_workers(lib: ModuleType) -> None:
    import signal

    with lib.ThreadPoolExecutor(1) as pool:
        future = pool.submit(signal.signal, signal.SIGINT, signal.SIG_DFL)
        assert isinstance(future.exception(), ValueError)
