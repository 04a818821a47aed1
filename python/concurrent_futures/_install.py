"""Puts this package in the place of ``concurrent.futures``, and takes it back out.

The modules of the standard library stay the same objects; what changes is what their names
stand for. So all of these get this package's classes and functions from then on::

    import concurrent.futures                      # before or after install()
    from concurrent.futures import thread
    from concurrent.futures import Future, wait    # also where it was executed before install()

The last works because every loaded module is searched for global names that stand for one of the
originals. A module may have used an original before, in a derived class, a class attribute or a
default argument. Such an object stays as it is, and works together with this package.
"""

import sys
import threading
import types
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import concurrent_futures
from concurrent_futures import _base, _engine, _private, process, thread
from concurrent_futures._carry_over import CarriedOver, lead_original

_PACKAGE = "concurrent_futures"

# Each class with what takes its place.
_CLASSES: list[tuple[type, type]] = [
    (_base._stdlib_future, _base.Future),
    (thread._stdlib_executor, thread.ThreadPoolExecutor),
]
if _engine.HAS_PROCESSES:
    _CLASSES.append((process._stdlib_executor, process.ProcessPoolExecutor))

if sys.version_info >= (3, 14) and "InterpreterPoolExecutor" in concurrent_futures.__all__:
    from concurrent_futures import interpreter

    _CLASSES.append((interpreter._stdlib_executor, interpreter.InterpreterPoolExecutor))

# Each original with what takes its place. Where both are the same, there is nothing to do.
_PAIRS: list[tuple[object, object]] = [
    (original, ours)
    for original, ours in (
        (_private.originals.Executor, _base.Executor),
        (_private.originals.wait, _base.wait),
        (_private.originals.as_completed, _base.as_completed),
        *_CLASSES,
    )
    if original is not ours
]


class _Change(NamedTuple):
    """A global name of a module that stands for an original, or stood for it before."""

    module: weakref.ref[types.ModuleType]
    name: str
    original: object
    replacement: object


_lock = threading.Lock()
_changes: list[_Change] = []
_carried_over = CarriedOver()


def install() -> None:
    """Put this package in the place of ``concurrent.futures``, for every module of the process.

    Calling it again does nothing, unless a module has got at an original in the meantime.

    Examples
    --------
    >>> import concurrent.futures
    >>> import concurrent_futures
    >>> concurrent_futures.install()
    >>> concurrent.futures.ThreadPoolExecutor is concurrent_futures.ThreadPoolExecutor
    True
    >>> concurrent_futures.uninstall()
    """
    with _lock:
        if sys.modules["concurrent.futures"].Future is not _base.Future:
            _carried_over.undo()
            for original, ours in _CLASSES:
                _carried_over.patches(original, ours)
                _carried_over.kinship(original, ours)
            lead_original(thread._stdlib_executor, _engine.ThreadPool._submit, 2)
            if _engine.HAS_PROCESSES:
                lead_original(process._stdlib_executor, _engine.ProcessPool._submit, 3)
        for change in _find_originals():
            module = change.module()
            if module is not None:
                _namespace(module)[change.name] = change.replacement
                _changes.append(change)


def uninstall() -> None:
    """Undo `install`: each name that it changed stands for the original again.

    Left alone are names that something else was assigned to in the meantime, and what was
    imported after `install`. Without `install` before, it does nothing.

    Examples
    --------
    >>> import concurrent.futures
    >>> import concurrent_futures
    >>> original = concurrent.futures.wait
    >>> concurrent_futures.install()
    >>> concurrent_futures.uninstall()
    >>> concurrent.futures.wait is original
    True
    """
    with _lock:
        for change in _changes:
            module = change.module()
            if module is not None and _namespace(module).get(change.name) is change.replacement:
                _namespace(module)[change.name] = change.original
        _changes.clear()
        _carried_over.undo()


def _find_originals() -> Iterator[_Change]:
    """Find names that stand for originals, in all loaded modules but this package's own."""
    replacements = {id(original): (original, ours) for original, ours in _PAIRS}
    for module_name, module in list(sys.modules.items()):
        # Anything may be in sys.modules, also modules that load themselves when touched.
        if not issubclass(type(module), types.ModuleType) or _is_ours(module_name):
            continue
        reference = weakref.ref(module)
        for name, value in list(_namespace(module).items()):
            found = replacements.get(id(value))
            if found is not None:
                yield _Change(reference, name, *found)


def _is_ours(module_name: str) -> bool:
    return module_name.partition(".")[0] == _PACKAGE


def _namespace(module: types.ModuleType) -> dict[str, Any]:
    """Return the global names of a module, without asking the module itself."""
    namespace: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return namespace
