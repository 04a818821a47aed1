"""The end of a spawned worker: the interpreter's end, without the parts that have no effect.

An interpreter that ends searches all objects for cycles several times. As the process ends with it,
their memory does not matter. But dropping an object may have an effect, such as writing the rest of
a file. So the search is left out only if it can have no effect. That is so if no object has a
finalizer, and no native code is loaded but the interpreter's and ours. The rest of the end is
unchanged: threads, functions of ``atexit``, finalizers of ``multiprocessing``, output, exit code.

Forked workers skip all of this, in the standard library already.
"""

import gc
import io
import os
import sys
from importlib.machinery import ExtensionFileLoader
from itertools import compress

from concurrent_futures import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def hasten_the_end() -> None:
    """Take all objects out of the search for garbage, if that has no effect."""
    was_enabled = gc.isenabled()
    gc.disable()
    if not _has_foreign_modules() and not _has_finalizers(gc.get_objects()):
        gc.freeze()
    if was_enabled:
        gc.enable()


#: The standard library's modules whose objects write something when they are dropped.
_DATABASES = frozenset({"_dbm", "_gdbm", "_sqlite3"})
_LIBRARY = os.path.join(os.path.dirname(os.__file__), "")


def _has_foreign_modules() -> bool:
    """Return whether there is native code whose objects may do something when they are dropped."""
    return not _DATABASES.isdisjoint(sys.modules) or any(
        isinstance(getattr(module, "__loader__", None), ExtensionFileLoader)
        and name != "concurrent_futures._engine"
        and not str(getattr(module, "__file__", "")).startswith(_LIBRARY)
        for name, module in list(sys.modules.items())
    )


def _has_finalizers(objects: "list[object]") -> bool:
    """Return whether one of the objects has a finalizer with an effect."""
    kinds = set(map(type, objects))
    finalized = set(filter(_has_finalizer, kinds))
    metaclasses = {kind for kind in kinds if issubclass(kind, type)}
    harmless = _harmless()
    looked_at = finalized | metaclasses
    for each in compress(objects, map(looked_at.__contains__, map(type, objects))):
        if type(each) in metaclasses:
            if _has_unknown_objects(each):
                return True
        elif id(each) not in harmless and not _is_closed_file(each):
            return True
    return False


def _has_unknown_objects(kind: "Any") -> bool:
    """Return whether a class has finalized objects that the collector does not know.

    It knows those only that have references. (Those of the interpreter's own classes close what the
    end of the process closes.)
    """
    return (
        not kind.__flags__ & _COLLECTED
        and _has_finalizer(kind)
        and kind.__module__ not in sys.builtin_module_names
    )


#: The flag of types whose objects the collector knows.
_COLLECTED = 1 << 14


def _has_finalizer(kind: type) -> bool:
    try:
        return hasattr(kind, "__del__")
    except Exception:  # Its metaclass has a will of its own.
        return True


def _harmless() -> "set[int]":
    """Return the ids of objects whose finalizer is not needed: the interpreter flushes streams."""
    found: set[int] = set()
    for name in "stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__":
        stream: Any = getattr(sys, name, None)
        if type(stream) is io.TextIOWrapper:
            found.add(id(stream))
            try:
                buffer: Any = stream.buffer
            except ValueError:  # It was detached.
                continue
            found |= {id(buffer), id(getattr(buffer, "raw", None))}
    # One that was inherited closes a descriptor, which the end of the process does, too.
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    tracker: Any = getattr(module, "_resource_tracker", None)
    if getattr(tracker, "_pid", 0) is None:
        found.add(id(tracker))
    return found


#: The classes of the layers of a file, from the outermost to the innermost.
_FILES = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.FileIO)


def _is_closed_file(each: "Any") -> bool:
    try:
        return type(each) in _FILES and each.closed
    except ValueError:  # The inner layer was detached.
        return False
