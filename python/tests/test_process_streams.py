"""Streams of workers that are forked while another thread of the parent uses the same stream."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import LIMIT, environment

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork"
)

PROGRAM = """
import fcntl, logging, multiprocessing, os, struct, sys, termios, threading, time
from concurrent_futures import ProcessPoolExecutor
from support import until_asleep

name = sys.argv[1]
readable, writable = os.pipe()
errors = os.dup(2)
if name == "stdin":
    os.dup2(readable, 0)
elif name == "log":
    file = os.fdopen(writable, "w", closefd=False)
    logging.getLogger("test").addHandler(logging.StreamHandler(file))
else:
    os.dup2(writable, {"stdout": 1, "stderr": 2}[name])
stream = file if name == "log" else getattr(sys, name)
is_armed = False

def has_content():
    return struct.unpack("i", fcntl.ioctl(readable, termios.FIONREAD, bytes(4)))[0] > 0

def use():
    if name == "stdin":
        stream.buffer.read(1)
    else:
        stream.write("x" * 1_000_000)
        stream.flush()

def before_fork():
    if is_armed:
        # It blocks, as the pipe is empty, or has not as much room.
        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        if name == "stdin":
            until_asleep(thread)
        while name != "stdin" and not has_content():
            time.sleep(0.001)

def drain():
    while os.read(readable, 1 << 16):
        pass

def after_fork():
    global is_armed
    if is_armed:
        is_armed = False
        if name == "stdin":
            os.write(writable, b"x")
        else:
            threading.Thread(target=drain, daemon=True).start()

os.register_at_fork(before=before_fork, after_in_parent=after_fork)

def task():
    print("out", flush=True)
    print("err", file=sys.stderr, flush=True)
    logging.getLogger("test").warning("log")
    return 7

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, context, on_worker_death="isolate") as pool:
        assert pool.submit(abs, -1).result() == 1
        is_armed = True
        # Its replacement is forked while the stream is in use.
        assert pool.submit(os._exit, 1).exception() is not None
        os.write(errors, b"result %d\\n" % pool.submit(task).result())
        assert not is_armed
"""


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr", "log"])
def test_a_worker_that_is_forked_while_a_stream_is_in_use(name: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with open(tmp_path / "errors", "w+b") as errors:
        variables = environment()
        # Such streams have no buffer.
        variables.pop("PYTHONUNBUFFERED", None)
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(program), name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=variables,
            start_new_session=True,
        )
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        errors.seek(0)
        lines = errors.read().decode().split("\n")
    assert code == 0
    assert "result 7" in lines
