"""Access of other code to the private parts of executors.

Popular code reads and replaces private attributes of the standard library's executors, and
overrides their private methods. The engine has no such parts. So an executor has two ways to work:

- on the engine, as long as nobody asks for what the engine does not have;
- as the standard library's, by that one's own methods: from the beginning, if its class overrides
  something private, or if `threading` is replaced (gevent, eventlet); or from the moment on when
  something private is touched.

An executor that has begun to work as the standard library's goes on so.
"""

from __future__ import annotations

import concurrent.futures.thread as _stdlib_thread
import queue
import sys
import threading
import weakref
from concurrent.futures import Executor
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

from concurrent_futures import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping
    from typing import Any

#: The threads of all executors, with their queues.
threads_queues: weakref.WeakKeyDictionary[threading.Thread, Any]
threads_queues = _stdlib_thread._threads_queues  # type: ignore[assignment]

#: Held while an executor changes its way to work, and for what must not come in between. A
#: handler of a signal may need it again.
switching = threading.RLock()


def is_threading_replaced() -> bool:
    """Return whether locks of `threading` are another library's, such as gevent's.

    Such a lock lets other tasks of the same thread run. Our waits would block them all.
    """
    return not isinstance(threading._allocate_lock, BuiltinFunctionType)  # type: ignore[attr-defined]


class Hooks:
    """The private names of an executor class of the standard library, which others override."""

    def __init__(self, original: type, module: ModuleType, attributes: frozenset[str]) -> None:
        methods = {
            name: value
            for name, value in vars(original).items()
            if name[0] == "_" and name[1] != "_" and name != "_counter"
        }
        if "prepare_context" in vars(original):  # From CPython 3.14 on.
            methods["prepare_context"] = vars(original)["prepare_context"]
        #: Those that instances have.
        self.attributes = attributes
        self._names = attributes.union(methods)
        # A part that was replaced before this package was imported counts as original.
        self._originals: list[tuple[Mapping[str, Any], list[tuple[str, Any]]]]
        self._originals = [(vars(original), _members(methods, module))]
        # Functions and classes that the class uses, and the methods of the latter.
        used = {
            name: value
            for name, value in vars(module).items()
            if name[0] == "_" and name[1] != "_" and callable(value)
        }
        self._originals.append((vars(module), _members(used, module)))
        for value in used.values():
            if isinstance(value, type):
                self._originals.append((vars(value), _members(_functions(value), module)))

    def remember(self, ours: type) -> None:
        """Note what our own class has of these names."""
        self._class = ours
        _, members = self._originals[0]
        self._originals.append((vars(ours), [(name, vars(ours).get(name)) for name, _ in members]))
        self._checks = [
            (namespace.get, name, value)
            for namespace, members in self._originals
            for name, value in members
        ]

    def are_overridden(self, of: type) -> bool:
        """Return whether a subclass, or a patch of our class or the original, overrides any."""
        if of is not self._class:
            for base in of.__mro__:
                if base is self._class:
                    break
                if not self._names.isdisjoint(vars(base)):
                    return True
        for get, name, value in self._checks:  # noqa: SIM110  # A third of the time of `any`.
            if get(name) is not value:
                return True
        return False


def _functions(of: type) -> dict[str, Any]:
    return {name: value for name, value in vars(of).items() if type(value) is FunctionType}


def _members(found: Mapping[str, Any], module: ModuleType) -> list[tuple[str, Any]]:
    return [
        (name, value if is_of_module(value, module, name) else None)
        for name, value in found.items()
    ]


def is_of_module(value: object, module: ModuleType, name: str) -> bool:
    """Return whether a member of a class is what the module has defined, to all appearance."""
    # Wrappers may say that their class is another one.
    if type(value) is type:
        return value.__module__ == module.__name__
    function = value.__func__ if type(value) in (classmethod, staticmethod) else value  # type: ignore[attr-defined]
    if type(function) is not FunctionType:
        return not callable(function)
    return function.__globals__ is vars(module) and function.__name__ == name


class Stored:
    """An attribute that can be read at any time. To set it needs the standard library's way."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, executor: Any, owner: type | None = None) -> Any:
        if executor is None:
            # The standard library's classes have no such attribute.
            raise AttributeError(self._missing(owner))
        try:
            return vars(executor)[self._name]
        except KeyError:
            return self._value(executor)

    def __set__(self, executor: Any, value: Any) -> None:
        executor._become_standard(self._name)
        vars(executor)[self._name] = value

    def __delete__(self, executor: Any) -> None:
        executor._become_standard(self._name)
        vars(executor).pop(self._name)

    def _missing(self, owner: type | None) -> str:
        of = "" if owner is None else owner.__name__
        return f"type object {of!r} has no attribute {self._name!r}"

    def _value(self, executor: Any) -> Any:
        of = type(executor).__name__
        raise AttributeError(f"{of!r} object has no attribute {self._name!r}")


class Computed(Stored):
    """One that the engine knows."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self._compute = compute

    def _value(self, executor: Any) -> Any:
        return self._compute(executor)


class Standard(Stored):
    """One that only the standard library's way has."""

    def _value(self, executor: Any) -> Any:
        executor._become_standard(self._name)
        try:
            return vars(executor)[self._name]
        except KeyError:
            return super()._value(executor)


class Method(Stored):
    """A private method of the standard library's. To set it for an instance overrides it."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self._original = original

    def __get__(self, executor: Any, owner: type | None = None) -> Any:
        if executor is None:
            return self._original
        if self._name in vars(executor):
            return vars(executor)[self._name]
        return MethodType(self._original, executor)


class WorkerSet(set[threading.Thread]):
    """The threads of a pool. Some code takes them out, so that ``shutdown`` does not wait."""

    #: Whether somebody did.
    was_taken_from = False

    def clear(self) -> None:
        """Take all out."""
        self.was_taken_from = True
        super().clear()

    def discard(self, thread: object, /) -> None:
        """Take one out, if it is there."""
        self.was_taken_from = True
        super().discard(thread)

    def remove(self, thread: threading.Thread, /) -> None:
        """Take one out."""
        self.was_taken_from = True
        super().remove(thread)

    def pop(self) -> threading.Thread:
        """Take any out."""
        self.was_taken_from = True
        return super().pop()

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Take some out."""
        self.was_taken_from = True
        super().difference_update(*others)


class WorkQueue(queue.SimpleQueue["Any"]):
    """The queue of an executor's pending tasks.

    While the engine has the tasks, it is empty, and can be counted. To get at the tasks
    themselves needs the standard library's way, whose queue this is from then on.
    """

    #: Whether the engine has the tasks.
    is_engines = True

    def __init__(self, executor: Any) -> None:
        self._executor = weakref.ref(executor)

    def add_thread(self, thread: threading.Thread) -> None:
        """Make a worker of the engine known to the end of the interpreter."""
        threads_queues[thread] = self

    def _of_engine(self) -> Any:
        """Return the executor, if the engine has its tasks."""
        return self._executor() if self.is_engines else None

    def qsize(self) -> int:
        """Return the number of pending tasks."""
        executor = self._of_engine()
        return super().qsize() if executor is None else executor._pending()

    def empty(self) -> bool:
        """Return whether no task is pending."""
        executor = self._of_engine()
        return super().empty() if executor is None else executor._pending() == 0

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add a task, or None, which makes a worker look whether it is to end."""
        executor = self._of_engine()
        if executor is not None:
            if item is None:
                if _stdlib_thread._shutdown:
                    executor._close()
                return
            executor._become_standard("_work_queue")
        super().put(item, block, timeout)

    def put_nowait(self, item: Any) -> None:
        """Do the same."""
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the task that was submitted first."""
        executor = self._of_engine()
        if executor is not None:
            executor._become_standard("_work_queue")
        return super().get(block, timeout)

    def get_nowait(self) -> Any:
        """Take the task that was submitted first, if there is one."""
        return self.get(block=False)

    def keep(self, item: Any) -> None:
        """Add what the engine has given up."""
        super().put(item)


def engine_threads() -> list[threading.Thread]:
    """Return the threads of the process that work for the engine."""
    return [
        thread
        for thread, work_queue in members(threads_queues)
        if isinstance(work_queue, WorkQueue) and work_queue.is_engines
    ]


def members(weak: MutableMapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Return what is in a dictionary that other threads may be changing."""
    while True:
        try:
            return list(weak.items())
        except RuntimeError:  # It has changed.
            continue


def checkpoint() -> None:
    """Do nothing: what was sent to the calling thread is raised here."""


def run_worker(worker: Callable[[], Callable[[], object] | None]) -> None:
    """Work for the engine, and then, if it has given up the pool, as the standard library does."""
    successor = worker()
    del worker
    if successor is not None:
        successor()


def worker_after_engine(executor: Executor, work_queue: WorkQueue) -> Callable[[], object]:
    """Return what a thread that was the engine's does next: it is initialized already."""

    def wake(_: object, put: Callable[[Any], None] = work_queue.keep) -> None:
        put(None)

    reference = weakref.ref(executor, wake)
    worker: Callable[..., object] = _stdlib_thread._worker
    arguments: tuple[object, ...]
    if hasattr(_stdlib_thread, "WorkerContext"):  # From CPython 3.14 on.
        context = _stdlib_thread.WorkerContext(None, ())
        arguments = (reference, context, work_queue)
    else:
        arguments = (reference, work_queue, None, ())
    code = getattr(worker, "__code__", None)
    # In older versions, a worker says that it is idle when it has finished a task, as this one has.
    has_said = code is None or "get_nowait" in code.co_names

    def go_on() -> None:
        executor: Any = reference()
        if executor is not None and not has_said:
            executor._idle_semaphore.release()
        del executor
        worker(*arguments)

    return go_on


class _Forwarding(ModuleType):
    """A module of ours that has the names of the standard library's, too."""

    def __getattr__(self, name: str) -> Any:
        """Return what the original has of a name that ours does not have."""
        try:
            return vars(vars(self)["__forwards_to__"])[name]
        except KeyError:
            of = vars(self)["__name__"]
            raise AttributeError(f"module {of!r} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a name in the module that has it: what reads it is there."""
        names = vars(self)
        original = names["__forwards_to__"]
        if name in names or name not in vars(original):
            super().__setattr__(name, value)
            return
        names["__replaced__"].setdefault(name, vars(original)[name])
        setattr(original, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete a name, or take back what it was set to here: so patches of tests are undone."""
        names = vars(self)
        if name in names:
            super().__delattr__(name)
        elif name in names["__replaced__"]:
            setattr(names["__forwards_to__"], name, names["__replaced__"].pop(name))
        else:
            delattr(names["__forwards_to__"], name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *vars(vars(self)["__forwards_to__"])})


def forward(name: str, original: ModuleType) -> None:
    """Give a module of ours the names of the original that it does not have."""
    module = sys.modules[name]
    vars(module).update(__forwards_to__=original, __replaced__={})
    module.__class__ = _Forwarding
