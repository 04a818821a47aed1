"""The pools that are compared, each used as its own documentation says."""

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue
from types import ModuleType
from typing import Any

Task = Callable[[], object]


class UnableError(Exception):
    """Raised by a pool that cannot do a workload."""


class Pool:
    """A pool as the workloads see it. A pool does not override the methods that it cannot offer."""

    def submit_all(self, task: Task, count: int) -> list[Any]:
        """Submit a task a number of times, and keep the handles of the results."""
        raise UnableError

    def take_all(self, handles: Sequence[Any]) -> list[object]:
        """Wait for all results, in the order of submission."""
        raise UnableError

    def run_all(self, task: Task, count: int) -> list[object]:
        """Run a task a number of times, and return all results."""
        return self.take_all(self.submit_all(task, count))

    def round_trips(self, task: Task, count: int) -> list[object]:
        """Wait for each result before the next task is submitted."""
        raise UnableError

    def map(self, function: Callable[[int], int], items: range) -> list[int]:
        """Call the function for each item, each in a task of its own."""
        raise UnableError

    def as_completed(self, task: Task, count: int) -> list[object]:
        """Run a task a number of times, and take the results in the order they come."""
        raise UnableError

    def call_back(
        self, task: Task, count: int, callback: Callable[[object], object]
    ) -> list[object]:
        """Submit a task a number of times, each with a callback, and take all results."""
        raise UnableError

    def drain(self, gate: "SimpleQueue[None]", count: int, ahead: int) -> int:
        """Wait for the first of the rest until none is left; return the number of calls.

        As many tasks as `ahead` may pass the gate at the beginning, then as many as are done.
        """
        raise UnableError

    def drain_by_hand(self, count: int) -> int:
        """Wait for the first of the remaining futures, again and again; return the number of calls.

        The futures have no executor: each is finished just before the call that finds it.
        """
        raise UnableError

    @property
    def executor(self) -> concurrent.futures.Executor:
        """Return the pool in the form that asyncio's `run_in_executor` takes."""
        raise UnableError


class FuturesPool(Pool):
    """A pool that returns futures."""

    def __init__(self, executor: Any, submit: Callable[[Task], Any], module: ModuleType) -> None:
        """Use an executor by one of its methods, and `wait` and `as_completed` of a module."""
        self._executor = executor
        self._submit = submit
        self._module = module

    def submit_all(self, task: Task, count: int) -> list[Any]:
        submit = self._submit
        return [submit(task) for _ in range(count)]

    def take_all(self, handles: Sequence[Any]) -> list[object]:
        return [future.result() for future in handles]

    def round_trips(self, task: Task, count: int) -> list[object]:
        submit = self._submit
        return [submit(task).result() for _ in range(count)]

    def map(self, function: Callable[[int], int], items: range) -> list[int]:
        return list(self._executor.map(function, items))

    def as_completed(self, task: Task, count: int) -> list[object]:
        futures = self.submit_all(task, count)
        return [future.result() for future in self._module.as_completed(futures)]

    def call_back(
        self, task: Task, count: int, callback: Callable[[object], object]
    ) -> list[object]:
        submit = self._submit
        futures = []
        for _ in range(count):
            future = submit(task)
            future.add_done_callback(callback)
            futures.append(future)
        return self.take_all(futures)

    def drain(self, gate: "SimpleQueue[None]", count: int, ahead: int) -> int:
        wait, first = self._module.wait, self._module.FIRST_COMPLETED
        pending = set(self.submit_all(gate.get, count))
        for _ in range(min(ahead, count)):
            gate.put(None)
        calls = 0
        while pending:
            done, pending = wait(pending, return_when=first)
            calls += 1
            for _ in done:
                gate.put(None)
        return calls

    def drain_by_hand(self, count: int) -> int:
        wait, first = self._module.wait, self._module.FIRST_COMPLETED
        futures = [self._module.Future() for _ in range(count)]
        pending = set(futures)
        calls = 0
        for future in futures:
            future.set_result(None)
            _, pending = wait(pending, return_when=first)
            calls += 1
        return calls if not pending else 0

    @property
    def executor(self) -> concurrent.futures.Executor:
        executor: concurrent.futures.Executor = self._executor
        return executor


class PebblePool(FuturesPool):
    """The pool of pebble, whose futures are the standard library's."""

    def map(self, function: Callable[[int], int], items: range) -> list[int]:
        return list(self._executor.map(function, items, chunksize=1).result())


class MultiprocessingPool(Pool):
    """The pool of multiprocessing, whose results can be waited for one by one only."""

    def __init__(self, pool: ThreadPool) -> None:
        """Use a pool."""
        self._pool = pool

    def submit_all(self, task: Task, count: int) -> list[Any]:
        submit = self._pool.apply_async
        return [submit(task) for _ in range(count)]

    def take_all(self, handles: Sequence[Any]) -> list[object]:
        return [result.get() for result in handles]

    def round_trips(self, task: Task, count: int) -> list[object]:
        apply = self._pool.apply
        return [apply(task) for _ in range(count)]

    def map(self, function: Callable[[int], int], items: range) -> list[int]:
        return self._pool.map(function, items, chunksize=1)

    def as_completed(self, task: Task, count: int) -> list[object]:
        return list(self._pool.imap_unordered(lambda _: task(), range(count), chunksize=1))

    def call_back(
        self, task: Task, count: int, callback: Callable[[object], object]
    ) -> list[object]:
        submit = self._pool.apply_async
        return self.take_all([submit(task, callback=callback) for _ in range(count)])


class JoblibPool(Pool):
    """The threads of joblib, which knows whole loops only."""

    def __init__(self, module: ModuleType, parallel: Any, unordered: Any) -> None:
        """Use two loops: one for results in order, one for results as they come."""
        self._delayed = module.delayed
        self._parallel = parallel
        self._unordered = unordered

    def run_all(self, task: Task, count: int) -> list[object]:
        delayed = self._delayed(task)
        results: list[object] = self._parallel(delayed() for _ in range(count))
        return results

    def map(self, function: Callable[[int], int], items: range) -> list[int]:
        delayed = self._delayed(function)
        results: list[int] = self._parallel(delayed(item) for item in items)
        return results

    def as_completed(self, task: Task, count: int) -> list[object]:
        delayed = self._delayed(task)
        return list(self._unordered(delayed() for _ in range(count)))


@contextmanager
def _ours(workers: int) -> Iterator[Pool]:
    module = import_module("concurrent_futures")
    with module.ThreadPoolExecutor(workers) as executor:
        yield FuturesPool(executor, executor.submit, module)


@contextmanager
def _standard_library(workers: int) -> Iterator[Pool]:
    with concurrent.futures.ThreadPoolExecutor(workers) as executor:
        yield FuturesPool(executor, executor.submit, concurrent.futures)


@contextmanager
def _multiprocessing(workers: int) -> Iterator[Pool]:
    with ThreadPool(workers) as pool:
        yield MultiprocessingPool(pool)
        pool.close()
        pool.join()


@contextmanager
def _pebble(workers: int) -> Iterator[Pool]:
    with import_module("pebble").ThreadPool(workers) as pool:
        yield PebblePool(pool, pool.schedule, concurrent.futures)


@contextmanager
def _joblib(workers: int) -> Iterator[Pool]:
    module = import_module("joblib")
    settings: dict[str, Any] = {"n_jobs": workers, "backend": "threading", "batch_size": 1}
    with module.Parallel(**settings) as parallel:
        unordered = module.Parallel(**settings, return_as="generator_unordered")
        yield JoblibPool(module, parallel, unordered)


@dataclass(frozen=True)
class Contestant:
    """A contestant of the benchmark."""

    name: str
    #: The package to install; none for the standard library.
    package: str | None
    #: Makes a pool of this many workers, which is closed when it is left.
    open: Callable[[int], AbstractContextManager[Pool]]
    #: Whether threads may use one pool at the same time.
    can_be_shared: bool = field(default=True, kw_only=True)

    @property
    def is_ours(self) -> bool:
        """Return whether the pool is this project's."""
        return self.name == OURS.name

    @property
    def is_installed(self) -> bool:
        """Return whether the pool is installed."""
        return self.package is None or find_spec(self.package) is not None


OURS = Contestant("concurrent_futures", "concurrent_futures", _ours)
STANDARD_LIBRARY = Contestant("concurrent.futures", None, _standard_library)
ALL = (
    OURS,
    STANDARD_LIBRARY,
    Contestant("multiprocessing.pool.ThreadPool", None, _multiprocessing),
    Contestant("pebble.ThreadPool", "pebble", _pebble),
    Contestant("joblib, threading", "joblib", _joblib, can_be_shared=False),
)


def installed(contestants: Sequence[Contestant] = ALL) -> list[Contestant]:
    """Return the installed contestants."""
    return [contestant for contestant in contestants if contestant.is_installed]


def missing(contestants: Sequence[Contestant] = ALL) -> list[str]:
    """Return the packages that have to be installed for a complete run."""
    return [
        contestant.package
        for contestant in contestants
        if contestant.package and not contestant.is_installed
    ]


def versions(contestants: Sequence[Contestant] = ALL) -> str:
    """Say which versions of the packages take part."""
    packages = [contestant.package for contestant in installed(contestants) if contestant.package]
    return ", ".join(f"{package} {_version(package)}" for package in dict.fromkeys(packages))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # It is on the path, and not installed.
        return str(import_module(package).__version__)
