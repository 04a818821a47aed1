"""``ProcessPoolExecutor`` where the engine has no pools of processes: the standard library's."""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import process
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, Literal, NoReturn, TypeVar

_T = TypeVar("_T")

__all__ = [
    "BrokenProcessPool",
    "ProcessPoolExecutor",
    "TaskTerminatedError",
    "TaskTimeoutError",
    "WorkerDiedError",
]

#: The original, also where a module of the standard library stands for this one.
_stdlib_executor = process.ProcessPoolExecutor


def _refuse(option: str) -> "NoReturn":
    """Raise the error for an option that needs the engine."""
    raise ValueError(
        f"{option} is not available, as the engine has no worker processes here:"
        " ProcessPoolExecutor is the standard library's"
    )


class ProcessPoolExecutor(_stdlib_executor):
    """Runs calls in worker processes, by the standard library's code.

    The first parameters are the standard library's. The others need the engine, and raise
    ValueError unless they have their defaults.
    """

    def __init__(
        self,
        max_workers: "int | None" = None,
        mp_context: "BaseContext | None" = None,
        initializer: "Callable[..., object] | None" = None,
        initargs: "tuple[Any, ...]" = (),
        *,
        max_tasks_per_child: "int | None" = None,
        on_worker_death: "Literal['break', 'isolate']" = "break",
        task_timeout: "float | None" = None,
        memory_limit: "int | None" = None,
        max_pending: "int | None" = None,
        cloudpickle: bool = False,
    ) -> None:
        needs_engine = {
            "on_worker_death": on_worker_death != "break",
            "task_timeout": task_timeout is not None,
            "memory_limit": memory_limit is not None,
            "max_pending": max_pending is not None,
            "cloudpickle": bool(cloudpickle),
        }
        for option, is_set in needs_engine.items():
            if is_set:
                _refuse(option)
        standard: Any = super()
        standard.__init__(
            max_workers, mp_context, initializer, initargs, max_tasks_per_child=max_tasks_per_child
        )

    def map(
        self,
        fn: "Callable[..., _T]",
        *iterables: "Iterable[Any]",
        timeout: "float | None" = None,
        chunksize: int = 1,
        buffersize: "int | None" = None,
        progress: bool = False,
    ) -> "Iterator[_T]":
        """Call ``fn`` for the items of the iterables; return an iterator over the results.

        As in the standard library; ``buffersize`` is available from CPython 3.14 on. With
        ``progress``, the iteration shows a bar of tqdm, if that is installed.
        """
        options: dict[str, Any] = {"timeout": timeout, "chunksize": chunksize}
        if buffersize is not None:
            if sys.version_info < (3, 14):
                _refuse("buffersize")
            options["buffersize"] = buffersize
        standard: Any = super()
        if progress:
            from concurrent_futures import _progress

            def mapped(iterables: "tuple[Iterable[Any], ...]") -> "Iterator[_T]":
                results: Iterator[_T] = standard.map(fn, *iterables, **options)
                return results

            return _progress.of_map(mapped, fn, iterables, buffersize is None)
        results: Iterator[_T] = standard.map(fn, *iterables, **options)
        return results

    def options(
        self,
        *,
        timeout: "float | None" = None,
        retries: int = 0,
        label: "str | None" = None,
    ) -> "NoReturn":
        """Raise ValueError: time limits, retries and labels of single calls need the engine."""
        _refuse("options()")

    if sys.version_info < (3, 14):

        def terminate_workers(self) -> "NoReturn":
            """Raise ValueError: the standard library has the method from CPython 3.14 on."""
            _refuse("terminate_workers()")

        def kill_workers(self) -> "NoReturn":
            """Raise ValueError: the standard library has the method from CPython 3.14 on."""
            _refuse("kill_workers()")


class WorkerDiedError(BrokenProcessPool):
    """Never raised here; defined for code that catches it."""


class TaskTerminatedError(WorkerDiedError):
    """Never raised here; defined for code that catches it."""


class TaskTimeoutError(TimeoutError):
    """Never raised here; defined for code that catches it."""


def __getattr__(name: str) -> Any:
    if name in vars(process):
        return vars(process)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *vars(process)})
