"""A program with multiprocessing.Pool."""

import multiprocessing

from stopwatch import WORKERS, run, task


def once(method: str) -> object:
    """Make a pool, take its first result, and end it."""
    with multiprocessing.get_context(method).Pool(WORKERS) as pool:
        result = pool.apply(task)
        pool.close()
        pool.join()
    return result


if __name__ == "__main__":
    run(once)
