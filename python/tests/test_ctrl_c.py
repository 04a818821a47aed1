"""Tests of Ctrl-C at any moment: no interrupt is lost, and no pool is left half made."""

import dis
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

import pytest

import concurrent_futures
import ctrl_c
from support import IS_FREE, LIMIT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to processes")

METHODS = multiprocessing.get_all_start_methods()


@pytest.mark.parametrize("kind", ["threads", *METHODS])
def test_programs_go_on_after_interrupts_at_random_moments(kind: str) -> None:
    # The standard library loses some, and hangs at times. `make ctrl-c` is the long run.
    for seed in range(3 if kind == "threads" else 1):
        end = ctrl_c.run(kind, "concurrent_futures", seed, 20)
        assert end.how == "good", end.details


class Interrupter:
    """Interrupts the main thread at one of its steps, which are counted from 1."""

    def __init__(self, step: int, *, anywhere: bool = True) -> None:
        self._step = step
        self._anywhere = anywhere
        self._pid = os.getpid()
        self._count = 0
        self._instructions: dict[FrameType, str] = {}
        #: Whether the interrupt has ended the call.
        self.raised = False

    def call(self, function: Callable[..., Any], *args: Any) -> bool:
        """Calls the function. Returns whether it got as far as the step."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # A collection would drop objects of earlier calls, whose callbacks can raise nothing.
        gc.disable()
        sys.settrace(self._trace)
        try:
            function(*args)
        except KeyboardInterrupt:
            self.raised = True
        finally:
            sys.settrace(None)
            gc.enable()
        return self._count >= self._step

    def _handles_signals(self, frame: FrameType) -> bool:
        """Whether the interpreter may handle signals before this step.

        It does so after calls and jumps back. A lock that a with statement has taken would stay
        locked forever after an exception at some of the other steps.
        """
        before = self._instructions.get(frame, "")
        self._instructions[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        return before.startswith(("CALL", "JUMP_BACKWARD"))

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if os.getpid() != self._pid:
            return None
        frame.f_trace_opcodes = True
        if (
            event == "opcode"
            and threading.current_thread() is threading.main_thread()
            and (self._handles_signals(frame) or self._anywhere)
        ):
            self._count += 1
            if self._count == self._step:
                # Handled at once, unless it is held back.
                signal.raise_signal(signal.SIGINT)
        return self._trace


def interrupts(make: Callable[[], Any], stride: int, check: Callable[[Any], None]) -> None:
    """Submits a first task to a new pool again and again, and interrupts it a step later each
    time."""
    step, got_there = 1, True
    while got_there:
        pool = make()
        try:
            got_there = Interrupter(step).call(pool.submit, abs, -7)
        except KeyboardInterrupt:
            got_there = True
        assert pool.submit(abs, -1).result(LIMIT) == 1
        pool.shutdown()
        check(pool)
        step += stride
    assert step > 100, "nothing was interrupted"


def test_an_interrupt_in_any_step_of_the_start_of_a_thread() -> None:
    before = threading.active_count()

    def check(pool: Any) -> None:
        assert not any(thread.is_alive() for thread in pool._threads)
        assert threading.active_count() == before

    interrupts(lambda: concurrent_futures.ThreadPoolExecutor(2), 3, check)


@pytest.mark.parametrize(("method", "stride"), [("fork", 61), ("spawn", 997), ("forkserver", 997)])
def test_an_interrupt_in_any_step_of_the_start_of_a_process(method: str, stride: int) -> None:
    if method not in METHODS:
        pytest.skip(f"there is no {method}")
    context = multiprocessing.get_context(method)

    def check(_: Any) -> None:
        assert multiprocessing.active_children() == []

    interrupts(lambda: concurrent_futures.ProcessPoolExecutor(1, context), stride, check)


@pytest.mark.skipif("fork" not in METHODS, reason="there is no fork")
def test_an_interrupt_while_a_thread_starts_and_another_pool_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The garbage collector drops pools at such moments. Up to CPython 3.11, an exception for the
    # main thread hit the thread that was being started, for which `Thread.start` then waited.
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    pools: list[Any] = []
    names = ("_start_joinable_thread", "_start_new_thread")
    name = next(name for name in names if hasattr(threading, name))
    start = getattr(threading, name)

    def start_and_drop(*args: Any, **kwargs: Any) -> Any:
        started = start(*args, **kwargs)
        pools.clear()
        return started

    step, got_there = 1, True
    while got_there:
        pools = prepare("threads", drop)
        # Such a pool holds interrupts several times in one call: one that comes during the first
        # hold is kept during the next.
        context = multiprocessing.get_context("fork")
        with concurrent_futures.ProcessPoolExecutor(1, context) as pool:
            monkeypatch.setattr(threading, name, start_and_drop)
            interrupter = Interrupter(step, anywhere=False)
            got_there = interrupter.call(pool.submit, abs, -7)
            monkeypatch.setattr(threading, name, start)
            assert (interrupter.raised, lost) == (got_there, []), f"interrupted in step {step}"
            assert pool.submit(abs, -1).result(LIMIT) == 1
        step += 11
    assert step > 100, "nothing was interrupted"


class Finalized:
    """An object that is dropped by code in Python."""

    #: The threads that have dropped such objects.
    threads: ClassVar[list[threading.Thread]] = []

    def __del__(self) -> None:
        Finalized.threads.append(threading.current_thread())


def shut_down(pools: list[Any]) -> None:
    pools[0].shutdown()


def drop(pools: list[Any]) -> None:
    pools.clear()


def drop_broken(pools: list[Any]) -> None:
    drop(pools)


def drop_after_shutdown(pools: list[Any]) -> None:
    drop(pools)


def drop_last_future(pools: list[Any]) -> None:
    drop(pools)


def kill(pools: list[Any]) -> None:
    pools[0].kill_workers()


def prepare(kind: str, end: Callable[[list[Any]], None]) -> list[Any]:
    """Makes a pool that was used."""
    if kind == "threads":
        pool: Any = concurrent_futures.ThreadPoolExecutor(2)
    else:
        pool = concurrent_futures.ProcessPoolExecutor(1, multiprocessing.get_context(kind))
    future = pool.submit(abs, -1)
    assert future.result(LIMIT) == 1
    if end is drop_broken and kind != "threads":
        supervisor = pool._executor_manager_thread
        assert pool.submit(os._exit, 1).exception(LIMIT) is not None
        supervisor.join()
    if end in (drop_after_shutdown, drop_last_future):
        pool.shutdown()
    return [future if end is drop_last_future else pool]


def is_in_callback(lost: list[Any]) -> bool:
    """Returns whether an interrupt came in a weak reference's callback, which can raise nothing."""
    return len(lost) == 1 and "weakref callback" in str(lost[0].err_msg)


@pytest.mark.parametrize(
    "end", [shut_down, drop, drop_broken, drop_after_shutdown, drop_last_future, kill]
)
@pytest.mark.parametrize("kind", ["threads", *METHODS])
def test_an_interrupt_in_any_step_of_the_end_of_a_pool(
    kind: str, end: Callable[[list[Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # An object of `multiprocessing` or `threading` that is dropped runs code in Python, which can
    # raise nothing.
    if end is kill and kind == "threads":
        pytest.skip("threads cannot be killed")
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    step, got_there = 1, True
    while got_there:
        pools = prepare(kind, end)
        interrupter = Interrupter(step, anywhere=False)
        got_there = interrupter.call(end, pools)
        if IS_FREE and not interrupter.raised and is_in_callback(lost):
            # Once more: a free-threaded build drops threads of an earlier pool in any later step.
            lost.clear()
            continue
        assert (interrupter.raised, lost) == (got_there, []), f"interrupted in step {step}"
        step += 1 if kind in ("threads", "fork") else 11


@pytest.mark.skipif("fork" not in METHODS, reason="there is no fork")
def test_an_interrupt_while_a_result_is_dropped_that_nobody_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    Finalized.threads.clear()

    def submit(pool: Any) -> None:
        pool.submit(Finalized)
        pool.submit(abs, -1).result(LIMIT)
        pool.submit(abs, -1).result(LIMIT)

    with concurrent_futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        submit(pool)
        for _ in range(20):
            step, got_there = 1, True
            while got_there:
                interrupter = Interrupter(step, anywhere=False)
                got_there = interrupter.call(submit, pool)
                assert (interrupter.raised, lost) == (got_there, []), f"in step {step}"
                step += 1
            if threading.main_thread() in Finalized.threads:
                break
        else:
            pytest.skip("another thread has dropped all results")
