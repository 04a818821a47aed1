"""Tests of the runner of CPython's own tests: suites that are not installed, and cases that are
left out."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

RUNNER = Path(__file__).resolve().parents[1] / "cpython" / "run.py"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("cpython_runner", RUNNER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    return module


def test_missing_suites_are_reported_in_the_last_line_and_do_not_fail(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "find_tests", lambda suite: None)
    assert runner.main() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert all(suite.name in last for suite in runner.SUITES)
    assert "apt-get install libpython3." in last


def test_a_pattern_must_match_only_where_its_suite_is_installed(runner: ModuleType) -> None:
    first, second = runner.SUITES[:2]
    left_out = {first.name: {"*.test_one", "*.test_two"}, second.name: {"*.test_three"}}
    assert runner.unmatched(left_out, [], set()) == set()
    assert runner.unmatched(left_out, [second], {"*.test_three"}) == set()
    assert runner.unmatched(left_out, [first], {"*.test_one"}) == {"*.test_two"}


def test_each_case_that_is_left_out_names_a_suite_that_is_run(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {suite.name for suite in runner.SUITES}
    for version in ["3.11.2", "3.12.1", "3.13.0", "3.14.1", "3.15.0"]:
        monkeypatch.setattr(runner.platform, "python_version", lambda version=version: version)
        left_out = runner.read_left_out()
        assert left_out
        assert set(left_out) <= names


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython has such cases from 3.14 on")
def test_cases_in_parallel_threads_are_refused_where_there_are_none(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--parallel-threads", "4"])
    with pytest.raises(SystemExit):
        runner.main()
    assert "from 3.14 on" in capsys.readouterr().err
