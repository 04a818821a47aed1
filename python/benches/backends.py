"""Measures process pools by a system's own calls and by portable ones, side by side.

    python python/benches/backends.py          writes the table into BENCHMARKS.md
    python python/benches/backends.py --print  prints the table

The rounds of both are interleaved, each in a program of its own. A cell has the median.
"""

import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from concurrent_futures import ProcessPoolExecutor

PAGE = Path(__file__).resolve().parents[2] / "BENCHMARKS.md"
BEGIN, END = "<!-- backends:begin -->", "<!-- backends:end -->"
BACKENDS = ("auto", "portable")
ROUNDS = 7
LONG = bytes(16 << 20)

ROWS = (
    "start and end of a pool with one worker, ms",
    "`submit(f, x).result()`, µs",
    "the same after a pause, µs",
    "`submit` of 5,000 calls, then all results: one call, µs",
    "`map` of 100,000 items: one item, µs",
    "16 MiB to a worker, ms",
    "16 MiB from a worker, ms",
)


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def measure() -> list[float]:
    """Return the numbers of the rows, in their units."""
    context = multiprocessing.get_context("fork")
    found = []

    def seconds(since: float) -> float:
        return time.perf_counter() - since

    begin = time.perf_counter()
    with ProcessPoolExecutor(1, context) as pool:
        pool.submit(double, 1).result()
    found.append(seconds(begin) * 1e3)
    with ProcessPoolExecutor(1, context) as pool:
        for number in range(2_000):
            pool.submit(double, number).result()
        begin = time.perf_counter()
        for number in range(2_000):
            pool.submit(double, number).result()
        found.append(seconds(begin) / 2_000 * 1e6)
        waits = []
        for number in range(40):
            time.sleep(0.005)
            begin = time.perf_counter()
            pool.submit(double, number).result()
            waits.append(seconds(begin))
        found.append(statistics.median(waits) * 1e6)
        begin = time.perf_counter()
        for future in [pool.submit(double, number) for number in range(5_000)]:
            future.result()
        found.append(seconds(begin) / 5_000 * 1e6)
        begin = time.perf_counter()
        assert sum(pool.map(double, range(100_000))) == 9_999_900_000
        found.append(seconds(begin) / 100_000 * 1e6)
        calls: list[tuple[Callable[[Any], object], object]] = [(len, LONG), (bytes, len(LONG))]
        for function, argument in calls:
            pool.submit(function, argument).result()
            begin = time.perf_counter()
            for _ in range(5):
                pool.submit(function, argument).result()
            found.append(seconds(begin) / 5 * 1e3)
    return found


def section() -> str:
    """Return the section of the page."""
    found: dict[str, list[list[float]]] = {backend: [] for backend in BACKENDS}
    for _ in range(ROUNDS):
        for backend in BACKENDS:
            environment = {**os.environ, "CONCURRENT_FUTURES_BACKEND": backend}
            command = [sys.executable, __file__, "--measure"]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            found[backend].append([float(word) for word in done.stdout.split()])
    lines = [
        BEGIN,
        "## Backends of process pools",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())} · {os.cpu_count()} CPUs · "
        f"{platform.system()} {platform.release()} · CPython {platform.python_version()}",
        "",
        "Written by `make bench-backends`: a system's own calls and portable ones, in interleaved "
        f"rounds. A cell is the median of {ROUNDS} rounds. Lower is better.",
        "",
        "| | Linux's own calls | portable calls | ratio |",
        "|---|---|---|---|",
    ]
    for place, row in enumerate(ROWS):
        own, portable = (
            statistics.median(numbers[place] for numbers in found[backend]) for backend in BACKENDS
        )
        lines.append(f"| {row} | {own:.3g} | {portable:.3g} | × {portable / own:.2f} |")
    return "\n".join([*lines, END])


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(*measure())
    elif "--print" in sys.argv:
        print(section())
    else:
        text = PAGE.read_text(encoding="utf-8")
        if BEGIN in text:
            head, rest = text.split(BEGIN)
            text = head + section() + rest.split(END)[1]
        else:
            text = f"{text.rstrip()}\n\n{section()}\n"
        PAGE.write_text(text, encoding="utf-8")
