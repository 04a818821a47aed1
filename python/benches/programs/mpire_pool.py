"""A program with mpire."""

import mpire
from stopwatch import WORKERS, run, task


def once(method: str) -> object:
    """Make a pool, take its first result, and end it."""
    with mpire.WorkerPool(WORKERS, start_method=method) as pool:
        return pool.apply(task)


if __name__ == "__main__":
    run(once)
