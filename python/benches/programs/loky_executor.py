"""A program with loky, which has a start method of its own."""

import loky
from stopwatch import WORKERS, run, task


def once(method: str) -> object:
    """Make a pool, take its first result, and end it."""
    with loky.ProcessPoolExecutor(WORKERS) as pool:
        return pool.submit(task).result()


if __name__ == "__main__":
    run(once)
