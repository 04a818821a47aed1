"""Recordings for the tests of the page, in the format of docs/recording.md.

`python page/tests/recordings.py NAME > run.html` writes a page with one of them.
"""

import base64
import html
import json
import random
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "crates/concurrent-futures/src/page/timeline.html"

NAN = float("nan")
MS = 1e6
S = 1e9

COLUMNS = {
    "task": "u32",
    "submit": "f64",
    "start": "f64",
    "end": "f64",
    "name": "u32",
    "label": "u32",
    "arguments": "u32",
    "outcome": "u8",
    "error": "u32",
    "pool": "u32",
    "worker": "u32",
    "parent": "u32",
    "items": "u32",
    "attempt": "u8",
    "sent": "u32",
    "received": "u32",
    "pickling": "f32",
}
WAITS = {"start": "f64", "end": "f64", "waiter": "u32", "awaited": "u32"}
TYPES = {"f64": "d", "f32": "f", "u32": "I", "u8": "B"}
TEXTS = {"name", "label", "arguments", "error"}


class Recording:
    """A recording that is being made."""

    def __init__(self, program: str = "script.py") -> None:
        self.program = program
        self.pools: list[dict[str, Any]] = []
        self.workers: list[dict[str, Any]] = []
        self.strings: dict[str, int] = {"": 0}
        self.tasks = {name: array(TYPES[kind]) for name, kind in COLUMNS.items()}
        self.waits = {name: array(TYPES[kind]) for name, kind in WAITS.items()}
        self.members: dict[str, Any] = {}

    def text(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def pool(self, workers: int, kind: str = "threads", name: str = "") -> tuple[int, list[int]]:
        """Adds a pool, and returns its number and those of its workers, as tasks refer to them."""
        is_threads = kind == "threads"
        name = name or f"{'Thread' if is_threads else 'Process'}PoolExecutor-{len(self.pools)}"
        pool = len(self.pools)
        self.pools.append({"id": pool + 1, "kind": kind, "name": name, "max_workers": workers})
        numbers = []
        for i in range(workers):
            worker = {
                "id": len(self.workers) + 1,
                "pool": pool,
                "name": f"{name}_{i}" if is_threads else f"ForkProcess-{i + 1}",
                "pid": 4711 if is_threads else 4800 + i,
                "start": 0.1 * MS * i,
                "end": None,
                "exit": None,
            }
            self.workers.append(worker)
            numbers.append(len(self.workers))
        return pool + 1, numbers

    def task(self, **values: Any) -> int:
        """Adds a row, and returns the number of the task."""
        row = {"items": 1, "outcome": 2, "submit": NAN, "start": NAN, "end": NAN, **values}
        row.setdefault("task", len(self.tasks["task"]) + 1)
        for name, column in self.tasks.items():
            value = row.get(name, 0)
            column.append(self.text(value) if name in TEXTS else value)
        return int(row["task"])

    def wait(self, waiter: int, awaited: int, start: float, end: float) -> None:
        for name, value in {
            "start": start,
            "end": end,
            "waiter": waiter,
            "awaited": awaited,
        }.items():
            self.waits[name].append(value)

    def document(self, **members: Any) -> dict[str, Any]:
        ends = [t for t in self.tasks["end"] if t == t]
        return {
            "format": "concurrent-futures recording",
            "version": 1,
            "program": self.program,
            "pid": 4711,
            "started": 1790000000.25,
            "duration": max(ends, default=0),
            "finished": True,
            "dropped": 0,
            "strings": list(self.strings),
            "pools": self.pools,
            "workers": self.workers,
            "tasks": table(self.tasks, COLUMNS),
            "waits": table(self.waits, WAITS),
            **self.members,
            **members,
        }


def table(columns: dict[str, array], types: dict[str, str], first: int = 0) -> dict[str, Any]:  # type: ignore[type-arg]
    """Returns the rows of a table from `first` on, as the format has it."""
    written: dict[str, Any] = {}
    count = 0
    for name, values in columns.items():
        part = values[first:]
        count = len(part)
        if count > 1 and part.count(part[0]) == count:
            written[name] = {"type": types[name], "constant": part[0]}
        else:
            text = base64.b64encode(part.tobytes()).decode()
            written[name] = {"type": types[name], "base64": text}
    return {"count": count, "columns": written}


def page(document: Any, events: str = "", template: str | None = None) -> str:
    """Returns the page with a document in it, as the engine writes it."""
    text = document if isinstance(document, str) else json.dumps(document)
    before, rest = (template or PAGE.read_text(encoding="utf-8")).split("@EVENTS@")
    middle, after = rest.split("@RECORDING@")
    return before + html.escape(events) + middle + text.replace("<", "\\u003c") + after


def download(seed: int = 7) -> Recording:
    """80 downloads by 20 threads; some fail, one is slow."""
    chance = random.Random(seed)
    made = Recording("download.py")
    pool, workers = made.pool(20)
    free = [0.4 * MS * (i + 1) for i in range(20)]
    for n in range(80):
        i = free.index(min(free))
        start = free[i] + 30e3
        length = chance.lognormvariate(0, 0.35) * 90 * MS + (620 * MS if n == 61 else 0)
        values: dict[str, Any] = {"name": "download_one", "label": f"picture {n:02}.gif"}
        if n % 17 == 11:
            values |= {"outcome": 3, "error": "HTTPError: 404 Client Error: Not Found"}
            length /= 3
        free[i] = start + length
        made.task(submit=n * 12e3, start=start, end=free[i], pool=pool, worker=workers[i], **values)
        if n == 70:
            break
    for _ in range(9):
        made.task(submit=900e3, end=500 * MS, name="download_one", outcome=4, pool=pool)
    for worker in made.workers:
        worker["end"] = max(free) + 2 * MS
    return made


def processes(seed: int = 3) -> Recording:
    """Worker processes: parts of a map, a crash, a time limit, a retry, large arguments."""
    chance = random.Random(seed)
    made = Recording("simulate.py")
    pool, workers = made.pool(4, "processes")
    for i, worker in enumerate(made.workers):
        worker["start"] = (20 + 4 * i) * MS
    free = [40 * MS + 5 * MS * i for i in range(4)]
    for n in range(160):
        i = free.index(min(free))
        start = free[i] + chance.uniform(0.05, 0.4) * MS
        values: dict[str, Any] = {
            "name": chance.choice(["Model.step", "Model.step", "load_grid", "report"])
        }
        values |= {"sent": chance.randint(200, 90_000), "received": chance.randint(50, 4_000_000)}
        values |= {
            "pickling": chance.uniform(2e3, 2e5),
            "items": 16 if values["name"] == "Model.step" else 1,
        }
        length = chance.uniform(4, 30) * MS
        if n == 60:
            values |= {
                "outcome": 6,
                "error": "WorkerDiedError: the worker process was killed by signal 11",
            }
            made.workers[i]["end"] = start + length
            made.workers[i]["exit"] = {"signal": 11}
            new = dict(
                made.workers[i], id=9, name="ForkProcess-5", pid=4900, start=start + length + 3 * MS
            )
            made.workers.append(new | {"end": None, "exit": None})
        if n == 90:
            values |= {"outcome": 7, "error": "TaskTimeoutError: killed after 0.1 seconds"}
        if n == 110:
            values |= {"outcome": 8}
        number = made.task(
            submit=n * MS * 0.3,
            start=start,
            end=start + length,
            pool=pool,
            worker=workers[i],
            **values,
        )
        free[i] = start + length + 0.02 * MS
        if n == 60:
            workers[i] = len(made.workers)
            free[i] += 8 * MS
            again = values | {"outcome": 2, "error": "", "attempt": 1, "task": number}
            made.task(
                submit=n * MS * 0.3,
                start=free[i],
                end=free[i] + length,
                pool=pool,
                worker=workers[i],
                **again,
            )
            free[i] += length
    return made


def waiting() -> Recording:
    """Tasks that submit tasks and wait for them, in two pools."""
    made = Recording("tree.py")
    pool, workers = made.pool(6, name="tree")
    other, others = made.pool(2, name="disk")
    now = 1 * MS
    for round_ in range(6):
        start = now
        parent = made.task(
            submit=start - 0.5 * MS,
            start=start,
            end=start + 60 * MS,
            name="build",
            pool=pool,
            worker=workers[0],
        )
        for child in range(1, 6):
            length = (8 + 9 * child) * MS
            name = f"compile.<locals>.unit_{child % 3}"
            number = made.task(
                submit=start + child * MS,
                start=start + (child + 0.7) * MS,
                end=start + length,
                name=name,
                pool=pool,
                worker=workers[child],
                parent=parent,
            )
            begin = start + (6 * MS if child == 1 else (8 + 9 * (child - 1)) * MS)
            made.wait(parent, number, begin, start + length)
            made.task(
                submit=start + length - 4 * MS,
                start=start + length - 2 * MS,
                end=start + length + 2 * MS,
                name="write",
                pool=other,
                worker=others[child % 2],
                parent=number,
            )
        now = start + (64 + round_) * MS
    return made


def many(count: int, workers: int = 8, seed: int = 5) -> Recording:
    """Short tasks of several functions, with rare errors."""
    chance = random.Random(seed)
    made = Recording("many.py")
    pool, numbers = made.pool(workers)
    names = [made.text(name) for name in ("parse", "tokenize", "normalize", "lookup", "store")]
    error = made.text("ValueError: invalid literal for int() with base 10: 'x'")
    tasks = made.tasks
    free = [1e5 + 1e3 * i for i in range(workers)]
    uniform = chance.random
    for n in range(count):
        i = n % workers if uniform() < 0.9 else int(uniform() * workers)
        start = free[i] + 400 + 900 * uniform()
        kind = int(uniform() * uniform() * 5)
        length = (kind + 1) * 1800 * (0.6 + uniform()) * (200 if uniform() < 2e-4 else 1)
        free[i] = start + length
        is_error = uniform() < 3e-4
        for name, value in (
            ("task", n + 1),
            ("submit", start - 2e5 * uniform() - 2e3),
            ("start", start),
            ("end", free[i]),
            ("name", names[kind]),
            ("outcome", 3 if is_error else 2),
            ("error", error if is_error else 0),
            ("pool", pool),
            ("worker", numbers[i]),
            ("items", 1),
        ):
            tasks[name].append(value)
    for name in COLUMNS:
        if not len(tasks[name]):
            tasks[name].extend(array(TYPES[COLUMNS[name]], bytes(tasks[name].itemsize * count)))
    return made


def nasty() -> Recording:
    """Texts and numbers as no program should have them."""
    made = Recording("</script><script>document.title='broken'</script>")
    pool, workers = made.pool(2, name="<b>pool</b>\nsecond line")
    texts = [
        "</script><img src=x onerror=alert(1)>",
        "<!--",
        "a\nb\tc",
        "\u202eevil",
        "\ud83d\ude00" * 40,
        "]]>",
        "`code`",
        "x" * 5000,
    ]
    for n, text in enumerate(texts):
        made.task(
            submit=n * MS,
            start=(n + 0.5) * MS,
            end=(n + 2) * MS,
            name=text,
            label=text,
            error=text,
            arguments=text,
            outcome=3,
            pool=pool,
            worker=workers[n % 2],
        )
    made.task(
        submit=-5 * MS, start=-3 * MS, end=2 * MS, name="before", pool=pool, worker=workers[0]
    )
    made.task(
        submit=1 * MS, start=9 * MS, end=8 * MS, name="backwards", pool=pool, worker=workers[1]
    )
    made.task(
        submit=1e300,
        start=float("inf"),
        end=-float("inf"),
        name="infinite",
        pool=pool,
        worker=workers[1],
    )
    made.task(start=3 * MS, name="no end", outcome=1, pool=pool, worker=workers[0])
    made.task(
        submit=2 * MS,
        start=3 * MS,
        end=4 * MS,
        name="nowhere",
        outcome=77,
        pool=99,
        worker=4294967295,
        parent=4294967295,
    )
    made.task(submit=2 * MS, name="pending", outcome=0, pool=pool, items=0)
    made.wait(1, 4294967295, 1 * MS, NAN)
    made.wait(99999, 1, NAN, NAN)
    return made


def empty() -> Recording:
    """A recording in which nothing happened."""
    return Recording("empty.py")


NAMES: dict[str, Callable[[], Recording]] = {
    "download": download,
    "processes": processes,
    "waiting": waiting,
    "nasty": nasty,
    "empty": empty,
    "many": lambda: many(100_000),
    "million": lambda: many(1_000_000),
}

if __name__ == "__main__":
    sys.stdout.write(page(NAMES[sys.argv[1]]().document()))
