"""Options of single calls in worker processes."""

from concurrent_futures import TYPE_CHECKING, _engine
from concurrent_futures._private import without_hints

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    from concurrent_futures import _base
    from concurrent_futures.process import ProcessPoolExecutor

    _P = ParamSpec("_P")
    _T = TypeVar("_T")

__all__ = ["ProcessPoolOptions"]


@without_hints
class ProcessPoolOptions:
    """Submits calls with options; see `ProcessPoolExecutor.options`."""

    def __init__(
        self,
        executor: "ProcessPoolExecutor",
        timeout: "float | None",
        retries: int,
        label: "str | None" = None,
    ) -> None:
        if retries < 0:
            raise ValueError("retries must not be negative")
        self._executor = executor
        self._timeout = timeout
        self._retries = retries
        self._label = label

    def submit(
        self, fn: "Callable[_P, _T]", /, *args: "_P.args", **kwargs: "_P.kwargs"
    ) -> "_base.Future[_T]":
        """Submit the call ``fn(*args, **kwargs)``, and return its Future at once."""
        if self._executor._is_standard:
            raise RuntimeError(
                "options need the engine: this executor works by the standard library's code,"
                " as a private part was replaced"
            )
        options = self._timeout, self._retries, fn, args, kwargs
        if self._label is None:
            return self._executor._submit_with(*options)
        return _engine.call_with_label(self._label, self._executor._submit_with, *options)
