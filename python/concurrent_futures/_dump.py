"""Dumps of programs that stand still: what each worker runs, what waits for what, and stacks."""

import atexit
import contextlib
import faulthandler
import os
import re
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from typing import Any, Protocol

from concurrent_futures import _engine

__all__ = ["dump", "register_dump", "unregister_dump"]

#: Tells workers the signal and the folder for their stacks.
VARIABLE = "CONCURRENT_FUTURES_DUMP"

#: The signal, the folder and the process, while dumps are registered.
_registered: "tuple[int, str, int] | None" = None
#: The file of dumps, which must stay open.
_file: "Any" = None


#: The lines of ``faulthandler`` that begin a stack, and those of frames.
_THREAD = re.compile(r"(?:Current thread|Thread) (0x[0-9a-f]+)")
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')


#: Number of attempts to read stacks that fit together.
READS = 20

#: Stacks by the numbers of threads, or by descriptions of threads that `threading` does not know.
_Stacks = dict["int | str", list[str]]


class _UnreadableError(Exception):
    """The stacks of other threads cannot be read."""


class _Writable(Protocol):
    def write(self, text: str, /) -> object: ...


def _with_names(text: str, threads: "dict[int, threading.Thread]") -> str:
    """Return the text with the names of threads, and of the functions that they call."""
    calls = dict(_engine.running_calls())

    def name(found: "re.Match[str]") -> str:
        number = int(found[2], 16)
        thread = threads.get(number)
        beside = "" if thread is None else f" ({thread.name})"
        task = found[3] or ""
        if task and number in calls:
            task += f" ({calls[number]})"
        return f"{found[1]}{beside}{task}"

    line = r"^(  thread (0x[0-9a-f]+))( runs task #\d+)?"
    return re.sub(line, name, text, flags=re.MULTILINE)


def _stacks(threads: "dict[int, threading.Thread]") -> "tuple[_Stacks, str]":
    """Return the stacks of this interpreter's threads, and why those of other threads are missing.

    CPython's own ways may crash while other interpreters exist. `sys._current_frames` makes
    objects of their frames. `faulthandler` goes through the thread states of this interpreter,
    which other interpreters add and free meanwhile. Neither is called then.
    """
    frames = _engine.frames_of_threads(sys._current_frames)
    if frames is not None:
        return {number: traceback.format_stack(frame) for number, frame in frames.items()}, ""
    if not _engine.has_other_interpreters():
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
            # Asked again: another thread may have made an interpreter while the file was made.
            if not _engine.has_other_interpreters():
                # It stops the threads meanwhile, and looks at those of this interpreter only.
                faulthandler.dump_traceback(file)
                file.seek(0)
                return _stacks_in(file.read()), ""
    here: _Stacks = {threading.get_ident(): traceback.format_stack(sys._getframe())}
    idents = {thread.native_id: ident for ident, thread in threads.items()}
    idents[threading.get_native_id()] = threading.get_ident()
    try:
        others = _read_stacks(idents)
    except _UnreadableError as reason:
        return here, f"The stacks of other threads are missing: {reason}.\n"
    return {**others, **here}, ""


def _read_stacks(idents: "Mapping[int | None, int]") -> "_Stacks":
    """Return the stacks that are read from the memory of this process, as a debugger does.

    The threads run meanwhile, and may free a part of their stacks. The reader checks what it
    gets, and raises an exception if parts do not fit together.
    """
    try:
        import _remote_debugging as reader  # type: ignore[import-not-found, unused-ignore]
    except Exception:
        reader = None
    # The reader of CPython 3.14 knows the newest interpreter only, and may read for ever.
    if not hasattr(reader, "InterpreterInfo"):
        raise _UnreadableError("this version of CPython cannot read them beside other interpreters")
    for _ in range(READS):
        try:
            # A new one: it remembers an interpreter that may have ended.
            interpreters = reader.RemoteUnwinder(os.getpid(), all_threads=True).get_stack_trace()
            stacks = _stacks_of_main(interpreters, idents)
            if threading.get_ident() not in stacks:
                raise LookupError("the calling thread was not found")
        except Exception as failure:
            text = str(failure) or type(failure).__name__
        else:
            return stacks
    raise _UnreadableError(f"they cannot be read ({' '.join(text.split())})")


def _stacks_of_main(interpreters: "Any", idents: "Mapping[int | None, int]") -> "_Stacks":
    """Return the stacks of the main interpreter, in the form and order of ``traceback``."""
    stacks: _Stacks = {}
    for interpreter in interpreters:
        if interpreter.interpreter_id != 0:
            continue
        for thread in interpreter.threads:
            native = int(thread.thread_id)
            number = idents.get(native, f"of the system, number {native}")
            stack = [_line_of(frame) for frame in reversed(thread.frame_info)]
            # A thread has a second state, of a few frames, while it imports in another interpreter.
            stacks[number] = max(stacks.get(number, []), stack, key=len)
    return stacks


def _line_of(frame: "Any") -> str:
    line = None if frame.location is None else int(frame.location.lineno)
    if line is None or line < 1:
        text = f'  File "{frame.filename}", in {frame.funcname}\n'
    else:
        place = (frame.filename, line, frame.funcname, None)
        (text,) = traceback.StackSummary.from_list([place]).format()
    # Any file takes it, whatever was read.
    return text.encode("utf-8", "backslashreplace").decode()


def _stacks_in(text: str) -> "_Stacks":
    """Return the stacks in a text of ``faulthandler``, in the form and order of ``traceback``."""
    stacks: _Stacks = {}
    stack: list[str] = []
    for line in text.splitlines():
        if thread := _THREAD.match(line):
            stack = stacks[int(thread[1], 16)] = []
        elif frame := _FRAME.fullmatch(line):
            place = (frame[1], int(frame[2]), frame[3], None)
            stack[:0] = traceback.StackSummary.from_list([place]).format()
        elif line:
            stack.insert(0, line + "\n")
    return stacks


def _stacks_of_threads(threads: "dict[int, threading.Thread]") -> str:
    """Return the stacks of all threads of this interpreter, with the names of the threads."""
    parts = []
    stacks, missing = _stacks(threads)
    for number, stack in stacks.items():
        if isinstance(number, str):
            parts.append(f"\nThread {number}:\n{''.join(stack)}")
            continue
        thread = threads.get(number)
        name = "" if thread is None else f" ({thread.name})"
        here = " (this one)" if number == threading.get_ident() else ""
        parts.append(f"\nThread {number:#018x}{name}{here}:\n{''.join(stack)}")
    if missing:
        parts.append(f"\n{missing}")
    return "".join(parts)


def dump(file: "_Writable | None" = None) -> None:
    """Write what each worker of each pool runs and since when, and what waits for what.

    The Python stacks of all threads follow, and those of worker processes that began after
    `register_dump`. The text goes to ``file``, by default ``sys.stderr``. The moments at which
    tasks of threads began are known for tasks that began after the first call of this function,
    `register_dump` or ``stats``. A task has the name of its function, also if a bound method or
    a partial object calls the function. Other callable objects have the name of their class.

    While other interpreters exist, CPython 3.15 and newer read the stacks of other threads as a
    debugger does. Where that fails, and with CPython 3.14, a line says that they are missing.

    Examples
    --------
    >>> import io
    >>> from concurrent_futures import ThreadPoolExecutor, dump
    >>> text = io.StringIO()
    >>> with ThreadPoolExecutor() as pool:
    ...     value = pool.submit(abs, -7).result()
    ...     dump(text)
    >>> "of threads" in text.getvalue()
    True
    """
    out: Any = sys.stderr if file is None else file
    threads = {thread.ident: thread for thread in threading.enumerate() if thread.ident}
    out.write(_with_names(_engine.dump_pools(), threads))
    out.write(_stacks_of_threads(threads))
    if _registered is not None and _registered[2] == os.getpid():
        signum, folder, _ = _registered
        out.write(_engine.dump_workers(signum, folder))
    flush = getattr(out, "flush", None)
    if flush is not None:
        flush()


def register_dump(signum: int, file: "Any" = None) -> None:
    """Write a dump, as `dump` does, whenever this process gets the signal ``signum``.

    Works in a program that stands still, also with the interpreter's lock held. The stacks come
    from ``faulthandler``; a thread of the engine writes the rest. Worker processes that begin
    later write their stacks, too; call this before the first pool is made. ``file`` has a
    ``fileno``, or is a descriptor that stays open; by default it is ``sys.stderr``. The
    signal's former handler is not called. A second call replaces the first.

    A signal that comes while interpreters begin or end may crash the program: ``faulthandler``
    goes through thread states that CPython frees meanwhile. `dump` does not have this fault.

    Raises ValueError for a signal that cannot be handled, and OSError if the system refuses a
    resource.

    Examples
    --------
    >>> import signal, tempfile
    >>> from concurrent_futures import ThreadPoolExecutor, register_dump, unregister_dump
    >>> with tempfile.TemporaryFile() as file:
    ...     register_dump(signal.SIGUSR1, file)  # Then, in a shell: kill -USR1 …
    ...     with ThreadPoolExecutor() as pool:
    ...         value = pool.submit(abs, -7).result()
    ...     unregister_dump()
    True
    """
    global _registered, _file
    if not hasattr(faulthandler, "register"):
        raise OSError("this system has no signals that ask for a dump")
    out = sys.stderr if file is None else file
    if out is None:
        raise RuntimeError("unable to get sys.stderr")
    fd = out if isinstance(out, int) else out.fileno()
    unregister_dump()
    folder = tempfile.mkdtemp(prefix="concurrent-futures-dump-")
    try:
        _engine.watch_dumps(signum, fd, folder)
        try:
            faulthandler.register(signum, fd, all_threads=True, chain=True)
        except BaseException:
            _engine.unwatch_dumps()
            raise
    except BaseException:
        os.rmdir(folder)
        raise
    _registered = (signum, folder, os.getpid())
    _file = out
    os.environ[VARIABLE] = f"{signum}:{folder}"
    atexit.register(_remove, folder, os.getpid())


def unregister_dump() -> bool:
    """Write no more dumps by a signal, whose former handler comes back.

    Return whether dumps were registered.

    Examples
    --------
    >>> from concurrent_futures import unregister_dump
    >>> unregister_dump()
    False
    """
    global _registered, _file
    if _registered is None or _registered[2] != os.getpid():
        return False
    signum, folder, pid = _registered
    _registered = _file = None
    faulthandler.unregister(signum)
    _engine.unwatch_dumps()
    if os.environ.get(VARIABLE) == f"{signum}:{folder}":
        del os.environ[VARIABLE]
    atexit.unregister(_remove)
    _remove(folder, pid)
    return True


def _remove(folder: str, pid: int) -> None:
    # Not in a fork.
    if pid == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)


def write_stacks_of_worker(setting: str) -> None:
    """Let this worker process write its stacks when the parent asks for them."""
    signum, _, folder = setting.partition(":")
    number = int(signum)
    path = os.path.join(folder, str(os.getpid()))
    # One of a worker that had this number: the parent must not take it for ours.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    # A fork has the parent's, with its file and handler.
    faulthandler.unregister(number)
    unfinished = f"{path}.new"
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    except FileNotFoundError:
        # The parent has unregistered dumps meanwhile.
        return
    _engine.mark_stacks(number, fd)
    faulthandler.register(number, fd, all_threads=True, chain=True)
    os.rename(unfinished, path)
