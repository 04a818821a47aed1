"""Functions that workers of pools of interpreters import by name."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

COUNTER = 0
variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
local = threading.local()


def use_folder(folder: str) -> None:
    """Lets the interpreter find this module; an initializer, which goes as code."""
    import sys

    sys.path.insert(0, folder)


def count() -> int:
    """Counts the calls in this interpreter."""
    global COUNTER
    COUNTER += 1
    return COUNTER


def count_by_variable() -> int:
    """Counts the calls in this context."""
    variable.set(variable.get() + 1)
    return variable.get()


def count_by_local() -> int:
    """Counts the calls in this thread state."""
    local.count = getattr(local, "count", 0) + 1
    return int(local.count)


def echo(*args: Any, **kwargs: Any) -> Any:
    """Returns its arguments."""
    return args, kwargs


def describe(*args: Any, **kwargs: Any) -> str:
    """Returns how the arguments look here."""
    return repr((os.path.sep, args, sorted(kwargs.items())))


def are_one_object(first: object, second: object) -> bool:
    """Returns whether both arguments are one object."""
    return first is second


def identities(value: Any) -> list[list[bool]]:
    """Returns which of the items of a container, and of a list of its copies, are one object."""
    items = [*value] if not isinstance(value, dict) else [*value.values()]
    return [[first is second for second in items] for first in items]


def share(value: Any, number: int) -> Any:
    """Returns containers that have one object several times."""
    return [(value, value), [value, value], {1: value, 2: value}, [value, [value]]][number]


def replace(name: str) -> None:
    """Replaces a function of this module, in this interpreter."""
    setattr(sys.modules[__name__], name, replaced)


def replaced(*args: object) -> str:
    """Stands for another function."""
    return "replaced"


def to_be_replaced() -> str:
    """Says that it was not replaced."""
    return "not replaced" if COUNTER >= 0 else ""


def fail(kind: type[BaseException], *args: object) -> None:
    """Raises an exception."""
    raise kind(*args)


def fail_with_cause() -> None:
    """Raises an exception with a cause and a note."""
    try:
        fail(ValueError, "first")
    except ValueError as error:
        second = KeyError("second")
        second.add_note("a note")
        raise second from error


class UnpicklableError(Exception):
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("not this one")


def fail_unpicklably() -> None:
    """Raises an exception that cannot be sent."""
    raise UnpicklableError("alas")


class Unpicklable:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("not this object")


class UnpicklableHere:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return fail, (LookupError, "not this pickle")


def make_unpicklable() -> object:
    """Returns an object that cannot be pickled."""
    return Unpicklable()


def make_unpicklable_there() -> object:
    """Returns an object that can be pickled, but not unpickled."""
    return UnpicklableHere()


def make_closure() -> Callable[[], int]:
    """Returns a function that cannot be sent."""
    number = 5
    return lambda: number


def make_function() -> Callable[[], int]:
    """Returns a function that can be sent as code."""
    return lambda: 7


def make_deep(value: object) -> object:
    """Returns a container of containers."""
    return [{"value": (value, [value])}]


def clear_modules() -> list[str]:
    """Forgets all modules of the program; returns a result that is pickled."""
    for name in [name for name in sys.modules if name.startswith("_concurrent_futures")]:
        del sys.modules[name]
    return ["a" * 3] * 100


def forget_me() -> None:
    """Removes this module, so that the next call imports it again."""
    del sys.modules[__name__]


def hold(begun: int, go: int) -> bytes:
    """Reports that it has begun, and waits for the end, by two pipes."""
    os.write(begun, b"b")
    return os.read(go, 1)


def add_one(number: int) -> int:
    """Returns the next number."""
    return number + 1


class Holder:
    """Something to call that waits."""

    def __call__(self, begun: int, go: int) -> bytes:
        return hold(begun, go)

    def hold(self, begun: int, go: int) -> bytes:
        return hold(begun, go)


def submit_to(pool: Any) -> Any:
    """Submits to the pool of another interpreter."""
    return pool.submit(int)


def use_package(name: str) -> list[Any]:
    """Imports a library in this interpreter, and uses its pools here."""
    from importlib import import_module

    lib = import_module(name)
    with lib.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(abs, [-1, -2]))
    with lib.InterpreterPoolExecutor(1) as pool:
        results += pool.map(abs, [-3])
    return [*results, lib.InterpreterPoolExecutor.__module__]


def close_others() -> list[str]:
    """Closes all interpreters that the standard library has made, as far as they can be closed."""
    from concurrent import interpreters  # type: ignore[attr-defined, unused-ignore]

    errors = []
    for other in interpreters.list_all():
        try:
            other.close()
        except interpreters.InterpreterError as error:
            errors.append(str(error))
    return errors


@dataclass(frozen=True)
class Record:
    """An object that is pickled by value."""

    number: int
    text: str


class Pair(NamedTuple):
    """A tuple of a class of its own."""

    first: int
    second: object


class Number(int):
    """An integer of a class of its own."""


class Adder:
    """An object that can be called, with a method and functions of its class."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, other: int) -> int:
        return self.number + other

    def method(self, other: int) -> int:
        return self.number - other

    @staticmethod
    def static(other: int) -> int:
        return other * 10

    @classmethod
    def of_class(cls, other: int) -> str:
        return f"{cls.__name__} {other}"
