"""The main function and the tasks of worker processes.

The module is loaded by each worker that is not a fork of the parent, and so loads little itself.
"""

import multiprocessing
import os
import pickle
import sys
from multiprocessing import reduction

from concurrent_futures import TYPE_CHECKING, _engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Descriptor:
    """A file descriptor on its way to a worker, whatever the start method."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> "tuple[object, ...]":
        # Only while a process is being spawned: the context sees to it that it is there.
        return _received, (reduction.DupFd(self.fd),)


def _received(duplicate: "Any") -> "Descriptor":
    return Descriptor(duplicate.detach())


class Task:
    """The settings of a worker."""

    def __init__(
        self,
        initializer: "Callable[..., object] | None",
        initargs: "tuple[Any, ...]",
        *,
        strict: bool,
        installed: bool,
        by_value: bool,
        memory_limit: "int | None",
    ) -> None:
        self.initializer = initializer
        self.initargs = initargs
        #: Whether a call that cannot be unpickled ends the worker.
        self.strict = strict
        #: Whether `concurrent_futures` takes the place of the standard library's module.
        self.installed = installed
        #: Whether results may be pickled by `cloudpickle`.
        self.by_value = by_value
        #: The bytes that the worker may have for data.
        self.memory_limit = memory_limit


_PLAIN = frozenset([type(None), bool, int, float, str, bytes])
#: The types of arguments that recordings show, and the longest text of an exception there.
_SHOWN = frozenset([int, float, str])
_LONGEST = 300


def run(
    channel: "Descriptor", life: "Descriptor", task: "Task", forker: "int | None" = None
) -> None:
    """Run a worker. ``forker`` is the id of the process that has forked this one, if one has."""
    _engine.live_no_longer_than(life.fd, forker)
    os.close(life.fd)
    dumps = os.environ.get("CONCURRENT_FUTURES_DUMP")
    if dumps:
        from concurrent_futures._dump import write_stacks_of_worker

        write_stacks_of_worker(dumps)
    if task.installed:
        from concurrent_futures._install import install

        install()
    if task.memory_limit is not None:
        try:
            _limit_memory(task.memory_limit)
        except (OSError, ValueError) as error:
            _engine.refuse(channel.fd, f"its memory cannot be limited: {error}")
            return
    if task.initializer is not None:
        _engine.allow_interrupts()
        try:
            task.initializer(*task.initargs)
        except BaseException:
            import logging

            logging.getLogger("concurrent.futures").critical(
                "Exception in initializer:", exc_info=True
            )
            _engine.refuse(channel.fd, "the initializer failed")
            return
    _engine.serve(channel.fd, pack_exception, task.strict, task.by_value)
    if multiprocessing.get_start_method() == "spawn":
        # Here, as no other worker needs it.
        from concurrent_futures._fast_exit import hasten_the_end

        hasten_the_end()


def _limit_memory(limit: int) -> None:
    import resource  # Few need it, and each worker would load it.

    limit = min(limit, sys.maxsize)
    # No process may have more than its hard limit, which is narrower then.
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def pack_exception(error: BaseException) -> bytes:
    """Return an exception as bytes for `rebuild_exception`, with its traceback as text.

    The first byte tells whether unpickling it runs no code but that of the interpreter. Behind the
    pickle there is a text for recordings, and its length in two bytes.
    """
    text = format_traceback(error)
    error.__traceback__ = None
    try:
        exact = bytes(reduction.ForkingPickler.dumps(error))
    except BaseException as failure:
        # As in the standard library, this is the call's exception then.
        text = format_traceback(failure)
        failure.__traceback__ = None
        error = failure
        exact = bytes(reduction.ForkingPickler.dumps(error))
    parts: bytes | None = None
    if type(error).__module__ != "builtins":
        # For exceptions whose arguments are not those of their class.
        try:
            state = (type(error), error.args, vars(error))
            parts = bytes(reduction.ForkingPickler.dumps(state))
        except Exception:
            parts = None
    kind = b"p" if _is_plain(error) else b"."
    shown = _shown(error)
    return b"".join(
        (kind, pickle.dumps((exact, parts, text), 5), shown, len(shown).to_bytes(2, "little"))
    )


def _shown(error: BaseException) -> bytes:
    """Return an exception as a short text, with those arguments that are numbers or texts."""
    name = type(error).__name__
    shown = [_text(value) for value in error.args if type(value) in _SHOWN]
    text = f"{name}: {', '.join(shown)}" if shown else name
    return text[:_LONGEST].encode("utf-8", "replace")


def _text(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # A number with more digits than the interpreter writes.
        return "…"


def _is_plain(error: BaseException) -> bool:
    """Return whether an exception is a built-in one, made of numbers and texts."""
    return (
        type(error).__module__ == "builtins"
        and not vars(error)
        and all(type(value) in _PLAIN for value in error.args)
    )


def format_traceback(error: BaseException) -> str:
    """Return an exception with its traceback as text."""
    # Here, as most workers need none. In forks of the parent, the module is there already.
    from traceback import format_exception

    text = "".join(format_exception(type(error), error, error.__traceback__))
    if error.__traceback__ is None:  # It was raised by native code, called by native code.
        text = f"Traceback (most recent call last):\n{text}"
    return text


class FailedItem:
    """Stands for the result of an item of `map` that has failed."""

    def __init__(self, data: bytes) -> None:
        #: The exception of the call as `pack_exception` packs it; later, the exception itself.
        self.data: Any = data

    def __reduce__(self) -> "tuple[object, ...]":
        return FailedItem, (self.data,)


_engine.look_up_for_workers()
