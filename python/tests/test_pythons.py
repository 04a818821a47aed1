"""Tests of `pythons.py`, which finds the interpreters to test with, on files that look so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FINDER = Path(__file__).resolve().parents[1] / "pythons.py"


def find(folder: Path, versions: list[str]) -> list[str]:
    """Return the versions that are chosen if some are in a folder on `PATH`."""
    folder.mkdir()
    for version in versions:
        path = folder / f"python{version}"
        path.write_text(f"#!/bin/sh\necho {version}\necho {path}\n")
        path.chmod(0o755)
    environment = {"PATH": str(folder), "PYENV_ROOT": str(folder), "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, FINDER], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(os.name != "posix", reason="the files are scripts of a shell")
def test_the_newest_is_chosen_and_each_free_threaded_one(tmp_path: Path) -> None:
    chosen = find(tmp_path / "bin", ["3.97", "3.98", "3.98t", "3.99", "3.99t", "3.12t"])
    assert chosen[-1] == "3.99"
    assert {"3.98t", "3.99t"} <= set(chosen)
    assert not {"3.97", "3.98", "3.12t"} & set(chosen)
    free = [version for version in chosen if version.endswith("t")]
    assert chosen[: len(free)] == free


@pytest.mark.skipif(os.name != "posix", reason="the files are scripts of a shell")
def test_the_newest_is_chosen_by_its_number(tmp_path: Path) -> None:
    assert find(tmp_path / "bin", ["3.100", "3.99"])[-1] == "3.100"
