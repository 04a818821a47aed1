"""Runs random programs on the standard library and on this package, and compares their records.

    python compare.py --kind thread --count 1000 --seed 1      1,000 programs from seed 1 on
    python compare.py --kind process --seed 17 --show          prints a program, and both records
    python compare.py --kind thread --seed 17 --minimize       shortens a program that differs

A difference is a fault of the package, or of the generator, whose programs must leave nothing to
the scheduler. A difference that stays for a reason is named in COMPATIBILITY.md, and kept out of
programs.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import generator

HERE = Path(__file__).resolve().parent
STANDARD, OURS = "concurrent.futures", "concurrent_futures"
BATCH = 25


class Batch:
    """Programs that run on one library, most of them in one process."""

    def __init__(self, library: str, kind: str) -> None:
        self._library = library
        self._kind = kind

    def run(self, seeds: Sequence[str]) -> dict[str, list[str]]:
        """Run programs, and return their records; a record may say how its process ended."""
        records: dict[str, list[str]] = {}
        rest = list(seeds)
        while rest:
            code, output, errors = self._process(rest)
            started = None
            for line in output.splitlines():
                event = json.loads(line)
                started = event.get("start")
                if "seed" in event:
                    records[event["seed"]] = event["lines"]
            if started is not None:
                tail = "\n".join(errors.splitlines()[-60:])
                records[started] = [f"the process ended with {code}", tail]
            elif code and any(seed in records for seed in rest):
                last = [seed for seed in seeds if seed in records][-1]
                records[last].append(f"then the process ended with {code}: {errors[-4000:]}")
            elif not any(seed in records for seed in rest):
                raise RuntimeError(f"no program could be run: {errors}")
            rest = [seed for seed in rest if seed not in records]
        return records

    def _process(self, seeds: Sequence[str]) -> tuple[int, str, str]:
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, HERE / "child.py", self._library, self._kind, *seeds],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
            watch = threading.Timer(60 + 90 * len(seeds), process.kill)
            watch.start()
            process.wait()
            watch.cancel()
            for file in (output, errors):
                file.seek(0)
            return process.returncode, output.read(), errors.read()


#: The library that is compared with the standard library's.
compared = OURS


def compare(kind: str, seeds: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Return both records of the programs whose records differ."""
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(Batch(each, kind).run, seeds) for each in (STANDARD, compared)]
        standard, ours = [each.result() for each in running]
    return {seed: (standard[seed], ours[seed]) for seed in seeds if standard[seed] != ours[seed]}


def differs(kind: str, statements: list[str], tries: int = 1) -> bool:
    """Return whether a program's records differ."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "program.json")
        file.write_text(json.dumps(statements))
        return any(compare(kind, [str(file)]) for _ in range(tries))


def minimize(kind: str, statements: list[str]) -> list[str]:
    """Return the shortest program that shows a difference."""
    size = max(1, len(statements) // 2)
    while True:
        index = 0
        while index < len(statements):
            shorter = statements[:index] + statements[index + size :]
            if differs(kind, shorter):
                statements = shorter
            else:
                index += size
        if size == 1:
            return statements
        size //= 2


def print_difference(kind: str, seed: str, standard: list[str], ours: list[str]) -> None:
    """Print the differences."""
    print(f"DIFFERENCE in the {kind} program of seed {seed}:")
    for line in difflib.unified_diff(standard, ours, STANDARD, compared, lineterm="", n=1):
        print(f"    {line}")
    sys.stdout.flush()


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--kind", choices=["thread", "process"], default="thread")
    add("--seed", type=int, default=1)
    add("--count", type=int, default=1)
    add("--show", action="store_true", help="print the program")
    add("--minimize", action="store_true", help="print the shortest program with the difference")
    add("--control", action="store_true", help="compare the standard library with itself")
    add("--stop-after", type=int, default=20, help="how many differences are enough")
    add("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    return parser.parse_args()


def main() -> int:
    """Run programs, and print the differences."""
    global compared
    options = parse_options()
    if options.control:
        compared = STANDARD
    seeds = [str(seed) for seed in range(options.seed, options.seed + options.count)]
    if options.show:
        print("\n".join(generator.program(options.seed, options.kind)))
    if options.minimize:
        statements = generator.program(options.seed, options.kind)
        print("\n".join(minimize(options.kind, statements)))
    start = time.monotonic()
    batches = [seeds[i : i + BATCH] for i in range(0, len(seeds), BATCH)]
    different = 0
    done = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for batch, found in zip(
            batches, pool.map(lambda batch: compare(options.kind, batch), batches), strict=True
        ):
            done += len(batch)
            for seed, (standard, ours) in found.items():
                print_difference(options.kind, seed, standard, ours)
            different += len(found)
            if different >= options.stop_after:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    print(
        f"{done} {options.kind} programs from seed {options.seed} on, "
        f"{different} with a difference, in {time.monotonic() - start:.0f} s"
    )
    print(f"{done - different} passed, {different} failed")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
