"""Carries patches of the standard library's classes over to ours, for `install`.

Instrumentation (OpenTelemetry, Sentry and the like) replaces methods of those classes. If it did so
before `install`, its methods are put into our classes, too: they call the original methods, which
work with our objects. Objects of the original classes become instances of ours, for `isinstance`.
"""

import sys
import types
from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from concurrent_futures import _engine
from concurrent_futures._private import is_of_module

#: Methods of the base class of all executors that ours do not inherit.
_OF_BASE = ("map", "submit", "shutdown")

_MISSING = object()


class CarriedOver:
    """Records changes of our classes, and undoes them."""

    def __init__(self) -> None:
        self._changes: list[tuple[type, str, object, object]] = []
        #: The classes that were given a `__class__` descriptor.
        self._described: list[type] = []

    def set(self, owner: type, name: str, value: object) -> None:
        """Change an attribute of a class, and record the change."""
        self._changes.append((owner, name, vars(owner).get(name, _MISSING), value))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Undo the changes, except for attributes that other code has changed since."""
        for owner, name, before, value in reversed(self._changes):
            if vars(owner).get(name) is not value:
                continue
            if before is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
        self._changes.clear()
        while self._described:
            _engine.describe_class(self._described.pop(), None)

    def patches(self, original: type, ours: type) -> None:
        """Apply the patches of the original class to our class."""
        patched = {}
        for base in reversed(original.__mro__[:-1]):
            for name, value in vars(base).items():
                is_private = name.startswith("_") and name not in (
                    "__init__",
                    "__enter__",
                    "__exit__",
                )
                if is_private or (base is not original and name not in _OF_BASE):
                    continue
                if _is_patched(value, name, base):
                    patched[name] = value
                else:
                    patched.pop(name, None)
        for name, value in patched.items():
            self.set(ours, name, value)

    def kinship(self, original: type, ours: type) -> None:
        """Make the original's objects instances of our class."""
        own: Any = object.__dict__["__class__"]
        kin: dict[type, type] = {original: ours}

        def get(instance: object) -> type:
            of = type(instance)
            if of not in kin:
                kin[of] = of if issubclass(of, ours) else _common_subclass(of, ours)
            return kin[of]

        # Ours and what is derived from it is what it is.
        for owner, descriptor in (ours, own), (original, property(get, own.__set__)):
            if "__class__" not in vars(owner):
                _engine.describe_class(owner, descriptor)
                self._described.append(owner)


def _common_subclass(first: type, second: type) -> type:
    """Return an object that makes instances of the first class count as instances of the second."""
    names = {"__module__": first.__module__, "__qualname__": first.__qualname__}
    try:
        return types.new_class(
            first.__name__, (first, second), exec_body=lambda ns: ns.update(names)
        )
    except Exception:
        return first  # There is no class that is both.


def _is_patched(value: object, name: str, owner: type) -> bool:
    if not callable(value) or isinstance(value, type):
        return False
    module = sys.modules[owner.__module__]
    if not is_of_module(value, module, name):
        return True
    code = _defined_code(module, f"{owner.__qualname__}.{name}")
    return code is not None and getattr(value, "__code__", code) != code


def _defined_code(module: ModuleType, qualified_name: str) -> CodeType | None:
    """Return the code of a method that a module has defined."""
    try:
        loader: Any = module.__loader__
        code = loader.get_code(module.__name__)
    except Exception:
        return None
    return next((code for code in _all_code(code) if code.co_qualname == qualified_name), None)


def _all_code(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _all_code(constant)


def lead_original(original: type, native: Callable[..., object], number: int) -> None:
    """Lead the original ``submit``, which patches call, to the engine for our executors."""
    code = _defined_code(sys.modules[original.__module__], f"{original.__qualname__}.submit")
    function = _function_with(code, vars(original)["submit"])
    if function is not None:
        _engine.lead_to(function, native, number)


def _function_with(code: CodeType | None, patched: object, depth: int = 6) -> FunctionType | None:
    """Find the function with this code among the functions that a wrapper wraps."""
    # A wrapper may say that its class is that of a function.
    function = patched if type(patched) is FunctionType else None
    if function is not None and function.__code__ == code:
        return function
    parts: list[object] = [getattr(patched, "__wrapped__", None)]
    if function is not None:
        parts += vars(function).values()
        parts += function.__code__.co_consts
        parts += [_content(cell) for cell in function.__closure__ or ()]
    for part in parts if depth > 0 else []:
        if callable(part) and not isinstance(part, type):
            found = _function_with(code, part, depth - 1)
            if found is not None:
                return found
    return None


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return None
