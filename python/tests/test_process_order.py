"""Tests of the order in which the calls of a process pool start."""

import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support import eventually
from tasks import Flag


def noted(folder: Path, name: str) -> None:
    with open(folder / "order", "a") as order:
        order.write(f"{name}\n")


def held(folder: Path, name: str) -> None:
    noted(folder, name)
    Flag(folder / f"{name}.started").set()
    Flag(folder / f"{name}.released").wait()


@pytest.mark.parametrize("attempt", range(10))
def test_no_call_starts_before_one_that_stands_behind_a_long_call(
    lib: ModuleType, forking: Any, tmp_path: Path, attempt: int
) -> None:
    with lib.ProcessPoolExecutor(2, mp_context=forking) as pool:
        # Short calls, so that the pool hands calls to busy workers.
        assert list(pool.map(abs, range(20))) == list(range(20))
        calls = [pool.submit(held, tmp_path, "first")]
        eventually((tmp_path / "first.started").exists)
        time.sleep(0.002 * (attempt + 1))  # The first call takes long, more and more of it.
        calls.append(pool.submit(held, tmp_path, "second"))
        # Two that stand behind the long ones, and one that waits for the first of them.
        calls.append(pool.submit(noted, tmp_path, "third"))
        eventually((tmp_path / "second.started").exists)
        calls.append(pool.submit(noted, tmp_path, "fourth"))
        calls.append(pool.submit(held, tmp_path, "fifth"))
        Flag(tmp_path / "second.released").set()
        calls[2].result()
        eventually((tmp_path / "fifth.started").exists)
        for name in ["first", "fifth"]:
            Flag(tmp_path / f"{name}.released").set()
        for call in calls:
            call.result()
    order = (tmp_path / "order").read_text().split()
    assert order == ["first", "second", "third", "fourth", "fifth"]
