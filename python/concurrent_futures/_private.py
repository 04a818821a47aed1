"""Access of other code to the private parts of executors.

Popular code reads and replaces private attributes of the standard library's executors, and
overrides their private methods. The engine has no such parts. So an executor has two ways to work:

- on the engine, as long as a program touches only parts that the engine has;
- by the standard library's own methods. It does so from the beginning if its class overrides a
  private part, or if `threading` is replaced (gevent, eventlet). Otherwise it changes over when a
  program touches a private part that the engine lacks.

An executor that works by the standard library's methods never goes back to the engine.
"""

import concurrent.futures
import concurrent.futures.thread as _stdlib_thread
import queue
import sys
import threading
import weakref
from concurrent.futures import Executor
from types import FunctionType, MethodType, ModuleType

from concurrent_futures import TYPE_CHECKING, _engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping
    from typing import Any, TypeVar

    _T = TypeVar("_T")

#: The threads of all executors, with their queues.
threads_queues: "weakref.WeakKeyDictionary[threading.Thread, Any]"
threads_queues = _stdlib_thread._threads_queues  # type: ignore[assignment]

#: Held while an executor changes its way to work, and by code that must not run meanwhile. A
#: handler of a signal may need the lock again.
switching = threading.RLock()


class Hooks:
    """The private names of an executor class of the standard library, which programs override."""

    def __init__(
        self,
        original: type,
        module: "ModuleType",
        attributes: "frozenset[str]",
        base: "Hooks | None" = None,
    ) -> None:
        #: The hooks of the executor from which this executor derives.
        self._base = base
        methods = {
            name: value
            for name, value in vars(original).items()
            if name[0] == "_" and name[1] != "_" and name != "_counter"
        }
        # Those of thread pools from CPython 3.14 on, for classes that derive from them.
        methods |= {
            name: vars(original)[name]
            for name in ("BROKEN", "prepare_context")
            if name in vars(original)
        }
        #: The private names of instances.
        self.attributes = attributes
        self._names: frozenset[str] = attributes.union(methods)
        if base is not None:
            self._names |= base._names
        # A part that was replaced before this package was imported counts as original.
        self._originals: list[tuple[Mapping[str, Any], list[tuple[str, Any]]]]
        self._originals = [(vars(original), _members(methods, module))]
        # Functions and classes that the class uses, and the methods of the latter.
        used = {
            name: value
            for name, value in vars(module).items()
            if ((name[0] == "_" and name[1] != "_") or name == "WorkerContext") and callable(value)
        }
        self._of_module = vars(module), dict(_members(used, module))
        self._originals.append((vars(module), list(self._of_module[1].items())))
        self._used = [original]
        for value in used.values():
            if isinstance(value, type):
                self._used.append(value)
                self._originals.append((vars(value), _members(_functions(value), module)))

    def remember(self, ours: type) -> None:
        """Remember the members of our own class that have these names."""
        self._class = ours
        _, members = self._originals[0]
        self._originals.append((vars(ours), [(name, vars(ours).get(name)) for name, _ in members]))
        self._checks = [
            (namespace.get, name, value)
            for namespace, members in self._originals
            for name, value in members
        ]
        #: The classes to look at, and their versions when nothing was replaced.
        self._classes = (*self._used, ours)
        self._versions: list[int] | None = None

    def are_overridden(self, of: type) -> bool:
        """Return whether a subclass, or a patch of a class, overrides one of the names."""
        if of is not self._class:
            for base in of.__mro__:
                if base is self._class:
                    break
                if not self._names.isdisjoint(vars(base)):
                    return True
        if self._base is not None and self._base.are_overridden(self._base._class):
            return True
        # To look at each part takes longer than to make a pool.
        names, values = self._of_module
        known = self._versions
        if known is not None and _engine.are_unchanged(self._classes, known, names, values):
            return False
        versions = _engine.versions(self._classes)
        for get, name, value in self._checks:  # A third of the time of `any`.
            if get(name) is not value:
                return True
        self._versions = versions
        if versions is None:
            for each in self._classes:
                # A class gets a version when it is first asked for an attribute.
                getattr(each, "submit", None)
        return False


def _functions(of: type) -> "dict[str, Any]":
    return {name: value for name, value in vars(of).items() if type(value) is FunctionType}


def _members(found: "Mapping[str, Any]", module: "ModuleType") -> "list[tuple[str, Any]]":
    return [
        (name, value if is_of_module(value, module, name) else None)
        for name, value in found.items()
    ]


def is_of_module(value: object, module: "ModuleType", name: str) -> bool:
    """Return whether a member of a class looks like the one that the module has defined."""
    # Wrappers may say that their class is another one.
    if type(value) is type:
        return value.__module__ == module.__name__
    function = value.__func__ if type(value) in (classmethod, staticmethod) else value  # type: ignore[attr-defined]
    if type(function) is not FunctionType:
        return not callable(function)
    return function.__globals__ is vars(module) and function.__name__ == name


class Stored:
    """A private attribute. Setting it makes the executor work by the standard library's code."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, executor: "Any", owner: "type | None" = None) -> "Any":
        if executor is None:
            # The standard library's classes have no such attribute.
            raise AttributeError(self._missing(owner))
        try:
            return vars(executor)[self._name]
        except KeyError:
            return self._value(executor)

    def __set__(self, executor: "Any", value: "Any") -> None:
        executor._become_standard(self._name)
        vars(executor)[self._name] = value

    def __delete__(self, executor: "Any") -> None:
        executor._become_standard(self._name)
        vars(executor).pop(self._name)

    def _missing(self, owner: "type | None") -> str:
        of = "" if owner is None else owner.__name__
        return f"type object {of!r} has no attribute {self._name!r}"

    def _value(self, executor: "Any") -> "Any":
        of = type(executor).__name__
        raise AttributeError(f"{of!r} object has no attribute {self._name!r}")


class Computed(Stored):
    """An attribute that the engine computes."""

    def __init__(self, compute: "Callable[[Any], Any]") -> None:
        self._compute = compute

    def _value(self, executor: "Any") -> "Any":
        return self._compute(executor)


class Standard(Stored):
    """An attribute that exists only if the executor works by the standard library's code."""

    def _value(self, executor: "Any") -> "Any":
        executor._become_standard(self._name)
        try:
            return vars(executor)[self._name]
        except KeyError:
            return super()._value(executor)


class Method(Stored):
    """A private method of the standard library. Setting it on an instance overrides it."""

    def __init__(self, original: "Callable[..., Any]") -> None:
        self._original = original

    def __get__(self, executor: "Any", owner: "type | None" = None) -> "Any":
        if executor is None:
            return self._original
        if self._name in vars(executor):
            return vars(executor)[self._name]
        return MethodType(self._original, executor)


class WorkerSet(set[threading.Thread]):
    """The threads of a pool. A removed thread is one that ``shutdown`` does not wait for."""

    #: Whether a program has removed threads.
    was_taken_from = False

    def clear(self) -> None:
        """Remove all threads."""
        self.was_taken_from = True
        super().clear()

    def discard(self, thread: object, /) -> None:
        """Remove a thread, if it is there."""
        self.was_taken_from = True
        super().discard(thread)

    def remove(self, thread: "threading.Thread", /) -> None:
        """Remove a thread."""
        self.was_taken_from = True
        super().remove(thread)

    def pop(self) -> "threading.Thread":
        """Remove any thread."""
        self.was_taken_from = True
        return super().pop()

    def difference_update(self, *others: "Iterable[Any]") -> None:
        """Remove some threads."""
        self.was_taken_from = True
        super().difference_update(*others)


class WorkQueue(queue.SimpleQueue["Any"]):
    """The queue of an executor's pending tasks.

    While the engine has the tasks, it is empty, and can be counted. To get at the tasks
    themselves needs the standard library's way, whose queue this is from then on.
    """

    #: Whether the engine has the tasks.
    is_engines = True

    def __init__(self, executor: "Any") -> None:
        self._executor = weakref.ref(executor)

    def add_thread(self, thread: "threading.Thread") -> None:
        """Register a worker of the engine for the end of the interpreter."""
        threads_queues[thread] = self

    def _of_engine(self) -> "Any":
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

    def put(self, item: "Any", block: bool = True, timeout: "float | None" = None) -> None:
        """Add a task, or None, which makes a worker check whether it must end."""
        executor = self._of_engine()
        if executor is not None:
            if item is None:
                if _stdlib_thread._shutdown:
                    executor._close()
                return
            executor._become_standard("_work_queue")
        super().put(item, block, timeout)

    def put_nowait(self, item: "Any") -> None:
        """Add a task without blocking."""
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: "float | None" = None) -> "Any":
        """Take the task that was submitted first."""
        executor = self._of_engine()
        if executor is not None:
            executor._become_standard("_work_queue")
        # The threads of an executor that is freed end. So one that waits here keeps no executor.
        del executor
        return super().get(block, timeout)

    def get_nowait(self) -> "Any":
        """Take the task that was submitted first, if there is one."""
        return self.get(block=False)

    def keep(self, item: "Any") -> None:
        """Add a task that the engine has given up."""
        super().put(item)


class _Originals:
    """The standard library's own classes and functions, also where ours are installed.

    A program may import this package again while it is installed. Then ``concurrent.futures`` has
    the objects of the first import, each with a note of its original.
    """

    def __getattr__(self, name: str) -> "Any":
        """Return the object that the standard library's module had under a name."""
        found = getattr(concurrent.futures, name)
        return getattr(found, "_original", found)


originals: "Any" = _Originals()


def without_hints(annotated: "_T") -> "_T":
    """Make ``typing.get_type_hints`` find no hints in a function, or in the methods of a class.

    The standard library's executors have no annotations either. The modules that our annotations
    name are not loaded when a program runs, so that they could not be evaluated.
    """
    members = [annotated, *vars(annotated).values()]
    for member in members:
        function = getattr(member, "__func__", member)
        if isinstance(function, FunctionType):
            function.__no_type_check__ = True  # type: ignore[attr-defined]
    return annotated


def engine_threads() -> "list[threading.Thread]":
    """Return the threads of the process that work for the engine."""
    return [
        thread
        for thread, work_queue in members(threads_queues)
        if isinstance(work_queue, WorkQueue) and work_queue.is_engines
    ]


def members(weak: "MutableMapping[Any, Any]") -> "list[tuple[Any, Any]]":
    """Return the content of a dictionary that other threads may be changing."""
    while True:
        try:
            return list(weak.items())
        except RuntimeError:  # It has changed.
            continue


def run_worker(worker: "Callable[[], tuple[Callable[[Any], object], Any] | None]") -> None:
    """Work for the engine, and then as the standard library, if the engine gave up the pool."""
    then = worker()
    del worker
    if then is not None:
        successor, context = then
        del then
        successor(context)


class InitializedContext:
    """The context of a worker that has its interpreter, for the standard library's worker."""

    def __init__(self, context: "Any") -> None:
        self.run = context.run
        self.finalize = context.finalize

    def initialize(self) -> None:
        """Do nothing: the worker is initialized."""


def worker_after_engine(executor: "Executor", work_queue: "WorkQueue") -> "Callable[[Any], object]":
    """Return the next function of a former thread of the engine, which is initialized already.

    The argument of the function is the context of the thread, if that has an interpreter.
    """

    def wake(_: object, put: "Callable[[Any], None]" = work_queue.keep) -> None:
        put(None)

    reference = weakref.ref(executor, wake)
    worker: Callable[..., object] = _stdlib_thread._worker
    arguments: tuple[object, ...]
    if hasattr(_stdlib_thread, "WorkerContext"):  # From CPython 3.14 on.
        make: Any = _stdlib_thread.WorkerContext
        arguments = (reference, make(None, ()), work_queue)
    else:
        arguments = (reference, work_queue, None, ())
    code = getattr(worker, "__code__", None)
    # In older versions, a worker says that it is idle when it has finished a task, as this one has.
    has_said = code is None or "get_nowait" in code.co_names

    def go_on(context: "Any") -> None:
        executor: Any = reference()
        if executor is not None and not has_said:
            executor._idle_semaphore.release()
        del executor
        if context is None:
            worker(*arguments)
        else:
            worker(reference, InitializedContext(context), work_queue)

    return go_on


class _Forwarding(ModuleType):
    """A module of ours that also has the standard library's names."""

    def __getattr__(self, name: str) -> "Any":
        """Return the original's object of a name that this module does not have."""
        try:
            return vars(vars(self)["__forwards_to__"])[name]
        except KeyError:
            of = vars(self)["__name__"]
            raise AttributeError(f"module {of!r} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: "Any") -> None:
        """Set a name in the module that has it, where code reads it."""
        names = vars(self)
        original = names["__forwards_to__"]
        if name in names or name not in vars(original):
            super().__setattr__(name, value)
            return
        names["__replaced__"].setdefault(name, vars(original)[name])
        setattr(original, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete a name, or undo its setting: so patches of tests are undone."""
        names = vars(self)
        if name in names:
            super().__delattr__(name)
        elif name in names["__replaced__"]:
            setattr(names["__forwards_to__"], name, names["__replaced__"].pop(name))
        else:
            delattr(names["__forwards_to__"], name)

    def __dir__(self) -> "list[str]":
        return sorted({*super().__dir__(), *vars(vars(self)["__forwards_to__"])})


def forward(name: str, original: "ModuleType") -> None:
    """Give a module of ours the names of the original that the module does not have."""
    module = sys.modules[name]
    vars(module).update(__forwards_to__=original, __replaced__={})
    module.__class__ = _Forwarding
