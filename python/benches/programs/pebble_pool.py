"""A program with pebble."""

import multiprocessing

import pebble
from stopwatch import WORKERS, run, task


def once(method: str) -> object:
    """Make a pool, take its first result, and end it."""
    with pebble.ProcessPool(WORKERS, context=multiprocessing.get_context(method)) as pool:
        return pool.schedule(task).result()


if __name__ == "__main__":
    run(once)
