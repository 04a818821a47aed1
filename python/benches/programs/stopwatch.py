"""A stopwatch for all programs here: it prints how long their pools took."""

import sys
import time
from collections.abc import Callable

#: The number of workers of each pool.
WORKERS = 2


def task() -> bool:
    """Do nothing."""
    return True


def run(once: Callable[[str], object]) -> None:
    """Make and end a pool again and again; print the milliseconds of each.

    The command line names the start method, and how often. The first pool is not counted: with it,
    what stays is started, such as the fork server.
    """
    method, count = sys.argv[1], int(sys.argv[2])
    for turn in range(count + 1):
        begun = time.perf_counter()
        result = once(method)
        elapsed = time.perf_counter() - begun
        if result is not True:
            sys.exit(f"the task has returned {result!r}")
        if turn > 0:
            print(elapsed * 1e3)
