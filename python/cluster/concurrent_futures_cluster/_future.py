"""The futures of clusters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from concurrent_futures import Future, TaskTerminatedError, TaskTimeoutError, WorkerDiedError
from concurrent_futures_cluster import _calls, _errors, _frames, _waits

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from concurrent_futures._engine import RemotePool
    from concurrent_futures_cluster import _native

__all__ = ["ClusterFuture"]

_T = TypeVar("_T")

#: The longest time for which a thread waits for the end of a call itself. A signal does not
#: shorten it, and for a longer call one wake-up more does not matter.
_MOMENT = 0.01

#: The seconds up to which a time limit is shortened. A larger integer may be too large for a float.
_EVER = 1e9

# The kinds of ends that `Client.deliver` tells, and of a part of a value.
_VALUE, _FAILURE, _ERROR, _CANCELLED, _PART = range(5)

# The outcomes of calls in recordings.
_FINISHED, _FAILED, _REJECTED, _DIED, _TIME_LIMIT, _TERMINATED = 2, 3, 5, 6, 7, 8


class ClusterFuture(Future[_T]):
    """The future of a call on another machine.

    It is a ``concurrent_futures.Future``. The cluster decides about its cancellation.

    Examples
    --------
    >>> from concurrent_futures import ClusterExecutor, Future
    >>> with ClusterExecutor() as executor:
    ...     future = executor.submit(pow, 2, 10)
    >>> isinstance(future, Future), future.result()
    (True, 1024)
    """

    __slots__ = (
        "_client",
        "_fn",
        "_items",
        "_number",
        "_recorded",
        "_submitted",
        "_take_part",
    )

    def __init__(
        self,
        client: _native.Client,
        number: int,
        recorded: RemotePool,
        take_part: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._client = client
        self._number = number
        #: Called with parts of the value, and their places.
        self._take_part = take_part
        #: The function, until the call is done; None of a call of an earlier executor.
        self._fn: Callable[..., Any] | None = None
        #: The executor, as recordings know it, the moment of submission if that was recorded, and
        #: the number of calls.
        self._recorded = recorded
        self._submitted = 0
        self._items = 1

    def cancel(self) -> bool:
        """Cancel the call, if no host has begun it.

        Returns True only if no host will begin it. Asks the host that has the call, which may take
        a moment.

        Examples
        --------
        >>> import time
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor(workers=1) as executor:
        ...     running = executor.submit(time.sleep, 0.5)
        ...     pending = executor.submit(time.sleep, 0.5)
        ...     pending.cancel()
        True
        """
        if not self.done() and self._client.cancel(self._number):
            self._recorded.cancelled(self)
            Future.cancel(self)
        return self.cancelled()

    def running(self) -> bool:
        """Return True if a host has begun the call, and it is not done.

        Examples
        --------
        >>> import time
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor(workers=1) as executor:
        ...     future = executor.submit(time.sleep, 0.5)
        ...     while not future.running():
        ...         time.sleep(0.001)
        >>> future.running()
        False
        """
        return not self.done() and (Future.running(self) or self._client.has_begun(self._number))

    def terminate(self) -> bool:
        """End the call: a pending one is cancelled, and the worker of a running one is killed.

        The future of a running call raises ``TaskTerminatedError``. Returns whether it did either.

        Examples
        --------
        >>> import time
        >>> from concurrent_futures import ClusterExecutor, TaskTerminatedError
        >>> with ClusterExecutor(workers=1) as executor:
        ...     future = executor.submit(time.sleep, 1000)
        ...     while not future.running():
        ...         time.sleep(0.001)
        ...     future.terminate()
        ...     error = future.exception()
        True
        >>> isinstance(error, TaskTerminatedError)
        True
        """
        if self.done():
            return False
        if self._client.cancel(self._number):
            self._recorded.cancelled(self)
            Future.cancel(self)
            return True
        return self._client.terminate(self._number)

    def result(self, timeout: float | None = None) -> _T:
        """Wait for the call, and return its result, or raise its exception.

        A task of a cluster that waits here leaves its place to another task of its host.

        Raises TimeoutError after ``timeout`` seconds, and CancelledError if the call was cancelled.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor() as executor:
        ...     executor.submit(pow, 2, 10).result()
        1024
        """
        if _waits.is_worker() and not self.done():
            with _waits.Wait():
                return Future.result(self, timeout)
        return Future.result(self, self._receive(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the call, and return its exception, or None.

        As for `result`, the place of a task that waits is free meanwhile. Raises the same.

        Examples
        --------
        >>> from concurrent_futures import ClusterExecutor
        >>> with ClusterExecutor() as executor:
        ...     executor.submit(int, "x").exception()
        ValueError("invalid literal for int() with base 10: 'x'")
        """
        if _waits.is_worker() and not self.done():
            with _waits.Wait():
                return Future.exception(self, timeout)
        return Future.exception(self, self._receive(timeout))

    def _receive(self, timeout: float | None) -> float | None:
        """Wait for the end of the call without the executor's thread, for a moment.

        Returns what is left of ``timeout``.
        """
        if self.done():
            return timeout
        if timeout is None:
            self._client.receive(self, self._recorded.is_on, _MOMENT)
            return None
        if not isinstance(timeout, (int, float)) or not timeout > 0:
            return timeout
        began = time.monotonic()
        self._client.receive(self, self._recorded.is_on, min(timeout, _MOMENT))
        if timeout > _EVER:
            return timeout
        return max(0.0, timeout - (time.monotonic() - began))

    @property
    def _waiters(self) -> Any:  # type: ignore[override]
        waiters = Future._waiters.__get__(self)  # type: ignore[attr-defined]
        return _waits.Waiters(waiters) if _waits.is_worker() else waiters

    def __repr__(self) -> str:
        text = Future.__repr__(self)
        return text.replace("state=pending", "state=running") if self.running() else text


def complete(
    future: ClusterFuture[Any],
    kind: int,
    payload: Any,
    runs: _native._Runs | None,
) -> None:
    """Give a future its outcome, or a part of its value."""
    if kind == _PART:
        if future._take_part is not None:
            future._take_part(*payload)
        return
    if kind == _CANCELLED:
        future._fn = None
        if not future.cancelled():
            future._recorded.cancelled(future)
        Future.cancel(future)
        Future.set_running_or_notify_cancel(future)
        return
    error: BaseException | None = None
    result = None
    try:
        if kind == _VALUE:
            result = _frames.loads(payload)
        elif kind == _FAILURE:
            error = _calls.rebuild_exception(payload)
            if future._fn is not None:
                _calls.name_call(error, future._number, future._recorded.name(future._fn))
        else:
            name, message, hosts = payload
            error = _errors.of_task(name, message, hosts, _name(future))
    except BaseException as failure:
        error = failure
    if future._recorded.is_on():
        # Before the future is done: a recording that is stopped then has all runs.
        received = len(payload) if kind in (_VALUE, _FAILURE) else 0
        _record(future, kind, result, error, runs or (None, []), received)
    future._fn = None
    del payload
    # False if a program has cancelled the future behind the cluster's back.
    if Future.set_running_or_notify_cancel(future):
        if error is not None:
            Future.set_exception(future, error)
        else:
            Future.set_result(future, result)


def _name(future: ClusterFuture[Any]) -> str | None:
    """Return the call of a future as errors name it; None of a call of an earlier executor."""
    if future._fn is None:
        return None
    return f"task #{future._number} ({future._recorded.name(future._fn)})"


def _record(
    future: ClusterFuture[Any],
    kind: int,
    result: Any,
    error: BaseException | None,
    runs: _native._Runs,
    received: int,
) -> None:
    """Tell recordings the end of a call, or of a span."""
    run, losses = runs
    outcome = _outcome_of(error)
    items = future._items
    if type(result) is _calls.Span:
        # The calls that it has not begun run in others.
        items = result.count
        if result.errors:
            outcome = _FAILED
            try:
                error = _calls.rebuild_exception(result.errors[min(result.errors)])
            except BaseException as failure:
                error = failure
    recorded = future._recorded
    if losses:
        next_start = None if run is None else run[3]
        recorded.lost(future, future._submitted, losses, next_start)
    if kind == _ERROR and error is not None:
        is_lost = isinstance(error, (_errors.HostLostError, _errors.PoisonTaskError))
        recorded.failed(future, _DIED if is_lost else _REJECTED, error)
    else:
        recorded.ran(future, future._submitted, items, run, outcome, error, received)


def _outcome_of(error: BaseException | None) -> int:
    """Return the outcome of a call, as recordings show it."""
    if error is None:
        return _FINISHED
    if isinstance(error, TaskTerminatedError):
        return _TERMINATED
    if isinstance(error, TaskTimeoutError):
        return _TIME_LIMIT
    return _DIED if isinstance(error, WorkerDiedError) else _FAILED
