"""Runs programs on one library, and writes their records; for `compare.py`.

python child.py LIBRARY KIND SEED [SEED ...]      seeds are numbers, or files of statements
"""

from __future__ import annotations

import faulthandler
import importlib
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import generator
import stage as S  # noqa: N812  # Short, for programs to be readable.

#: The most seconds that a program takes.
HANGS = 6 * S.LIMIT


def run(cf: ModuleType, statements: list[str]) -> list[str]:
    """Return the record of a program."""
    with tempfile.TemporaryDirectory() as folder:
        stage = S.Stage(cf, Path(folder))
        names: dict[str, Any] = {
            "cf": cf,
            "S": S,
            "stage": stage,
            "itertools": itertools,
            "weakref": weakref,
            "context": multiprocessing.get_context("fork"),
            "spawn": multiprocessing.get_context("spawn"),
        }
        try:
            for statement in statements:
                try:
                    exec(statement, names)
                except BaseException as error:
                    stage.lines.append(f"{statement}: stopped by {S.describe(error)}")
        finally:
            stage.close()
        return stage.lines


def main() -> None:
    """Run programs; one line each, when it starts and when it has ended."""
    library, kind, *seeds = sys.argv[1:]
    cf = importlib.import_module(library)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for seed in seeds:
        faulthandler.dump_traceback_later(HANGS, exit=True)
        if seed.isdigit():
            statements = generator.program(int(seed), kind)
        else:
            statements = json.loads(Path(seed).read_text())
        print(json.dumps({"start": seed}), file=out, flush=True)
        lines = run(cf, statements)
        print(json.dumps({"seed": seed, "lines": lines}), file=out, flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
