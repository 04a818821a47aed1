"""Calls all operations of the package by eight threads, at random, and checks what they return.

    python thread_stress.py --seconds 600 [--seed 2] [--only thread] [--library concurrent.futures]

Prints how often each operation was called. `sanitize_threads.py` runs it with the thread sanitizer.
"""

import argparse
import contextlib
import gc
import importlib
import multiprocessing
import random
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

THREADS = 8
#: Nothing takes this long, in seconds, also under a sanitizer.
LIMIT = 300


def square(number: int) -> int:
    """Return the square of a number."""
    return number * number


def fail(number: int) -> int:
    """Raise an exception."""
    raise KeyError(number)


class Shared:
    """The objects that all threads use."""

    def __init__(self, lib: Any, kinds: set[str], stack: contextlib.ExitStack) -> None:
        self.lib = lib
        self.is_ours = lib.__name__ == "concurrent_futures"
        self.threads = stack.enter_context(lib.ThreadPoolExecutor(4))
        bounds = {"max_pending": 3} if self.is_ours else {}
        self.bounded = stack.enter_context(lib.ThreadPoolExecutor(2, **bounds))
        #: Pools of processes and interpreters, if they take part.
        self.others: list[Any] = []
        if "process" in kinds:
            context = multiprocessing.get_context("spawn")
            self.others.append(stack.enter_context(lib.ProcessPoolExecutor(2, context)))
        if "interpreter" in kinds:
            self.others.append(stack.enter_context(lib.InterpreterPoolExecutor(2)))
        #: Futures of other threads, which finish at some time or are cancelled.
        self.futures: list[Any] = [self.threads.submit(square, 1)] * 16
        self.iterators: list[Any] = [iter(())] * 4


Operation = Callable[[Shared, random.Random], None]
OPERATIONS: dict[str, Operation] = {}


def operation(function: Operation) -> Operation:
    """Register an operation."""
    OPERATIONS[function.__name__] = function
    return function


def some(shared: Shared, chance: random.Random) -> list[Any]:
    """Submit some calls, show one of them to the other threads; return the futures."""
    numbers = [chance.randrange(100) for _ in range(chance.randrange(1, 20))]
    futures = [shared.threads.submit(square, number) for number in numbers]
    shared.futures[chance.randrange(len(shared.futures))] = futures[0]
    return futures


def is_refusal(error: Exception) -> bool:
    """Return whether an iterator says that another thread uses it."""
    return "executing" in str(error) or "in use" in str(error)


def outcome(future: Any) -> Any:
    """Wait for a future, which may be cancelled."""
    try:
        return future.result(LIMIT)
    except concurrent_cancelled():
        return None
    except KeyError as error:
        return error.args[0]


def concurrent_cancelled() -> type[BaseException]:
    """Return the error of a cancelled future, which both libraries share."""
    error: type[BaseException] = importlib.import_module("concurrent.futures").CancelledError
    return error


@operation
def submit_and_result(shared: Shared, chance: random.Random) -> None:
    number = chance.randrange(100)
    assert shared.threads.submit(square, number).result(LIMIT) == number * number
    error = shared.threads.submit(fail, number).exception(LIMIT)
    assert error.args == (number,)


@operation
def map_(shared: Shared, chance: random.Random) -> None:
    items = range(chance.randrange(30))
    results = shared.threads.map(square, items, timeout=LIMIT)
    assert list(results) == [item * item for item in items]
    if shared.is_ours:
        buffered = shared.threads.map(square, items, buffersize=2)
        assert list(buffered) == [item * item for item in items]


@operation
def map_is_left(shared: Shared, chance: random.Random) -> None:
    results = shared.threads.map(square, range(30))
    assert next(results) == 0
    if chance.randrange(2):
        results.close()


@operation
def share_iterators(shared: Shared, chance: random.Random) -> None:
    place = chance.randrange(len(shared.iterators))
    if chance.randrange(4) == 0:
        if chance.randrange(2):
            made = shared.threads.map(square, range(20))
        else:
            made = shared.lib.as_completed(some(shared, chance), LIMIT)
        shared.iterators[place] = made
    try:
        if chance.randrange(30) == 0:
            getattr(shared.iterators[place], "close", lambda: None)()
        else:
            next(shared.iterators[place], None)
    except (ValueError, RuntimeError) as error:
        if not is_refusal(error):
            raise


@operation
def as_completed(shared: Shared, chance: random.Random) -> None:
    futures = {*some(shared, chance), *shared.futures}
    found = set()
    for future in shared.lib.as_completed(futures, LIMIT):
        found.add(future)
        outcome(future)
    assert found == futures


@operation
def wait(shared: Shared, chance: random.Random) -> None:
    futures = some(shared, chance)
    lib = shared.lib
    when = chance.choice([lib.ALL_COMPLETED, lib.FIRST_COMPLETED, lib.FIRST_EXCEPTION])
    done, not_done = lib.wait(futures + shared.futures, LIMIT, when)
    assert done
    assert not (done & not_done)
    lib.wait(shared.futures, chance.choice([0, 0.001]))


@operation
def cancel(shared: Shared, chance: random.Random) -> None:
    futures = some(shared, chance)
    for future in reversed(futures):
        future.cancel()
        assert future.cancelled() or future.running() or future.done()
    shared.futures[0].cancel()
    assert all(outcome(future) is None or future.done() for future in futures)


@operation
def callbacks(shared: Shared, chance: random.Random) -> None:
    futures = some(shared, chance)
    called: list[Any] = []
    expected = futures + shared.futures
    for future in expected:
        future.add_done_callback(called.append)
    shared.lib.wait(expected, LIMIT)
    end = time.monotonic() + LIMIT
    while len(called) < len(expected) and time.monotonic() < end:
        time.sleep(0)
    assert Counter(map(id, called)) == Counter(map(id, expected))


@operation
def set_by_hand(shared: Shared, chance: random.Random) -> None:
    future = shared.lib.Future()
    setters = [partial(future.set_result, n) for n in range(3)]
    setters += [partial(future.set_exception, KeyError(3))]
    calls = [shared.threads.submit(setter) for setter in setters]
    number = outcome(future)
    assert number in range(4)
    errors = [call.exception(LIMIT) for call in calls]
    assert sum(error is None for error in errors) == 1
    running = shared.lib.Future()
    if running.set_running_or_notify_cancel():
        running.set_result(number)
    assert running.result() == number


@operation
def attributes(shared: Shared, chance: random.Random) -> None:
    futures = some(shared, chance) + shared.futures
    repr(futures)
    for future in futures:
        with future._condition:
            assert future._state in (
                "PENDING",
                "RUNNING",
                "FINISHED",
                "CANCELLED",
                "CANCELLED_AND_NOTIFIED",
            )
            list(future._waiters)
        list(future._done_callbacks)
        assert weakref.ref(future)() is future
        vars(future)["note"] = chance.randrange(10)


@operation
def nested(shared: Shared, chance: random.Random) -> None:
    pool = shared.threads
    if not shared.is_ours:
        pool = shared.lib.ThreadPoolExecutor(8)
    assert pool.submit(lambda: pool.submit(square, 3).result(LIMIT)).result(LIMIT) == 9
    if not shared.is_ours:
        pool.shutdown()


@operation
def bounded(shared: Shared, chance: random.Random) -> None:
    futures = [shared.bounded.submit(square, number) for number in range(10)]
    futures[-1].cancel()
    for number, future in enumerate(futures):
        assert outcome(future) in (None, number * number)


@operation
def pools_come_and_go(shared: Shared, chance: random.Random) -> None:
    local = threading.local()
    pool = shared.lib.ThreadPoolExecutor(
        chance.randrange(1, 4), initializer=setattr, initargs=(local, "number", 5)
    )
    futures = [pool.submit(lambda: local.number) for _ in range(chance.randrange(10))]
    pool.shutdown(chance.choice([True, False]), cancel_futures=chance.choice([True, False]))
    try:
        pool.submit(square, 1)
    except RuntimeError:
        pass
    else:
        raise AssertionError("the pool is shut down")
    assert {outcome(future) for future in futures} <= {5, None}


@operation
def garbage(shared: Shared, chance: random.Random) -> None:
    pool = shared.lib.ThreadPoolExecutor(1)
    future = pool.submit(square, 2)
    future.pool, future.itself = pool, future
    assert future.result(LIMIT) == 4
    pool.shutdown()
    if chance.randrange(10) == 0:
        gc.collect(chance.randrange(3))


@operation
def record(shared: Shared, chance: random.Random) -> None:
    if not shared.is_ours:
        return
    with shared.lib.recording(records_per_thread=1024) as recording:
        for future in some(shared, chance):
            outcome(future)
    if chance.randrange(20) == 0:
        with tempfile.TemporaryDirectory() as folder:
            recording.save(Path(folder) / "run.json")


@operation
def other_pools(shared: Shared, chance: random.Random) -> None:
    for pool in shared.others:
        futures = [pool.submit(square, number) for number in range(chance.randrange(1, 10))]
        called: list[Any] = []
        for future in futures:
            future.add_done_callback(called.append)
        futures[-1].cancel()
        list(shared.lib.as_completed(futures, LIMIT))
        for number, future in enumerate(futures):
            assert outcome(future) in (None, number * number)
        assert isinstance(pool.submit(fail, 1).exception(LIMIT), KeyError)
        assert list(pool.map(square, range(10))) == [n * n for n in range(10)]


def work(
    shared: Shared, seed: int, end: float, only: list[str], problems: list[str]
) -> Counter[str]:
    """Call operations until the time is over, or another thread has found a problem."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    while time.monotonic() < end and not problems:
        name = chance.choice(only)
        try:
            OPERATIONS[name](shared, chance)
        except BaseException:
            problems.append(f"{name}, thread {seed}:\n{traceback.format_exc()}")
        counts[name] += 1
    return counts


@contextlib.contextmanager
def quick_switches() -> Iterator[None]:
    """Switch threads often, where there is the interpreter lock."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=60)
    add("--seed", type=int, default=1)
    add("--library", default="concurrent_futures")
    add("--only", help=f"operations, separated by commas: {', '.join(OPERATIONS)}")
    add("--kinds", default="process", help="further pools: process, interpreter, or none")
    arguments = parser.parse_args()
    only = arguments.only.split(",") if arguments.only else list(OPERATIONS)
    problems: list[str] = []
    counts: list[Counter[str]] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(quick_switches())
        lib = importlib.import_module(arguments.library)
        shared = Shared(lib, set(arguments.kinds.split(",")), stack)
        end = time.monotonic() + arguments.seconds
        threads = [
            threading.Thread(
                target=lambda seed=seed: counts.append(work(shared, seed, end, only, problems))
            )
            for seed in range(arguments.seed, arguments.seed + THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(*problems, sep="\n", end="")
    total = sum(counts, Counter())
    build = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "with the lock"
    print(f"{arguments.library}, {build}: {total.total()} operations")
    print(", ".join(f"{name} {count}" for name, count in sorted(total.items())))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
