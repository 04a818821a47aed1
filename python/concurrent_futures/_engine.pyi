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

from concurrent_futures import _base, process

__all__ = [
    "MAX_WORKERS",
    "AsCompleted",
    "CallbacksThread",
    "Future",
    "ProcessPool",
    "ResultIterator",
    "SpanIterator",
    "Supervisor",
    "ThreadPool",
    "__version__",
    "allow_interrupts",
    "as_completed",
    "interpreter_exits",
    "life_of_this_process",
    "live_no_longer_than",
    "look_up_for_futures",
    "look_up_for_processes",
    "look_up_for_threads",
    "look_up_for_workers",
    "refuse",
    "register_hooks",
    "serve",
    "use_types",
    "wait",
]

_T = TypeVar("_T")
_P = ParamSpec("_P")
# Any futures, and the same ones again: the standard library's, ours or another library's.
_F = TypeVar("_F", bound=concurrent.futures.Future[Any])

MAX_WORKERS: Final[int]
__version__: Final[str]

@disjoint_base
class Future(Generic[_T]):
    """The native part of `concurrent_futures.Future`."""

    _state: str
    _result: _T | None
    _exception: BaseException | None
    _condition: threading.Condition
    _waiters: list[Any]
    _done_callbacks: list[Callable[[Any], object]]
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
    def terminate(self) -> bool: ...
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
    def _map(
        self,
        fn: Callable[..., _T],
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        buffersize: int | None,
    ) -> ResultIterator[_T]: ...
    def _close(self) -> None: ...
    def _cancel_pending(self) -> None: ...
    def _wait_for_threads(self) -> None: ...
    def _is_worker(self) -> bool: ...
    def _pending(self) -> int: ...

@final
class ResultIterator(Iterator[_T]):
    """What the generator of `ThreadPoolExecutor.map` yields from."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> _T: ...
    def send(self, value: object) -> _T: ...
    def close(self) -> None: ...

@disjoint_base
class ProcessPool:
    """The native part of `concurrent_futures.ProcessPoolExecutor`."""

    _broken: Any
    def __new__(cls, *_args: object, **_kwargs: object) -> Self: ...
    def _start(
        self,
        workers: process.Workers,
        max_workers: int,
        max_tasks_per_child: int | None,
        strict: bool,
        task_timeout: float | None,
        memory_limit: int | None,
        max_pending: int | None,
        by_value: bool,
    ) -> None: ...
    def submit(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _base.Future[_T]: ...
    def _submit_with(
        self,
        timeout: float | None,
        retries: int,
        fn: Callable[..., _T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> _base.Future[_T]: ...
    def _map(
        self,
        fn: Callable[..., _T],
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        size: int | None,
        buffersize: int | None,
    ) -> SpanIterator[_T]: ...
    def _start_workers(self, number: int) -> None: ...
    def _supervisor(self) -> Supervisor: ...
    def _close(self, cancel_futures: bool) -> None: ...
    def _end_workers(self, kill: bool) -> None: ...
    def _own(self, task: object) -> None: ...
    def _calls_back(self) -> bool: ...
    def _pending(self) -> int: ...
    def _idle(self) -> int: ...
    def _unfinished(self) -> int: ...
    def _submitted(self) -> int: ...
    def _is_closed(self) -> bool: ...

@final
class CallbacksThread:
    """What the thread for callbacks of a process pool runs."""

    def run(self) -> None: ...

@final
class ErrandsThread:
    """What a thread of a process pool runs that pickles or unpickles."""

    def run(self) -> None: ...

@final
class Supervisor:
    """What the supervisor thread of a process pool runs."""

    def run(self) -> None: ...
    def close(self) -> None: ...

@final
class SpanIterator(Iterator[_T]):
    """The iterator that `ProcessPoolExecutor.map` returns."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> _T: ...
    def __length_hint__(self) -> int: ...
    def close(self) -> None: ...

@final
class AsCompleted(Iterator[_F]):
    """What the generator `as_completed` yields from."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> _F: ...
    def send(self, value: object) -> _F: ...
    def close(self) -> None: ...

# `concurrent.futures._base.DoneAndNotDoneFutures`, for any kind of futures.
@type_check_only
class _DoneAndNotDone(NamedTuple, Generic[_F]):
    done: set[_F]
    not_done: set[_F]

def as_completed(fs: Iterable[_F], timeout: float | None = None) -> AsCompleted[_F]: ...
def wait(
    fs: Iterable[_F], timeout: float | None, return_when: str
) -> _DoneAndNotDone[_F] | set[_F]: ...
def use_types(future: type[_base.Future[Any]], deadlock_error: type[RuntimeError]) -> None: ...
def look_up_for_futures() -> None: ...
def look_up_for_threads() -> None: ...
def look_up_for_workers() -> None: ...
def look_up_for_processes() -> None: ...
def interpreter_exits() -> None: ...
def life_of_this_process() -> int: ...
def live_no_longer_than(pipe: int) -> None: ...
def serve(
    channel: int, pack: Callable[[BaseException], bytes], is_strict: bool, by_value: bool
) -> None: ...
def refuse(channel: int, why: str) -> None: ...
def allow_interrupts() -> None: ...
def register_hooks() -> None: ...
