"""The objects that the threads of `thread_stress.py` share, and the list of its operations."""

import contextlib
import importlib
import multiprocessing
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Nothing takes this long, in seconds, also under a sanitizer.
LIMIT = 300

FOLDER = str(Path(__file__).parent)
#: Both libraries have these classes.
CancelledError: Any = importlib.import_module("concurrent.futures").CancelledError
InvalidStateError: Any = importlib.import_module("concurrent.futures").InvalidStateError


def square(number: int) -> int:
    """Return the square of a number."""
    return number * number


def fail(number: int) -> int:
    """Raise an exception."""
    raise KeyError(number)


def use_folder(folder: str) -> None:
    """Let an interpreter find this module."""
    import sys

    sys.path.append(folder)


class Bare:
    """A future without a call, which several threads finish."""

    def __init__(self, lib: Any) -> None:
        self.future = lib.Future()
        #: The numbers that a thread has set without an error.
        self.set: list[int] = []


class Shared:
    """The objects that all threads use."""

    def __init__(self, lib: Any, kinds: set[str], stack: contextlib.ExitStack) -> None:
        self.lib = lib
        self.is_ours = lib.__name__ == "concurrent_futures"
        self.threads = stack.enter_context(lib.ThreadPoolExecutor(4))
        bounds = {"max_pending": 3} if self.is_ours else {}
        self.bounded = stack.enter_context(lib.ThreadPoolExecutor(2, **bounds))
        copying = {"copy_context": True} if self.is_ours else {}
        self.copying = stack.enter_context(lib.ThreadPoolExecutor(2, **copying))
        #: Pools of processes and interpreters, if they take part.
        self.others: list[Any] = []
        if "process" in kinds:
            context = multiprocessing.get_context("spawn")
            self.others.append(stack.enter_context(lib.ProcessPoolExecutor(2, context)))
        if "interpreter" in kinds:
            pool = lib.InterpreterPoolExecutor(2, initializer=use_folder, initargs=(FOLDER,))
            self.others.append(stack.enter_context(pool))
        #: Futures of other threads, which finish at some time or are cancelled.
        self.futures: list[Any] = [self.threads.submit(square, 1)] * 16
        self.iterators: list[Any] = [iter(())] * 4
        #: Futures without calls.
        self.bare = [Bare(lib) for _ in range(4)]
        #: Pools that any thread shuts down and replaces.
        self.pools: list[Any] = [lib.ThreadPoolExecutor(2) for _ in range(3)]
        stack.callback(lambda: [pool.shutdown() for pool in self.pools])
        #: Containers of futures that change while other threads wait for what is in them.
        first = self.futures[0]
        self.containers: list[Any] = [[first], {first}, {first: None}]
        #: Weak references to futures that other threads drop.
        self.weak: list[Callable[[], Any]] = [lambda: None] * 8
        #: Dumps and recordings of files are made one at a time.
        self.alone = threading.Lock()


Operation = Callable[[Shared, random.Random], None]
OPERATIONS: dict[str, Operation] = {}


def operation(function: Operation) -> Operation:
    """Register an operation."""
    OPERATIONS[function.__name__.removesuffix("_")] = function
    return function


def some(shared: Shared, chance: random.Random) -> list[Any]:
    """Submit some calls, show one of them to the other threads; return the futures."""
    numbers = [chance.randrange(100) for _ in range(chance.randrange(1, 20))]
    futures = [shared.threads.submit(square, number) for number in numbers]
    shared.futures[chance.randrange(len(shared.futures))] = futures[0]
    return futures


def outcome(future: Any) -> Any:
    """Wait for a future, which may be cancelled."""
    try:
        return future.result(LIMIT)
    except CancelledError:
        return None
    except KeyError as error:
        return error.args[0]
