"""Runs a program with this package installed, and otherwise as Python itself would.

The program gets the real module ``__main__``, not a module that is there only while its lines are
executed. Threads, callbacks and exit handlers of the program go on after its last line, and its
worker processes look for that module.

A program can still notice a difference: ``sys.orig_argv``, the frames below its first, and some
loaded modules.
"""

import contextlib
import importlib.machinery
import os
import pkgutil
import runpy
import sys
import types
from collections.abc import Callable, Iterator
from types import CodeType, TracebackType
from typing import Any

from concurrent_futures import _trace
from concurrent_futures._install import install

USAGE = """\
usage: python -m concurrent_futures [OPTION ...] script.py [ARGUMENT ...]
       python -m concurrent_futures [OPTION ...] -m module [ARGUMENT ...]
       python -m concurrent_futures --convert RUN.recording FILE ...
       python -m concurrent_futures worker nats://SERVER:4222 [OPTION ...]
       python -m concurrent_futures top nats://SERVER:4222 [OPTION ...]

Runs a script, a directory or zip file with a __main__.py, or a module as Python would, but with
concurrent_futures in the place of concurrent.futures. Python's own options go before the first -m.
The command `worker` starts a host of a cluster, and `top` shows the hosts and the queues;
`worker --help` and `top --help` tell their options.

--timeline FILE.html  writes a page that shows which worker ran which task when; the variable
                      CONCURRENT_FUTURES_TIMELINE does the same
--trace FILE.json     writes a trace for https://ui.perfetto.dev; the variable
                      CONCURRENT_FUTURES_TRACE does the same
--record RUN.recording
                      writes a file that grows while the program runs, and is there also if the
                      program is killed; the variable CONCURRENT_FUTURES_RECORD does the same
--convert RUN.recording FILE ...
                      writes such a recording as FILE.html or FILE.json
--dashboard [PORT]    serves the page with live updates on this machine while the program runs, at
                      an address that it tells on the error stream; the variable
                      CONCURRENT_FUTURES_DASHBOARD does the same
--top                 shows on the terminal, by the package rich, what workers run; the variable
                      CONCURRENT_FUTURES_TOP=1 does the same
"""


def main(caller: dict[str, Any]) -> None:
    """Run the program of the command line in the module that has these names."""
    arguments, options = _trace.options(sys.argv[1:])
    match arguments:
        case ["-h" | "--help", *_]:
            print(USAGE, end="")
        case ["--convert", _, _, *_]:
            _trace.convert(arguments[1:])
        case [("worker" | "top") as command, *arguments] if _is_of_cluster(command, arguments):
            sys.exit(_of_cluster(command, arguments))
        case ["-m", module, *arguments]:
            install()
            _trace.begin(module, options)
            with _main_module(caller) as run:
                _run_module(run, module, arguments)
        case [script, *arguments] if not script.startswith("-"):
            install()
            _trace.begin(script, options)
            with _main_module(caller) as run:
                _run_script(run, script, arguments)
        case _:
            print(USAGE, end="", file=sys.stderr)
            sys.exit(2)


def _is_of_cluster(command: str, arguments: list[str]) -> bool:
    """Return whether a command is one of clusters, and not a program of that name."""
    is_server = any(argument.startswith(("nats://", "tls://")) for argument in arguments)
    return is_server or not os.path.exists(command)


def _of_cluster(command: str, arguments: list[str]) -> int:
    try:
        import concurrent_futures_cluster  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "concurrent_futures_cluster":
            raise
        message = f"{command} needs another distribution: pip install concurrent-futures[cluster]"
        print(message, file=sys.stderr)
        return 2
    from importlib import import_module

    code: int = import_module(f"concurrent_futures_cluster._{command}").main(arguments)
    return code


_Run = Callable[..., None]


@contextlib.contextmanager
def _main_module(caller: dict[str, Any]) -> Iterator[_Run]:
    """Make ``__main__`` a module for the program; yield the function that runs the program.

    Mostly, that module is the caller, which is of no use any more. Under another runner (a
    profiler, say), it is the runner's, which goes on afterwards: it is put aside meanwhile.
    """
    outer = sys.modules["__main__"]
    if vars(outer) is caller:
        yield _run
        return
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield _run_below
    finally:
        sys.modules["__main__"] = outer


def _run_module(run: _Run, module: str, arguments: list[str]) -> None:
    _empty_main()
    sys.argv[:] = ["-m", *arguments]  # Until the module is found, as in Python.
    run(_run_module_as_main, module)


def _run_script(run: _Run, script: str, arguments: list[str]) -> None:
    path = os.path.join(os.getcwd(), script)
    sys.argv[:] = [script, *arguments]
    if pkgutil.get_importer(path) is not None:  # A directory or a zip file.
        _empty_main()
        _replace_first_path(path, even_if_safe=True)
        run(_run_module_as_main, "__main__", False)
    else:
        loader = _loader(path)
        code = _compile(loader, path)
        _replace_first_path(os.path.dirname(os.path.realpath(path)))
        namespace = _empty_main()
        namespace.update(__file__=path, __loader__=loader)
        if sys.version_info < (3, 15):
            namespace.update(__cached__=None)
        run(exec, code, namespace)


# The function that Python itself calls for -m, for directories and for zip files.
_run_module_as_main: Callable[..., object] = runpy._run_module_as_main  # type: ignore[attr-defined]


_FileLoader = importlib.machinery.SourceFileLoader | importlib.machinery.SourcelessFileLoader


def _loader(path: str) -> _FileLoader:
    if path.endswith(".pyc"):
        return importlib.machinery.SourcelessFileLoader("__main__", path)
    return importlib.machinery.SourceFileLoader("__main__", path)


def _compile(loader: _FileLoader, path: str) -> CodeType | None:
    try:
        if isinstance(loader, importlib.machinery.SourceFileLoader):
            return loader.source_to_code(loader.get_data(path), path)
        return loader.get_code("__main__")
    except OSError as error:
        message = f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}"
        print(f"{sys.orig_argv[0]}: {message}", file=sys.stderr)
        sys.exit(2)
    except BaseException:
        _report_traceback(None)
        raise


def _empty_main() -> dict[str, Any]:
    """Restore ``__main__`` to its state before a program starts, and return its names."""
    namespace = vars(sys.modules["__main__"])
    for name in list(namespace):
        if name not in ("__annotations__", "__builtins__"):
            del namespace[name]
    namespace.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=importlib.machinery.BuiltinImporter,
        __spec__=None,
    )
    return namespace


def _replace_first_path(path: str, even_if_safe: bool = False) -> None:
    """Replace the current directory, which -m puts first unless the path is safe."""
    if not sys.flags.safe_path:
        sys.path[0] = path
    elif even_if_safe:
        sys.path.insert(0, path)


def _run(function: Callable[..., object], *arguments: object) -> None:
    try:
        function(*arguments)
    except SystemExit:
        raise
    except BaseException as error:
        ours = error.__traceback__
        _report_traceback(ours.tb_next if ours is not None else None)
        raise


def _run_below(function: Callable[..., object], *arguments: object) -> None:
    """Run the program for a runner, which is told of all exceptions."""
    function(*arguments)


def _report_traceback(traceback: TracebackType | None) -> None:
    """Make Python report the exception that ends the program with this traceback."""
    report = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, _complete: TracebackType | None
    ) -> None:
        sys.excepthook = report
        sys.last_traceback = traceback
        report(kind, error.with_traceback(traceback), traceback)

    sys.excepthook = excepthook
