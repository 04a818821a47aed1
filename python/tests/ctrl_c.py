"""Ctrl-C at random moments of programs that use pools, many times.

``python ctrl_c.py [--runs N] [--seed N] [--library NAME] KIND ...`` runs the program of each kind N
times, and counts how the runs end. The kinds are ``threads``, ``fork``, ``spawn`` and
``forkserver``. Each round of a program ends by an interrupt, and by nothing else. A run is good if
no interrupt was lost, no wait went on for ever, and the pool worked afterwards. The program must
also come to its end, and write nothing to the standard error. ``make ctrl-c`` runs it for a long
time.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

KINDS = ["threads", "fork", "spawn", "forkserver"]

#: The most seconds that a program may take for anything.
LIMIT = float(os.environ.get("CONCURRENT_FUTURES_TEST_LIMIT", "60"))

PROGRAM = """
import faulthandler, multiprocessing, random, signal, sys

kind, library, seed, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
faulthandler.register(signal.SIGUSR2, all_threads=True)
futures = __import__(library, fromlist=["wait"])
chance = random.Random(seed)

def make(workers):
    if kind == "threads":
        return futures.ThreadPoolExecutor(workers)
    context = multiprocessing.get_context(kind)
    return futures.ProcessPoolExecutor(workers, mp_context=context)

def results(pool):
    assert [f.result() for f in [pool.submit(abs, -n) for n in range(9)]] == list(range(9))

def waiting(pool):
    tasks = [pool.submit(abs, n) for n in range(9)]
    when = chance.choice([futures.ALL_COMPLETED, futures.FIRST_COMPLETED, futures.FIRST_EXCEPTION])
    done, not_done = futures.wait(tasks, return_when=when)
    assert len(done) + len(not_done) == 9 and done

def completed(pool):
    tasks = {pool.submit(abs, n): n for n in range(9)}
    assert sorted(task.result() for task in futures.as_completed(tasks)) == list(range(9))

def mapped(pool):
    assert list(pool.map(abs, range(-9, 0))) == list(range(9, 0, -1))

def called_back(pool):
    seen = []
    task = pool.submit(abs, -1)
    task.add_done_callback(seen.append)
    task.exception(LIMIT)

def fresh(pool):
    with make(3) as other:
        results(other)

LIMIT = 1000
works = [results, waiting, completed, mapped, called_back]
if kind in ("threads", "fork"):
    works.append(fresh)

def main():
    pool = make(3)
    done = 0
    while done < rounds:
        try:
            print("round", done, flush=True)
            while True:
                chance.choice(works)(pool)
        except KeyboardInterrupt:
            done += 1
    print("result", pool.submit(pow, 2, 3).result(), flush=True)
    pool.shutdown()
    print("end", flush=True)

if __name__ == "__main__":
    main()
"""


class End(NamedTuple):
    """The end of a run: its kind, and details."""

    how: str
    details: str


def run(kind: str, library: str, seed: int, rounds: int) -> End:
    """Runs a program of the kind, and interrupts it once in each of its rounds."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "err"), "w+b") as errors:
        path = Path(folder, "program.py")
        path.write_text(PROGRAM)
        process = subprocess.Popen(
            [sys.executable, str(path), kind, library, str(seed), str(rounds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            how, lines = _interrupted(process, rounds, chance)
            if how != "good":
                process.send_signal(signal.SIGUSR2)
                time.sleep(0.5)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        errors.seek(0)
        err = errors.read().decode(errors="replace")
        if how == "good" and err:
            how = "writes errors"
        return End(how, f"{kind} --seed {seed}: {how}\n{lines[-3:]}\n{err}")


def _interrupted(
    process: subprocess.Popen[bytes], rounds: int, chance: random.Random
) -> tuple[str, list[str]]:
    lines: list[str] = []
    assert process.stdout is not None
    for number in range(rounds):
        line = _line(process)
        lines.append(line)
        if line != f"round {number}\n":
            return _reason(process, line), lines
        # Mostly soon; at first, while workers are started.
        time.sleep(chance.choice([0, 0.0005, 0.005, 0.02]) * chance.random())
        process.send_signal(signal.SIGINT)
    for expected in "result 8\n", "end\n":
        lines.append(_line(process))
        if lines[-1] != expected:
            return _reason(process, lines[-1]), lines
    try:
        status = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        return "hangs at its end", lines
    return "good" if status == 0 else f"ends with {status}", lines


def _line(process: subprocess.Popen[bytes]) -> str:
    """Returns the next line of a program; empty if none comes in time."""
    assert process.stdout is not None
    end = time.monotonic() + LIMIT
    line = b""
    while not line.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            break
        byte = os.read(process.stdout.fileno(), 1)
        if not byte:
            break
        line += byte
    return line.decode()


def _reason(process: subprocess.Popen[bytes], line: str) -> str:
    """Return the reason why a program has not written its line."""
    if line:
        return f"writes {line!r}"
    try:
        return f"ends with {process.wait(1)}"
    except subprocess.TimeoutExpired:
        pass
    before = _cpu_time(process.pid)
    time.sleep(1)
    return "has lost an interrupt" if _cpu_time(process.pid) - before > 0.2 else "stands still"


def _cpu_time(pid: int) -> float:
    """Returns the seconds of CPU time that a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Runs what the command line says; fails if a run was not good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="+", choices=KINDS, metavar="KIND")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20, help="interrupts in each run")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--library", default="concurrent_futures")
    arguments = parser.parse_args()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background by a shell; the programs would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    bad = 0
    for kind in arguments.kinds:
        print(f"{kind}: {arguments.runs} runs from seed {arguments.seed}", flush=True)
        ends: Counter[str] = Counter()
        for seed in range(arguments.seed, arguments.seed + arguments.runs):
            end = run(kind, arguments.library, seed, arguments.rounds)
            ends[end.how] += 1
            if end.how != "good":
                print(end.details, flush=True)
        print(f"{kind}: {dict(ends)}", flush=True)
        bad += arguments.runs - ends["good"]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
