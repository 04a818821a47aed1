"""Multiplies the numbers 1 to 10 by the sum of 1 to 10,000,000, in three ways.

Each task adds the sum up anew, to have something to compute. `pool.map` takes the place of `map`,
so all three ways share one function. An argument is another last summand.
"""

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

FACTORS = range(1, 11)


def multiply(last: int, factor: int) -> int:
    return factor * sum(range(1, last + 1))


def measure(way: str, run: Callable[..., Iterable[int]], last: int) -> None:
    start = time.perf_counter()
    for factor, product in zip(FACTORS, run(partial(multiply, last), FACTORS), strict=True):
        print(f"{factor} times the sum: {product}")
    print(f"{way}: {time.perf_counter() - start:.3f} s")


def main() -> None:
    last = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    measure("one after another", map, last)
    with ThreadPoolExecutor(max_workers=5) as pool:
        measure("5 threads", pool.map, last)
    with ProcessPoolExecutor(max_workers=5) as pool:
        measure("5 processes", pool.map, last)


if __name__ == "__main__":
    main()
