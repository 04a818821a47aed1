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
    """Return how long the processors were busy, but not with this process or its children.

    The time that the host gave to another machine counts as busy.
    """
    # cpu, user, nice, system, idle, iowait, irq, softirq, steal, and guests (in user too).
    ticks = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    busy = sum(int(count) for place, count in enumerate(ticks) if place not in (3, 4))
    own = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return busy / os.sysconf("SC_CLK_TCK") - sum(one.ru_utime + one.ru_stime for one in own)


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
