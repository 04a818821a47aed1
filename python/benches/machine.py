"""The machine and the date of the figures."""

import datetime
import os
import platform
import resource
import sys
import sysconfig
import time
from pathlib import Path


class Disturbance:
    """Measures how busy other programs keep the machine."""

    def __init__(self) -> None:
        """Begin to watch the processors."""
        self._since = time.monotonic()
        self._others = _seconds_of_others()

    def share(self) -> float:
        """Return the share of the processors that other programs have had since the watch began."""
        capacity = (time.monotonic() - self._since) * _cores()
        # The kernel counts the machine's time in ticks, so that this may be a little below zero.
        return max(0.0, (_seconds_of_others() - self._others) / capacity)


def _seconds_of_others() -> float:
    """Return how long the processors were busy, but not with this process or its descendants.

    The time that the host gave to another machine counts as busy.
    """
    # cpu, user, nice, system, idle, iowait, irq, softirq, steal, and guests (in user too).
    ticks = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    busy = sum(int(count) for place, count in enumerate(ticks) if place not in (3, 4))
    ended = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(one.ru_utime + one.ru_stime for one in ended)
    return (busy - _ticks_of_descendants()) / os.sysconf("SC_CLK_TCK") - own


def _ticks_of_descendants() -> int:
    """Return the processor time of the descendants that run, with that of their ended children.

    The fork server of `multiprocessing` runs as long as its program, with the workers as its
    children.
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has ended.
        number = int(path.parent.name)
        # The parent, and the times of the process and of its ended children.
        parents[number] = int(fields[1])
        ticks[number] = sum(map(int, fields[11:15]))
    mine = os.getpid()

    def descends(number: int) -> bool:
        while number := parents.get(number, 0):
            if number == mine:
                return True
        return False

    return sum(count for number, count in ticks.items() if descends(number))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def today() -> str:
    """Return the date (UTC), year first."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def processor() -> str:
    """Return the model of the processor, and how many cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else 'unknown processor'}, {_cores()} cores"


def kernel() -> str:
    """Return the name and the version of the kernel."""
    return f"{platform.system()} {platform.release()}"


def interpreter() -> str:
    """Return which Python this is."""
    free = " free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    name, number = platform.python_implementation(), platform.python_version()
    return f"{name} {number}{free}, {platform.python_compiler()}"


def is_of_the_targets() -> bool:
    """Return whether this is the interpreter that the targets are set for."""
    return sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 13)
