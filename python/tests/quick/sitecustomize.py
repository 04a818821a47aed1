"""Makes the examples and the tutorials' programs, unmodified, quick enough for tests.

Python runs this file at its start if its folder is on `PYTHONPATH`; worker processes do too.

- A second lasts `EXAMPLES_SECOND` seconds, for the programs sleep for seconds.
- A line is printed at once. Otherwise two threads or processes that print at the same time can
  mix their lines: Python writes the end of a line by itself.
- Worker processes start by the method `EXAMPLES_START_METHOD`, if there is one.
"""

from __future__ import annotations

import builtins
import io
import os
import time
from typing import TextIO

SECOND = float(os.environ["EXAMPLES_SECOND"])

plain_sleep = time.sleep
plain_print = builtins.print


def sleep(seconds: float) -> None:
    plain_sleep(seconds * SECOND)


def print(
    *values: object,
    sep: str | None = " ",
    end: str | None = "\n",
    file: TextIO | None = None,
    flush: bool = False,
) -> None:
    line = io.StringIO()
    plain_print(*values, sep=sep, end=end, file=line)
    plain_print(line.getvalue(), end="", file=file, flush=flush)


time.sleep = sleep  # type: ignore[assignment]
builtins.print = print  # type: ignore[assignment]

if method := os.environ.get("EXAMPLES_START_METHOD"):
    import multiprocessing

    multiprocessing.set_start_method(method)
