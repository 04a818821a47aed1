"""Tests that programs behave the same under `python` and under `python -m concurrent_futures`."""

import os
import py_compile
import re
import signal
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

LIMIT = 120.0
PACKAGE = ("-m", "concurrent_futures")


@dataclass(frozen=True)
class Ended:
    """The end of a program; `status` is negative for a signal."""

    status: int
    output: str
    errors: str


class Programs:
    """A folder with programs, and the two ways to run them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    def run(self, *command: str, options: tuple[str, ...] = ()) -> Ended:
        process = subprocess.run(
            [sys.executable, *options, *command],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        return Ended(
            process.returncode,
            re.sub(r"\b0x[0-9a-f]+", "(address)", process.stdout),
            re.sub(r"\b0x[0-9a-f]+", "(address)", process.stderr),
        )

    def same(self, *command: str, options: tuple[str, ...] = ()) -> Ended:
        """Run a program in both ways; both runs must end the same."""
        expected = self.run(*command, options=options)
        assert self.run(*PACKAGE, *command, options=options) == expected
        return expected

    def same_text(self, text: str, *arguments: str) -> Ended:
        """Run a script with this text in both ways; both runs must end the same."""
        self.write("program.py", text)
        return self.same("program.py", *arguments)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    # Python resolves links in some places, which shall not matter here.
    return Programs(tmp_path.resolve())


INTROSPECT = '''
    """Documentation."""
    import sys

    names = {name: type(value).__name__ for name, value in globals().items()}
    print(sorted(names.items()))
    print(__name__, __doc__, __package__, __spec__, __file__, globals().get("__cached__"))
    print(sys.argv, sys.path[0], len(sys.path))
    print(sys.modules["__main__"].__dict__ is globals())
    loader = __loader__
    print(loader.name, loader.path if hasattr(loader, "path") else loader.archive)
'''


class TestWhatAProgramSees:
    @pytest.mark.parametrize("name", ["program.py", "./program.py", "sub/../program.py"])
    def test_script(self, programs: Programs, name: str) -> None:
        programs.write("program.py", INTROSPECT)
        programs.write("sub/other.py", "")
        ended = programs.same(name, "first", "-m", "--flag", "")
        assert ended.status == 0
        assert repr([name, "first", "-m", "--flag", ""]) in ended.output

    def test_script_elsewhere(self, programs: Programs) -> None:
        path = programs.write("sub/program.py", INTROSPECT)
        programs.write("sub/neighbour.py", "")
        assert f" {path.parent} " in programs.same("sub/program.py").output
        assert f" {path.parent} " in programs.same(str(path)).output

    def test_script_behind_links(self, programs: Programs) -> None:
        path = programs.write("sub/program.py", INTROSPECT)
        (programs.folder / "bin").mkdir()
        (programs.folder / "bin" / "link.py").symlink_to("../sub/program.py")
        (programs.folder / "other").symlink_to("bin")
        assert f" {path.parent} " in programs.same("other/link.py").output

    def test_script_with_any_name(self, programs: Programs) -> None:
        for name in ("program", "my program.txt", "prögram.py", "m.py"):
            programs.write(name, INTROSPECT)
            assert programs.same(name).status == 0

    def test_compiled_script(self, programs: Programs) -> None:
        path = programs.write("program.py", INTROSPECT)
        py_compile.compile(str(path), cfile=str(path.with_suffix(".pyc")))
        path.unlink()
        assert programs.same("program.pyc", "argument").status == 0

    def test_module(self, programs: Programs) -> None:
        programs.write("program.py", INTROSPECT)
        ended = programs.same("-m", "program", "first", "-m", "--flag")
        assert ended.status == 0
        assert str(programs.folder / "program.py") in ended.output

    def test_module_in_a_package(self, programs: Programs) -> None:
        programs.write("package/__init__.py", "import sys; print('package', sys.argv, __name__)")
        programs.write("package/program.py", INTROSPECT)
        assert "ModuleSpec(name='package.program'" in programs.same("-m", "package.program").output

    def test_package(self, programs: Programs) -> None:
        programs.write("package/__init__.py", "import sys; print('package', sys.argv, __name__)")
        programs.write("package/__main__.py", INTROSPECT)
        programs.write("package/neighbour.py", "")
        assert programs.same("-m", "package", "argument").status == 0

    def test_directory(self, programs: Programs) -> None:
        programs.write("folder/__main__.py", INTROSPECT)
        programs.write("folder/neighbour.py", "")
        assert programs.same("folder", "argument").status == 0
        assert programs.same("folder/").status == 0

    def test_zip_file(self, programs: Programs) -> None:
        with zipfile.ZipFile(programs.folder / "program.zip", "w") as archive:
            archive.writestr("__main__.py", textwrap.dedent(INTROSPECT) + "import other\n1 / 0\n")
            archive.writestr("other.py", "print(__file__)")
        assert programs.same("program.zip", "argument").status == 1

    @pytest.mark.parametrize("option", ["-P", "-I", "-E", "-O"])
    def test_options_of_python(self, programs: Programs, option: str) -> None:
        programs.write("sub/program.py", INTROSPECT + "    print(__debug__, sys.flags)\n")
        programs.write("sub/__main__.py", "import sys; print(sys.path[0], sys.argv)")
        if not self.installed(programs, option):
            pytest.skip("the package is not installed, but found by PYTHONPATH")
        assert programs.same("sub/program.py", "argument", options=(option,)).status == 0
        assert programs.same("sub", "argument", options=(option,)).status == 0

    @staticmethod
    def installed(programs: Programs, option: str) -> bool:
        return programs.run("-c", "import concurrent_futures", options=(option,)).status == 0

    def test_futures_of_a_program_do_not_reach_into_the_runner(self, programs: Programs) -> None:
        text = """
            from __future__ import annotations
            def function(argument: this_is_not_evaluated): pass
        """
        programs.same_text(text)
        assert programs.same_text("def f(a: not_there): pass\nprint(f.__annotations__)").output == (
            programs.run("program.py").output
        )

    def test_coding_and_byte_order_mark(self, programs: Programs) -> None:
        path = programs.folder / "program.py"
        path.write_bytes(b"# coding: latin-1\nprint(ascii('\xe4'))\n")
        assert programs.same("program.py").output == "'\\xe4'\n"
        path.write_bytes(b"\xef\xbb\xbfprint(ascii('\xc3\xa4'))\r\nprint(1)\r\n")
        assert programs.same("program.py").output == "'\\xe4'\n1\n"

    def test_it_can_import_itself_and_its_neighbours(self, programs: Programs) -> None:
        programs.write("neighbour.py", "import __main__\nprint(__main__.value)")
        text = """
            value = 42
            import neighbour, program
            print(program.__name__)
        """
        ended = programs.same_text(text)
        assert ended.output == "42\nprogram\nprogram\n"

    def test_its_names_stay_after_its_last_line(self, programs: Programs) -> None:
        text = """
            import atexit, threading
            word = "still here"
            class Last:
                def __del__(self):
                    print("deleted")
            last = Last()
            def later():
                threading.main_thread().join()
                print("thread", word)
            threading.Thread(target=later).start()
            atexit.register(lambda: print("exit", word))
        """
        ended = programs.same_text(text)
        assert ended.output == "thread still here\nexit still here\ndeleted\n"


class TestThePackageIsInPlace:
    def test_script(self, programs: Programs) -> None:
        text = """
            from concurrent.futures import Future, ThreadPoolExecutor, wait
            with ThreadPoolExecutor() as pool:
                future = pool.submit(pow, 2, 5)
                print([each.__module__.partition(".")[0] for each in (type(future), wait)])
        """
        programs.write("program.py", text)
        assert programs.run("program.py").output == "['concurrent', 'concurrent']\n"
        for command in (("program.py",), ("-m", "program")):
            output = programs.run(*PACKAGE, *command).output
            assert output == "['concurrent_futures', 'concurrent_futures']\n"


class TestErrors:
    def test_exception(self, programs: Programs) -> None:
        text = """
            def divide(number):
                return number / 0
            divide(
                1
            )
        """
        ended = programs.same_text(text)
        assert ended.status == 1
        assert ended.errors.startswith("Traceback (most recent call last):\n  File ")
        programs.same("-m", "program")

    def test_exceptions_with_causes_notes_and_groups(self, programs: Programs) -> None:
        text = """
            def fail():
                raise ValueError("inner")
            try:
                try:
                    fail()
                except ValueError as error:
                    error.add_note("a note")
                    raise KeyError("outer") from error
            except KeyError as error:
                raise ExceptionGroup("several", [error, OSError(2, "gone")])
        """
        assert "a note" in programs.same_text(text).errors

    def test_a_wrong_name_with_a_suggestion(self, programs: Programs) -> None:
        text = """
            number = 1
            print(numbre)
        """
        assert "Did you mean" in programs.same_text(text).errors

    def test_an_exception_that_was_raised_before(self, programs: Programs) -> None:
        text = """
            try:
                1 / 0
            except ZeroDivisionError as error:
                kept = error
            raise kept.with_traceback(None)
        """
        programs.same_text(text)

    def test_recursion_without_end(self, programs: Programs) -> None:
        text = """
            def again():
                again()
            try:
                again()
            finally:
                print("over")
        """
        programs.write("program.py", text)
        expected, ended = programs.run("program.py"), programs.run(*PACKAGE, "program.py")
        assert (ended.status, ended.output) == (expected.status, expected.output) == (1, "over\n")
        repeated = re.compile(r"repeated \d+ more times")  # A few frames less.
        assert repeated.sub("", ended.errors) == repeated.sub("", expected.errors)

    @pytest.mark.parametrize(
        "text", ["x = = 1\n", "def f():\npass\n", "print('\n", "\t1\n  2\n", "return\n", "\0\n"]
    )
    def test_syntax_error(self, programs: Programs, text: str) -> None:
        (programs.folder / "program.py").write_text(text)
        ended = programs.run(*PACKAGE, "program.py")
        expected = programs.run("program.py")
        assert ended.status == expected.status == 1
        assert ended.output == ""
        assert "Traceback" not in ended.errors
        if "\0" not in text:  # Python itself words this one differently for files and for text.
            assert ended == expected
        programs.same("-m", "program")

    def test_syntax_error_in_an_imported_module(self, programs: Programs) -> None:
        programs.write("broken.py", "x = = 1\n")
        programs.same_text("import broken")

    def test_syntax_error_that_a_program_raises(self, programs: Programs) -> None:
        programs.same_text("def read(): exec('1 +')\nread()")

    @pytest.mark.parametrize("name", ["missing.py", "./missing.py", "no/such/folder/it's.py"])
    def test_missing_script(self, programs: Programs, name: str) -> None:
        assert programs.same(name, "argument").status == 2

    def test_missing_module(self, programs: Programs) -> None:
        programs.write("package/__init__.py", "")
        programs.write("program.py", "")
        names = ("missing", "missing.module", "package", "package.missing", "program.py", ".x")
        for module in names:
            assert programs.same("-m", module).status == 1

    def test_directory_without_main(self, programs: Programs) -> None:
        (programs.folder / "empty").mkdir()
        assert programs.same("empty").status == 1

    def test_package_that_fails(self, programs: Programs) -> None:
        programs.write("package/__init__.py", "def f(): 1 / 0\nf()\n")
        programs.write("package/__main__.py", "")
        assert "ZeroDivisionError" in programs.same("-m", "package").errors

    def test_unreadable_script(self, programs: Programs) -> None:
        path = programs.write("program.py", "print(1)")
        path.chmod(0)
        programs.same("program.py")


class TestExit:
    @pytest.mark.parametrize(
        "argument",
        ["", "0", "3", "True", "None", "'words'", "(1, 2)", "1.5", "256", "-1", "object"],
    )
    def test_system_exit(self, programs: Programs, argument: str) -> None:
        programs.same_text(f"import sys\nprint('before')\nsys.exit({argument})")
        programs.same("-m", "program")

    @pytest.mark.parametrize("exception", ["SystemExit", "SystemExit(4)", "SystemExit(1, 2)"])
    def test_raising_system_exit(self, programs: Programs, exception: str) -> None:
        programs.same_text(f"raise {exception}")

    def test_system_exit_from_an_exit_handler_and_a_finally(self, programs: Programs) -> None:
        text = """
            import atexit, sys
            atexit.register(print, "handler")
            try:
                sys.exit(5)
            finally:
                print("finally")
        """
        ended = programs.same_text(text)
        assert ended == Ended(5, "finally\nhandler\n", "")

    def test_os_exit_and_abort(self, programs: Programs) -> None:
        assert programs.same_text("import os; os._exit(7)").status == 7
        assert programs.same_text("import os; os.abort()").status == -signal.SIGABRT

    def test_keyboard_interrupt_is_death_by_the_signal(self, programs: Programs) -> None:
        text = """
            import atexit, signal
            atexit.register(print, "handler")
            class Last:
                def __del__(self):
                    print("deleted")
            last = Last()
            def wait():
                signal.raise_signal(signal.SIGINT)
            wait()
        """
        ended = programs.same_text(text)
        assert ended.status == -signal.SIGINT
        assert ended.output == "handler\ndeleted\n"
        assert programs.same("-m", "program").status == -signal.SIGINT

    def test_keyboard_interrupt_that_is_handled(self, programs: Programs) -> None:
        text = """
            import signal
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                print("handled")
        """
        assert programs.same_text(text) == Ended(0, "handled\n", "")

    def test_interrupt_while_it_waits(self, programs: Programs) -> None:
        text = """
            import os, signal, threading
            from concurrent.futures import Future
            class Waited(Future):
                def result(self, timeout=None):
                    main = threading.get_ident()
                    threading.Thread(target=signal.pthread_kill, args=(main, signal.SIGINT)).start()
                    return super().result(timeout)
            try:
                Waited().result()
            except KeyboardInterrupt:
                print("interrupted")
            os.kill(os.getpid(), signal.SIGTERM)
        """
        ended = programs.same_text(text)
        assert ended.status == -signal.SIGTERM
        text = text.replace("os.kill(os.getpid(), signal.SIGTERM)", "raise SystemExit(9)")
        programs.write("program.py", text)
        assert programs.same("program.py") == Ended(9, "interrupted\n", "")


class TestExceptionHooks:
    def test_the_hook_of_a_program_sees_its_own_frames(self, programs: Programs) -> None:
        text = """
            import sys, traceback
            def hook(kind, error, trace):
                print(kind, error, [frame.name for frame in traceback.extract_tb(trace)])
                print([frame.name for frame in traceback.extract_tb(error.__traceback__)])
                print(sys.last_value is error, sys.last_traceback is trace, sys.excepthook is hook)
            sys.excepthook = hook
            def fail():
                raise ValueError("message")
            fail()
        """
        ended = programs.same_text(text)
        assert ended.status == 1 and "['<module>', 'fail']" in ended.output

    def test_a_hook_that_exits(self, programs: Programs) -> None:
        text = """
            import sys
            sys.excepthook = lambda *_: sys.exit(6)
            1 / 0
        """
        assert programs.same_text(text).status == 6

    def test_no_hook(self, programs: Programs) -> None:
        for change in ("del sys.excepthook", "sys.excepthook = None"):
            programs.write("program.py", f"import sys\n{change}\n1 / 0")
            ended = programs.run(*PACKAGE, "program.py")
            assert ended.status == 1
            assert "ZeroDivisionError: division by zero" in ended.errors

    def test_exceptions_in_threads_and_exit_handlers(self, programs: Programs) -> None:
        text = """
            import atexit, threading
            def fail():
                raise ValueError("message")
            thread = threading.Thread(target=fail, name="worker")
            thread.start()
            thread.join()
            atexit.register(fail)
            raise SystemExit(3)
        """
        assert programs.same_text(text).status == 3

    def test_interactive_afterwards(self, programs: Programs) -> None:
        text = """
            number = 1
            def fail():
                1 / 0
            fail()
        """
        programs.write("program.py", text)
        ended = programs.same("program.py", options=("-i",))
        assert "ZeroDivisionError" in ended.errors


class TestPickles:
    def test_classes_and_functions_of_the_program(self, programs: Programs) -> None:
        text = """
            import pickle
            class Point:
                def __init__(self, x):
                    self.x = x
            def function(): pass
            data = pickle.dumps((Point(3), function, Point))
            print(data)
            point, same, kind = pickle.loads(data)
            print(point.x, same is function, kind is Point)
        """
        assert programs.same_text(text).output.endswith("3 True True\n")

    @pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
    @pytest.mark.parametrize("as_module", [False, True])
    def test_worker_processes(self, programs: Programs, method: str, as_module: bool) -> None:
        text = """
            import multiprocessing, os, sys
            class Point:
                def __init__(self, x):
                    self.x = x
            def double(point):
                assert multiprocessing.parent_process() is not None
                return Point(point.x * 2), __name__, os.path.basename(sys.argv[0]), sys.argv[1:]
            if __name__ == "__main__":
                multiprocessing.set_start_method(sys.argv[1])
                with multiprocessing.Pool(1) as pool:
                    point, *rest = pool.apply(double, (Point(21),))
                    print(type(point) is Point, point.x, rest)
                from concurrent.futures import ProcessPoolExecutor
                with ProcessPoolExecutor(1) as pool:
                    point, *rest = pool.submit(double, Point(4)).result()
                    print(type(point) is Point, point.x, rest)
        """
        programs.write("program.py", text)
        command = ["-m", "program"] if as_module else ["program.py"]
        expected = programs.run(*command, method)
        assert expected.status == 0 and expected.output.count("True") == 2
        # Errors may hold warnings about fork with threads, which count differently.
        ended = programs.run(*PACKAGE, *command, method)
        assert (ended.status, ended.output) == (0, expected.output)

    def test_worker_processes_after_the_last_line(self, programs: Programs) -> None:
        text = """
            from concurrent.futures import ProcessPoolExecutor
            import multiprocessing
            def get(number):
                return number
            if __name__ == "__main__":
                pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
                for number in range(5):
                    pool.submit(get, number).add_done_callback(lambda done: print(done.result()))
        """
        assert programs.same_text(text) == Ended(0, "0\n1\n2\n3\n4\n", "")


class TestTheCommandLine:
    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_help(self, programs: Programs, option: str) -> None:
        ended = programs.run(*PACKAGE, option)
        assert (ended.status, ended.errors) == (0, "")
        assert ended.output.startswith("usage: python -m concurrent_futures [OPTION ...] script.py")

    @pytest.mark.parametrize("command", [(), ("-m",), ("-x", "program.py"), ("--", "program.py")])
    def test_no_program(self, programs: Programs, command: tuple[str, ...]) -> None:
        ended = programs.run(*PACKAGE, *command)
        assert (ended.status, ended.output) == (2, "")
        assert ended.errors.startswith("usage: ")

    def test_it_runs_itself(self, programs: Programs) -> None:
        programs.write("program.py", "print(__name__)")
        assert programs.run(*PACKAGE, *PACKAGE, "program.py") == Ended(0, "__main__\n", "")

    def test_standard_input_is_the_programs(self, programs: Programs) -> None:
        programs.write("program.py", "print(input())")
        for way in ((), PACKAGE):
            output = subprocess.run(
                [sys.executable, *way, "program.py"],
                cwd=programs.folder,
                input=f"words{os.linesep}",
                capture_output=True,
                text=True,
                check=True,
                timeout=LIMIT,
            ).stdout
            assert output == "words\n"
