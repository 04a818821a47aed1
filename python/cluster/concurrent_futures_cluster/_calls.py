"""Calls and their outcomes as bytes; and the functions that workers of hosts run.

A call is pickled by reference: the host imports the module of its function. Objects of ``__main__``
and of modules that the executor was told of travel by value, pickled by cloudpickle, and so do
lambdas and closures. The outcome comes back in the same way.
"""

from __future__ import annotations

import pickle
import sys
import threading
import time
from types import BuiltinFunctionType, FunctionType, ModuleType

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PROTOCOL = 5

#: The types whose pickling runs no Python code, and refers to no module.
_PLAIN = frozenset([type(None), bool, int, float, str, bytes])
_FUNCTIONS = frozenset([FunctionType, BuiltinFunctionType, type])

#: Held while modules are registered with cloudpickle.
_registering = threading.RLock()


class CallPickler:
    """Pickles calls for the hosts."""

    def __init__(self, by_value: tuple[ModuleType, ...]) -> None:
        self._by_value = by_value
        self._names = tuple(module.__name__ for module in by_value)

    def dumps(
        self, fn: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bytes:
        """Return a call as bytes."""
        is_by_name = type(fn) in _FUNCTIONS and not self._is_by_value(fn.__module__)
        if is_by_name and all(type(value) in _PLAIN for value in (*args, *kwargs.values())):
            try:
                return pickle.dumps((fn, args, kwargs), PROTOCOL)
            except (pickle.PicklingError, AttributeError):
                pass  # A lambda or a closure.
        return self._dumps((fn, args, kwargs))

    def dumps_span(
        self, fn: Callable[..., object], items: list[tuple[Any, ...]], limit: float | None
    ) -> bytes:
        """Return the calls of a function for several items as bytes; see `run_span`."""
        return self._dumps((run_span, (fn, items, limit), {}))

    def _is_by_value(self, name: str | None) -> bool:
        if name is None or name == "__main__":
            return True
        return any(name == module or name.startswith(f"{module}.") for module in self._names)

    def _dumps(self, value: object) -> bytes:
        import cloudpickle

        if not self._by_value:
            return bytes(cloudpickle.dumps(value, PROTOCOL))
        with _registering:
            known = cloudpickle.list_registry_pickle_by_value()
            added = [module for module in self._by_value if module.__name__ not in known]
            for module in added:
                cloudpickle.register_pickle_by_value(module)
            try:
                return bytes(cloudpickle.dumps(value, PROTOCOL))
            finally:
                for module in added:
                    cloudpickle.unregister_pickle_by_value(module)


def dumps(value: object) -> bytes:
    """Return a result as bytes."""
    if type(value) in _PLAIN:
        return pickle.dumps(value, PROTOCOL)
    import cloudpickle

    return bytes(cloudpickle.dumps(value, PROTOCOL))


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


def run(argument: bytes) -> tuple[bool, bytes]:
    """Carry out a call in a worker; return whether it has a result, and the result or exception."""
    try:
        fn, args, kwargs = pickle.loads(argument)
        del argument
        result = fn(*args, **kwargs)
        try:
            return True, dumps(result)
        except BaseException:
            if type(result) is not Span:
                raise
            # One of its values at least: each fails for itself.
            _leave_out_unpicklable(result)
            return True, dumps(result)
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
    for index, args in enumerate(items):
        if limit is not None and index > 0 and time.perf_counter() - started > limit:
            break
        try:
            values.append(fn(*args))
        except BaseException as error:
            values.append(None)
            errors[index] = pack_exception(error)
    elapsed = time.perf_counter() - started
    return Span(elapsed, values, errors)


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
