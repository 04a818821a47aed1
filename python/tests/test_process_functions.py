"""Tests of functions on their way to workers: by their names, which are looked up for each call."""

import copyreg
import importlib
import multiprocessing
import pickle
import sys
import types
from collections.abc import Iterator
from multiprocessing import reduction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, prints


@pytest.fixture
def pool(lib: ModuleType, forking: Any) -> Iterator[Any]:
    """Make a pool of one process."""
    with lib.ProcessPoolExecutor(1, mp_context=forking) as made:
        yield made


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_a_function_that_is_rebound_in_the_worker_is_replaced(lib: ModuleType, start: str) -> None:
    context = multiprocessing.get_context(start)
    with lib.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(tasks.first).result(LIMIT) == "first"
        assert pool.submit(tasks.First).result(LIMIT) == "First"
        pool.submit(tasks.rebind).result(LIMIT)
        assert pool.submit(tasks.first).result(LIMIT) == "second"
        assert pool.submit(tasks.First).result(LIMIT) == "Second"


def test_an_item_of_map_that_rebinds_the_function_replaces_it_for_the_next(pool: Any) -> None:
    assert list(pool.map(tasks.rebinds_itself, range(3))) == ["rebound", "second", "second"]


def test_a_module_that_is_reloaded_in_the_worker_has_its_new_functions(
    lib: ModuleType, forking: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reloaded_module.py"
    path.write_text("def value():\n    return 'old'\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("reloaded_module")
    try:
        with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
            assert pool.submit(module.value).result(LIMIT) == "old"
            path.write_text("def value():\n    return 'the new one'\n")
            pool.submit(tasks.reload, "reloaded_module").result(LIMIT)
            assert pool.submit(module.value).result(LIMIT) == "the new one"
    finally:
        del sys.modules["reloaded_module"]


def test_a_function_that_is_not_what_its_name_says_is_refused(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tasks.first
    assert pool.submit(old).result(LIMIT) == "first"
    monkeypatch.setattr(tasks, "first", tasks.second)
    error = pool.submit(old).exception(LIMIT)
    assert isinstance(error, pickle.PicklingError)
    assert "not the same object" in str(error)
    assert isinstance(pool.submit(tasks.identity, old).exception(LIMIT), pickle.PicklingError)
    with pytest.raises(pickle.PicklingError):
        next(pool.map(old, [1]))


def test_a_function_that_is_renamed_is_looked_up_by_its_new_name(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def local() -> str:
        return "local"

    error = pool.submit(local).exception(LIMIT)
    assert isinstance(error, (AttributeError, pickle.PicklingError))
    monkeypatch.setattr(local, "__qualname__", "second")
    error = pool.submit(local).exception(LIMIT)
    assert isinstance(error, pickle.PicklingError)
    local.__module__ = "tasks"
    local.__qualname__ = "identity"
    monkeypatch.setattr(tasks, "identity", local)
    # The worker was forked before: there, the name is that of the function that it has always been.
    assert pool.submit(local, 1).result(LIMIT) == 1


def test_a_method_of_a_class_is_found_by_its_dotted_name(pool: Any) -> None:
    assert pool.submit(tasks.Methods.static, 2).result(LIMIT) == ("static", 2)
    assert pool.submit(tasks.Methods.plain, None, 2).result(LIMIT) == ("plain", 2)
    assert pool.submit(tasks.Methods.of_class, 2).result(LIMIT) == ("Methods", 2)
    assert list(pool.map(tasks.Methods.static, [1, 2])) == [("static", 1), ("static", 2)]


def test_an_object_is_pickled_anew_for_each_call(pool: Any) -> None:
    counter = tasks.Stateful()
    for number in range(3):
        counter.number = number
        assert pool.submit(counter).result(LIMIT) == number


def test_a_function_of_a_module_that_computes_its_attributes(
    lib: ModuleType, forking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lazy(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name == "identity":
                return function
            raise AttributeError(name)

    def function(value: Any) -> Any:
        return value

    function.__qualname__ = "identity"
    function.__module__ = "lazy_module_of_tests"
    monkeypatch.setitem(sys.modules, "lazy_module_of_tests", Lazy("lazy_module_of_tests"))
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        assert pool.submit(function, 5).result(LIMIT) == 5
        assert list(pool.map(function, [1, [2]])) == [1, [2]]


def test_a_pickler_in_the_place_of_that_of_multiprocessing_gets_everything(lib: ModuleType) -> None:
    code = f"""
        import multiprocessing, tasks
        from multiprocessing import reduction
        Original = reduction.ForkingPickler
        class Marking:
            @staticmethod
            def dumps(obj):
                return b"mark" + bytes(Original.dumps(obj))
            @staticmethod
            def loads(data):
                assert bytes(data).startswith(b"mark")
                return Original.loads(bytes(data)[4:])
        reduction.ForkingPickler = Marking
        import {lib.__name__} as futures
        with futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            print(pool.submit(tasks.identity, 1).result(), list(pool.map(abs, [-1, -2])))
            print(repr(pool.submit(tasks.fail, LookupError(7)).exception()))
    """
    assert prints(lib, code, forks=True) == "1 [1, 2]\nLookupError(7)\n"


def test_a_pickler_may_keep_a_view_of_the_bytes_that_it_is_given(lib: ModuleType) -> None:
    code = f"""
        import multiprocessing, multiprocessing.connection, pickle, tasks
        from multiprocessing import reduction
        kept = []
        class Keeping(reduction.ForkingPickler):
            @staticmethod
            def loads(data):
                kept.append((memoryview(data)[:], bytes(data)))
                return pickle.loads(data)
        # The standard library's connections have the pickler under another name.
        reduction.ForkingPickler = multiprocessing.connection._ForkingPickler = Keeping
        import {lib.__name__} as futures
        with futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            for length in (10, 5_000, 50_000, 3_000, 200_000):
                assert pool.submit(tasks.identity, list(range(length))).result()[-1] == length - 1
        print(len(kept) >= 5, all(view == data for view, data in kept))
    """
    assert prints(lib, code, forks=True) == "True True\n"


def test_a_pickler_without_registered_reducers_is_taken(lib: ModuleType) -> None:
    code = f"""
        import io, multiprocessing, pickle, tasks
        from multiprocessing import reduction
        class Plain(pickle.Pickler):
            @classmethod
            def dumps(cls, obj, protocol=None):
                buffer = io.BytesIO()
                cls(buffer, protocol).dump(obj)
                return buffer.getbuffer()
            loads = pickle.loads
            def reducer_override(self, obj):
                if getattr(obj, "__name__", "") == "<lambda>":
                    return tasks.First, ()
                return NotImplemented
        reduction.ForkingPickler = Plain
        import {lib.__name__} as futures
        with futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            print(pool.submit(tasks.identity, lambda: 3).result(), list(pool.map(abs, [1, -2])))
    """
    assert prints(lib, code, forks=True) == "First [1, 2]\n"


def test_a_reducer_that_is_registered_between_calls_is_used(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = tasks.Stateful()
    assert type(pool.submit(tasks.identity, value).result(LIMIT)) is tasks.Stateful
    monkeypatch.setitem(copyreg.dispatch_table, tasks.Stateful, lambda obj: (str, ("reduced",)))
    assert pool.submit(tasks.identity, value).result(LIMIT) == "reduced"
    monkeypatch.setitem(
        reduction.ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
        tasks.Stateful,
        lambda obj: (str, ("reduced again",)),
    )
    assert pool.submit(tasks.identity, value).result(LIMIT) == "reduced again"
