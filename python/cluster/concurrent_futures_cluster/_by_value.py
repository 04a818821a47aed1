"""Functions that travel by value, pickled once.

cloudpickle looks at a function's code and at all that the code refers to, for each call. That takes
longer than all else that a short call costs. So the pickle of a *constant* function is kept, and
the worker makes the function once.

A function is constant if no call of it can leave anything behind in it. Besides, its pickle stays
the same while it refers to the same objects. It refers to constant functions, to simple values, and
to what workers import. It writes no globals, cells of others, or attributes, and does not look at
its own globals as a whole. Each submission compares what the function refers to with what was
pickled. All other functions are pickled for each call.
"""

from __future__ import annotations

import dis
import sys
import weakref
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

#: The types of values that cannot change.
_SIMPLE = frozenset([type(None), bool, int, float, complex, str, bytes])
#: Names by which a function may get at its globals, or at attributes, in another way.
_UNSURE = frozenset(
    "__dict__ __globals__ __closure__ __defaults__ __kwdefaults__ __code__ __annotations__ "
    "delattr eval exec globals locals setattr vars".split()
)
_WRITES = frozenset(["STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR"])
_CELL_WRITES = frozenset(["STORE_DEREF", "DELETE_DEREF"])

#: The most functions that a worker keeps.
_MOST = 256

_MISSING = object()

#: The functions that this worker has made, by their pickles.
_made: dict[bytes, Any] = {}


class ByValue:
    """A function that a worker makes of its pickle, unless it has it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[object, ...]:
        return made, (self._data,)


def made(data: bytes) -> Any:
    """Return the function of a pickle."""
    function = _made.get(data, _MISSING)
    if function is _MISSING:
        import pickle

        function = pickle.loads(data)
        if len(_made) >= _MOST:
            _made.clear()
        _made[data] = function
    return function


class Functions:
    """The constant functions of an executor, and their pickles."""

    def __init__(
        self, is_by_value: Callable[[str | None], bool], dumps: Callable[[object], bytes]
    ) -> None:
        self._is_by_value = is_by_value
        self._dumps = dumps
        self._known: weakref.WeakKeyDictionary[FunctionType, tuple[_Snapshot, bytes] | None]
        self._known = weakref.WeakKeyDictionary()

    def carried(self, function: FunctionType) -> ByValue | None:
        """Return what stands for a constant function in a pickle; None for all others."""
        import cloudpickle

        known = self._known.get(function, _MISSING)
        if known is None or cloudpickle.list_registry_pickle_by_value():
            # Modules that the program has registered travel by value as well.
            return None
        if known is not _MISSING and known[0].holds():  # type: ignore[index]
            return ByValue(known[1])  # type: ignore[index]
        snapshot = _Snapshot()
        if not snapshot.add(function, self._is_by_value):
            # One that could be made constant later is pickled for each call all the same.
            self._known[function] = None
            return None
        data = self._dumps(function)
        self._known[function] = (snapshot, data)
        return ByValue(data)


class _Snapshot:
    """The objects that a constant function refers to, at one moment."""

    def __init__(self) -> None:
        #: Functions, and their parts: code, defaults, cells.
        self._functions: list[tuple[weakref.ref[FunctionType], tuple[object, ...]]] = []
        #: Globals of the functions: the index of the function, the name, and the value. Functions
        #: are not kept alive.
        self._globals: list[tuple[int, str, object]] = []

    def holds(self) -> bool:
        """Return whether nothing has changed."""
        namespaces = []
        for reference, parts in self._functions:
            function = reference()
            if function is None or function.__dict__:
                return False
            if any(a is not b for a, b in zip(_parts(function), parts, strict=True)):
                return False
            namespaces.append(function.__globals__)
        for index, name, value in self._globals:
            now = namespaces[index].get(name, _MISSING)
            if now is not (value() if isinstance(value, weakref.ref) else value):
                return False
        return True

    def add(self, function: FunctionType, is_by_value: Callable[[str | None], bool]) -> bool:
        """Add a function and all that it refers to. Return False if it is not constant."""
        if any(reference() is function for reference, _ in self._functions):
            return True
        parts = _parts(function)
        _, defaults, keyword_defaults, *cells = parts
        if function.__dict__ or keyword_defaults is not None:
            return False
        if not all(_is_simple(value) for value in (defaults, *cells)):
            return False
        codes = list(_all_code(function.__code__))
        names = {name for code in codes for name in code.co_names}
        if names & _UNSURE or any(_writes(code) for code in codes):
            return False
        index = len(self._functions)
        self._functions.append((weakref.ref(function), parts))
        for name in sorted(names):
            value = function.__globals__.get(name, _MISSING)
            kept: object = value
            if type(value) is FunctionType and not _is_imported(value, is_by_value):
                if not self.add(value, is_by_value):
                    return False
                kept = weakref.ref(value)
            elif not (value is _MISSING or _is_simple(value) or _is_imported(value, is_by_value)):
                return False
            self._globals.append((index, name, kept))
        return True


def _parts(function: FunctionType) -> tuple[object, ...]:
    """Return the parts of a function that a program can replace."""
    cells = function.__closure__ or ()
    values = tuple(_content(cell) for cell in cells)
    return function.__code__, function.__defaults__, function.__kwdefaults__, *values


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _is_simple(value: object) -> bool:
    """Return whether a value cannot change."""
    if type(value) in (tuple, frozenset):
        return all(_is_simple(part) for part in value)  # type: ignore[attr-defined]
    return type(value) in _SIMPLE


def _is_imported(value: Any, is_by_value: Callable[[str | None], bool]) -> bool:
    """Return whether workers import an object: a module, or a function or class of one."""
    if type(value) is ModuleType:
        return not is_by_value(value.__name__) and sys.modules.get(value.__name__) is value
    if not isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return False
    name = getattr(value, "__module__", None)
    if not isinstance(name, str) or is_by_value(name):
        return False
    found: Any = sys.modules.get(name)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _all_code(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all_code(constant)


def _writes(code: CodeType) -> bool:
    """Return whether code changes something that outlives its call, by its own instructions."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in _WRITES:
            return True
        if instruction.opname in _CELL_WRITES and instruction.argval in code.co_freevars:
            return True
    return False
