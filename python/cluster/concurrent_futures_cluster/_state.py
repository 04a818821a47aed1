"""The part of an executor that its thread shares: submission, delivery, and the end."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from concurrent_futures._engine import RemotePool
from concurrent_futures_cluster import _calls, _native, _waits
from concurrent_futures_cluster._errors import ClusterError
from concurrent_futures_cluster._future import ClusterFuture, complete

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from concurrent_futures_cluster._embedded import EmbeddedHost
    from concurrent_futures_cluster._map import Spans

_LOGGER = logging.getLogger("concurrent.futures")

#: The seconds for which the number of workers is not asked for again.
_FRESH = 5.0
#: The seconds for which the interpreter's end waits for a server that does not answer.
_GIVE_UP = 10.0
#: The pause between two looks at such a server.
_LOOK = 1.0

#: The outcome of a call that could not be submitted, in recordings.
_REJECTED = 5

#: The states whose threads the interpreter's end waits for.
_states: weakref.WeakSet[State] = weakref.WeakSet()
_is_exiting = False


class RecordedCall:
    """A call, or the calls of a span, as recordings show it."""

    def __init__(
        self,
        began: int,
        fn: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        items: int = 1,
    ) -> None:
        #: When pickling began.
        self._began = began
        self._call = fn, args, kwargs
        self._items = items

    def note(self, future: ClusterFuture[Any], argument: bytes | BaseException) -> None:
        """Record that the call is submitted, or could not be pickled."""
        recorded = future._recorded
        length = len(argument) if isinstance(argument, bytes) else 0
        future._items = self._items
        future._submitted = recorded.submitted(future, self._began, length, *self._call)
        if isinstance(argument, BaseException):
            recorded.failed(future, _REJECTED, argument)


class State:
    """The part of an executor that its thread shares. The thread does not keep the executor."""

    def __init__(self, client: _native.Client, pickler: _calls.CallPickler) -> None:
        self.client = client
        self.pickler = pickler
        #: The executor, as recordings know it.
        self.recorded = RemotePool("ClusterExecutor")
        self.embedded: EmbeddedHost | None = None
        self.is_kept = client.session() is not None
        self.numbers = itertools.count(1)
        # A garbage collection under the lock may close an executor.
        self.lock = threading.RLock()
        self.is_closed = False
        self.is_exiting = False
        self.maps: weakref.WeakSet[Spans[Any]] = weakref.WeakSet()
        self._workers = (-math.inf, 0)
        self._silent_since: float | None = None
        self.process = os.getpid()
        self.thread = threading.Thread(target=self._deliver, name="ClusterExecutor-futures")

    def is_foreign(self) -> bool:
        """Return whether this process is a fork of the executor's."""
        return self.process != os.getpid()

    def start(self) -> None:
        """Start the thread, which ends when the executor was closed and all tasks are done."""
        _states.add(self)
        self.thread.start()

    def begin(self) -> None:
        """Hold the client, so that its thread does not end; refuse that after the shutdown."""
        with self.lock:
            if self.is_closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _is_exiting:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            self.client.hold()

    def submit(
        self,
        argument: bytes | BaseException,
        fn: Callable[..., Any],
        call: RecordedCall | None,
        take_part: Callable[[int, bytes], None] | None = None,
    ) -> ClusterFuture[Any]:
        """Submit a pickled call; or make the future of one that could not be pickled.

        ``call`` is the call as recordings show it, if anything is recorded.
        """
        self.begin()
        try:
            return self.submit_held(argument, fn, call, take_part)
        finally:
            self.client.release()

    def submit_held(
        self,
        argument: bytes | BaseException,
        fn: Callable[..., Any],
        call: RecordedCall | None,
        take_part: Callable[[int, bytes], None] | None = None,
    ) -> ClusterFuture[Any]:
        """Submit a pickled call while the client is held."""
        number = next(self.numbers)
        future: ClusterFuture[Any] = ClusterFuture(self.client, number, self.recorded, take_part)
        future._fn = fn
        if call is not None:
            call.note(future, argument)
        if isinstance(argument, bytes):
            is_worker = _waits.is_worker()
            if not self.client.submit(number, future, argument, not is_worker):
                with _waits.Wait():
                    self.client.submit(number, future, argument, True)
        else:
            future._fn = None
            future.set_running_or_notify_cancel()
            future.set_exception(argument)
        return future

    def found(self) -> list[ClusterFuture[Any]]:
        """Return the futures of the tasks that the session had."""
        self.begin()
        try:
            with self.lock:
                numbers = [next(self.numbers) for _ in range(self.client.found())]
                futures: list[ClusterFuture[Any]]
                futures = [ClusterFuture(self.client, number, self.recorded) for number in numbers]
                self.client.adopt(list(zip(numbers, futures, strict=True)))
                return futures
        finally:
            self.client.release()

    def workers(self) -> int:
        """Return the number of workers of the hosts that take the tasks; some seconds old."""
        asked, workers = self._workers
        if time.monotonic() - asked > _FRESH:
            try:
                workers = sum(host[2] for host in self.client.hosts())
            except ClusterError:
                workers = 0
            self._workers = (time.monotonic(), workers)
        return workers

    def close(self) -> None:
        """Refuse calls from now on."""
        if self.is_foreign():
            return
        with self.lock:
            self.is_closed = True
        self.client.close()

    def exit(self) -> None:
        """Close the executor as the interpreter ends: a server that is away is not waited for."""
        self.is_exiting = True
        self.close()
        if self.is_kept and self.thread.is_alive():
            # The tasks of a session go on without the program.
            for spans in list(self.maps):
                spans.stop()
            if not self.client.flush(_GIVE_UP):
                _LOGGER.warning("the last tasks of a session may be lost: no server answers")
            self.client.abandon()

    def _deliver(self) -> None:
        """Complete futures, until all are done."""
        while True:
            limit = _LOOK if self.is_exiting else None
            count = self.client.deliver(complete, self.recorded.is_on, limit)
            if count is None:
                break
            if count == 0 and self.is_exiting:
                self._look_at_server()
        if self.embedded is not None:
            self.embedded.stop()
        self.client.end()

    def _look_at_server(self) -> None:
        """Give all tasks up if the server has not answered for some time."""
        try:
            self.client.hosts()
        except ClusterError as error:
            now = time.monotonic()
            if self._silent_since is None:
                self._silent_since = now
            elif now - self._silent_since >= _GIVE_UP:
                _LOGGER.warning("the tasks of a cluster are given up at exit: %s", error)
                for spans in list(self.maps):
                    spans.stop()
                self.client.abandon()
        else:
            self._silent_since = None


def _at_exit() -> None:
    """Let all executors finish their work before the interpreter ends."""
    global _is_exiting
    _is_exiting = True
    states = [state for state in _states if not state.is_foreign()]
    for state in states:
        state.exit()
    for state in states:
        state.thread.join()


# As the standard library does it: before all threads that are no daemons are joined.
_register_atexit: Callable[[Callable[[], None]], None]
_register_atexit = threading._register_atexit  # type: ignore[attr-defined]
_register_atexit(_at_exit)
