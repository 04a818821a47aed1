"""Recordings: their rows, names, files, and the ends of programs that are recorded."""

from __future__ import annotations

import base64
import functools
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import concurrent_futures as cf
from support import LIMIT, eventually, needs_processes, prints

_SIZES = {"f64": ("d", 8), "f32": ("f", 4), "u32": ("I", 4), "u8": ("B", 1)}


def rows_of(document: dict[str, Any], table: str = "tasks") -> list[dict[str, Any]]:
    count = document[table]["count"]
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, column in document[table]["columns"].items():
        letter, size = _SIZES[column["type"]]
        if "constant" in column:
            values = [column["constant"]] * count
        else:
            data = base64.b64decode(column["base64"])
            assert len(data) == size * count
            values = list(struct.unpack(f"<{count}{letter}", data))
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    for row in rows if table == "tasks" else []:
        for name in ("name", "label", "arguments", "error"):
            row[name] = document["strings"][row[name]]
    return rows


def document_of(recording: cf.Recording) -> dict[str, Any]:
    document = json.loads(recording.columns())
    assert isinstance(document, dict)
    return document


def rows(recording: cf.Recording) -> list[dict[str, Any]]:
    return rows_of(document_of(recording))


def answer(n: int) -> int:
    return n + 1


def fail(error: BaseException) -> None:
    raise error


def hold(running: threading.Event, gate: threading.Event) -> None:
    running.set()
    gate.wait(LIMIT)


def die() -> None:
    os._exit(3)


class Callable:
    def __call__(self) -> int:
        return 1

    def method(self) -> int:
        return 2


def test_each_task_of_a_thread_pool_is_a_row() -> None:
    with cf.recording() as recording, cf.ThreadPoolExecutor(1, "rows") as executor:
        assert executor.submit(answer, 1).result() == 2
        future = executor.submit(fail, KeyError("a"))
        assert isinstance(future.exception(), KeyError)
        assert executor.options(label="<b>\n").submit(answer, 3).result() == 4
        assert list(executor.options(label="map").map(answer, [4, 5])) == [5, 6]
    assert not recording.is_running
    document = document_of(recording)
    found = rows_of(document)
    assert [row["name"] for row in found] == [
        "test_recording.answer",
        "test_recording.fail",
        *["test_recording.answer"] * 3,
    ]
    assert [row["label"] for row in found] == ["", "", "<b>\n", "map", "map"]
    assert [row["outcome"] for row in found] == [2, 3, 2, 2, 2]
    assert found[1]["error"] == "KeyError: a"
    assert [worker["name"] for worker in document["workers"]] == ["rows_0"]
    assert [pool["name"] for pool in document["pools"]] == ["rows"]
    for row in found:
        assert row["submit"] <= row["start"] <= row["end"] <= document["duration"]
        assert row["worker"] == row["pool"] == 1
        assert row["arguments"] == ""


def test_names_need_no_code_of_the_program() -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> object:
            raise AssertionError(name)

        def __call__(self) -> None:
            raise SurpriseError(self)

    class SurpriseError(Exception):
        def __str__(self) -> str:
            raise AssertionError

    calls: list[Any] = [
        Hostile(),
        Callable(),
        Callable().method,
        functools.partial(answer, 1),
        len,
        dict,
        [].append,
        lambda: 1,
    ]
    with cf.recording() as recording, cf.ThreadPoolExecutor(1) as executor:
        for call in calls:
            executor.submit(call, *[[]] * (call is len or call == calls[6])).exception()
    names = [row["name"] for row in rows(recording)]
    assert names == [
        "Hostile",
        "Callable",
        "test_recording.Callable.method",
        "test_recording.answer",
        "len",
        "dict",
        "list.append",
        "test_recording.test_names_need_no_code_of_the_program.<locals>.<lambda>",
    ]
    assert rows(recording)[0]["error"] == "SurpriseError"


def test_arguments_are_shown_only_on_request_and_cut() -> None:
    class Secret:
        def __repr__(self) -> str:
            raise AssertionError

    with cf.recording(arguments=10) as recording, cf.ThreadPoolExecutor(1) as executor:
        executor.submit(max, 1, 2).result()
        executor.submit(dict, a="x" * 100).result()
        executor.submit(id, Secret()).result()
    shown = [row["arguments"] for row in rows(recording)]
    assert shown == ["1, 2", "a='xxxxxxx…", "<Secret>"]


@needs_processes
def test_tasks_of_processes_have_times_of_the_worker_and_bytes() -> None:
    with cf.recording() as recording, cf.ProcessPoolExecutor(1) as executor:
        assert executor.submit(answer, 1).result() == 2
        payload = b"x" * 1_000_000
        assert executor.submit(bytes.upper, payload).result() == b"X" * 1_000_000
        assert executor.options(label="once").submit(answer, 5).result() == 6
        assert isinstance(executor.submit(fail, ValueError("v")).exception(), ValueError)
        assert list(executor.map(answer, range(1000))) == list(range(1, 1001))
    document = document_of(recording)
    found = rows_of(document)
    assert [row["name"] for row in found[:4]] == [
        "test_recording.answer",
        "bytes.upper",
        "test_recording.answer",
        "test_recording.fail",
    ]
    assert [row["label"] for row in found[:4]] == ["", "", "once", ""]
    assert [row["outcome"] for row in found[:4]] == [2, 2, 2, 3]
    assert found[1]["sent"] >= 1_000_000 and found[1]["received"] >= 1_000_000
    assert found[0]["sent"] < 1000 and found[0]["pickling"] > 0
    spans = found[4:]
    assert sum(row["items"] for row in spans) == 1000
    assert {row["name"] for row in spans} == {"test_recording.answer"}
    (worker,) = document["workers"]
    assert worker["exit"] == {"code": 0} and worker["pid"] != os.getpid()
    for row in found:
        assert row["submit"] <= row["start"] <= row["end"]


class OddError(Exception):
    def __str__(self) -> str:
        raise AssertionError("the text of an exception is code of the program")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("v"), "ValueError: v"),
        (KeyError(), "KeyError"),
        (OSError(2, "no", None), "FileNotFoundError: 2, no"),
        (OddError("odd", [1], 2.5), "OddError: odd, 2.5"),
        (ValueError("\ud800ä" * 1000), f"ValueError: {'?ä' * 1000}"[:300]),
        (ValueError(10**5000), "ValueError: …"),
    ],
    ids=["plain", "empty", "system", "own", "long", "number"],
)
@needs_processes
def test_errors_of_worker_processes_have_a_text(error: Exception, text: str) -> None:
    with cf.recording() as recording, cf.ProcessPoolExecutor(1) as executor:
        assert type(executor.submit(fail, error).exception()) is type(error)
        assert executor.submit(answer, 1).result() == 2
    first, second = rows(recording)
    assert (first["outcome"], first["error"]) == (3, text)
    assert (second["outcome"], second["error"]) == (2, "")


def test_an_error_with_a_number_of_many_digits_has_a_text(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with cf.recording() as recording, cf.ThreadPoolExecutor(1) as executor:
        assert isinstance(executor.submit(fail, ValueError(10**5000, "a")).exception(), ValueError)
    assert [row["error"] for row in rows(recording)] == ["ValueError: …, a"]
    assert capfd.readouterr() == ("", "")


@needs_processes
def test_a_worker_that_dies_is_told_with_its_exit_code() -> None:
    with cf.recording() as recording:
        with cf.ProcessPoolExecutor(1, on_worker_death="isolate") as executor:
            future = executor.options(retries=1).submit(die)
            assert isinstance(future.exception(), cf.WorkerDiedError)
    document = document_of(recording)
    found = rows_of(document)
    assert [(row["attempt"], row["outcome"]) for row in found] == [(0, 6), (1, 6)]
    ended = [document["workers"][row["worker"] - 1]["exit"] for row in found]
    assert ended == [{"code": 3}] * 2


def test_waits_between_tasks_are_rows() -> None:
    gate = threading.Event()
    with cf.recording() as recording, cf.ThreadPoolExecutor(2) as executor:

        def outer() -> bool:
            return executor.submit(gate.wait, LIMIT).result()

        future = executor.submit(outer)
        eventually(lambda: len(rows_of(document_of(recording), "waits")) == 1)
        gate.set()
        assert future.result()
    (wait,) = rows_of(document_of(recording), "waits")
    found = {row["task"]: row["name"].rpartition(".")[2] for row in rows(recording)}
    assert found[wait["waiter"]] == "outer"
    assert found[wait["awaited"]] == "wait"
    assert wait["start"] <= wait["end"]


def test_cancelled_pending_and_running_tasks_are_told_apart() -> None:
    gate = threading.Event()
    with cf.ThreadPoolExecutor(1) as executor:
        recording = cf.recording()
        running = threading.Event()
        executor.submit(hold, running, gate)
        assert running.wait(LIMIT)
        executor.submit(answer, 1)
        assert executor.submit(answer, 2).cancel()
        assert [row["outcome"] for row in rows(recording)] == [1, 0, 4]
        gate.set()
    recording.stop()
    assert [row["outcome"] for row in rows(recording)] == [2, 2, 4]


def test_recordings_at_once_have_the_tasks_of_their_time() -> None:
    with cf.ThreadPoolExecutor(1) as executor, cf.recording() as outer:
        executor.submit(answer, 1).result()
        with cf.recording() as inner:
            executor.submit(answer, 2).result()
        executor.submit(answer, 3).result()
    assert (len(rows(inner)), len(rows(outer))) == (1, 3)


def test_files_are_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    with cf.recording() as recording, cf.ThreadPoolExecutor(1) as executor:
        executor.submit(answer, 1).result()
    recording.save(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    recording.save(os.fspath(tmp_path / "run.columns.json"))
    assert json.loads((tmp_path / "run.columns.json").read_text())["version"] == 1
    recording.save(tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    document = page.partition('<script type="application/json" id="recording">')[2]
    document = document.partition("</script>")[0]
    assert json.loads(document) == json.loads((tmp_path / "run.columns.json").read_text())
    with pytest.raises(ValueError, match=r"\.json or \.html"):
        recording.save("run.txt")
    with pytest.raises(FileNotFoundError):
        recording.save(tmp_path / "none" / "run.json")
    with pytest.raises(OSError, match="space"):
        # The name ends as it must, and the device is full.
        (tmp_path / "full.json").symlink_to("/dev/full")
        recording.save(tmp_path / "full.json")
    with pytest.raises(ValueError, match="greater than 0"):
        cf.recording(records_per_thread=0)


def test_the_oldest_records_are_dropped_and_counted() -> None:
    script = """
        import json
        import concurrent_futures as cf

        with cf.recording(records_per_thread=1) as recording:
            with cf.ThreadPoolExecutor(1) as executor:
                for n in range(5000):
                    executor.submit(abs, n)
        document = json.loads(recording.columns())
        assert 5000 <= document["dropped"] < 10000, document["dropped"]
        assert document["tasks"]["count"] >= 1000
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=LIMIT)


#: Programs, and how they end; whether there is a trace afterwards.
ENDS: dict[str, tuple[str, int, bool]] = {
    "return": ("", 0, True),
    "exit": ("sys.exit(7)", 7, True),
    "exception": ("raise KeyError(1)", 1, True),
    "os._exit": ("os._exit(5)", 5, False),
    "signal": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, False),
    # The system lists a thread for a moment after its join, and `os.fork` warns of listed threads.
    "fork": (
        "\nwhile os.path.isdir('/proc/self/task') and len(os.listdir('/proc/self/task')) > 1:\n"
        "    pass\n"
        "if (pid := os.fork()) == 0:\n"
        "    with ThreadPoolExecutor(1) as executor:\n"
        "        executor.submit(abs, 1).result()\n"
        "    sys.exit(9)\n"
        "_, status = os.waitpid(pid, 0)\n"
        "sys.exit(os.waitstatus_to_exitcode(status))",
        9,
        True,
    ),
    "exec": ("os.execv('/bin/sh', ['sh', '-c', 'exit 4'])", 4, False),
    "unclosed stream": ("os.close(2)", 0, True),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", ["option", "environment", "module"])
def test_a_recorded_program_ends_as_it_would_otherwise(end: str, way: str, tmp_path: Path) -> None:
    ending, code, has_trace = ENDS[end]
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(2) as executor:\n"
        "    print(list(executor.map(abs, [-1, -2])), sys.argv, os.environ.get('TRACED'),\n"
        "          [name for name in os.environ if name.startswith('CONCURRENT')], flush=True)\n"
        f"{ending}\n"
    )
    environment = dict(os.environ, TRACED="1", PYTHONPATH=str(tmp_path))
    environment.pop("CONCURRENT_FUTURES_TRACE", None)
    trace = tmp_path / "run.json"
    run = [sys.executable, "-m", "concurrent_futures"]
    arguments = ["-m", "program"] if way == "module" else [str(program)]
    plain = subprocess.run(
        [*run, *arguments, "a", "--trace"],
        env=environment,
        capture_output=True,
        timeout=LIMIT,
        cwd=tmp_path,
    )
    if way == "environment":
        environment["CONCURRENT_FUTURES_TRACE"] = str(trace)
    else:
        run += ["--trace", "run.json"] if way == "option" else ["--trace=run.json"]
    traced = subprocess.run(
        [*run, *arguments, "a", "--trace"],
        env=environment,
        capture_output=True,
        timeout=LIMIT,
        cwd=tmp_path,
    )
    assert plain.returncode == traced.returncode == code
    assert (plain.stdout, plain.stderr) == (traced.stdout, traced.stderr)
    assert trace.exists() == has_trace
    assert not list(tmp_path.glob(".run*"))
    if has_trace:
        events = json.loads(trace.read_text())["traceEvents"]
        assert [event["name"] for event in events if event["ph"] == "X"] == ["abs", "abs"]


def test_a_trace_that_cannot_be_written_changes_no_exit_code(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys; sys.exit(6)\n")
    (tmp_path / "full.json").symlink_to("/dev/full")
    for name in ("full.json", "none/run.json"):
        command = [sys.executable, "-m", "concurrent_futures", "--trace", name, str(program)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path)
        assert ended.returncode == 6
        assert ended.stderr.startswith("concurrent_futures: no recording: ")
    for option, name in (("--trace", "run.html"), ("--timeline", "run.json")):
        command = [sys.executable, "-m", "concurrent_futures", option, name, str(program)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=tmp_path)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert f"{name!r} does not end with " in ended.stderr


@pytest.mark.parametrize("way", ["option", "variable"])
def test_one_run_writes_a_trace_and_a_page(tmp_path: Path, way: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "def load(name): return len(name)\n"
        "with Pool(2) as pool: print(list(pool.map(load, ['</script>', 'a'])))\n"
    )
    command = [sys.executable, "-m", "concurrent_futures"]
    environment = dict(os.environ)
    if way == "option":
        command += ["--trace", "run.json", "--timeline=run.html"]
    else:
        environment["CONCURRENT_FUTURES_TRACE"] = "run.json"
        environment["CONCURRENT_FUTURES_TIMELINE"] = "run.html"
    ended = subprocess.run(
        [*command, str(program)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        cwd=tmp_path,
        env=environment,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[9, 1]\n", "")
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    assert [event["name"] for event in events if event["ph"] == "X"] == ["load", "load"]
    page = (tmp_path / "run.html").read_text()
    assert page.startswith("<!doctype html>")
    assert '"load"' in page


def test_workers_and_forks_of_a_recorded_program_record_nothing() -> None:
    with cf.recording() as recording:
        pid = os.fork()
        if pid == 0:
            is_right = not recording.is_running
            with cf.recording() as own, cf.ThreadPoolExecutor(1) as executor:
                executor.submit(answer, 1).result()
            is_right = is_right and len(rows(own)) == 1
            recording.stop()
            is_right = is_right and not rows(recording)
            os._exit(0 if is_right else 1)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert recording.is_running
        with cf.ThreadPoolExecutor(1) as executor:
            executor.submit(answer, 1).result()
    assert len(rows(recording)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_is_no_part_of_the_recordings_that_its_parent_is_stopping() -> None:
    code = """
    import os, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    pool = futures.ThreadPoolExecutor(2)
    for _ in range(10):
        recording = futures.recording()
        list(pool.map(int, range(20_000)))
        stopping = threading.Thread(target=recording.stop)
        stopping.start()
        process = os.fork()
        if not process:
            # Which would wait for the parent's thread.
            import signal
            signal.alarm(60)
            assert not recording.is_running
            recording.stop()
            recording.trace()
            del recording
            os._exit(0)
        assert os.waitpid(process, 0)[1] == 0
        stopping.join()
    print("ended")
    """
    assert prints(cf, code, forks=True) == "ended\n"


def inverse(n: float | str) -> object:
    if n == "own":
        raise OddError("odd")
    return {0: [1.5, ("x", None)], 1: b"y", 2: {"k": 3}}.get(n) or 1 / (n - 3)  # type: ignore[operator, call-overload]


@pytest.mark.parametrize("chunksize", [None, 3])
@needs_processes
def test_a_part_of_a_map_has_the_error_of_its_first_failed_item(chunksize: int | None) -> None:
    texts = {"OddError: odd", "ZeroDivisionError: division by zero"}
    options: dict[str, Any] = {} if chunksize is None else {"chunksize": chunksize}
    with cf.recording() as recording, cf.ProcessPoolExecutor(1) as executor:
        for last, expected in (
            (3, "ZeroDivisionError: division by zero"),
            ("own", "OddError: odd"),
        ):
            results = executor.map(inverse, [0, 1, 2, 5, 7, last], **options)
            with pytest.raises((ZeroDivisionError, OddError)):
                list(results)
            failed = [row for row in rows(recording) if row["outcome"] == 3]
            assert failed[-1]["error"].endswith(expected)
    found = rows(recording)
    assert sum(row["items"] for row in found) == 12
    failed = [row for row in found if row["outcome"] == 3]
    assert len(failed) == 2
    assert {row["error"].rpartition("test_recording.")[2] for row in failed} == texts
    assert {row["error"] for row in found if row["outcome"] == 2} == {""}
