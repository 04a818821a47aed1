"""Tests of `sanitize_threads.py`: the reports of the thread sanitizer that are ours."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

RUNNER = Path(__file__).resolve().parents[1] / "sanitize_threads.py"

OURS = """WARNING: ThreadSanitizer: data race (pid=1)
  Read of size 8 at 0x1 by thread T1:
    #0 memcpy <null> (python3.14t+0x1)
    #1 push queue.rs:99:9 (_engine.cpython-314t-x86_64-linux-gnu.so+0x2)
    #2 PyObject_Call call.c:1:1 (python3.14t+0x3)

  Previous write of size 8 at 0x1 by thread T2:
    #0 PyTuple_New tupleobject.c:1:1 (python3.14t+0x4)
"""
CALLED = """WARNING: ThreadSanitizer: data race (pid=1)
  Read of size 8 at 0x1 by thread T1:
    #0 list_next listobject.c:1:1 (python3.14t+0x1)
    #1 wait wait.rs:1:1 (_engine.cpython-314t-x86_64-linux-gnu.so+0x2)

  Previous write of size 8 at 0x1 by thread T2:
    #0 list_append listobject.c:2:1 (python3.14t+0x4)
"""
ELSEWHERE = """WARNING: ThreadSanitizer: data race (pid=1)
  Read of size 8 at 0x1 by thread T1:
    #0 range_next rangeobject.c:1:1 (python3.14t+0x1)

  Previous write of size 8 at 0x1 by thread T2:
    #0 range_next rangeobject.c:1:1 (python3.14t+0x4)

  Thread T1 'worker' created by main thread at:
    #0 pthread_create <null> (python3.14t+0x1)
    #1 start spawner.rs:1:1 (_engine.cpython-314t-x86_64-linux-gnu.so+0x2)
"""


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RUNNER.parent))
    spec = importlib.util.spec_from_file_location("sanitize_threads", RUNNER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "is_ours", "has_ours"),
    [(OURS, True, True), (CALLED, False, True), (ELSEWHERE, False, False)],
)
def test_a_report_is_ours_by_its_accesses(
    runner: ModuleType, text: str, is_ours: bool, has_ours: bool
) -> None:
    report = runner.Report(text)
    assert (report.is_ours, report.has_ours) == (is_ours, has_ours)


@pytest.mark.parametrize(
    ("texts", "fails"),
    [([ELSEWHERE, OURS], True), ([CALLED], True), ([ELSEWHERE, ELSEWHERE], False), ([], False)],
)
def test_a_run_with_a_frame_of_the_module_fails(
    runner: ModuleType, capsys: pytest.CaptureFixture[str], texts: list[str], fails: bool
) -> None:
    assert runner.fails([runner.Report(text) for text in texts]) == fails
    printed = capsys.readouterr().out
    for text in texts:
        # A report that fails a run is printed as a whole, another one by its functions.
        assert (text in printed) == (text != ELSEWHERE)
    assert f"{texts.count(ELSEWHERE)} reports in CPython\n" in printed


def test_each_suppression_has_a_reason(runner: ModuleType) -> None:
    before = ""
    for line in runner.SUPPRESSIONS.read_text().splitlines():
        assert line.startswith(("#", "race:")) or not line
        assert not line.startswith("race:") or before.startswith(("#", "race:"))
        before = line


def test_all_reports_of_all_processes_are_read(runner: ModuleType, tmp_path: Path) -> None:
    line = "==================\n"
    (tmp_path / "report.1").write_text(line + OURS + line + line + ELSEWHERE + line)
    (tmp_path / "report.2").write_text(line + CALLED + line)
    names = [report.names for report in runner.read(tmp_path)]
    assert names == ["PyTuple_New / push", "range_next / range_next", "list_append / list_next"]


def test_a_sanitizer_that_does_not_start_is_an_error(runner: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "report.1").write_text("FATAL: ThreadSanitizer: unexpected memory mapping\n")
    with pytest.raises(SystemExit, match="did not start"):
        runner.read(tmp_path)


def test_a_module_without_the_sanitizer_is_refused(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "lib_engine.so"
    library.write_bytes(b"no symbols")
    monkeypatch.setattr(runner.sysconfig, "get_config_var", lambda _: "--with-thread-sanitizer")
    monkeypatch.setattr(sys, "argv", ["sanitize_threads.py", str(library)])
    with pytest.raises(SystemExit, match="-Zsanitizer=thread"):
        runner.main()
