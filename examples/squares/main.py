"""Squares eleven numbers, each in one to three seconds, and prints the process of each task.

`threads` as an argument takes a pool of threads: only the executor's name changes. `map` as an
argument takes `pool.map` in the place of `submit` and `result`.
"""

import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

NUMBERS = range(11)


def square(number: int) -> int:
    print(f"process {os.getpid()} squares {number}")
    time.sleep(random.randint(1, 3))
    return number * number


def main() -> None:
    executor = ThreadPoolExecutor if "threads" in sys.argv else ProcessPoolExecutor
    with executor(max_workers=3) as pool:
        if "map" in sys.argv:
            results = pool.map(square, NUMBERS)
        else:
            futures = [pool.submit(square, number) for number in NUMBERS]
            results = (future.result() for future in futures)
    print("the pool is shut down")
    for result in results:
        print(result)


if __name__ == "__main__":
    main()
