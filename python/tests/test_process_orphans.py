"""Tests that nothing is left of a program that was killed, and that Ctrl-C is reported once."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, environment, eventually
from test_process_programs import METHODS, is_gone, kill_group, started, write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.mark.parametrize("method", METHODS)
def test_no_worker_outlives_a_killed_program(
    package: ModuleType, tmp_path: Path, method: str
) -> None:
    # One runs a task, one is idle. Those of the standard library stay.
    process, workers = started(package, tmp_path, method, "busy.result()")
    try:
        assert not any(map(is_gone, workers))
        process.kill()
        eventually(lambda: all(map(is_gone, workers)))
    finally:
        kill_group(process)


BUSY = {
    "a loop": "while True: pass",
    "a call that holds the interpreter": "pow(7, 10**9)",
    "ignored signals": """
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_IGN)
    time.sleep(1000)
""",
}


@pytest.mark.parametrize("busy", BUSY)
def test_a_parents_death_ends_a_worker_in_any_state(
    package: ModuleType, tmp_path: Path, busy: str
) -> None:
    path = write(
        tmp_path,
        "program.py",
        f"""
import multiprocessing, os, signal, time

def work():
    print(os.getpid(), flush=True)
    {BUSY[busy].strip()}

if __name__ == "__main__":
    pool = futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    pool.submit(work).result()
""",
        package,
    )
    process = subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
        eventually(lambda: is_gone(worker))
    finally:
        kill_group(process)


STARTS = """
import multiprocessing, os, pathlib, sys, time

METHOD, STEP, FOLDER = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])

def hold():
    unfinished = FOLDER / f"reached-{os.getpid()}"
    unfinished.write_text(str(os.getpid()))
    unfinished.rename(FOLDER / "reached")
    while not (FOLDER / "open").exists():
        time.sleep(0.001)

class Held:
    def __reduce__(self):
        return hold, ()

def begin(held):
    (FOLDER / "begun").touch()
    time.sleep(1000)

if __name__ == "__mp_main__" and STEP == "main":
    hold()

if __name__ == "__main__":
    if STEP == "fork":
        os.register_at_fork(after_in_child=hold)
    context = multiprocessing.get_context(METHOD)
    held = Held() if STEP == "arguments" else None
    pool = futures.ProcessPoolExecutor(2, context, begin, (held,))
    pool.submit(abs, -1).result()
"""


def others(group: int) -> list[int]:
    """Return the processes of a group that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] not in "ZX":
                found.append(int(path.parent.name))
    return found


def starting(tmp_path: Path, library: ModuleType, method: str, step: str, backend: str) -> Any:
    """Starts a program that starts a worker."""
    path = write(tmp_path, "program.py", STARTS, library)
    return subprocess.Popen(
        [sys.executable, str(path), method, step, str(tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment(), "CONCURRENT_FUTURES_BACKEND": backend},
        start_new_session=True,
    )


@pytest.mark.parametrize("backend", ["auto", "portable"])
@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("fork", "fork"),
        ("forkserver", "main"),
        ("forkserver", "arguments"),
        ("spawn", "main"),
        ("spawn", "arguments"),
    ],
)
def test_a_worker_that_starts_after_its_parents_death_begins_nothing(
    package: ModuleType, tmp_path: Path, method: str, step: str, backend: str
) -> None:
    process = starting(tmp_path, package, method, step, backend)
    try:
        eventually((tmp_path / "reached").exists)
        process.kill()
        process.wait()
        assert not is_gone(int((tmp_path / "reached").read_text()))
        (tmp_path / "open").touch()
        # All holders of the output have ended then.
        output, _ = process.communicate(timeout=LIMIT)
        eventually(lambda: not others(process.pid))
    finally:
        kill_group(process)
    assert output == ""
    assert not (tmp_path / "begun").exists()


@pytest.mark.once
@pytest.mark.parametrize("backend", ["auto", "portable"])
@pytest.mark.parametrize("method", METHODS)
def test_a_parent_that_is_killed_at_any_moment_of_a_start_leaves_no_process(
    package: ModuleType, tmp_path: Path, method: str, backend: str
) -> None:
    whole = 0.0
    for part in range(9):
        folder = tmp_path / str(part)
        folder.mkdir()
        start = time.monotonic()
        process = starting(folder, package, method, "none", backend)
        try:
            if part == 0:
                # The time that a start takes here.
                eventually((folder / "begun").exists)
                whole = time.monotonic() - start
            else:
                time.sleep(whole * part / 8)
            process.kill()
            process.wait()
            eventually(lambda group=process.pid: not others(group))  # type: ignore[misc]
        finally:
            kill_group(process)


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, environment())
        attributes = termios.tcgetattr(self._terminal)
        attributes[1] &= ~termios.OPOST  # No carriage returns.
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(self._terminal, termios.TCSANOW, attributes)
        self.output = ""

    def press(self, key: str) -> None:
        """Presses a key."""
        os.write(self._terminal, key.encode())

    def read_until(self, *texts: str) -> None:
        """Reads the output until it has these texts in it."""
        end = time.monotonic() + LIMIT
        while any(self.output.count(text) < texts.count(text) for text in texts):
            assert time.monotonic() < end
            self.output += os.read(self._terminal, 65536).decode()

    def end(self) -> int:
        """Reads the rest; returns the exit code when no process has the terminal any more."""
        while True:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # The last one has closed it.
                break
            if not data:
                break
            self.output += data.decode()
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_in_a_terminal_ends_all_with_one_traceback(
    package: ModuleType, tmp_path: Path, method: str
) -> None:
    path = write(
        tmp_path,
        "program.py",
        """
        import multiprocessing, os, sys, time

        def work(number):
            # A signal that comes before it is begun is none for it.
            os.write(1, b"running\\n")
            # A signal that comes right before a sleep does not end that sleep.
            for _ in range(100_000):
                time.sleep(0.01)

        def idle():
            print("idle", flush=True)

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            pool = futures.ProcessPoolExecutor(3, mp_context=context)
            try:
                busy = [pool.submit(work, n) for n in range(2)]
                pool.submit(idle).result()
                os.write(1, f"{list(pool._processes)}\\n".encode())
                os.write(1, b"ready\\n")
                busy[0].result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        """,
        package,
    )
    terminal = Terminal([sys.executable, str(path), method])
    try:
        terminal.read_until("ready", "running", "running")
        pids = [line for line in terminal.output.splitlines() if line.startswith("[")]
        workers = [int(pid) for pid in pids[0].strip("[]").split(",")]
        terminal.press("\x03")
        code = terminal.end()
    except BaseException:
        os.killpg(terminal.pid, signal.SIGKILL)
        raise
    assert code in (-signal.SIGINT, 1)
    assert terminal.output.count("Traceback (most recent call last)") == 1, terminal.output
    assert terminal.output.count("KeyboardInterrupt") == 1, terminal.output
    eventually(lambda: all(map(is_gone, workers)))


def test_ctrl_c_while_all_workers_are_idle_does_not_break_the_pool(
    package: ModuleType, tmp_path: Path
) -> None:
    path = write(
        tmp_path,
        "program.py",
        """
        import multiprocessing, os, pathlib, tasks, time
        os.chdir(os.path.dirname(__file__))
        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            pool = futures.ProcessPoolExecutor(2, mp_context=context)
            # Both have run a task, and have come to rest.
            folder = pathlib.Path("meeting")
            folder.mkdir()
            futures.wait([pool.submit(tasks.meet, folder, 2) for _ in range(2)])
            assert pool.submit(abs, -1).result() == 1
            try:
                os.write(1, b"ready\\n")
                # In short steps: a signal right before a sleep does not end that sleep.
                while True:
                    time.sleep(0.01)
            except KeyboardInterrupt:
                # A worker may get the signal later than this process, and in a task.
                for _ in range(3):
                    try:
                        print("interrupted", pool.submit(abs, -7).result())
                    except KeyboardInterrupt:
                        continue
                    break
            pool.shutdown()
        """,
        package,
    )
    terminal = Terminal([sys.executable, str(path)])
    terminal.read_until("ready")
    terminal.press("\x03")
    assert terminal.end() == 0
    assert terminal.output.split() == ["ready", "interrupted", "7"]
