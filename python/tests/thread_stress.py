"""Calls all operations of the package by eight threads, at random, and checks what they return.

    python thread_stress.py --seconds 600 [--only map,wait] [--library concurrent.futures]

Prints how often each operation was called. `sanitize_threads.py` runs it with the thread sanitizer.
The operations are in `stress_futures.py` and `stress_pools.py`.
"""

import argparse
import contextlib
import faulthandler
import importlib
import logging
import random
import sys
import sysconfig
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator

import stress_futures  # noqa: F401
import stress_pools  # noqa: F401
from stress_common import LIMIT, OPERATIONS, Shared

THREADS = 8


def work(
    shared: Shared, seed: int, end: float, only: list[str], problems: list[str]
) -> Counter[str]:
    """Call operations until the time is over, or another thread has found a problem."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    while time.monotonic() < end and not problems:
        name = chance.choice(only)
        try:
            OPERATIONS[name](shared, chance)
        except BaseException:
            problems.append(f"{name}, thread {seed}:\n{traceback.format_exc()}")
        counts[name] += 1
    return counts


@contextlib.contextmanager
def quick_switches() -> Iterator[None]:
    """Switch threads often, where there is the interpreter lock."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=60)
    add("--seed", type=int, default=1)
    add("--library", default="concurrent_futures")
    add("--only", help=f"operations, separated by commas: {', '.join(OPERATIONS)}")
    add("--kinds", default="process", help="further pools: process, interpreter, or none")
    arguments = parser.parse_args()
    only = arguments.only.split(",") if arguments.only else list(OPERATIONS)
    problems: list[str] = []
    counts: list[Counter[str]] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(quick_switches())
        # Failures of callbacks and initializers are logged on purpose.
        log = logging.getLogger("concurrent.futures")
        log.addHandler(logging.NullHandler())
        log.propagate = False
        # A thread that waits for ever shows where.
        faulthandler.dump_traceback_later(arguments.seconds + 2 * LIMIT, exit=True)
        lib = importlib.import_module(arguments.library)
        shared = Shared(lib, set(arguments.kinds.split(",")), stack)
        end = time.monotonic() + arguments.seconds
        threads = [
            threading.Thread(
                target=lambda seed=seed: counts.append(work(shared, seed, end, only, problems))
            )
            for seed in range(arguments.seed, arguments.seed + THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(*problems, sep="\n", end="")
    total = sum(counts, Counter())
    build = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "with the lock"
    print(f"{arguments.library}, {build}: {total.total()} operations")
    print(", ".join(f"{name} {count}" for name, count in sorted(total.items())))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
