"""Calls and their outcomes as bytes; and the functions that workers of hosts run.

A call is pickled by reference: the host imports the module of its function. Objects of ``__main__``
and of modules that the executor was told of travel by value, pickled by cloudpickle, and so do
lambdas and closures. The outcome comes back in the same way.
"""

from __future__ import annotations

import logging
import pickle
import re
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from types import BuiltinFunctionType, FunctionType, ModuleType

from concurrent_futures import TaskTimeoutError, WorkerDiedError
from concurrent_futures_cluster import _by_value, _frames, _waits

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from typing_extensions import Buffer

_LOGGER = logging.getLogger("concurrent.futures")

PROTOCOL = 5

#: The types whose pickling runs no Python code, and refers to no module.
_PLAIN = frozenset([type(None), bool, int, float, str, bytes])
_FUNCTIONS = frozenset([FunctionType, BuiltinFunctionType, type])

#: The seconds for which a span runs before its worker begins no further call, and sends what there
#: is.
PATIENCE = 0.1

#: The length from which on outcomes are not copied behind a first byte.
_SHORT = 64 * 1024

#: The name of a host's task, in errors.
_RUN = re.compile(r"task #[0-9]+ \(concurrent_futures_cluster\._calls\.run\)")

#: The token of the call that this worker runs.
_token = 0

#: Held while modules are registered with cloudpickle.
_registering = threading.RLock()


class CallPickler:
    """Pickles calls for the hosts."""

    def __init__(self, by_value: tuple[ModuleType, ...]) -> None:
        self._by_value = by_value
        self._names = tuple(module.__name__ for module in by_value)
        self._functions = _by_value.Functions(self._is_by_value, self._dumps)

    def dumps(
        self, fn: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bytes:
        """Return a call as bytes."""
        is_by_name = type(fn) in _FUNCTIONS and self._has_name(fn)
        callee = fn if is_by_name else self._carried(fn)
        is_short = is_by_name or type(callee) is _by_value.ByValue
        if is_short and all(type(value) in _PLAIN for value in (*args, *kwargs.values())):
            try:
                return pickle.dumps((callee, args, kwargs), PROTOCOL)
            except (pickle.PicklingError, AttributeError):
                pass  # A function that is not what its name says.
        return self._frame((callee, args, kwargs))

    def dumps_span(
        self, fn: Callable[..., object], items: list[tuple[Any, ...]], limit: float | None
    ) -> bytes:
        """Return the calls of a function for several items as bytes; see `run_span`."""
        callee = fn if type(fn) in _FUNCTIONS and self._has_name(fn) else self._carried(fn)
        return self._frame((run_span, (callee, items, limit), {}))

    def _has_name(self, fn: Callable[..., object]) -> bool:
        """Return whether hosts can import a function, by its name."""
        return not self._is_by_value(fn.__module__) and "<" not in fn.__qualname__

    def _carried(self, fn: Callable[..., object]) -> object:
        """Return what stands for a function in a pickle."""
        return (type(fn) is FunctionType and self._functions.carried(fn)) or fn

    def _is_by_value(self, name: str | None) -> bool:
        if name is None or name == "__main__":
            return True
        return any(name == module or name.startswith(f"{module}.") for module in self._names)

    def _frame(self, value: object) -> bytes:
        return _frames.dumps(value, self._dumps)

    def _dumps(self, value: object, is_inside: _frames.Callback | None = None) -> bytes:
        import cloudpickle

        if not self._by_value:
            return bytes(cloudpickle.dumps(value, PROTOCOL, is_inside))
        with _registering:
            known = cloudpickle.list_registry_pickle_by_value()
            added = [module for module in self._by_value if module.__name__ not in known]
            for module in added:
                cloudpickle.register_pickle_by_value(module)
            try:
                return bytes(cloudpickle.dumps(value, PROTOCOL, is_inside))
            finally:
                for module in added:
                    cloudpickle.unregister_pickle_by_value(module)


def dumps(value: object, is_inside: _frames.Callback | None = None) -> bytes:
    """Return a result as bytes; those of its long buffers are left out for which it says so."""
    if type(value) in _PLAIN:
        return pickle.dumps(value, PROTOCOL)
    import cloudpickle

    return bytes(cloudpickle.dumps(value, PROTOCOL, is_inside))


def pack_exception(error: BaseException) -> bytes:
    """Return an exception as bytes for `rebuild_exception`, with its traceback as text."""
    from concurrent_futures._worker import format_traceback

    text = format_traceback(error)
    error.__traceback__ = None
    try:
        exact = dumps(error)
    except BaseException as failure:
        # As in the standard library, this is the call's exception then.
        text = format_traceback(failure)
        failure.__traceback__ = None
        error = failure
        exact = dumps(failure)
    parts = None
    if type(error).__module__ != "builtins":
        # For exceptions whose arguments are not those of their class.
        try:
            parts = dumps((type(error), error.args, vars(error)))
        except Exception:
            parts = None
    return b"." + pickle.dumps((exact, parts, text), PROTOCOL)


def rebuild_exception(data: bytes) -> BaseException:
    """Return the exception that `pack_exception` was given, with its traceback as its cause."""
    from concurrent_futures import _process_errors

    return _process_errors.rebuild_exception(data)


def name_call(error: BaseException, number: int, name: str) -> None:
    """Name the call in an error of its worker process, which knows this module's `run` only."""
    text = error.args[0] if error.args else None
    if isinstance(error, (WorkerDiedError, TaskTimeoutError)) and isinstance(text, str):
        text = _RUN.sub(lambda _: f"task #{number} ({name})", text, count=1)
        error.args = (text, *error.args[1:])


def run(argument: Buffer, token: int) -> bytes | tuple[bool, bytes | list[Any]]:
    """Carry out a call in a worker; return whether it has a result, and the result or exception.

    A short outcome is ``bytes``: the host needs no Python code for it. The first byte tells whether
    the rest is a result. A result with long buffers is a list of the pieces of
    its frame. The host knows the call by its token.
    """
    is_value, outcome = _outcome(argument, token)
    if type(outcome) is bytes and len(outcome) < _SHORT:
        return (b"\1" if is_value else b"\0") + outcome
    return is_value, outcome


def _outcome(argument: Buffer, token: int) -> tuple[bool, bytes | list[Any]]:
    global _token
    _token = token
    try:
        fn, args, kwargs = _frames.loads(argument)
        del argument
        result = fn(*args, **kwargs)
        pieces = pieces_of_span(result) if type(result) is Span else _frames.pieces(result, dumps)
        head, *buffers = pieces
        return True, [head, *map(_frames.Passed, buffers)] if buffers else head
    except BaseException as error:
        return False, pack_exception(error)


class Span:
    """The outcomes of the calls of a span."""

    def __init__(self, elapsed: float, values: list[Any], errors: dict[int, bytes]) -> None:
        #: The seconds that the calls took.
        self.elapsed = elapsed
        #: The results; None for calls that have failed. Calls that were not begun are left out.
        self.values = values
        #: The exceptions, by the index of the call.
        self.errors = errors
        #: The number of calls. The iteration takes the results away.
        self.count = len(values)

    def __reduce__(self) -> tuple[object, ...]:
        return Span, (self.elapsed, self.values, self.errors)


def run_span(fn: Callable[..., object], items: list[tuple[Any, ...]], limit: float | None) -> Span:
    """Call a function for several items; the task of a worker.

    Begin no call when ``limit`` seconds have passed: the calls that are left take longer than those
    before.
    """
    values: list[Any] = []
    errors: dict[int, bytes] = {}
    started = time.perf_counter()
    with _parts.told(values, errors) if len(items) > 1 else nullcontext():
        for index, args in enumerate(items):
            if limit is not None and index > 0 and time.perf_counter() - started > limit:
                break
            try:
                values.append(fn(*args))
            except BaseException as error:
                errors[index] = pack_exception(error)
                values.append(None)
    elapsed = time.perf_counter() - started
    return Span(elapsed, values, errors)


class _Part:
    """The outcomes of a span that are there while a call of it runs on."""

    def __init__(self, values: list[Any], errors: dict[int, bytes]) -> None:
        self._values = values
        self._errors = errors
        self._token = _token
        self._started = time.perf_counter()
        #: The number of outcomes that the host has.
        self._told = 0
        #: When the next ones are sent.
        self.due = self._started + PATIENCE

    def tell(self) -> None:
        """Send the host the outcomes that it does not have."""
        told, count = self._told, len(self._values)
        elapsed = time.perf_counter() - self._started
        if count > told:
            errors = {n - told: error for n, error in self._errors.copy().items() if n < count}
            errors = {n: error for n, error in errors.items() if n >= 0}
            # The call that runs on may change a value. One that cannot be pickled now may be
            # picklable at the end: the whole outcome tells.
            part = _frames.dumps(Span(elapsed, self._values[told:count], errors), dumps)
            _waits.tell_part(self._token, told, part)
            self._told = count
        # So there are few parts, and none is late by more than a part of the time before it.
        self.due = time.perf_counter() + max(PATIENCE, elapsed / 4)


class _Parts:
    """Sends the host parts of the spans of this worker that take long, by a thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._part: _Part | None = None
        self._is_idle = True

    @contextmanager
    def told(self, values: list[Any], errors: dict[int, bytes]) -> Iterator[None]:
        """Send parts of a span, from time to time."""
        with self._changed:
            self._part = _Part(values, errors)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="ClusterHost-parts", daemon=True
                )
                self._thread.start()
            if self._is_idle:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._part = None

    def _work(self) -> None:
        while True:
            with self._changed:
                # While spans come one after another, the thread looks at them now and then.
                self._is_idle = self._part is None
                left = None if self._part is None else self._part.due - time.perf_counter()
                part = self._part if left is not None and left <= 0 else None
                if part is None:
                    self._changed.wait(left)
                    continue
            try:
                part.tell()
            except Exception as error:
                # The whole outcome has them, or the same error.
                _LOGGER.debug("results of a span could not be sent early", exc_info=error)
                with self._changed:
                    if self._part is part:
                        self._part = None
            del part


_parts = _Parts()


def pieces_of_span(span: Span) -> tuple[bytes, *tuple[memoryview, ...]]:
    """Return the frame of a span in pieces. Values that cannot be pickled fail for themselves."""
    try:
        return _frames.pieces(span, dumps)
    except BaseException:
        _leave_out_unpicklable(span)
        return _frames.pieces(span, dumps)


def _leave_out_unpicklable(span: Span) -> None:
    for index, value in enumerate(span.values):
        try:
            dumps(value)
        except BaseException as error:
            span.values[index] = None
            span.errors[index] = pack_exception(error)


def environment() -> str:
    """Return the part of an environment that this interpreter needs of a host."""
    threads = "t" if "t" in getattr(sys, "abiflags", "") else ""
    return f"python3-{sys.version_info.minor}{threads}"
