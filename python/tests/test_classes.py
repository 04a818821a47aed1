"""Tests of classes that are derived from executors and futures, and of what tools see of their
methods."""

import abc
import copy
import dataclasses
import inspect
import pickle
import threading
import typing
import weakref
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import pytest

from support import LIMIT, needs_processes

T = typing.TypeVar("T")
KINDS = ["ThreadPoolExecutor", "ProcessPoolExecutor"]


class Singleton(type):
    """A metaclass that makes one object for each class."""

    _objects: typing.ClassVar[dict[type, Any]] = {}

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Returns the one object of the class."""
        if cls not in cls._objects:
            cls._objects[cls] = super().__call__(*args, **kwargs)
        return cls._objects[cls]


@pytest.mark.parametrize("metaclass", [Singleton, abc.ABCMeta])
@pytest.mark.parametrize("kind", [*KINDS, "Future"])
def test_a_class_with_a_metaclass(lib: ModuleType, kind: str, metaclass: Any) -> None:
    base = getattr(lib, kind)
    derived: Any = metaclass("Derived", (base,), {})
    made = derived()
    assert isinstance(made, base)
    assert type(derived) is metaclass
    if metaclass is Singleton:
        assert derived() is made
    if kind == "Future":
        made.set_result(4)
        assert made.result() == 4
    else:
        made.shutdown()


@pytest.mark.parametrize("kind", [*KINDS, "Future"])
def test_the_classes_have_no_metaclass_of_their_own(lib: ModuleType, kind: str) -> None:
    assert type(getattr(lib, kind)) is type


def test_a_pool_with_an_abstract_base_class(lib: ModuleType) -> None:
    class Runner(abc.ABC):
        @abc.abstractmethod
        def run(self) -> int:
            """Run a task."""

    class Pool(lib.ThreadPoolExecutor, Runner):  # type: ignore[misc, name-defined]
        def run(self) -> Any:
            return self.submit(int, "4").result(LIMIT)

    with Pool(1) as pool:
        assert pool.run() == 4
    incomplete = abc.ABCMeta("Incomplete", (lib.ThreadPoolExecutor, Runner), {})
    with pytest.raises(TypeError, match="abstract"):
        incomplete(1)


def test_a_pool_that_is_a_thread(lib: ModuleType) -> None:
    class Pool(threading.Thread, lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            threading.Thread.__init__(self)
            lib.ThreadPoolExecutor.__init__(self, 1)
            self.future: Any

        def run(self) -> None:
            self.future = self.submit(int, "5")

    pool = Pool()
    pool.start()
    pool.join(LIMIT)
    assert pool.future.result(LIMIT) == 5
    pool.shutdown()


def test_a_generic_pool(lib: ModuleType) -> None:
    class Pool(lib.ThreadPoolExecutor, typing.Generic[T]):  # type: ignore[misc, name-defined]
        pass

    with Pool[int](1) as pool:
        assert pool.submit(int).result(LIMIT) == 0


def test_a_pool_that_is_a_dataclass(lib: ModuleType) -> None:
    @dataclasses.dataclass(eq=False)
    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        workers: int
        name: str = "load"

        def __post_init__(self) -> None:
            super().__init__(self.workers, self.name)

    with Pool(1) as pool:
        assert pool.submit(threading.current_thread).result(LIMIT).name == "load_0"
    assert pool == pool != Pool(1)


def test_cooperative_constructors(lib: ModuleType) -> None:
    class Named:
        def __init__(self, *args: Any, name: str, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.name = name

    class Counted:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.count = 0

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return super().submit(*args, **kwargs)  # type: ignore[misc]

    class Pool(Named, Counted, lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        pass

    with Pool(1, name="load") as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
    assert (pool.name, pool.count) == ("load", 2)


def test_a_pool_with_slots(lib: ModuleType) -> None:
    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        __slots__ = ("label",)

    with Pool(1) as pool:
        pool.label = "load"
        pool.other = "there is a dictionary as well"
        assert pool.submit(int).result(LIMIT) == 0
        alive = weakref.WeakSet([pool])
        assert list(alive) == [pool]


@pytest.mark.parametrize("kind", KINDS)
def test_executors_are_not_pickled(lib: ModuleType, kind: str) -> None:
    # From CPython 3.14 on, the first part that the standard library fails at is a local function.
    refusals = (TypeError, pickle.PicklingError)
    with getattr(lib, kind)(1) as pool, pytest.raises(refusals, match="cannot pickle|Can't pickle"):
        pickle.dumps(pool)


@pytest.mark.parametrize("kind", [KINDS[0], pytest.param(KINDS[1], marks=needs_processes)])
def test_submit_is_a_function_to_tools(lib: ModuleType, kind: str) -> None:
    submit = getattr(lib, kind).submit
    assert isinstance(submit, FunctionType)
    assert submit.__code__.co_name == "submit"
    assert submit.__qualname__ == f"{kind}.submit"
    assert "def submit(" in inspect.getsource(submit)
    signature = inspect.signature(submit)
    assert [(name, each.kind) for name, each in signature.parameters.items()] == [
        ("self", inspect.Parameter.POSITIONAL_ONLY),
        ("fn", inspect.Parameter.POSITIONAL_ONLY),
        ("args", inspect.Parameter.VAR_POSITIONAL),
        ("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
    assert "submit" in vars(getattr(lib, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_for_a_missing_function_names_submit(lib: ModuleType, kind: str) -> None:
    with getattr(lib, kind)(1) as pool:
        message = rf"{kind}\.submit\(\) missing 1 required positional argument: 'fn'"
        with pytest.raises(TypeError, match=message):
            pool.submit()
        with pytest.raises(TypeError, match=message):
            pool.submit(fn=abs)


CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    ("positional", lambda pool: pool.submit(int, "11")),
    ("keyword", lambda pool: pool.submit(int, "11", base=10)),
    ("unpacked", lambda pool: pool.submit(*(int, "11"), **{"base": 10})),
    ("keywords that submit has", lambda pool: pool.submit(lambda *, fn, self: fn, fn=11, self=1)),
    ("by the class", lambda pool: type(pool).submit(pool, int, "11")),
    ("bound", lambda pool: (lambda submit: submit(int, "11"))(pool.submit)),
    ("nothing", lambda pool: pool.submit(lambda: 11)),
]


@pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[name for name, _ in CALLS])
def test_every_form_of_a_call(lib: ModuleType, call: Callable[[Any], Any]) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        for _ in range(50):  # The interpreter specializes what is called often.
            assert call(pool).result(LIMIT) == 11


def test_submit_of_an_object_that_is_no_pool(lib: ModuleType) -> None:
    with pytest.raises((TypeError, AttributeError)):
        lib.ThreadPoolExecutor.submit(object(), int)


def test_code_that_replaces_the_code_of_submit(
    lib: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As ddtrace does.
    submit = lib.ThreadPoolExecutor.submit
    before = submit.__code__
    original = FunctionType(
        before, submit.__globals__, "submit", submit.__defaults__, submit.__closure__
    )
    calls: list[Any] = []
    submit.__globals__["_calls"] = calls
    submit.__globals__["_original"] = original

    def replacement(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        _calls.append(fn)  # type: ignore[name-defined]  # noqa: F821
        return _original(self, fn, *args, **kwargs)  # type: ignore[name-defined]  # noqa: F821

    with lib.ThreadPoolExecutor(1) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
        submit.__code__ = replacement.__code__
        try:
            assert pool.submit(abs, -2).result(LIMIT) == 2
            assert list(pool.map(abs, [-3])) == [3]
        finally:
            submit.__code__ = before
            del submit.__globals__["_calls"], submit.__globals__["_original"]
        assert pool.submit(abs, -4).result(LIMIT) == 4
        assert list(pool.map(abs, [-5])) == [5]
    assert calls == [abs, abs]


@pytest.mark.parametrize("of", ["class", "instance"])
def test_a_submit_that_is_patched_and_restored(lib: ModuleType, of: str) -> None:
    original = lib.ThreadPoolExecutor.submit
    calls: list[Any] = []

    with lib.ThreadPoolExecutor(1) as pool:
        bound = pool.submit

        def patched(*args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return (original if of == "class" else bound)(*args, **kwargs)

        patch: Any = lib.ThreadPoolExecutor if of == "class" else pool
        patch.submit = patched
        try:
            assert pool.submit(abs, -1).result(LIMIT) == 1
            assert list(pool.map(abs, [-2, -3])) == [2, 3]
        finally:
            if of == "class":
                lib.ThreadPoolExecutor.submit = original
            else:
                del pool.submit
        assert pool.submit(abs, -4).result(LIMIT) == 4
        assert list(pool.map(abs, [-5])) == [5]
    assert len(calls) == 3


def test_copies_of_a_pool_fail_as_the_standard_librarys(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool, pytest.raises(TypeError):
        copy.deepcopy(pool)
