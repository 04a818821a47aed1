"""What worker processes run.

The functions are called by worker processes, and by the native module for what comes from them.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any, NamedTuple

from concurrent_futures import _engine
from concurrent_futures._process_errors import as_remote, format_traceback


class Descriptor:
    """A file descriptor on its way to a worker, whatever the start method."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[object, ...]:
        # Only while a process is being spawned: the context sees to it that it is there.
        return _received, (reduction.DupFd(self.fd),)


def _received(duplicate: Any) -> Descriptor:
    return Descriptor(duplicate.detach())


class Task(NamedTuple):
    """What a worker needs to know."""

    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    #: Whether what cannot be unpickled ends the worker.
    strict: bool
    #: Whether `concurrent_futures` takes the place of the standard library's module.
    installed: bool
    #: Whether results may be pickled by `cloudpickle`.
    by_value: bool


def run(channel: Descriptor, life: Descriptor, task: Task) -> None:
    """Live as a worker."""
    _engine.live_no_longer_than(life.fd)
    os.close(life.fd)
    if task.installed:
        from concurrent_futures._install import install

        install()
    if task.initializer is not None:
        try:
            task.initializer(*task.initargs)
        except BaseException:
            logging.getLogger("concurrent.futures").critical(
                "Exception in initializer:", exc_info=True
            )
            _engine.refuse(channel.fd, "the initializer failed")
            return
    _engine.serve(channel.fd, pack_exception, task.strict, task.by_value)


def pack_exception(error: BaseException) -> bytes:
    """Return an exception as bytes for `rebuild_exception`, with its traceback as text."""
    text = format_traceback(error)
    error.__traceback__ = None
    try:
        exact = bytes(reduction.ForkingPickler.dumps(error, 5))
    except BaseException as failure:
        # As in the standard library, this is the call's exception then.
        text = format_traceback(failure)
        failure.__traceback__ = None
        error = failure
        exact = bytes(reduction.ForkingPickler.dumps(error, 5))
    parts: bytes | None = None
    if type(error).__module__ != "builtins":
        # For exceptions whose arguments are not those of their class.
        try:
            state = (type(error), error.args, vars(error))
            parts = bytes(reduction.ForkingPickler.dumps(state, 5))
        except Exception:
            parts = None
    return pickle.dumps((exact, parts, text), 5)


def rebuild_exception(data: bytes) -> BaseException:
    """Return the exception that `pack_exception` was given, with its traceback for its cause."""
    exact, parts, text = pickle.loads(data)
    try:
        error = pickle.loads(exact)
    except Exception:
        if parts is None:
            raise
        error = _from_parts(*pickle.loads(parts))
    error.__cause__ = as_remote(text)
    rebuilt: BaseException = error
    return rebuilt


def _from_parts(
    kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


class FailedItem:
    """Stands for the result of an item of `map` that has none."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[object, ...]:
        return FailedItem, (self.data,)

    def error(self) -> BaseException:
        """Return what the call raised."""
        return rebuild_exception(self.data)
