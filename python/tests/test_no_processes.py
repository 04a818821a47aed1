"""Tests of the package where the engine has no pools of processes, as on Windows.

A module that loads at the start of each interpreter takes the engine's parts for processes away.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support import LIMIT, environment

# The native module stays; all of the package that was made with it is made anew.
WITHOUT = """
    import sys
    from concurrent_futures import _engine

    _engine.HAS_PROCESSES = False
    for name in (
        "CallbacksThread", "JobsThread", "ProcessPool", "SpanIterator", "Supervisor", "call_chunk",
        "life_of_this_process", "live_no_longer_than", "refuse", "serve",
    ):
        # A module that was built without them has none.
        vars(_engine).pop(name, None)
    for name in list(sys.modules):
        if name.partition(".")[0] == "concurrent_futures" and name != _engine.__name__:
            del sys.modules[name]
    # The package loads most of its modules when a program first uses them.
    for name in ("concurrent.futures.process", "multiprocessing"):
        sys.modules.pop(name, None)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(textwrap.dedent(WITHOUT))
    return folder


def output(folder: Path, tmp_path: Path, code: str, *command: str) -> str:
    """Return the output of a program, which workers can import again."""
    program = textwrap.dedent(code)
    path = tmp_path / "program.py"
    path.write_text(program)
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([str(folder), variables["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, *command, str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
        env=variables,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_pool_of_processes_is_the_standard_librarys(folder: Path, tmp_path: Path) -> None:
    printed = output(
        folder,
        tmp_path,
        """
        import concurrent.futures
        import multiprocessing
        import os
        from concurrent_futures import BrokenProcessPool, ProcessPoolExecutor, process

        def square(number):
            return number * number

        if __name__ == "__main__":
            assert issubclass(ProcessPoolExecutor, concurrent.futures.ProcessPoolExecutor)
            assert process.ProcessPoolExecutor is ProcessPoolExecutor
            assert process._ExecutorManagerThread, "names of the original module are there"
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(2, spawn, initializer=abs, initargs=(1,)) as pool:
                print(pool.submit(square, 7).result())
                print(list(pool.map(square, range(4), chunksize=2)))
                print(type(pool._executor_manager_thread).__name__)
                try:
                    pool.submit(os._exit, 3).result()
                except BrokenProcessPool:
                    print("broken")
        """,
    )
    assert printed == "49\n[0, 1, 4, 9]\n_ExecutorManagerThread\nbroken\n"


def test_threads_are_on_the_engine_and_mix_with_processes(folder: Path, tmp_path: Path) -> None:
    printed = output(
        folder,
        tmp_path,
        """
        import asyncio
        from concurrent_futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
        from concurrent_futures import _engine

        async def asynchronous(threads, processes):
            loop = asyncio.get_running_loop()
            calls = [loop.run_in_executor(pool, abs, -3) for pool in (threads, processes)]
            return await asyncio.gather(*calls, asyncio.wrap_future(threads.submit(abs, -4)))

        if __name__ == "__main__":
            assert issubclass(ThreadPoolExecutor, _engine.ThreadPool)
            with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(2) as processes:
                futures = [pool.submit(abs, -n) for n in (1, 2) for pool in (threads, processes)]
                done, not_done = wait(futures)
                print(len(done), len(not_done))
                print(sorted(future.result() for future in as_completed(futures)))
                print(asyncio.run(asynchronous(threads, processes)))
        """,
    )
    assert printed == "4 0\n[1, 1, 2, 2]\n[3, 3, 4]\n"


def test_all_names_are_there(folder: Path, tmp_path: Path) -> None:
    printed = output(
        folder,
        tmp_path,
        """
        import concurrent_futures
        from concurrent_futures import *

        print([name for name in concurrent_futures.__all__ if name not in globals()])
        assert issubclass(WorkerDiedError, BrokenProcessPool)
        assert issubclass(TaskTimeoutError, TimeoutError)
        assert issubclass(TaskTerminatedError, WorkerDiedError)
        """,
    )
    assert printed == "[]\n"


OPTIONS = [
    "on_worker_death='isolate'",
    "task_timeout=1.5",
    "memory_limit=1 << 30",
    "max_pending=3",
    "cloudpickle=True",
]


def test_each_option_that_needs_the_engine_is_refused_by_its_name(
    folder: Path, tmp_path: Path
) -> None:
    calls = [f"ProcessPoolExecutor(1, {option})" for option in OPTIONS]
    calls += ["ProcessPoolExecutor(1).options(timeout=1)"]
    if sys.version_info < (3, 14):
        calls += ["ProcessPoolExecutor(1).map(abs, [1], buffersize=1)"]
        calls += ["ProcessPoolExecutor(1).terminate_workers()"]
        calls += ["ProcessPoolExecutor(1).kill_workers()"]
    attempts = "".join(
        f"try:\n    {call}\nexcept ValueError as error:\n    print(error)\n" for call in calls
    )
    printed = output(folder, tmp_path, f"from concurrent_futures import *\n{attempts}")
    lines = printed.splitlines()
    assert len(lines) == len(calls)
    for option, line in zip([*OPTIONS, "options()"], lines, strict=False):
        assert line.startswith(f"{option.partition('=')[0]} is not available"), line
        assert line.endswith("ProcessPoolExecutor is the standard library's")


def test_the_defaults_of_these_options_are_accepted(folder: Path, tmp_path: Path) -> None:
    printed = output(
        folder,
        tmp_path,
        """
        from concurrent_futures import ProcessPoolExecutor

        if __name__ == "__main__":
            with ProcessPoolExecutor(
                1,
                max_tasks_per_child=None,
                on_worker_death="break",
                task_timeout=None,
                memory_limit=None,
                max_pending=None,
                cloudpickle=False,
            ) as pool:
                print(pool.submit(abs, -1).result())
        """,
    )
    assert printed == "1\n"


def test_methods_have_the_signatures_of_those_with_the_engine(folder: Path, tmp_path: Path) -> None:
    code = """
        import inspect
        from concurrent_futures import ProcessPoolExecutor

        for function in (ProcessPoolExecutor.__init__, ProcessPoolExecutor.map):
            for parameter in inspect.signature(function).parameters.values():
                print(parameter.kind, parameter.name, parameter.default)
    """
    empty = tmp_path / "empty"
    empty.mkdir()
    # The same twice where this module has no pools of processes either.
    assert output(folder, tmp_path, code) == output(empty, tmp_path, code) != ""


def test_an_installed_package_leaves_processes_to_the_standard_library(
    folder: Path, tmp_path: Path
) -> None:
    code = """
        import concurrent.futures
        import concurrent.futures.process

        def square(number):
            return number * number

        if __name__ == "__main__":
            names = concurrent.futures.ThreadPoolExecutor, concurrent.futures.ProcessPoolExecutor
            print(*(name.__module__ for name in names))
            with concurrent.futures.ProcessPoolExecutor(1) as pool:
                future = pool.submit(square, 3)
                print(future.result(), type(future).__module__)
    """
    printed = output(folder, tmp_path, code, "-m", "concurrent_futures")
    # The standard library's code makes futures by a name, which stands for this package's.
    assert printed == (
        "concurrent_futures.thread concurrent.futures.process\n9 concurrent_futures._base\n"
    )


def test_progress_is_shown_without_the_engine(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    printed = output(
        folder,
        tmp_path,
        """
        import contextlib
        import io
        from concurrent_futures import ProcessPoolExecutor

        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as pool, contextlib.redirect_stderr(io.StringIO()) as bar:
                print(list(pool.map(abs, [-1, -2], progress=True)))
            assert "2/2" in bar.getvalue(), bar.getvalue()
        """,
    )
    assert printed == "[1, 2]\n"


def test_a_recording_has_the_threads(folder: Path, tmp_path: Path) -> None:
    printed = output(
        folder,
        tmp_path,
        """
        import concurrent_futures

        with concurrent_futures.recording() as recording:
            with concurrent_futures.ThreadPoolExecutor(1) as pool:
                pool.submit(abs, -1).result()
        recording.save("trace.json")
        print("abs" in open("trace.json").read())
        """.replace("trace.json", (tmp_path / "trace.json").as_posix()),
    )
    assert printed == "True\n"
