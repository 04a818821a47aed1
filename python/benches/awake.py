"""Keeps the processors from going idle."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Runs on one processor when nothing else would, as long as its parent lives.
_SPINNER = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    pass
"""


@contextmanager
def awake() -> Iterator[None]:
    """Keep all processors busy with processes that give way to all others.

    A processor that is idle takes a while to come back, above all a virtual machine's.
    """
    spinners = [
        subprocess.Popen([sys.executable, "-c", _SPINNER, str(core)], stdout=subprocess.PIPE)
        for core in os.sched_getaffinity(0)
    ]
    try:
        for spinner in spinners:
            assert spinner.stdout is not None, "it is a pipe"
            spinner.stdout.readline()
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.communicate()
