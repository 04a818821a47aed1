"""Ctrl-C at whatever moment it comes: no interrupt is lost, and no pool is left half made."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import concurrent_futures
import ctrl_c
from support import LIMIT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to processes")

METHODS = multiprocessing.get_all_start_methods()


@pytest.mark.parametrize("kind", ["threads", *METHODS])
def test_programs_go_on_after_interrupts_at_random_moments(kind: str) -> None:
    # The standard library loses some, and hangs at times. `make ctrl-c` is the long run.
    for seed in range(3 if kind == "threads" else 1):
        end = ctrl_c.run(kind, "concurrent_futures", seed, 20)
        assert end.how == "good", end.details


class Interrupter:
    """Interrupts what the main thread does in one of its steps, which are counted from 1."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._pid = os.getpid()
        self._count = 0

    def call(self, function: Callable[..., Any], *args: Any) -> bool:
        """Calls the function. Returns whether it got as far as the step."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.settrace(self._trace)
        try:
            function(*args)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        return self._count >= self._step

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if os.getpid() != self._pid:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and threading.current_thread() is threading.main_thread():
            self._count += 1
            if self._count == self._step:
                # Handled at once, unless it is held back.
                signal.raise_signal(signal.SIGINT)
        return self._trace


def interrupts(make: Callable[[], Any], stride: int, check: Callable[[Any], None]) -> None:
    """Submits a first task to a new pool again and again, each time interrupted some steps later,
    until the interrupt comes too late."""
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
