"""The native module. What its parts do is in their docstrings, which are the users'."""

import concurrent.futures
import threading
from collections.abc import Callable, Iterable, Iterator
from types import GenericAlias
from typing import (
    Any,
    Final,
    Generic,
    NamedTuple,
    ParamSpec,
    Self,
    TypeVar,
    final,
    type_check_only,
)
from weakref import WeakSet

from typing_extensions import disjoint_base

from concurrent_futures import _base

__all__ = [
    "MAX_WORKERS",
    "AsCompleted",
    "Future",
    "ResultIterator",
    "ThreadPool",
    "after_fork",
    "as_completed",
    "before_fork",
    "interpreter_ends",
    "interpreter_exits",
    "use_types",
    "wait",
]

_T = TypeVar("_T")
_P = ParamSpec("_P")
# Any futures, and the same ones again: the standard library's, ours or another library's.
_F = TypeVar("_F", bound=concurrent.futures.Future[Any])

MAX_WORKERS: Final[int]

@disjoint_base
class Future(Generic[_T]):
    """The native part of `concurrent_futures.Future`."""

    _state: str
    _result: _T | None
    _exception: BaseException | None
    _condition: threading.Condition
    _waiters: list[Any]
    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]: ...
    def __new__(cls, *_args: object, **_kwargs: object) -> Self: ...
    def cancel(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def running(self) -> bool: ...
    def done(self) -> bool: ...
    def result(self, timeout: float | None = None) -> _T: ...
    def exception(self, timeout: float | None = None) -> BaseException | None: ...
    def add_done_callback(self, fn: Callable[[Self], object]) -> None: ...
    def set_running_or_notify_cancel(self) -> bool: ...
    def set_result(self, result: _T) -> None: ...
    def set_exception(self, exception: BaseException | None) -> None: ...
    def __class_getitem__(cls, item: Any) -> GenericAlias: ...
    def _invoke_callbacks(self) -> None: ...
    def _get_snapshot(self) -> tuple[bool, bool, _T | None, BaseException | None]: ...

@disjoint_base
class ThreadPool:
    """The native part of `concurrent_futures.ThreadPoolExecutor`."""

    _shutdown: bool
    _broken: Any
    def __new__(cls, *_args: object, **_kwargs: object) -> Self: ...
    def _start(
        self,
        max_workers: int,
        thread_name_prefix: object,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_pending: int | None,
        copy_context: bool,
        threads: set[threading.Thread],
        workers: WeakSet[threading.Thread],
    ) -> None: ...
    def submit(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _base.Future[_T]: ...
    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> ResultIterator[_T]: ...
    def _close(self) -> None: ...
    def _cancel_pending(self) -> None: ...
    def _wait_for_threads(self) -> None: ...
    def _is_worker(self) -> bool: ...
    def _pending(self) -> int: ...

@final
class ResultIterator(Iterator[_T]):
    """The iterator that `ThreadPoolExecutor.map` returns."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> _T: ...
    def __length_hint__(self) -> int: ...
    def close(self) -> None: ...

@final
class AsCompleted(Iterator[_F]):
    """The iterator that `as_completed` returns."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> _F: ...
    def __length_hint__(self) -> int: ...
    def close(self) -> None: ...

# `concurrent.futures._base.DoneAndNotDoneFutures`, for any kind of futures.
@type_check_only
class _DoneAndNotDone(NamedTuple, Generic[_F]):
    done: set[_F]
    not_done: set[_F]

def as_completed(fs: Iterable[_F], timeout: float | None = None) -> Iterator[_F]: ...
def wait(
    fs: Iterable[_F], timeout: float | None, return_when: str
) -> _DoneAndNotDone[_F] | set[_F]: ...
def use_types(future: type[_base.Future[Any]], deadlock_error: type[RuntimeError]) -> None: ...
def interpreter_exits() -> None: ...
def interpreter_ends() -> None: ...
def before_fork() -> None: ...
def after_fork(in_child: bool) -> None: ...
