"""Recordings of programs that ``python -m concurrent_futures`` runs.

A recording begins before the program's first line, and is saved after the last of its exit
functions. A program that ends by ``os._exit`` or by a signal leaves no file. Nothing of this
changes the program's exit code: a file that cannot be written is told on the error stream.
"""

import atexit
import contextlib
import os
import sys

#: The options, each with its environment variable.
_OPTIONS = {
    "--trace": "CONCURRENT_FUTURES_TRACE",
    "--timeline": "CONCURRENT_FUTURES_TIMELINE",
}
#: The options, each with the ending of its file's name.
_ENDINGS = {"--trace": ".json", "--timeline": ".html"}


#: The variable with the port of the live page.
_DASHBOARD = "CONCURRENT_FUTURES_DASHBOARD"


def options(arguments: list[str]) -> tuple[list[str], list[str], int | None]:
    """Take the options of recordings off the command line.

    Returns the rest, the files, and the port of the live page, or None without one. Takes the
    environment's, too: a program that this one starts records nothing by them.
    """
    port = os.environ.pop(_DASHBOARD, None)
    of_environment = {name: os.environ.pop(name, None) for name in _OPTIONS.values()}
    files = dict.fromkeys(_OPTIONS, "")
    for option, variable in _OPTIONS.items():
        files[option] = of_environment[variable] or ""
    rest = list(arguments)
    while rest:
        option, equals, value = rest[0].partition("=")
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
    return rest, [file for file in files.values() if file], int(port) if port else None


def begin(files: list[str], port: int | None) -> None:
    """Start a recording that is saved to these files when the program ends, and the live page."""
    if port is not None:
        from concurrent_futures._dashboard import serve_program

        serve_program(port)
    if not files:
        return
    from concurrent_futures._recording import recording

    # The program may change its directory.
    paths = [os.path.abspath(file) for file in files]
    recorded = recording()
    owner = os.getpid()

    def save() -> None:
        if os.getpid() != owner:
            return
        recorded.stop()
        for path in paths:
            try:
                recorded.save(path)
            except Exception as error:
                # A program may have closed its error stream.
                with contextlib.suppress(Exception):
                    os.write(2, f"concurrent_futures: no recording: {error}\n".encode())

    atexit.register(save)
