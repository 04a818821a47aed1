"""The terminal view of a running program, by rich: ``python -m concurrent_futures --top``."""

import atexit
import base64
import contextlib
import json
import math
import os
import sys
import threading
import time
from array import array
from collections import defaultdict
from typing import Any

from concurrent_futures._recording import recording

__all__ = ["Totals", "serve_program"]

#: The seconds between two pictures.
_PAUSE = 0.5
#: The part of the time that a picture may take.
_SHARE = 0.1
#: The records that each thread keeps: the view reads new ones twice a second.
_RECORDS = 1 << 17
#: The most rows of a table.
_MOST = 12

_TYPES = {"f64": "d", "f32": "f", "u32": "I", "u8": "B"}
_RUNNING, _FINISHED, _CANCELLED = 1, 2, 4


def _column(table: "dict[str, Any]", name: str) -> Any:
    """Return the values of a column; see docs/recording.md."""
    column = table["columns"][name]
    if "constant" in column:
        value = column["constant"]
        return [math.nan if value is None else value] * table["count"]
    values = array(_TYPES[column["type"]], base64.b64decode(column["base64"]))
    if sys.byteorder == "big":
        values.byteswap()
    return values


class _Function:
    """The sums over the runs of a function."""

    __slots__ = ("calls", "failed", "longest", "seconds")

    def __init__(self) -> None:
        self.calls = self.failed = 0
        self.seconds = self.longest = 0.0


class Totals:
    """The sums over a recording, by its updates."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {"pools": [], "workers": [], "duration": 0}
        self.functions: dict[str, _Function] = defaultdict(_Function)
        self.running: list[tuple[float, str, str]] = []
        self.pending: dict[int, int] = defaultdict(int)
        self.ended = 0
        self.rate = 0.0
        self._strings: list[str] = []
        self._last = (0, 0.0)

    def apply(self, document: "dict[str, Any]") -> None:
        """Take an update, or a whole document."""
        if "update" not in document:
            # The first one; or the recording has begun anew, and has the newest events only.
            self._strings = []
            self.functions.clear()
            self.ended = 0
        self.document = document
        self._strings += document["strings"]
        self._add(document["tasks"])
        self._set_open(document["open"]["tasks"])
        now = document["duration"] / 1e9
        ended, before = self._last
        if now > before and self.ended >= ended:
            self.rate = (self.ended - ended) / (now - before)
        self._last = (self.ended, now)

    def _names(self, table: "dict[str, Any]") -> "list[str]":
        strings = self._strings
        pairs = zip(_column(table, "label"), _column(table, "name"), strict=True)
        return [strings[label or name] or "task" for label, name in pairs]

    def _add(self, table: "dict[str, Any]") -> None:
        starts, ends = _column(table, "start"), _column(table, "end")
        outcomes, items = _column(table, "outcome"), _column(table, "items")
        rows = zip(self._names(table), starts, ends, outcomes, items, strict=True)
        for name, start, end, outcome, count in rows:
            self.ended += count
            if outcome == _CANCELLED:
                continue
            function = self.functions[name]
            function.calls += count
            function.failed += outcome != _FINISHED
            # A task that never started has no time.
            seconds = max(0.0, end - start) / 1e9
            if seconds == seconds:
                function.seconds += seconds
                function.longest = max(function.longest, seconds)

    def _set_open(self, table: "dict[str, Any]") -> None:
        self.running.clear()
        self.pending.clear()
        workers = self.document["workers"]
        names, outcomes = self._names(table), _column(table, "outcome")
        rows = zip(
            names,
            outcomes,
            _column(table, "start"),
            _column(table, "worker"),
            _column(table, "pool"),
            strict=True,
        )
        for name, outcome, start, worker, pool in rows:
            if outcome == _RUNNING:
                seconds = (self.document["duration"] - start) / 1e9
                place = workers[worker - 1]["name"] if worker else ""
                self.running.append((seconds, name, place))
            elif not outcome:
                self.pending[pool] += 1
        self.running.sort(reverse=True)


def _picture(totals: Totals) -> Any:
    """Return what the terminal shows."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    document = totals.document
    lost = f", {document['dropped']} events lost" if document.get("dropped") else ""
    head = Text(
        f"{document.get('program', '')}: {document['duration'] / 1e9:.1f} s, "
        f"{totals.ended} tasks ended, {totals.rate:.0f} a second{lost}"
    )
    pools = Table("pool", "kind", "workers", "pending")
    for place, pool in enumerate(document["pools"]):
        alive = sum(
            worker["pool"] == place and worker["end"] is None for worker in document["workers"]
        )
        pending = totals.pending[place + 1]
        name = Text(pool["name"])
        pools.add_row(name, pool["kind"], f"{alive} of {pool['max_workers']}", str(pending))
    running = Table("worker", "runs", "since")
    for seconds, name, worker in totals.running[:_MOST]:
        running.add_row(Text(worker), Text(name), f"{seconds:.1f} s")
    if len(totals.running) > _MOST:
        running.add_row("…", f"{len(totals.running) - _MOST} more", "")
    functions = Table("function", "calls", "failed", "total", "mean", "longest")
    by_time = sorted(totals.functions.items(), key=lambda item: -item[1].seconds)
    for name, sums in by_time[:_MOST]:
        mean = sums.seconds / max(sums.calls, 1)
        functions.add_row(
            Text(name),
            str(sums.calls),
            str(sums.failed),
            f"{sums.seconds:.3f} s",
            f"{mean * 1e3:.3f} ms",
            f"{sums.longest * 1e3:.3f} ms",
        )
    parts: list[Any] = [head]
    tables = (pools, running, functions)
    return Group(*parts, *(table for table in tables if table.row_count))


class _Top:
    """The view of a program, in a thread of its own."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        # The error stream of this moment: the program may replace it, or close it.
        self._console = Console(file=os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace"))
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            # The streams of the program stay its own.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._totals = Totals()
        self._recording = recording(records_per_thread=_RECORDS)
        self._follower = self._recording._follow()
        self._owner = os.getpid()
        self._ends = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="concurrent_futures top", daemon=True
        )

    def start(self) -> None:
        self._live.start()
        # A program that is killed leaves the terminal as it was.
        self._console.show_cursor(True)
        self._thread.start()
        atexit.register(self._end)

    def _run(self) -> None:
        goes_on = True
        # A terminal that is gone is no reason to disturb the program.
        with contextlib.suppress(OSError, ValueError):
            while goes_on:
                began = time.monotonic()
                document, goes_on = self._follower.update()
                self._totals.apply(json.loads(document))
                self._live.update(_picture(self._totals), refresh=True)
                took = time.monotonic() - began
                if goes_on:
                    self._ends.wait(max(_PAUSE, took / _SHARE))

    def _end(self) -> None:
        if os.getpid() != self._owner:
            return
        self._recording.stop()
        self._ends.set()
        self._thread.join()
        # Nor here.
        with contextlib.suppress(OSError, ValueError):
            self._live.stop()


def serve_program() -> None:
    """Show what an unmodified program does, or say why not."""
    try:
        top = _Top()
    except (ImportError, OSError) as error:
        text = f"no --top: {error}"
        if isinstance(error, ImportError):
            text += " (pip install concurrent-futures[top])"
        # The error stream may be closed, or a program's own object.
        with contextlib.suppress(Exception):
            print(f"concurrent_futures: {text}", file=sys.stderr, flush=True)
        return
    top.start()
