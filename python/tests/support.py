"""Helpers of the tests: events instead of time, threads, and programs of their own."""

import ctypes
import gc
import importlib
import os
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from concurrent_futures import _engine

# The most seconds that something takes which would otherwise take forever. They pass only
# when a test fails.
LIMIT = float(os.environ.get("CONCURRENT_FUTURES_TEST_LIMIT", "60"))

# Seconds that the stress tests take together; a larger value makes other tests larger, too.
STRESS = float(os.environ.get("CONCURRENT_FUTURES_STRESS", "5"))


def _refuses_nan() -> bool:
    """Return whether this Python's conditions refuse a limit that is no number."""
    condition = threading.Condition()
    with condition:
        try:
            condition.wait(float("nan"))
        except ValueError:
            return True
    return False


# Elsewhere, a time limit that is no number has passed.
NAN_IS_REFUSED = _refuses_nan()

#: Marks tests of process pools on the engine, which some builds of the package do not have.
needs_processes = pytest.mark.skipif(
    not _engine.HAS_PROCESSES, reason="this build of the package has no process pools of its own"
)

# A free-threaded build runs Python code of several threads at once.
IS_FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def freed(reference: weakref.ref[Any]) -> bool:
    """Return whether an object is gone, without the collector where that is possible.

    A free-threaded build frees an object that another thread has made when that thread runs next,
    or with the garbage.
    """
    if IS_FREE:
        gc.collect()
    return reference() is None


STATES = ["PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"]


def future_in(lib: ModuleType, state: str) -> Any:
    """Makes a new future in `state`; a finished future has the result 42."""
    future = lib.Future()
    if state in ("RUNNING", "FINISHED"):
        assert future.set_running_or_notify_cancel()
    if state in ("CANCELLED", "CANCELLED_AND_NOTIFIED"):
        assert future.cancel()
    if state == "CANCELLED_AND_NOTIFIED":
        assert not future.set_running_or_notify_cancel()
    if state == "FINISHED":
        future.set_result(42)
    assert future._state == state
    return future


def raised(lib: ModuleType, error: BaseException) -> Any:
    """Makes a future that finished with `error`."""
    future = lib.Future()
    future.set_exception(error)
    return future


def eventually(condition: Callable[[], object]) -> None:
    """Waits until `condition` holds."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.001)


def exit_code(process: Any) -> Any:
    """The exit code of a process of a pool, which the pool waits for, too.

    For a moment one thread has taken the status from the system, and has not yet noted the code.
    """
    process.join(LIMIT)
    eventually(lambda: process.exitcode is not None)
    return process.exitcode


def until_asleep(thread: threading.Thread) -> None:
    """Waits until `thread` is blocked; outside Linux, waits for a while instead."""
    stat = Path(f"/proc/self/task/{thread.native_id}/stat")
    if not Path("/proc/self/task").exists():
        time.sleep(0.1)
        return
    asleep = 0
    end = time.monotonic() + LIMIT
    while asleep < 10:
        assert time.monotonic() < end, "the thread never blocks"
        time.sleep(0.001)
        try:
            state = stat.read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            raise AssertionError(f"{thread} has ended") from None
        asleep = asleep + 1 if state == "S" else 0


class Background(threading.Thread):
    """Calls a function in a thread of its own."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._arguments = args
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def __repr__(self) -> str:
        return f"<{self._function}: {self._value!r}, {self._error!r}>"

    def run(self) -> None:
        """Calls the function, and keeps its value or its exception."""
        try:
            self._value = self._function(*self._arguments)
        except BaseException as error:
            self._error = error

    def outcome(self) -> Any:
        """Waits for the function's end; returns its value or raises its exception."""
        self.join(LIMIT)
        assert not self.is_alive(), f"{self._function} does not end"
        if self._error is not None:
            raise self._error
        return self._value


@contextmanager
def held(pool: Any, workers: int = 1) -> Iterator[threading.Event]:
    """Keeps `workers` workers of `pool` busy until the block ends or the event is set. So the tasks
    of a pool with no more workers stay pending."""
    release = threading.Event()
    running = threading.Barrier(workers + 1)

    def hold() -> None:
        running.wait(LIMIT)
        release.wait(LIMIT)

    futures = [pool.submit(hold) for _ in range(workers)]
    running.wait(LIMIT)
    try:
        yield release
    finally:
        release.set()
    for future in futures:
        future.result(LIMIT)


def program(lib: ModuleType, code: str, *, forks: bool = False) -> list[str]:
    """Returns the command that runs `code` in an interpreter of its own, with the library as
    `futures`. A program that hangs ends with the stacks of its threads, unless it forks. The
    children could not end, as they do not have the thread that watches."""
    prelude = f"import faulthandler, {lib.__name__} as futures\n"
    if not forks:
        prelude += f"faulthandler.dump_traceback_later({LIMIT}, exit=True)\n"
    return [sys.executable, "-X", "faulthandler", "-c", prelude + textwrap.dedent(code)]


def main_is_over() -> threading.Event:
    """Returns an event that is set when the interpreter begins to end, before executors take note
    of the end."""
    over = threading.Event()
    # Those that were registered last are called first; the modules register theirs when they are
    # loaded.
    importlib.import_module("concurrent.futures.thread")
    importlib.import_module("concurrent_futures.thread")
    threading._register_atexit(over.set)  # type: ignore[attr-defined]
    return over


def environment() -> dict[str, str]:
    """Returns the environment of a program, which can import this module."""
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}


def run(
    lib: ModuleType, code: str, *, status: int = 0, forks: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs `code` as a program, which must end with `status`."""
    try:
        process = subprocess.run(
            program(lib, code, forks=forks),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=2 * LIMIT,
        )
    except subprocess.TimeoutExpired as hung:
        raise AssertionError(("it does not end", hung.stdout, hung.stderr)) from None
    assert process.returncode == status, (process.returncode, process.stdout, process.stderr)
    return process


def prints(lib: ModuleType, code: str, *, forks: bool = False) -> str:
    """Return the output of `code`, a program that ends well and reports no error."""
    process = run(lib, code, forks=forks)
    assert process.stderr == ""
    return process.stdout


class _Mallinfo2(ctypes.Structure):
    """The figures of glibc about its memory; `uordblks` is the number of bytes in use."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        ).split()
    ]


def memory_in_use() -> tuple[int, int]:
    """Returns the blocks that Python's allocator has given out, and the bytes of the C library's,
    or 0 if unknown."""
    gc.collect()
    blocks = sys.getallocatedblocks()
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return blocks, 0
    mallinfo2.restype = _Mallinfo2
    return blocks, mallinfo2().uordblks
