"""Tests that nothing is left of a program that was killed, and that Ctrl-C is reported once."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import ModuleType

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
            time.sleep(1000)

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
        import multiprocessing, os, pathlib, signal, tasks
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
                signal.pause()
            except KeyboardInterrupt:
                print("interrupted", pool.submit(abs, -7).result())
            pool.shutdown()
        """,
        package,
    )
    terminal = Terminal([sys.executable, str(path)])
    terminal.read_until("ready")
    terminal.press("\x03")
    assert terminal.end() == 0
    assert terminal.output.split() == ["ready", "interrupted", "7"]
