"""Recordings to files that grow: killed programs, full disks, forks, and other formats."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import concurrent_futures as cf
from support import LIMIT, environment, eventually, held
from test_recording import answer, document_of, rows, rows_of


def test_a_file_has_at_any_time_what_happened_before(tmp_path: Path) -> None:
    path = tmp_path / "run.recording"
    with cf.ThreadPoolExecutor(1) as executor, cf.recording(file=path) as recording:
        executor.submit(answer, 1).result(LIMIT)
        with held(executor):
            executor.submit(answer, 2)
            # Without a request of the program.
            eventually(lambda: len(rows(cf.Recording.open(path))) == 3)
            opened = document_of(cf.Recording.open(path))
            assert [row["outcome"] for row in rows_of(opened)] == [2, 1, 0]
            assert not opened["finished"]
    assert recording.error is None
    opened = document_of(cf.Recording.open(os.fspath(path)))
    assert opened == document_of(recording)
    assert opened["finished"]
    assert [row["outcome"] for row in rows_of(opened)] == [2, 2, 2]
    recording.save(tmp_path / "run.html")
    cf.Recording.open(path).save(tmp_path / "again.html")
    assert (tmp_path / "run.html").read_bytes() == (tmp_path / "again.html").read_bytes()


def test_files_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cf.recording(file=tmp_path / "none" / "run.recording")
    with pytest.raises(FileNotFoundError):
        cf.Recording.open(tmp_path / "none")
    (tmp_path / "other").write_text("no recording\n")
    with pytest.raises(OSError, match="no first line of this format"):
        cf.Recording.open(tmp_path / "other")
    if sys.platform == "linux":
        with pytest.raises(OSError, match="space"):
            cf.recording(file="/dev/full")


def run(tmp_path: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(code))
    return subprocess.run(
        [sys.executable, "-m", "concurrent_futures", *options, str(script)],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


#: Ends of a program, and its exit codes.
ENDS = {
    "return": ("", 0),
    "exit": ("sys.exit(7)", 7),
    "exception": ("raise SystemExit(8)", 8),
    "os._exit": ("os._exit(5)", 5),
    "kill": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "exec": ("os.execv('/bin/sh', ['sh', '-c', 'exit 4'])", 4),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_leaves_its_file_however_it_ends(tmp_path: Path, end: str) -> None:
    line, code = ENDS[end]
    ended = run(
        tmp_path,
        f"""
        import os, signal, sys, time
        from concurrent.futures import ThreadPoolExecutor

        executor = ThreadPoolExecutor(2)
        list(executor.map(abs, range(100)))
        print("done", flush=True)
        size = os.path.getsize("run.recording")
        # The file gets a block each second, and at once if something happens.
        while os.path.getsize("run.recording") == size:
            executor.submit(time.sleep, 0.01).result()
        os.chdir("/")
        {line}
        """,
        "--record",
        "run.recording",
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "done\n", "")
    document = document_of(cf.Recording.open(tmp_path / "run.recording"))
    found = [row for row in rows_of(document) if row["name"] == "abs"]
    assert [row["outcome"] for row in found] == [2] * 100
    assert document["finished"] == (end in ("return", "exit", "exception"))
    assert document["program"] == "program.py"
    command = [sys.executable, "-m", "concurrent_futures", "--convert", "run.recording"]
    files = [tmp_path / "run.json", tmp_path / "run.html", tmp_path / "run.columns.json"]
    subprocess.run(
        [*command, *map(os.fspath, files)],
        env=environment(),
        cwd=tmp_path,
        check=True,
        timeout=LIMIT,
    )
    events = json.loads(files[0].read_text())["traceEvents"]
    assert len([event for event in events if event["name"] == "abs" and event["ph"] == "X"]) == 100
    assert json.loads(files[2].read_text()) == document


def test_a_conversion_that_fails_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "concurrent_futures", "--convert", "none", "run.html"]
    ended = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("concurrent_futures: ")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")
def test_a_file_that_cannot_be_written_leaves_the_program_alone(tmp_path: Path) -> None:
    (tmp_path / "full.recording").symlink_to("/dev/full")
    for options in (["--record", "full.recording"], ["--record=none/run.recording"]):
        ended = run(
            tmp_path,
            """
            import sys
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(2) as executor:
                print(sum(executor.map(abs, range(10))))
            sys.exit(3)
            """,
            *options,
            "--trace",
            "run.json",
        )
        assert (ended.returncode, ended.stdout) == (3, "45\n")
        assert ended.stderr.startswith("concurrent_futures: no recording: ")
        assert ended.stderr.count("\n") == 1
        # The other file is written.
        assert '"abs"' in (tmp_path / "run.json").read_text()
        (tmp_path / "run.json").unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of this kind")
def test_a_disk_that_gets_full_ends_the_recording_and_not_the_program(tmp_path: Path) -> None:
    program = """
        import os, resource, sys
        from concurrent.futures import ThreadPoolExecutor

        limit = 200_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with ThreadPoolExecutor(2) as executor:
            while os.path.getsize("run.recording") < limit:
                sum(executor.map(abs, range(100)))
            print(sum(executor.map(abs, range(10))))
        sys.exit(3)
    """
    ended = run(tmp_path, program, "--record", "run.recording")
    assert (ended.returncode, ended.stdout) == (3, "45\n")
    assert ended.stderr.startswith("concurrent_futures: the recording ends early: ")
    assert "too large" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert (tmp_path / "run.recording").stat().st_size == 200_000
    document = document_of(cf.Recording.open(tmp_path / "run.recording"))
    assert document["tasks"]["count"] > 0
    assert not document["finished"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_leaves_the_file_to_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "run.recording"
    with cf.recording(file=path) as recording, cf.ThreadPoolExecutor(1) as executor:
        executor.submit(answer, 1).result(LIMIT)
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                is_right = not recording.is_running and recording.error is None
                with cf.recording(file=f"{path}.child") as own, cf.ThreadPoolExecutor(1) as other:
                    other.submit(answer, 1).result(LIMIT)
                is_right = is_right and len(rows(cf.Recording.open(f"{path}.child"))) == 1
                is_right = is_right and own.error is None
                recording.stop()
                is_right = is_right and not rows(recording)
                del recording
                os._exit(0 if is_right else 1)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
        executor.submit(answer, 2).result(LIMIT)
    document = document_of(cf.Recording.open(path))
    assert document["finished"]
    assert len(rows_of(document)) == 2


def test_a_recording_in_memory_beside_one_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.recording"
    with cf.ThreadPoolExecutor(1) as executor, cf.recording() as outer:
        executor.submit(answer, 1).result(LIMIT)
        with cf.recording(file=path):
            executor.submit(answer, 2).result(LIMIT)
        executor.submit(answer, 3).result(LIMIT)
    assert len(rows(outer)) == 3
    assert len(rows(cf.Recording.open(path))) == 1


def test_a_fork_records_while_threads_of_its_parent_ask_for_recordings() -> None:
    program = """
        import os, signal, threading, warnings
        import concurrent_futures as cf
        warnings.simplefilter("ignore", DeprecationWarning)
        run, stop = cf.recording(), threading.Event()
        def ask():
            while not stop.is_set():
                run.columns()
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(300):
            pid = os.fork()
            if not pid:
                signal.alarm(60)
                with cf.recording() as own:
                    own.columns()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        print("good")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment(),
        timeout=4 * LIMIT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("good\n", "")
