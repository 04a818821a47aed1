"""Measures executors on many machines beside Dask and Ray, in one run on one machine.

    python python/benches/cluster.py --floors F --measures M   writes the section of BENCHMARKS.md
    python python/benches/cluster.py --print …                 prints the section

``make bench-cluster`` does all of this. The rounds of the contestants are interleaved, each in a
program of its own with two worker processes. ``--floors`` and ``--measures`` name the examples of
these names of the crate `concurrent-futures-cluster`, built for release.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import machine
from cluster_workloads import double, more

PAGE = Path(__file__).resolve().parents[2] / "BENCHMARKS.md"
BEGIN, END = "<!-- cluster:begin -->", "<!-- cluster:end -->"
ROUNDS = 3
WORKERS = 2
#: The most seconds of one program.
LIMIT = 60

#: The targets of rows in Python, and their limits.
TARGETS = {
    "submit": ("Python: a call of many takes at most 70 µs", 70),
    "trip": ("Python: a round trip takes at most 350 µs", 350),
    "map": ("Python: an item of `map` takes at most 2 µs", 2),
    "array": ("Python: 8 MB there and back at 200 MB/s or more each way", 200),
}
#: The rows of the example `floors` that are compared.
ROUND_TRIP = "round trip: submit and result, one after the other"
BARE_TRIP = "floor: round trip of a bare task"

SUBMITS, TRIPS, ITEMS, ARRAYS = 1_000, 200, 10_000, 8
#: Eight megabytes of floats.
LENGTH = 1_000_000

ROWS = {
    "submit": f"`submit` of {SUBMITS:,} calls, then all results: one call, µs",
    "trip": "`submit(f, x).result()`, one after the other, µs",
    "map": f"`map` of {ITEMS:,} tiny items: one item, µs",
    "array": "an array of 8 MB there and back: MB/s each way",
}
PACKAGES = {"concurrent-futures": "concurrent-futures-cluster", "Dask": "distributed", "Ray": "ray"}


def _measure(
    submit: Callable[[Callable[[Any], Any], Any], Any],
    result: Callable[[Any], Any],
    mapped: Callable[[int], list[int]],
) -> dict[str, float]:
    """Return the figures of a contestant."""
    import numpy

    found = {}
    for future in [submit(double, n) for n in range(200)]:
        result(future)
    began = time.perf_counter()
    futures = [submit(double, n) for n in range(SUBMITS)]
    results = [result(future) for future in futures]
    found["submit"] = (time.perf_counter() - began) / SUBMITS * 1e6
    assert results == [2 * n for n in range(SUBMITS)]
    del futures
    trips = []
    for n in range(TRIPS):
        began = time.perf_counter()
        result(submit(double, n))
        trips.append(time.perf_counter() - began)
    found["trip"] = statistics.median(trips) * 1e6
    mapped(1_000)
    began = time.perf_counter()
    results = mapped(ITEMS)
    found["map"] = (time.perf_counter() - began) / ITEMS * 1e6
    assert results == [2 * n for n in range(ITEMS)]
    seconds = []
    for n in range(ARRAYS):
        # Another content each time: no contestant may know the array already.
        array = numpy.full(LENGTH, float(n))
        began = time.perf_counter()
        back = result(submit(more, array))
        seconds.append(time.perf_counter() - began)
        assert back[0] == n + 1
        assert len(back) == LENGTH
    found["array"] = 2 * array.nbytes / 1e6 / statistics.median(seconds)
    return found


def ours() -> dict[str, float]:
    from concurrent_futures import ClusterExecutor

    with ClusterExecutor("embedded", workers=WORKERS) as executor:
        return _measure(
            executor.submit,
            lambda future: future.result(),
            lambda count: list(executor.map(double, range(count))),
        )


def dask() -> dict[str, float]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):

        def submit(function: Callable[[Any], Any], argument: Any) -> Any:
            # A call with known arguments would not run again.
            return client.submit(function, argument, pure=False)

        return _measure(
            submit,
            lambda future: future.result(),
            lambda count: client.gather(client.map(double, range(count), pure=False)),
        )


def ray() -> dict[str, float]:
    import ray
    from ray.util.multiprocessing import Pool

    ray.init(num_cpus=2 * WORKERS, include_dashboard=False, logging_level="ERROR")
    calls: tuple[Callable[[Any], Any], ...] = (double, more)
    remotes = {function: ray.remote(function) for function in calls}
    # Its pool sends several items together, as ours does.
    pool = Pool(WORKERS)
    try:
        return _measure(
            lambda function, argument: remotes[function].remote(argument),
            ray.get,
            lambda count: pool.map(double, range(count)),
        )
    finally:
        pool.terminate()
        ray.shutdown()


CONTESTANTS = {"concurrent-futures": ours, "Dask": dask, "Ray": ray}


def _run(name: str) -> dict[str, float] | str:
    """Return the figures of a contestant in a program of its own, or why there are none."""
    command = [sys.executable, __file__, "--contestant", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"not in {LIMIT} seconds"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _version(name: str) -> str | None:
    try:
        return f"{name} {version(PACKAGES[name])}"
    except PackageNotFoundError:
        print(f"skipped: {name} is not installed", file=sys.stderr)
        return None


def _table(names: list[str], found: dict[str, list[dict[str, float]]]) -> list[str]:
    first, *others = names
    head = [f"**{first}**", *(cell for name in others for cell in (name, "×"))]
    lines = [f"| | {' | '.join(head)} |", f"|---|{'---:|' * len(head)}"]
    for row, text in ROWS.items():
        medians = {
            name: statistics.median(figures[row] for figures in found[name])
            for name in names
            if found[name]
        }
        cells = [f"{medians[first]:,.4g}"]
        for name in others:
            if name not in medians:
                cells += ["–", "–"]
                continue
            ratio = medians[name] / medians[first]
            cells += [
                f"{medians[name]:,.4g}",
                f"{1 / ratio if row == 'array' else ratio:.2f}",
            ]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return lines


def _run_floors(program: str) -> dict[str, tuple[float, str]]:
    """Return the figures of the example `floors`, with their units."""
    done = subprocess.run([program], capture_output=True, text=True, check=True, timeout=LIMIT)
    rows = (line.rsplit(maxsplit=2) for line in done.stdout.splitlines())
    return {text: (float(number), unit.replace("us", "µs")) for text, number, unit in rows}


def _floors(rounds: list[dict[str, tuple[float, str]]]) -> list[str]:
    lines = [f"| In Rust, in the same run: the median of {len(rounds)} rounds | |", "|---|---:|"]
    for text, (_, unit) in rounds[0].items():
        number = statistics.median(figures[text][0] for figures in rounds)
        lines.append(f"| {text} | {number:,.1f} {unit} |")
    return lines


def _row(target: str, measured: str, is_met: bool) -> str:
    return f"| {target} | {measured} | {'met' if is_met else '**not met**'} |"


def _python_targets(found: list[dict[str, float]]) -> list[str]:
    """Return the rows of the targets of the first table."""
    rows = []
    for key, (target, limit) in TARGETS.items():
        median = statistics.median(figures[key] for figures in found)
        unit = "MB/s" if key == "array" else "µs"
        is_met = median >= limit if key == "array" else median <= limit
        rows.append(_row(target, f"{median:,.4g} {unit}", is_met))
    return rows


def _rust_target(rounds: list[dict[str, tuple[float, str]]]) -> str:
    """Return the row of the round trip in Rust: in each round beside the bare one."""
    ratios = [figures[ROUND_TRIP][0] / figures[BARE_TRIP][0] for figures in rounds]
    ratio = statistics.median(ratios)
    target = "Rust: a round trip takes at most 1.5 times that of a bare task"
    return _row(target, f"{ratio:.2f} times ({min(ratios):.2f} to {max(ratios):.2f})", ratio <= 1.5)


def _measures(program: str) -> list[str]:
    done = subprocess.run([program], capture_output=True, text=True, check=True, timeout=150)
    found = json.loads(done.stdout.splitlines()[-1])
    lost, lease = max(found["lost_seconds"]), found["lease"]
    return [
        _row(
            f"{found['hosts']} idle hosts cost the server less than 5 % of a core",
            f"{found['idle_share'] * 100:.1f} %",
            found["idle_share"] < 0.05,
        ),
        _row(
            f"{found['pending']:,} pending tasks: at most 200 bytes each, besides the argument",
            f"{found['pending_bytes']:.0f} bytes, with the future and an argument of 8 bytes",
            found["pending_bytes"] <= 208,
        ),
        _row(
            "the task of a killed host runs elsewhere within the lease and a second",
            f"{lost:.2f} s at most in {len(found['lost_seconds'])} rounds; the lease is {lease} s",
            lost <= lease + 1,
        ),
    ]


def section(floors: str | None, measures: str | None) -> str:
    """Return the section of the page."""
    watch = machine.Disturbance()
    versions = {name: _version(name) for name in CONTESTANTS}
    names = [name for name in CONTESTANTS if versions[name]]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    troubles = {}
    rust = []
    for _ in range(ROUNDS):
        if floors is not None:
            rust.append(_run_floors(floors))
        for name in names:
            figures = _run(name)
            if isinstance(figures, str):
                troubles[name] = figures
            else:
                found[name].append(figures)
    lines = [
        BEGIN,
        "## Many machines",
        "",
        f"{machine.today()} · {machine.processor()} · {machine.kernel()} · {machine.interpreter()}"
        f" · {', '.join(filter(None, versions.values()))} · ",
        "",
        "Written by `make bench-cluster`. All programs run on one machine. Each contestant has "
        f"{WORKERS} worker processes, and the default settings of its own way to start on one "
        "machine. A cell is the median of "
        f"{ROUNDS} rounds, which are interleaved; each is a program of its own. Lower is better, "
        "except for the array. A column × tells how many times better ours is: above 1, ours is "
        "faster. `map` is that of the executor, Dask's `Client.map` with `gather`, and "
        "`ray.util.multiprocessing.Pool.map`.",
        "",
        *_table(names, found),
    ]
    if rust:
        lines += ["", *_floors(rust)]
    lines += ["", "| target | measured | |", "|---|---|---|", *_python_targets(found[names[0]])]
    if rust:
        lines.append(_rust_target(rust))
    if measures is not None:
        lines += _measures(measures)
    lines[3] += f"other programs took {watch.share() * 100:.3g} % of the processors meanwhile"
    for name, trouble in troubles.items():
        lines += ["", f"{name} failed in some rounds: `{trouble}`"]
    return "\n".join([*lines, END])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--floors", help="the program `floors`")
    parser.add_argument("--measures", help="the program `measures`")
    parser.add_argument("--print", action="store_true", help="print the section")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        print(json.dumps(CONTESTANTS[options.contestant]()))
        return
    text = section(options.floors, options.measures)
    if options.print:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    if BEGIN in page:
        head, rest = page.split(BEGIN)
        page = head + text + rest.split(END)[1]
    else:
        page = f"{page.rstrip()}\n\n{text}\n"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
