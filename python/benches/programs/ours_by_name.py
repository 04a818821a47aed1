"""The program with concurrent_futures, which imports the class by its name."""

import multiprocessing

from concurrent_futures import ProcessPoolExecutor
from stopwatch import WORKERS, run, task


def once(method: str) -> object:
    """Make a pool, take its first result, and end it."""
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context(method)) as pool:
        return pool.submit(task).result()


if __name__ == "__main__":
    run(once)
