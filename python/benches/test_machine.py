"""Tests of the figures on the machine."""

import multiprocessing
import time

from machine import _ticks_of_descendants


def work() -> None:
    """Keep a processor busy for half a second of its time."""
    while time.process_time() < 0.5:
        pass


def test_the_work_of_a_fork_servers_child_is_the_benchmarks_own() -> None:
    context = multiprocessing.get_context("forkserver")
    before = _ticks_of_descendants()
    worker = context.Process(target=work)
    worker.start()
    worker.join()
    # Half a second has some 50 ticks.
    assert _ticks_of_descendants() - before >= 40
