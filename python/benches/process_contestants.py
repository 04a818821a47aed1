"""The process pools that are compared, each used as its own documentation says."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from contestants import OURS, Contestant, Pool, UnableError

#: The time in seconds for an answer that a crash in another task may have lost.
_LOST = 10


class ProcessPool:
    """A pool as the workloads see it. A pool does not override the methods that it cannot offer."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Submit one call, and return a handle of the result."""
        raise UnableError

    def take(self, handle: Any, timeout: float | None = None) -> Any:
        """Wait for a result."""
        raise UnableError

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Submit one call, and wait for its result."""
        return self.take(self.submit(function, *args))

    def run_all(self, function: Callable[[], object], count: int) -> list[object]:
        """Call a function a number of times, each in a task of its own."""
        handles = [self.submit(function) for _ in range(count)]
        return [self.take(handle) for handle in handles]

    def map_one_by_one(self, function: Callable[[int], int], items: range) -> list[int]:
        """Call the function for each item, each in a task of its own."""
        raise UnableError

    def map(self, function: Callable[[int], int], items: range) -> list[int]:
        """Call the function for each item, with the pool's default chunks."""
        raise UnableError

    def survivors(self, function: Callable[[int, int], int], count: int, bad: int) -> int:
        """Submit calls of which one exits its worker; return how many of the other calls return."""
        answers = 0
        with suppress(Exception):
            handles = [self.submit(function, item, bad) for item in range(count)]
            for item, handle in enumerate(handles):
                if item != bad:
                    with suppress(Exception):
                        answers += self.take(handle, _LOST) == item
        return answers


class FuturesPool(ProcessPool):
    """A pool that returns futures, and has the standard library's `map`."""

    def __init__(self, executor: Any) -> None:
        """Use an executor."""
        self._executor = executor

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._executor.submit(function, *args)

    def take(self, handle: Any, timeout: float | None = None) -> Any:
        return handle.result(timeout)

    def map_one_by_one(self, function: Callable[[int], int], items: range) -> list[int]:
        return list(self._executor.map(function, items, chunksize=1))

    def map(self, function: Callable[[int], int], items: range) -> list[int]:
        return list(self._executor.map(function, items))


class PebblePool(FuturesPool):
    """The pool of pebble, whose futures are the standard library's."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._executor.schedule(function, args=args)

    def map_one_by_one(self, function: Callable[[int], int], items: range) -> list[int]:
        return list(self._executor.map(function, items, chunksize=1).result())

    def map(self, function: Callable[[int], int], items: range) -> list[int]:
        return list(self._executor.map(function, items).result())


class ApplyPool(ProcessPool):
    """The pool of multiprocessing, and mpire's, which has the same interface."""

    def __init__(self, pool: Any, one_by_one: dict[str, int]) -> None:
        """Use a pool, and the setting that makes its map take each item alone."""
        self._pool = pool
        self._one_by_one = one_by_one

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.apply_async(function, args)

    def take(self, handle: Any, timeout: float | None = None) -> Any:
        return handle.get(timeout)

    def map_one_by_one(self, function: Callable[[int], int], items: range) -> list[int]:
        return list(self._pool.map(function, items, **self._one_by_one))

    def map(self, function: Callable[[int], int], items: range) -> list[int]:
        return list(self._pool.map(function, items))


class JoblibPool(ProcessPool):
    """The processes of joblib, which knows whole loops only."""

    def __init__(self, parallel: Any, one_by_one: Any, delayed: Any) -> None:
        """Use two loops: one with joblib's own batches, one that takes each item alone."""
        self._parallel = parallel
        self._one_by_one = one_by_one
        self._delayed = delayed

    def run_all(self, function: Callable[[], object], count: int) -> list[object]:
        delayed = self._delayed(function)
        results: list[object] = self._one_by_one(delayed() for _ in range(count))
        return results

    def map_one_by_one(self, function: Callable[[int], int], items: range) -> list[int]:
        delayed = self._delayed(function)
        results: list[int] = self._one_by_one(delayed(item) for item in items)
        return results

    def map(self, function: Callable[[int], int], items: range) -> list[int]:
        delayed = self._delayed(function)
        results: list[int] = self._parallel(delayed(item) for item in items)
        return results

    def survivors(self, function: Callable[[int, int], int], count: int, bad: int) -> int:
        delayed = self._delayed(function)
        with suppress(Exception):
            return len(self._one_by_one(delayed(item, bad) for item in range(count)))
        return 0


#: Makes a pool of so many workers, started by a method; or by its own, which has no name.
Open = Callable[[int, str | None], AbstractContextManager[ProcessPool]]


def _context(method: str | None) -> Any:
    return multiprocessing.get_context(method or "fork")


@contextmanager
def _ours(workers: int, method: str | None, **settings: Any) -> Iterator[ProcessPool]:
    executor = import_module("concurrent_futures").ProcessPoolExecutor
    with executor(workers, _context(method), **settings) as pool:
        yield FuturesPool(pool)


@contextmanager
def _standard_library(workers: int, method: str | None) -> Iterator[ProcessPool]:
    with concurrent.futures.ProcessPoolExecutor(workers, _context(method)) as pool:
        yield FuturesPool(pool)


@contextmanager
def _multiprocessing(workers: int, method: str | None) -> Iterator[ProcessPool]:
    with _context(method).Pool(workers) as pool:
        yield ApplyPool(pool, {"chunksize": 1})
        # After a crash, its results may be missing, and it would wait for them forever.
        if not pool._cache:
            pool.close()
            pool.join()


@contextmanager
def _loky(workers: int, method: str | None) -> Iterator[ProcessPool]:
    if method is not None:
        raise UnableError
    with import_module("loky").ProcessPoolExecutor(workers) as pool:
        yield FuturesPool(pool)


@contextmanager
def _pebble(workers: int, method: str | None) -> Iterator[ProcessPool]:
    with import_module("pebble").ProcessPool(workers, context=_context(method)) as pool:
        yield PebblePool(pool)


@contextmanager
def _mpire(workers: int, method: str | None) -> Iterator[ProcessPool]:
    pool = import_module("mpire").WorkerPool(workers, start_method=method or "fork")
    with pool:
        yield ApplyPool(pool, {"chunk_size": 1})


@contextmanager
def _joblib(workers: int, method: str | None) -> Iterator[ProcessPool]:
    if method is not None:
        raise UnableError
    module = import_module("joblib")
    # The workers are joblib's for as long as the program runs, and shared by its loops.
    with module.Parallel(n_jobs=workers) as parallel:
        one_by_one = module.Parallel(n_jobs=workers, batch_size=1, pre_dispatch="all")
        yield JoblibPool(parallel, one_by_one, module.delayed)


def _hanging(_: int, __: str | None) -> AbstractContextManager[ProcessPool]:
    """Refuse the workload, for pools that may hang when a worker dies."""
    raise UnableError


def _no_threads(_: int) -> AbstractContextManager[Pool]:
    raise UnableError


@dataclass(frozen=True)
class ProcessContestant(Contestant):
    """A contestant with worker processes."""

    processes: Open
    #: Makes the pool with the settings for workers that die.
    crashing: Open


def _contestant(
    name: str, package: str | None, processes: Open, crashing: Open | None = None
) -> ProcessContestant:
    return ProcessContestant(name, package, _no_threads, processes, crashing or processes)


ALL: Sequence[ProcessContestant] = (
    _contestant(OURS.name, OURS.package, _ours, partial(_ours, on_worker_death="isolate")),
    _contestant("concurrent.futures", None, _standard_library),
    _contestant("multiprocessing.Pool", None, _multiprocessing),
    _contestant("loky", "loky", _loky),
    _contestant("pebble.ProcessPool", "pebble", _pebble),
    _contestant("mpire", "mpire", _mpire, _hanging),
    _contestant("joblib", "joblib", _joblib),
)


def installed() -> list[ProcessContestant]:
    """Return the installed contestants."""
    return [contestant for contestant in ALL if contestant.is_installed]
