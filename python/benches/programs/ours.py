"""A program with concurrent_futures."""

import multiprocessing

import concurrent_futures
from stopwatch import WORKERS, run, task


def once(method: str) -> object:
    """Make a pool, take its first result, and end it."""
    context = multiprocessing.get_context(method)
    with concurrent_futures.ProcessPoolExecutor(WORKERS, context) as pool:
        return pool.submit(task).result()


if __name__ == "__main__":
    run(once)
