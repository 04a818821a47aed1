"""What can go wrong with worker processes."""

import signal as _signal
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from traceback import format_exception
from typing import Any

__all__ = [
    "BrokenProcessPool",
    "TaskTerminatedError",
    "TaskTimeoutError",
    "WorkerDiedError",
    "remote_traceback",
]


class WorkerDiedError(BrokenProcessPool):
    """A worker process died while it ran a call.

    With ``on_worker_death="isolate"``, the future of that call raises it. Otherwise it is the
    cause (``__cause__``) of the ``BrokenProcessPool`` that all futures of the pool raise.
    """

    def __init__(self, message: str, pid: int | None = None, exitcode: int | None = None) -> None:
        super().__init__(message)
        #: The process id of the worker.
        self.pid = pid
        #: Its exit code; -N for signal N; None if nobody knows.
        self.exitcode = exitcode

    @property
    def signal(self) -> _signal.Signals | int | None:
        """The signal that killed the worker, if one did."""
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return _signal.Signals(-self.exitcode)
        except ValueError:
            return -self.exitcode

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self.args, self.pid, self.exitcode)


class TaskTerminatedError(WorkerDiedError):
    """A call was terminated while it ran, by ``Future.terminate`` or with all workers."""


class TaskTimeoutError(TimeoutError):
    """A call ran longer than its own time limit, and its worker was killed."""

    def __init__(self, message: str, pid: int | None = None, limit: float | None = None) -> None:
        super().__init__(message)
        #: The process id of the worker that was killed.
        self.pid = pid
        #: The time limit in seconds.
        self.limit = limit

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self.args, self.pid, self.limit)


def remote_traceback(error: BaseException) -> BaseException:
    """Return what the standard library has as the cause of an error from elsewhere."""
    return as_remote(format_traceback(error))


def format_traceback(error: BaseException) -> str:
    """Return an exception with its traceback as text."""
    text = "".join(format_exception(type(error), error, error.__traceback__))
    if error.__traceback__ is None:  # It was raised by native code, called by native code.
        text = f"Traceback (most recent call last):\n{text}"
    return text


def as_remote(text: str) -> BaseException:
    """Return a traceback as the standard library passes it on."""
    remote: Any = _RemoteTraceback
    error: BaseException = remote(f'\n"""\n{text}"""')
    return error
