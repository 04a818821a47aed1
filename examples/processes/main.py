"""Computes and crashes in worker processes: two reasons for a process pool.

Counts primes one after another, with threads and with processes. Then runs 200 tasks, of which
five crash: with `on_worker_death="isolate"`, an extension of this package, a crash costs one task.
An argument is another last number than 200,000.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from math import isqrt

from concurrent_futures import ProcessPoolExecutor, ThreadPoolExecutor, WorkerDiedError

PIECES = 40


def count_primes(first: int, end: int) -> int:
    numbers = range(max(first, 2), end)
    return sum(all(n % d for d in range(2, isqrt(n) + 1)) for n in numbers)


def measure(way: str, run: Callable[..., Iterable[int]], last: int) -> None:
    start = time.perf_counter()
    bounds = [(last + 1) * piece // PIECES for piece in range(PIECES + 1)]
    count = sum(run(count_primes, bounds[:-1], bounds[1:]))
    print(f"{way + ':':<20} {count} primes in {time.perf_counter() - start:.3f} s")


def sometimes_crashes(number: int) -> int:
    if number % 40 == 7:
        os.abort()
    return number


def main() -> None:
    last = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    measure("one after another", map, last)
    with ThreadPoolExecutor() as threads:
        measure("threads", threads.map, last)
    with ProcessPoolExecutor() as processes:
        measure("processes", processes.map, last)

    with ProcessPoolExecutor(on_worker_death="isolate") as pool:
        futures = [pool.submit(sometimes_crashes, number) for number in range(200)]
        errors = [error for future in futures if (error := future.exception())]
    crashes = [error for error in errors if isinstance(error, WorkerDiedError)]
    print(f"200 tasks: {200 - len(errors)} results, {len(crashes)} crashes:")
    for crash in crashes:
        print(f"  {crash}")


if __name__ == "__main__":
    main()
