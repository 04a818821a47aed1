"""``map`` on a cluster: short calls travel together.

The items are cut into *spans*. A span is one task, and has the outcomes of its calls. The first
spans have one item. The time that they take decides about the size of the next ones, so that a span
is some tens of milliseconds of work. A bounded number of spans is on
its way. The end of one makes the next ones, by the thread that completes futures. So they run
whether the results are iterated over or not.

The results of a span come together, unless it takes long: then those that are there come first, in
parts. A result that has come stays, also if the span runs again.

With ``buffersize``, the iteration makes the next spans instead, as it alone makes room, and takes
items from the caller's iterables.
"""

from __future__ import annotations

import collections
import itertools
import threading
import time
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from concurrent_futures import TaskTerminatedError, WorkerDiedError
from concurrent_futures_cluster import _calls, _frames, _waits
from concurrent_futures_cluster._state import RecordedCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from concurrent_futures_cluster import _native
    from concurrent_futures_cluster._future import ClusterFuture
    from concurrent_futures_cluster._state import State

    #: Results and pickled exceptions.
    _Outcomes = collections.deque[tuple[Any, bytes | None]]

_T = TypeVar("_T")

#: The seconds of work that a span is made for.
_WORK = 0.03
#: The growth of spans beyond the longest one so far, at most, and their longest.
_GROWTH = 16
_LONGEST = 1 << 16
#: The spans on their way for each worker, and at least.
_PER_WORKER = 2
_AT_LEAST = 8


class _Span:
    """Some items, and the future of their calls."""

    future: ClusterFuture[Any]

    def __init__(self, items: list[tuple[Any, ...]]) -> None:
        self.items = items
        #: The number of items whose outcomes have come, and those that were not taken: results, and
        #: pickled exceptions.
        self.count = 0
        self.outcomes: _Outcomes = collections.deque()
        #: Parts behind one that did not come yet, by the place of their first item.
        self._later: dict[int, _calls.Span] = {}
        #: The spans of the items that run again, or were not begun, once the future is done. The
        #: error tells why they could not be submitted.
        self.parts: list[_Span] | None = None
        self.error: BaseException | None = None

    def add(self, first: int, part: _calls.Span) -> None:
        """Add the outcomes of the items from `first` on. Those that are there stay."""
        self._later[first] = part
        for first in sorted(self._later):
            if first > self.count:
                break
            part = self._later.pop(first)
            start = self.count - first
            if start < part.count:
                errors = map(part.errors.get, range(start, part.count))
                self.outcomes.extend(zip(part.values[start:], errors, strict=True))
                self.count = first + part.count

    def take(self) -> _Outcomes:
        """Take the outcomes that there are."""
        taken, self.outcomes = self.outcomes, collections.deque()
        return taken

    def end(self, whole: _calls.Span | None) -> None:
        """Add all outcomes. From now on, each is kept until it is taken."""
        if whole is not None:
            self.add(0, whole)
            whole.values.clear()
        self._later.clear()


class Spans(Generic[_T]):
    """The spans of one call of `map`.

    One thread at a time submits, and a thread that finds another one at it leaves the work to it.
    So the order of the spans is that of the items, and foreign code runs outside the lock.
    """

    def __init__(
        self,
        state: State,
        fn: Callable[..., _T],
        items: Iterator[tuple[Any, ...]],
        size: int | None,
        buffersize: int | None,
    ) -> None:
        self._state = state
        self._fn = fn
        #: The items that no task has yet.
        self._items = items
        self._size = size
        #: The items that the next span has, unless that is fixed; and the most that one had.
        self._next = self._largest = 1
        self._buffersize = buffersize
        #: The most spans that may be on their way.
        self._most = max(_AT_LEAST, _PER_WORKER * state.workers()) if size is None else None
        self._changed = threading.Condition()
        #: The spans whose results were not taken.
        self._on_way: collections.deque[_Span] = collections.deque()
        #: The number of items whose results were not taken.
        self._ahead = 0
        #: The number of spans that are not done.
        self._open = 0
        #: Whether there are no more items.
        self._is_over = False
        #: Whether a thread submits, and whether it is to look for room again.
        self._is_submitting = False
        self._is_wanted = False
        #: The exception that stands for the items behind the last span.
        self._error: BaseException | None = None

    def submit_more(self) -> None:
        """Submit spans as long as there is room, unless another thread does."""
        with self._changed:
            self._is_wanted = True
            if self._is_submitting or self._is_over:
                return
            self._is_submitting = True
        try:
            while self._submit_one():
                pass
        except BaseException as error:
            self._end(error)
            raise

    def _submit_one(self) -> bool:
        """Submit a span. Return False if there is no room, or no item."""
        with self._changed:
            room = self._room()
            if self._is_over or (room == 0 and not self._is_wanted):
                self._is_submitting = False
                self._changed.notify_all()
                return False
            self._is_wanted = False
            if room == 0:
                return True
            size = min(room, self._size or self._next)
        items = list(itertools.islice(self._items, size))
        if not items:
            self._end(None)
            return False
        for span in self._submitted(items):
            with self._changed:
                self._on_way.append(span)
                self._ahead += len(span.items)
                self._open += 1
                self._largest = max(self._largest, len(span.items))
                self._changed.notify_all()
            span.future.add_done_callback(partial(self._note_end, span))
        return True

    def _room(self) -> int:
        """Return how many items there is room for."""
        if self._most is not None and self._open >= self._most:
            return 0
        return _LONGEST if self._buffersize is None else self._buffersize - self._ahead

    def _submitted(self, items: list[tuple[Any, ...]]) -> Iterator[_Span]:
        """Submit a span; the items for themselves if they cannot be pickled together."""
        argument: bytes | BaseException
        began = self._state.recorded.begin()
        try:
            limit = _calls.PATIENCE if self._size is None else None
            argument = self._state.pickler.dumps_span(self._fn, items, limit)
        except Exception as error:
            if len(items) > 1:
                for item in items:
                    yield from self._submitted([item])
                return
            argument = error
        span = _Span(items)
        submit = self._state.submit_held if self._buffersize is None else self._state.submit
        call = RecordedCall(began, self._fn, items=len(items)) if began else None
        span.future = submit(argument, self._fn, call, partial(self._note_part, span))
        yield span

    def _note_part(self, span: _Span, first: int, data: bytes | _native.Content) -> None:
        """Learn some outcomes of a span that still runs."""
        try:
            part: _calls.Span = _frames.loads(data)
        except BaseException:
            # The whole outcome has them, or the same exception.
            return
        with self._changed:
            if span.parts is None:
                span.add(first, part)
                self._changed.notify_all()

    def _note_outcome(self, span: _Span, future: ClusterFuture[Any]) -> None:
        """Learn the outcomes of a span that is done, and submit the items that are left."""
        whole = None if future.cancelled() or future.exception() else future.result()
        with self._changed:
            span.end(whole)
            left = self._left(span)
        parts: list[_Span] = []
        try:
            for item in left:
                parts.extend(self._submitted([item]))
        except BaseException as error:
            span.error = error
        with self._changed:
            span.parts = parts
            self._changed.notify_all()
        for part in parts:
            part.future.add_done_callback(partial(self._note_outcome, part))

    def _note_end(self, span: _Span, future: ClusterFuture[Any]) -> None:
        """Learn from a span that is done, and make the next ones."""
        self._note_outcome(span, future)
        with self._changed:
            self._open -= 1
            if not future.cancelled() and future.exception() is None:
                outcomes: _calls.Span = future.result()
                each = max(outcomes.elapsed / outcomes.count, 1e-8)
                most = min(_GROWTH * self._largest, _LONGEST)
                self._next = max(1, min(int(_WORK / each), most))
            self._changed.notify_all()
        if self._buffersize is None:
            self.submit_more()

    def _left(self, span: _Span) -> list[tuple[Any, ...]]:
        """Return the items of a span, which is done, that are to run for themselves.

        Those are the items that the worker has not begun, for lack of time. If the worker has died,
        one of the items has killed it, and the others are to have their results.
        """
        if len(span.items) == 1 or self._size is not None or span.future.cancelled():
            return []
        error = span.future.exception()
        is_dead = isinstance(error, WorkerDiedError) and not isinstance(error, TaskTerminatedError)
        return span.items[span.count :] if error is None or is_dead else []

    def wait_for_outcomes(self, span: _Span, deadline: float | None) -> _Outcomes:
        """Wait for the next outcomes of a span, and take them. Return none if there are no more.

        Raise TimeoutError at the deadline.
        """
        with self._changed:
            if span.outcomes or span.parts is not None:
                return span.take()
        with _waits.waiting(), self._changed:
            while not span.outcomes and span.parts is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._changed.wait(left)
            return span.take()

    def result(self, outcomes: _Outcomes) -> _T:
        """Take the next result out of some outcomes, or raise the exception in its place."""
        value, error = outcomes.popleft()
        if error is not None:
            raise _calls.rebuild_exception(error)
        if self._buffersize is not None:
            self._note_taken()
        return value  # type: ignore[no-any-return]

    def take(self) -> _Span | None:
        """Wait for the next span to be on its way, and return it; None if there are no more."""
        while True:
            with self._changed:
                if self._on_way:
                    return self._on_way.popleft()
                if not self._is_submitting:
                    if self._error is not None:
                        raise self._error
                    if self._is_over:
                        return None
                if self._is_submitting or self._room() == 0:
                    self._changed.wait()
                    continue
            self.submit_more()

    def _note_taken(self) -> None:
        """Note that an item's result is taken, and make the next spans."""
        with self._changed:
            self._ahead -= 1
        self.submit_more()

    def stop(self) -> None:
        """Submit no more spans: the items that are left are cancelled."""
        self._end(CancelledError())

    def cancel(self) -> None:
        """Cancel all spans that no host has begun, and submit no more."""
        self._end(CancelledError())
        with self._changed:
            on_way = list(self._on_way)
            self._on_way.clear()
        for span in reversed(on_way):
            span.future.cancel()

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            was_over = self._is_over
            self._is_over = True
            # That of the thread which submits, or it will see that all is over.
            self._is_submitting = False
            if not was_over:
                self._error = error
            self._changed.notify_all()
        if not was_over and self._buffersize is None:
            self._state.client.release()


def mapped(
    state: State,
    fn: Callable[..., _T],
    items: Iterator[tuple[Any, ...]],
    timeout: float | None,
    size: int | None,
    buffersize: int | None,
) -> Iterator[_T]:
    """Submit the calls, and return an iterator over the results."""
    deadline = None if timeout is None else time.monotonic() + timeout
    if buffersize is None:
        items = iter(list(items))
    # As for `submit`, an executor that was shut down is an error. The last span releases the
    # client.
    state.begin()
    spans: Spans[_T]
    try:
        spans = Spans(state, fn, items, size, buffersize)
    except BaseException:
        state.client.release()
        raise
    if buffersize is not None:
        state.client.release()
    state.maps.add(spans)
    spans.submit_more()
    return _results(spans, deadline)


def mapped_one_by_one(
    submit: Callable[..., ClusterFuture[_T]],
    fn: Callable[..., _T],
    items: Iterator[tuple[Any, ...]],
    timeout: float | None,
    buffersize: int | None,
) -> Iterator[_T]:
    """Submit each call for itself, and return an iterator over the results."""
    deadline = None if timeout is None else time.monotonic() + timeout
    first = items if buffersize is None else itertools.islice(items, buffersize)
    futures = collections.deque(submit(fn, *args) for args in first)

    def results() -> Iterator[_T]:
        try:
            while futures:
                future = futures.popleft()
                futures.extend(submit(fn, *args) for args in itertools.islice(items, 1))
                left = None if deadline is None else max(deadline - time.monotonic(), 0)
                try:
                    yield future.result(left)
                except TimeoutError:
                    future.cancel()
                    raise
        finally:
            for future in reversed(futures):
                future.cancel()

    return results()


def _results(spans: Spans[_T], deadline: float | None) -> Iterator[_T]:
    """Yield the results of spans."""
    try:
        while (taken := spans.take()) is not None:
            waiting = collections.deque([taken])
            del taken
            while waiting:
                span = waiting.popleft()
                while outcomes := spans.wait_for_outcomes(span, deadline):
                    while outcomes:
                        yield spans.result(outcomes)
                if span.error is not None:
                    raise span.error
                if span.parts:
                    waiting.extendleft(reversed(span.parts))
                elif span.count < len(span.items):
                    # It has failed, or was cancelled.
                    span.future.result()
    finally:
        spans.cancel()
