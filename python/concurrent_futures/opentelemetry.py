"""Spans and metrics of OpenTelemetry for executors.

Needs ``opentelemetry-api``, which ``pip install concurrent-futures[opentelemetry]`` installs.
A program that does not import this module pays nothing for it.
"""

import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, ClassVar, TypeVar

from opentelemetry import context as _context
from opentelemetry import metrics as _metrics
from opentelemetry import propagate as _propagate
from opentelemetry import trace as _trace

from concurrent_futures import _base
from concurrent_futures._progress import name_of

__all__ = ["TracedExecutor", "traced"]

_T = TypeVar("_T")

_NAME = "concurrent_futures"


def traced(
    executor: Any, *, tracer_provider: Any = None, meter_provider: Any = None
) -> "TracedExecutor":
    """Return an executor that runs its calls on another one, each within a span.

    The span of a call has the name of the function. Its parent is the span in which the call was
    submitted, also in worker processes. The context goes there by the propagators of the program,
    by default as ``traceparent`` of W3C. A worker process needs a tracer provider of its own, which
    the pool's initializer can set. An exception of the call is recorded by the span.

    The figures of ``executor.stats()`` are metrics, as long as the executor exists:

    - ``concurrent_futures.executor.task.count``, by ``state``: pending or running
    - ``concurrent_futures.executor.task.ended``, by ``outcome``: finished, failed or cancelled
    - ``concurrent_futures.executor.worker.count`` and ``…worker.restarts``
    - ``concurrent_futures.executor.busy.time``, in seconds

    Parameters
    ----------
    executor
        Any executor, also one of the standard library. Executors without ``stats`` have no metrics.
    tracer_provider
        The provider for spans of threads of this process; by default the program's.
    meter_provider
        The provider for the metrics; by default the program's.

    Examples
    --------
    >>> from concurrent_futures import ThreadPoolExecutor
    >>> from concurrent_futures.opentelemetry import traced
    >>> with traced(ThreadPoolExecutor()) as pool:
    ...     length = pool.submit(len, "page").result()
    >>> length
    4
    """
    traced_executor = TracedExecutor(executor, tracer_provider)
    if hasattr(executor, "stats"):
        _Instruments.of(meter_provider or _metrics.get_meter_provider()).add(executor)
    return traced_executor


class _Call:
    """A call that makes a span where it runs."""

    __slots__ = ("_carrier", "_context", "_function", "_provider", "_submitted")

    def __init__(self, function: "Callable[..., Any]", provider: Any) -> None:
        self._function = function
        self._context: Any = _context.get_current()
        self._provider = provider
        self._carrier: dict[str, str] = {}
        self._submitted = time.time_ns()

    def __reduce__(self) -> "tuple[Any, ...]":
        # A context, and a provider, belong to one process.
        carrier = self._carrier
        if self._context is not None:
            carrier = {}
            _propagate.inject(carrier, self._context)
        return _rebuild, (self._function, carrier, self._submitted)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tracer = _trace.get_tracer(_NAME, tracer_provider=self._provider)
        function = self._function
        context = _propagate.extract(self._carrier) if self._context is None else self._context
        queued = max(0, time.time_ns() - self._submitted) / 1e9
        attributes = {
            "code.function.name": f"{getattr(function, '__module__', '')}.{name_of(function)}",
            "concurrent_futures.task.queue_time": queued,
        }
        with tracer.start_as_current_span(name_of(function), context, attributes=attributes):
            return function(*args, **kwargs)


def _rebuild(function: "Callable[..., Any]", carrier: "dict[str, str]", submitted: int) -> _Call:
    call = _Call.__new__(_Call)
    call._function, call._carrier, call._submitted = function, carrier, submitted
    call._context = call._provider = None
    return call


class _Submitter:
    """Submits calls with spans."""

    def __init__(self, executor: Any, tracer_provider: Any) -> None:
        self._executor = executor
        self._tracer_provider = tracer_provider

    def submit(self, fn: "Callable[..., _T]", /, *args: Any, **kwargs: Any) -> "_base.Future[_T]":
        """Submit the call ``fn(*args, **kwargs)``, and return its Future at once."""
        call = _Call(fn, self._tracer_provider)
        future: _base.Future[_T] = self._executor.submit(call, *args, **kwargs)
        return future

    def map(
        self, fn: "Callable[..., _T]", *iterables: "Iterable[Any]", **options: Any
    ) -> "Iterator[_T] | Generator[_T, None, None]":
        """Call ``fn`` for the items of the iterables; each call has a span of its own."""
        call = _Call(fn, self._tracer_provider)
        results: Iterator[_T] = self._executor.map(call, *iterables, **options)
        return results


class TracedExecutor(_Submitter, _base.Executor):
    """An executor whose calls have spans; see `traced`.

    Attributes that are not of `Executor` are those of the other executor.
    """

    def options(self, **options: Any) -> _Submitter:
        """Return an object whose calls have the options of the other executor, and spans."""
        return _Submitter(self._executor.options(**options), self._tracer_provider)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the other executor down."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_executor":
            raise AttributeError(name)
        return getattr(self._executor, name)

    def __repr__(self) -> str:
        return f"<TracedExecutor of {self._executor!r}>"


class _Instruments:
    """The instruments of a meter provider, which observe executors."""

    _known: ClassVar["weakref.WeakKeyDictionary[Any, _Instruments]"] = weakref.WeakKeyDictionary()

    def __init__(self, provider: Any) -> None:
        self._executors: weakref.WeakSet[Any] = weakref.WeakSet()
        # Figures of counters stay when their executor is gone.
        meter = _metrics.get_meter(_NAME, meter_provider=provider)
        prefix = f"{_NAME}.executor"

        def observe(make: Any, name: str, unit: str, text: str, values: Any) -> None:
            def callback(_options: Any) -> "list[Any]":
                return self._observations(values)

            make(f"{prefix}.{name}", callbacks=[callback], unit=unit, description=text)

        observe(
            meter.create_observable_up_down_counter,
            "task.count",
            "{task}",
            "Tasks that are pending or running.",
            lambda stats: [
                (stats.pending, {"state": "pending"}),
                (stats.running, {"state": "running"}),
            ],
        )
        observe(
            meter.create_observable_counter,
            "task.ended",
            "{task}",
            "Tasks that have ended.",
            lambda stats: [
                (stats.finished, {"outcome": "finished"}),
                (stats.failed, {"outcome": "failed"}),
                (stats.cancelled, {"outcome": "cancelled"}),
            ],
        )
        observe(
            meter.create_observable_up_down_counter,
            "worker.count",
            "{worker}",
            "Workers that exist.",
            lambda stats: [(stats.workers, {})],
        )
        observe(
            meter.create_observable_counter,
            "worker.restarts",
            "{worker}",
            "Workers that were started in the place of others.",
            lambda stats: [(stats.restarts, {})],
        )
        observe(
            meter.create_observable_counter,
            "busy.time",
            "s",
            "Time for which workers ran tasks.",
            lambda stats: [(stats.busy, {})],
        )

    @classmethod
    def of(cls, provider: Any) -> "_Instruments":
        known = cls._known.get(provider)
        if known is None:
            known = cls._known[provider] = cls(provider)
        return known

    def add(self, executor: Any) -> None:
        self._executors.add(executor)
        # Times are measured from the first call on.
        self._stats(executor)

    @staticmethod
    def _stats(executor: Any) -> Any:
        try:
            return executor.stats()
        except RuntimeError:
            # It works by the standard library's code, which keeps no figures.
            return None

    def _observations(self, values: Any) -> "list[Any]":
        observations = []
        for executor in list(self._executors):
            stats = self._stats(executor)
            for value, attributes in values(stats) if stats is not None else []:
                identity = {
                    "concurrent_futures.executor.type": type(executor).__name__,
                    "concurrent_futures.executor.id": id(executor),
                }
                observations.append(_metrics.Observation(value, {**identity, **attributes}))
        return observations
