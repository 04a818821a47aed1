"""The figures of executors."""

from dataclasses import dataclass
from typing import Any

__all__ = ["ExecutorStats", "QueueTimes"]


@dataclass(frozen=True, slots=True)
class QueueTimes:
    """The time that tasks spent in the queue; ``count`` is a number, all others are seconds.

    Percentiles are exact to an eighth of their value, and are 0 while ``count`` is.

    Examples
    --------
    >>> from concurrent_futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor() as pool:
    ...     first = pool.stats().queued.count  # From now on, times are measured.
    ...     value = pool.submit(abs, -7).result()
    ...     queued = pool.stats().queued
    >>> first, queued.count, queued.p50 <= queued.longest
    (0, 1, True)
    """

    #: The number of tasks that were measured.
    count: int
    #: Half of the tasks waited for at most this time.
    p50: float
    #: 95 % of the tasks waited for at most this time.
    p95: float
    #: 99 % of the tasks waited for at most this time.
    p99: float
    #: The longest time.
    longest: float


@dataclass(frozen=True, slots=True)
class ExecutorStats:
    """The figures of an executor since its start, as ``executor.stats()`` returns them.

    The figures are read one after the other while tasks go on. So they need not fit together
    exactly, but a task whose result a thread has is among the ended ones for that thread.

    Examples
    --------
    >>> from concurrent_futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor() as pool:
    ...     value = pool.submit(abs, -7).result()
    ...     stats = pool.stats()
    >>> stats.pending, stats.running, stats.finished, stats.failed
    (0, 0, 1, 0)
    """

    #: The number of tasks that wait for a worker. In a pool of processes, the calls of a ``map``
    #: that wait together count as one.
    pending: int
    #: The number of tasks that run.
    running: int
    #: The number of calls that returned a value.
    finished: int
    #: The number of calls that ended with an exception, and of tasks that failed without being
    #: started.
    failed: int
    #: The number of tasks that were cancelled.
    cancelled: int
    #: The number of workers that there are.
    workers: int
    #: The number of workers that were started in the place of others that had ended.
    restarts: int
    #: The seconds for which times have been measured: for threads, since the first call of
    #: ``stats``; for processes, since the start of the pool.
    measured: float
    #: The sum over all workers of the seconds for which they ran tasks, within the measured time.
    busy: float
    #: The time that tasks spent in the queue, for tasks that were submitted since the first call
    #: of ``stats`` and started.
    queued: QueueTimes


def of(figures: Any) -> ExecutorStats:
    """Return the figures that the native module gives, with their names."""
    counts, seconds, (count, times) = figures
    values = [*counts, *seconds, QueueTimes(count, *times)]
    return ExecutorStats(**dict(zip(ExecutorStats.__slots__, values, strict=True)))


def refused() -> RuntimeError:
    """Return the error of a pool that keeps no figures."""
    return RuntimeError(
        "this pool works by the standard library's code, which keeps no figures;"
        " COMPATIBILITY.md says when that is so"
    )


def html(pool: Any) -> str:
    """Return the figures of a pool as a table, for notebooks."""
    from dataclasses import asdict
    from html import escape

    try:
        figures = asdict(pool.stats())
    except RuntimeError:
        return f"<code>{escape(repr(pool))}</code>"
    queued = figures.pop("queued")
    figures["busy"] = f"{figures['busy']:.3f} s"
    figures["measured"] = f"{figures['measured']:.3f} s"
    if queued.pop("count"):
        figures |= {f"queued, {name}": f"{seconds:.6f} s" for name, seconds in queued.items()}
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in figures.items())
    return f"<table><caption>{escape(type(pool).__name__)}</caption>{rows}</table>"
