"""Recordings of programs that ``python -m concurrent_futures`` runs.

A recording begins before the program's first line, and is saved after the last of its exit
functions. A program that ends by ``os._exit`` or by a signal leaves no trace and no page, but the
file of ``--record``, which grows meanwhile. Nothing of this changes the program's exit code: a
file that cannot be written is told on the error stream.
"""

import atexit
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from concurrent_futures._recording import Recording

#: The options, each with its environment variable.
_OPTIONS = {
    "--trace": "CONCURRENT_FUTURES_TRACE",
    "--timeline": "CONCURRENT_FUTURES_TIMELINE",
    "--record": "CONCURRENT_FUTURES_RECORD",
}
#: The options, each with the ending of its file's name.
_ENDINGS = {"--trace": ".json", "--timeline": ".html", "--record": ".recording"}


#: The variable with the port of the live page.
_DASHBOARD = "CONCURRENT_FUTURES_DASHBOARD"
#: The variable that asks for the terminal view; anything but nothing and 0 does.
_TOP = "CONCURRENT_FUTURES_TOP"


class Options(NamedTuple):
    """The options of recordings."""

    files: list[str]
    #: The port of the live page, or None without one.
    port: int | None
    has_top: bool


def options(arguments: list[str]) -> tuple[list[str], Options]:
    """Take the options of recordings off the command line, and return the rest, too.

    Takes the environment's as well: a program that this one starts records nothing by them.
    """
    has_top = os.environ.pop(_TOP, "0") not in ("", "0")
    port = os.environ.pop(_DASHBOARD, None)
    of_environment = {name: os.environ.pop(name, None) for name in _OPTIONS.values()}
    files = dict.fromkeys(_OPTIONS, "")
    for option, variable in _OPTIONS.items():
        files[option] = of_environment[variable] or ""
    rest = list(arguments)
    while rest:
        option, equals, value = rest[0].partition("=")
        if option == "--top" and not equals:
            del rest[0]
            has_top = True
            continue
        if option == "--dashboard":
            del rest[0]
            # A script is not named by digits alone: another number is the port.
            is_port = not equals and len(rest) > 0 and rest[0].isdigit()
            port = rest.pop(0) if is_port else value or "0"
            continue
        if option not in files or not (equals or len(rest) > 1):
            break
        del rest[0]
        files[option] = value if equals else rest.pop(0)
    for option, file in files.items():
        if file and not file.endswith(_ENDINGS[option]):
            message = f"concurrent_futures: {option}: {file!r} does not end with {_ENDINGS[option]}"
            print(message, file=sys.stderr)
            sys.exit(2)
    if port and not (port.isdecimal() and int(port) < 1 << 16):
        print(f"concurrent_futures: --dashboard: {port!r} is no port", file=sys.stderr)
        sys.exit(2)
    chosen = [file for file in files.values() if file]
    return rest, Options(chosen, int(port) if port else None, has_top)


def begin(program: str, options: Options) -> None:
    """Start a recording that is saved to files when the program ends, and the live views."""
    files, port, has_top = options
    if port is not None:
        from concurrent_futures._dashboard import serve_program

        serve_program(port)
    if has_top:
        from concurrent_futures import _top

        _top.serve_program()
    if not files:
        return
    # The program may change its directory.
    paths = [os.path.abspath(file) for file in files]
    growing = [path for path in paths if path.endswith(_ENDINGS["--record"])]
    others = [path for path in paths if path not in growing]
    recorded = _start(program, growing[0]) if growing else None
    if recorded is None and others:
        recorded = _start(program, None)
    if recorded is None:
        return
    owner = os.getpid()

    def save() -> None:
        if os.getpid() != owner:
            return
        recorded.stop()
        if recorded.error is not None:
            _tell(f"the recording ends early: {recorded.error}")
        for path in others:
            try:
                recorded.save(path)
            except Exception as error:
                _tell(f"no recording: {error}")

    atexit.register(save)


def _start(program: str, file: str | None) -> "Recording | None":
    from concurrent_futures._recording import Recording

    options: dict[str, Any] = {"program": os.path.basename(program), "file": file}
    try:
        return Recording(**options)
    except OSError as error:
        _tell(f"no recording: {error}")
        return None


def _tell(text: str) -> None:
    # A program may have closed its error stream.
    with contextlib.suppress(Exception):
        os.write(2, f"concurrent_futures: {text}\n".encode())


def convert(arguments: list[str]) -> None:
    """Save the file of a recording in the formats of other files; exit with 1 if that fails."""
    from concurrent_futures._recording import Recording

    source, *targets = arguments
    try:
        recorded = Recording.open(source)
        for target in targets:
            recorded.save(target)
    except (OSError, ValueError) as error:
        print(f"concurrent_futures: {error}", file=sys.stderr)
        sys.exit(1)
