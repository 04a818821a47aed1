"""The streams of worker processes that are forked while other threads of the parent run.

The buffer of a stream has a lock, which a thread holds while it reads or writes. A child that was
forked at such a moment has a copy of the lock that no thread ever releases. The child would wait
forever when it first writes, or when it closes its standard input. CPython renews the locks of
`threading` and `logging` in a child, and not those of buffers.

So a forked worker initializes the buffers of its streams again, in place, as other objects refer to
them. `multiprocessing` flushes the streams before a fork. A buffer holds only what other threads
have written since, and the parent writes that.
"""

import io
import os
import sys
import threading

from concurrent_futures import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class _Forking(threading.local):
    """Whether the calling thread is forking a worker."""

    is_worker = False


_forking = _Forking()


def start(process: "Any") -> None:
    """Start a process by a fork."""
    _forking.is_worker = True
    try:
        process.start()
    finally:
        _forking.is_worker = False


def _after_fork_in_child() -> None:
    if _forking.is_worker:
        _forking.is_worker = False
        for stream in _streams():
            for layer in (stream, getattr(stream, "buffer", None)):
                _renew(layer)


def _streams() -> "Iterator[Any]":
    """Yield the standard streams, and those to which ``logging`` writes."""
    for name in ("stdin", "stdout", "stderr"):
        yield getattr(sys, name, None)
        yield getattr(sys, f"__{name}__", None)
    handlers: Any = getattr(sys.modules.get("logging"), "_handlerList", ())
    for reference in tuple(handlers):
        yield getattr(reference(), "stream", None)


#: The classes whose objects have such a lock. Derived classes may do anything in ``__init__``.
_BUFFERS = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom)


def _renew(layer: "Any") -> None:
    """Give a buffer a new lock."""
    if type(layer) not in _BUFFERS:
        return
    try:
        raw = layer.raw
        if type(raw) is io.FileIO and not raw.closed:
            # No attribute has the size of the buffer.
            size = layer.__sizeof__() - type(layer).__basicsize__
            layer.__init__(raw, size)
    except (OSError, ValueError):
        # It was detached, or its file was closed under it.
        pass


os.register_at_fork(after_in_child=lambda: _after_fork_in_child())
