"""The errors of worker processes."""

import pickle
import signal as _signal
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from multiprocessing import reduction

from concurrent_futures import TYPE_CHECKING
from concurrent_futures._worker import format_traceback

if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "BrokenProcessPool",
    "TaskTerminatedError",
    "TaskTimeoutError",
    "WorkerDiedError",
    "rebuild_exception",
    "remote_traceback",
]


# The standard library has a `_RemoteTraceback` as the cause of what breaks a pool.
class WorkerDiedError(BrokenProcessPool, _RemoteTraceback):
    """A worker process died while it ran a call.

    With ``on_worker_death="isolate"``, the future of that call raises it. Otherwise it is the
    cause (``__cause__``) of the ``BrokenProcessPool`` that all futures of the pool raise.

    Examples
    --------
    >>> import os
    >>> from concurrent_futures import ProcessPoolExecutor
    >>> with ProcessPoolExecutor(max_workers=1, on_worker_death="isolate") as pool:
    ...     error = pool.submit(os._exit, 3).exception()
    ...     answer = pool.submit(pow, 2, 10).result()
    >>> error.exitcode, error.signal, answer
    (3, None, 1024)
    """

    def __init__(
        self, message: str, pid: "int | None" = None, exitcode: "int | None" = None
    ) -> None:
        BrokenProcessPool.__init__(self, message)
        told: Any = f"\n'''\nProcess {pid} terminated abruptly with exit code {exitcode}'''"
        self.tb = told
        #: The process id of the worker.
        self.pid = pid
        #: The exit code of the worker; -N for signal N; None if unknown.
        self.exitcode = exitcode

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def signal(self) -> "_signal.Signals | int | None":
        """The signal that killed the worker; None if no signal did.

        Examples
        --------
        >>> import signal
        >>> from concurrent_futures import ProcessPoolExecutor
        >>> with ProcessPoolExecutor(max_workers=1, on_worker_death="isolate") as pool:
        ...     error = pool.submit(signal.raise_signal, signal.SIGKILL).exception()
        >>> error.signal == signal.SIGKILL
        True
        """
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return _signal.Signals(-self.exitcode)
        except ValueError:
            return -self.exitcode

    def __reduce__(self) -> "tuple[object, ...]":
        return type(self), (*self.args, self.pid, self.exitcode)


class TaskTerminatedError(WorkerDiedError):
    """A call was terminated while it ran, by ``Future.terminate`` or with all workers.

    Examples
    --------
    >>> import time
    >>> from concurrent_futures import ProcessPoolExecutor, TaskTerminatedError
    >>> with ProcessPoolExecutor(max_workers=1, on_worker_death="isolate") as pool:
    ...     future = pool.submit(time.sleep, 1000)
    ...     while not future.running():
    ...         time.sleep(0.001)
    ...     future.terminate()
    True
    >>> isinstance(future.exception(), TaskTerminatedError)
    True
    """


class TaskTimeoutError(TimeoutError):
    """A call ran longer than its own time limit, and its worker was killed.

    Examples
    --------
    >>> import time
    >>> from concurrent_futures import ProcessPoolExecutor, TaskTimeoutError
    >>> with ProcessPoolExecutor(max_workers=1, on_worker_death="isolate") as pool:
    ...     error = pool.options(timeout=0.1).submit(time.sleep, 1000).exception()
    >>> isinstance(error, TaskTimeoutError), error.limit
    (True, 0.1)
    """

    def __init__(
        self, message: str, pid: "int | None" = None, limit: "float | None" = None
    ) -> None:
        super().__init__(message)
        #: The process id of the worker that was killed.
        self.pid = pid
        #: The time limit in seconds.
        self.limit = limit

    def __reduce__(self) -> "tuple[object, ...]":
        return type(self), (*self.args, self.pid, self.limit)


def remote_traceback(error: BaseException) -> BaseException:
    """Return the standard library's object for the cause of a remote error."""
    return _as_remote(format_traceback(error))


def rebuild_exception(data: bytes) -> BaseException:
    """Return the exception that `pack_exception` was given, with its traceback as its cause."""
    exact, parts, text = pickle.loads(memoryview(data)[1:])
    try:
        error = reduction.ForkingPickler.loads(exact)
    except Exception:
        if parts is None:
            raise
        error = _from_parts(*reduction.ForkingPickler.loads(parts))
    error.__cause__ = _as_remote(text)
    rebuilt: BaseException = error
    return rebuilt


def _from_parts(
    kind: "type[BaseException]", args: "tuple[Any, ...]", state: "dict[str, Any]"
) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


def _as_remote(text: str) -> BaseException:
    """Return a traceback in the form in which the standard library passes it on."""
    remote: Any = _RemoteTraceback
    error: BaseException = remote(f'\n"""\n{text}"""')
    return error
