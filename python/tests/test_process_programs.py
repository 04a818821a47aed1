"""Tests of programs with process pools: their start, their end, and signals to them."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, environment, eventually, prints, run

METHODS = ["fork", "forkserver", "spawn"]


def is_gone(process: int) -> bool:
    """Return whether a process has ended (it may still be a zombie)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def write(folder: Path, name: str, code: str, lib: ModuleType) -> Path:
    """Writes a program to a file; `futures` stands for the library."""
    path = folder / name
    path.write_text(f"import {lib.__name__} as futures\n{textwrap.dedent(code)}")
    return path


def start(command: list[str], **settings: Any) -> subprocess.Popen[str]:
    """Starts a program in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
        **settings,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait until a program and all holders of its output have ended."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)
        raise AssertionError(("it does not end", *process.communicate())) from None
    return process.returncode, out, err


SCRIPT = """
import multiprocessing, os, sys

def work(number):
    return number * number, __name__

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        print(pool.submit(work, 7).result())
        print(list(pool.map(work, [1, 2], chunksize=2)))
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["script", "module"])
def test_tasks_may_be_functions_of_the_main_program(
    lib: ModuleType, tmp_path: Path, method: str, way: str
) -> None:
    path = write(tmp_path, "program.py", SCRIPT, lib)
    command = [str(path)] if way == "script" else ["-m", "program"]
    code, out, err = ended(start([*command, method], cwd=tmp_path))
    name = "__main__" if method == "fork" else "__mp_main__"
    assert (code, err) == (0, "")
    assert out == f"(49, {name!r})\n[(1, {name!r}), (4, {name!r})]\n"


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_program_without_the_main_guard_is_told_so(
    lib: ModuleType, tmp_path: Path, method: str
) -> None:
    path = write(
        tmp_path,
        "program.py",
        f"""
        import multiprocessing
        context = multiprocessing.get_context({method!r})
        with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            print(pool.submit(abs, -1).result())
        """,
        lib,
    )
    code, out, err = ended(start([str(path)]))
    assert code == 1
    assert out == ""
    assert "freeze_support" in err
    # From 3.14 on, it is the fork server that fails, and does not start the worker.
    assert "BrokenProcessPool" in err or (method, sys.version_info >= (3, 14)) == (
        "forkserver",
        True,
    )


def test_pytest(lib: ModuleType, tmp_path: Path) -> None:
    write(
        tmp_path,
        "test_with_a_pool.py",
        """
        import multiprocessing
        import pytest

        def work(number):
            assert number != 3, "three"
            return number * number

        @pytest.mark.parametrize("method", ["fork", "spawn"])
        def test_results(method):
            context = multiprocessing.get_context(method)
            with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                assert list(pool.map(work, [1, 2])) == [1, 4]
                # Assertions of tasks are rewritten too.
                with pytest.raises(AssertionError, match="three"):
                    pool.submit(work, 3).result()
        """,
        lib,
    )
    code, out, err = ended(start(["-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path))
    assert (code, err) == (0, ""), (out, err)
    assert "2 passed" in out


@pytest.mark.once
def test_the_kernel_of_jupyter(lib: ModuleType) -> None:
    # Functions of the notebook are known to workers that were forked.
    manager, client = importlib.import_module("jupyter_client.manager").start_new_kernel()

    def cell(code: str) -> str:
        shown = []

        def show(message: Any) -> None:
            if message["msg_type"] == "stream":
                shown.append(message["content"]["text"])
            elif message["msg_type"] == "error":
                shown.extend(message["content"]["traceback"])

        client.execute_interactive(textwrap.dedent(code), timeout=LIMIT, output_hook=show)
        return "\n".join(shown).strip()

    try:
        out = cell(
            f"""
            import multiprocessing, {lib.__name__} as futures
            def work(number):
                return number * number
            context = multiprocessing.get_context("fork")
            pool = futures.ProcessPoolExecutor(2, mp_context=context)
            print(list(pool.map(work, range(4))))
            """
        )
        assert out == "[0, 1, 4, 9]"
        assert cell("print(pool.submit(work, 5).result())") == "25"
        assert "ZeroDivisionError" in cell("pool.submit(divmod, 1, 0).result()")
        assert cell("print(pool.submit(work, 6).result()); pool.shutdown()") == "36"
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


EXIT = """
import multiprocessing, sys, time
from support import main_is_over
over = main_is_over()
context = multiprocessing.get_context("fork")
pool = futures.ProcessPoolExecutor(1, mp_context=context)
"""


@pytest.mark.parametrize(
    "before", ["pass", "del pool", "pool.shutdown(wait=False)", "pool.me = pool"]
)
def test_pending_work_still_runs_at_the_end(lib: ModuleType, before: str) -> None:
    out = prints(
        lib,
        f"""
        {EXIT.replace(chr(10), chr(10) + " " * 8)}
        for n in range(5):
            pool.submit(print, n, flush=True)
        pool.submit(time.sleep, 0.1).add_done_callback(lambda _: print("called"))
        {before}
        """,
        forks=True,
    )
    assert out == "0\n1\n2\n3\n4\ncalled\n"


def test_the_exit_code_is_the_main_threads(lib: ModuleType) -> None:
    for how, status in [("sys.exit(3)", 3), ("raise KeyError('main')", 1)]:
        process = run(
            lib,
            f"""
            {EXIT.replace(chr(10), chr(10) + " " * 12)}
            pool.submit(sys.exit, 5)
            pool.submit(print, "done", flush=True)
            {how}
            """,
            status=status,
            forks=True,
        )
        assert process.stdout == "done\n"
        assert ("KeyError: 'main'" in process.stderr) == (status == 1)


def test_submitting_after_the_interpreters_shutdown(lib: ModuleType) -> None:
    out = prints(
        lib,
        f"""
        {EXIT.replace(chr(10), chr(10) + " " * 8)}
        import atexit
        def last():
            try:
                pool.submit(print, "too late")
            except RuntimeError as error:
                print(error)
        atexit.register(last)
        print(pool.submit(abs, -1).result())
        """,
        forks=True,
    )
    assert out.startswith("1\ncannot schedule new futures after ")


def test_a_broken_pool_at_the_end(lib: ModuleType) -> None:
    out = prints(
        lib,
        f"""
        {EXIT.replace(chr(10), chr(10) + " " * 8)}
        import os
        future = pool.submit(os._exit, 3)
        print(type(future.exception()).__name__)
        """,
        forks=True,
    )
    assert out == "BrokenProcessPool\n"


# Says who its workers are while each runs a task; the tasks would run for a long time.
LONG = """
import multiprocessing, os, signal, sys, time

def tell():
    # In one piece, as two processes write into one pipe.
    os.write(1, b"%d\\n" % os.getpid())

def work(flag):
    tell()
    # In short steps: a signal right before a sleep does not end that sleep.
    while True:
        time.sleep(0.01)

def idle():
    tell()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    pool = futures.ProcessPoolExecutor(2, mp_context=context)
    busy = pool.submit(work, None)
    pool.submit(idle)
    {then}
"""


def started(lib: ModuleType, tmp_path: Path, method: str, then: str) -> Any:
    """Starts such a program; returns it, and two of its workers."""
    path = write(tmp_path, "program.py", LONG.format(then=then), lib)
    process = start([str(path), method])
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    if not all(lines):
        raise AssertionError(process.communicate())
    return process, [int(line) for line in lines]


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kills all processes of a program."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_ends_program_and_workers(lib: ModuleType, tmp_path: Path, method: str) -> None:
    # The terminal sends the signal to all processes of the program.
    process, workers = started(lib, tmp_path, method, "busy.result()")
    try:
        os.killpg(process.pid, signal.SIGINT)
        code, _, err = ended(process)
        assert code in (-signal.SIGINT, 1)
        assert "KeyboardInterrupt" in err
        eventually(lambda: all(map(is_gone, workers)))
    finally:
        kill_group(process)


def test_a_signal_to_the_main_program_alone(lib: ModuleType, tmp_path: Path) -> None:
    # A handler's exception ends the wait; the pool goes on.
    out = prints(
        lib,
        f"""
        {EXIT.replace(chr(10), chr(10) + " " * 8)}
        import os, signal, threading
        from pathlib import Path
        from support import until_asleep
        from tasks import Flag, hold
        running, release = (Flag(Path({str(tmp_path)!r}) / name) for name in ("a", "b"))
        task = pool.submit(hold, running, release)
        running.wait()
        def interrupt():
            until_asleep(threading.main_thread())
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            task.result()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        release.set()
        print(task.result() in pool._processes, pool.submit(abs, -1).result())
        """,
        forks=True,
    )
    assert out == "interrupted\nTrue 1\n"


def test_tasks_see_the_current_directory_and_environment(lib: ModuleType, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "program.py",
        """
        import multiprocessing, os
        if __name__ == "__main__":
            os.environ["A_SETTING"] = "value"
            for method in "fork", "spawn":
                context = multiprocessing.get_context(method)
                with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                    print(pool.submit(os.getenv, "A_SETTING").result())
                    print(pool.submit(os.getcwd).result())
        """,
        lib,
    )
    code, out, err = ended(start([str(path)], cwd=tmp_path))
    assert (code, err) == (0, "")
    assert out == f"value\n{tmp_path}\n" * 2


def test_a_program_with_its_standard_streams_closed(lib: ModuleType, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "program.py",
        f"""
        import multiprocessing, os
        if __name__ == "__main__":
            for number in 0, 1, 2:
                os.close(number)
            context = multiprocessing.get_context("fork")
            with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                result = pool.submit(abs, -5).result()
            open({str(tmp_path / "out")!r}, "w").write(str(result))
        """,
        lib,
    )
    process = start([str(path)])
    assert ended(process)[0] == 0
    assert (tmp_path / "out").read_text() == "5"


def test_forking_while_other_threads_use_a_pool(lib: ModuleType) -> None:
    out = prints(
        lib,
        f"""
        {EXIT.replace(chr(10), chr(10) + " " * 8)}
        import os, threading, warnings
        warnings.simplefilter("ignore")
        pool.submit(int).result()
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                assert pool.submit(abs, -3).result() == 3
        thread = threading.Thread(target=busy)
        thread.start()
        statuses = set()
        for _ in range(20):
            child = os.fork()
            if not child:
                os._exit(5)
            statuses.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        thread.join()
        print(statuses, pool.submit(abs, -4).result())
        """,
        forks=True,
    )
    assert out == "{5} 4\n"


def test_descriptors_that_workers_inherit_do_not_keep_a_pipe_open(lib: ModuleType) -> None:
    # The one who reads what the program writes gets the end when the program is over.
    out = prints(
        lib,
        f"""
        {EXIT.replace(chr(10), chr(10) + " " * 8)}
        import os
        assert pool.submit(abs, -1).result() == 1
        workers = list(pool._processes)
        pool.shutdown()
        for worker in workers:
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                print("gone")
        """,
        forks=True,
    )
    assert out == "gone\n"
