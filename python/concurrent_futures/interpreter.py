"""``InterpreterPoolExecutor``, from CPython 3.14 on.

The names are those of the standard library's ``concurrent.futures.interpreter``.
"""

import importlib

from concurrent_futures import TYPE_CHECKING, _engine, _private, thread
from concurrent_futures._private import without_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType
    from typing import Any

    # Type checkers know the standard library's names from CPython 3.14 on only.
    class _Original:
        """Stands for the standard library's executor."""

    class BrokenInterpreterPool(thread.BrokenThreadPool):
        """Raised when a worker could not be initialized."""


__all__ = ["BrokenInterpreterPool", "InterpreterPoolExecutor"]

_stdlib_interpreter: "ModuleType" = importlib.import_module("concurrent.futures.interpreter")
_stdlib_executor: "Any" = _private.originals.InterpreterPoolExecutor
if not TYPE_CHECKING:
    _Original = _stdlib_executor
    BrokenInterpreterPool = _stdlib_interpreter.BrokenInterpreterPool


@without_hints
class InterpreterPoolExecutor(thread.ThreadPoolExecutor, _Original):
    """Runs calls in interpreters of this process, each of which has a lock and a thread of its own.

    Each worker has an interpreter, so that Python code of several workers runs at the same time.
    Interpreters share no objects: a function is sent by its code, or by its name, and
    arguments, results and exceptions are copied, mostly by ``pickle``. The semantics are those of
    ``concurrent.futures.InterpreterPoolExecutor``; ``max_pending`` goes beyond.

    Parameters
    ----------
    max_workers
        The number of interpreters that the pool may have. The default is 4 more than there are
        CPUs, and at most 32.
    thread_name_prefix
        The beginning of the threads' names.
    initializer
        Called first in each interpreter. If it raises an exception, the pool is broken: pending
        futures and ``submit`` raise ``BrokenInterpreterPool``.
    initargs
        The arguments of the initializer.
    max_pending
        The number of tasks that may be pending: ``submit`` waits for room. Running tasks do
        not count. By default there is no limit.

    Raises ValueError if a number is not above 0.

    Examples
    --------
    >>> from concurrent_futures import InterpreterPoolExecutor
    >>> with InterpreterPoolExecutor(max_workers=2) as pool:
    ...     lengths = list(pool.map(len, ["submit", "map"]))
    >>> lengths
    [6, 3]
    """

    # The original that this class stands for where it is installed.
    _original = _stdlib_executor

    _hooks = _private.Hooks(
        _stdlib_executor,
        _stdlib_interpreter,
        thread.ThreadPoolExecutor._hooks.attributes,
        thread.ThreadPoolExecutor._hooks,
    )

    _kind = "InterpreterPoolExecutor"

    def __init__(
        self,
        max_workers: "int | None" = None,
        thread_name_prefix: str = "",
        initializer: "Callable[..., object] | None" = None,
        initargs: "Iterable[Any]" = (),
        *,
        max_pending: "int | None" = None,
    ) -> None:
        super().__init__(
            max_workers, thread_name_prefix, initializer, initargs, max_pending=max_pending
        )

    def _begin_with(
        self, initializer: "Callable[..., object] | None", initargs: "Iterable[Any]"
    ) -> "tuple[Any, Any]":
        self._prepare(initializer, initargs)
        return initializer, initargs

    def _prepare(self, initializer: "Any", initargs: "Any") -> "tuple[Any, Any]":
        """Return the functions that make contexts of workers, and tasks of calls."""
        executor: Any = type(self)
        contexts: tuple[Any, Any] = executor.prepare_context(initializer, initargs)
        return contexts

    def _context_maker(self) -> "Callable[[], object] | None":
        initializer, initargs = vars(self)["_begun_with"]
        create: Callable[[], object] = self._prepare(initializer, initargs)[0]
        return create

    def _refuse_script(self, fn: str) -> None:
        """Raise the standard library's error for a script in place of a function."""
        initializer, initargs = vars(self)["_begun_with"]
        self._prepare(initializer, initargs)[1](fn, (), {})


class _WorkerModule:
    """Stands for the native module's part in the interpreter of a worker, when pickled."""

    def __reduce__(self) -> "tuple[Callable[[str], object], tuple[str]]":
        return importlib.import_module, ("_concurrent_futures_worker",)


class _WorkerFunction:
    """Stands for a function of that module, when pickled."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> "tuple[Callable[..., object], tuple[_WorkerModule, str]]":
        return getattr, (_WorkerModule(), self._name)

    def __call__(self) -> None:
        """Do nothing: it is called in another interpreter, where it is something else."""


_remember = _WorkerFunction("remember")
_take_result = _WorkerFunction("take_result")
_raise_exception = _WorkerFunction("raise_exception")

InterpreterPoolExecutor._hooks.remember(InterpreterPoolExecutor)
_engine.look_up_for_interpreters()

_private.forward(__name__, _stdlib_interpreter)
