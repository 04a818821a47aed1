"""Tests of objects that cannot be pickled or unpickled: where they fail, and whether the pool
breaks."""

import copyreg
import functools
import pickle
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, eventually


@pytest.fixture
def pool(lib: ModuleType, forking: Any) -> Iterator[Any]:
    """Make a pool of one process."""
    with lib.ProcessPoolExecutor(1, mp_context=forking) as made:
        yield made


def assert_alive(pool: Any) -> None:
    """Checks that the pool still works."""
    assert pool._broken is False
    assert pool.submit(abs, -1).result(LIMIT) == 1


def local() -> Any:
    """Returns a function, an object and a class that pickle cannot find."""

    def function() -> None:
        """A function that has no name in a module."""

    class Local:
        """A class that has no name in a module."""

    return {
        "a lambda": lambda: None,
        "a function": function,
        "an object": Local(),
        "a class": Local,
    }


@pytest.mark.parametrize("kind", ["a lambda", "a function", "an object", "a class"])
@pytest.mark.parametrize("place", ["function", "argument", "keyword", "inside"])
def test_a_task_that_cannot_be_pickled_fails_alone(pool: Any, kind: str, place: str) -> None:
    value = local()[kind]
    if place == "function":
        future = pool.submit(functools.partial(tasks.identity, value))
    elif place == "argument":
        future = pool.submit(tasks.identity, value)
    elif place == "keyword":
        future = pool.submit(tasks.identity, value=value)
    else:
        future = pool.submit(tasks.identity, [{"key": (value,)}])
    error = future.exception(LIMIT)
    assert isinstance(error, (pickle.PicklingError, AttributeError)), error
    assert "local object" in str(error)
    assert type(error.__cause__).__name__ == "_RemoteTraceback"
    assert f"{type(error).__name__}: {error}" in str(error.__cause__)
    assert_alive(pool)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (tasks.Unpicklable(), pickle.PicklingError),
        (tasks.OnPickling("raise"), LookupError),
        ((n for n in [1]), TypeError),
        (memoryview(b""), TypeError),
        (__import__("threading").Lock(), TypeError),
        (pytest, TypeError),
    ],
    ids=["raises", "raises something else", "generator", "memoryview", "lock", "module"],
)
def test_an_argument_that_fails_while_it_is_pickled(
    pool: Any, value: Any, kind: type[BaseException]
) -> None:
    future = pool.submit(tasks.identity, value)
    with pytest.raises(kind):
        future.result(LIMIT)
    assert not future.cancelled()
    assert_alive(pool)


def test_arguments_that_are_nested_too_deep(pool: Any) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert isinstance(pool.submit(tasks.identity, deep).exception(LIMIT), RecursionError)
    while deep:  # Or its end would be as deep.
        deep = deep.pop()
    assert_alive(pool)


def test_an_argument_that_fails_while_it_is_unpickled_breaks_the_pool(
    lib: ModuleType, forking: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        future = pool.submit(tasks.identity, tasks.OnUnpickling("raise"))
        with pytest.raises(lib.process.BrokenProcessPool):
            future.result(LIMIT)
        eventually(lambda: pool._broken)
    assert "LookupError: on purpose" in capfd.readouterr().err


@pytest.mark.parametrize("how", ["exit", "os._exit", "kill"])
def test_an_argument_that_ends_the_worker_while_it_is_unpickled(
    lib: ModuleType, forking: Any, how: str
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        with pytest.raises(lib.process.BrokenProcessPool):
            pool.submit(tasks.identity, tasks.OnUnpickling(how)).result(LIMIT)
        eventually(lambda: pool._broken)


def test_a_result_that_cannot_be_pickled_fails_alone(pool: Any) -> None:
    for task, text in [
        ((tasks.make, "Unpicklable"), "not this one"),
        ((tasks.make, "OnPickling", "raise"), "on purpose"),
        ((tasks.make, "local_function"), "local object"),
        ((memoryview, b"1"), "pickle"),
    ]:
        error = pool.submit(*task).exception(LIMIT)
        assert text in str(error), error
        assert type(error.__cause__).__name__ == "_RemoteTraceback"
    assert_alive(pool)


def test_an_exception_that_cannot_be_pickled_is_told_by_the_one_that_says_so(pool: Any) -> None:
    error = pool.submit(tasks.fail_making, "UnpicklableError").exception(LIMIT)
    assert isinstance(error, pickle.PicklingError)
    assert str(error) == "not this error"
    assert_alive(pool)


def test_a_result_that_exits_while_it_is_pickled(pool: Any) -> None:
    error = pool.submit(tasks.make, "OnPickling", "exit").exception(LIMIT)
    assert isinstance(error, SystemExit)
    assert_alive(pool)


@pytest.mark.parametrize("how", ["os._exit", "kill"])
def test_a_result_that_ends_the_worker_while_it_is_pickled(
    lib: ModuleType, forking: Any, how: str
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        with pytest.raises(lib.process.BrokenProcessPool):
            pool.submit(tasks.make, "OnPickling", how).result(LIMIT)


@pytest.mark.parametrize(
    "task",
    [
        (tasks.make, "OnUnpickling", "raise"),
        (tasks.make, "OnUnpickling", "exit"),
    ],
    ids=["raises", "exits"],
)
def test_a_result_that_fails_while_it_is_unpickled_breaks_the_pool(
    lib: ModuleType, forking: Any, task: Any
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        future = pool.submit(*task)
        with pytest.raises(lib.process.BrokenProcessPool) as caught:
            future.result(LIMIT)
        # The cause tells what it was.
        cause = str(caught.value.__cause__)
        assert "Traceback (most recent call last)" in cause
        assert any(text in cause for text in ["on purpose", "SystemExit: 7"])
        eventually(lambda: pool._broken)
        with pytest.raises(lib.process.BrokenProcessPool):
            pool.submit(int)


def test_several_arguments_of_an_exception_arrive(pool: Any) -> None:
    error = pool.submit(tasks.fail_making, "DetailedError", 404, "not found").exception(LIMIT)
    assert type(error) is tasks.DetailedError
    assert (error.code, error.reason) == (404, "not found")
    assert error.args == (404, "not found")


class Registered:
    """An object that is pickled by `copyreg`."""

    def __init__(self, how: str) -> None:
        self.how = how


def reduce_registered(value: Registered) -> Any:
    """Reduce for `copyreg`."""
    return Registered, (f"{value.how} by copyreg",)


def reduce_for_multiprocessing(value: Registered) -> Any:
    """Reduce for `multiprocessing`."""
    return Registered, (f"{value.how} by multiprocessing",)


def how(value: Registered) -> str:
    """Return the attribute as a worker sees it."""
    return value.how


def test_copyreg_is_honoured(pool: Any) -> None:
    copyreg.pickle(Registered, reduce_registered)
    try:
        assert pool.submit(how, Registered("sent")).result(LIMIT) == "sent by copyreg"
    finally:
        copyreg.dispatch_table.pop(Registered)


def test_reductions_of_multiprocessing_are_honoured(pool: Any) -> None:
    from multiprocessing.reduction import ForkingPickler

    ForkingPickler.register(Registered, reduce_for_multiprocessing)
    try:
        assert pool.submit(how, Registered("sent")).result(LIMIT) == "sent by multiprocessing"
        # The worker of this pool, which was forked, knows it too.
        returned = pool.submit(tasks.identity, Registered("sent")).result(LIMIT)
        assert returned.how == "sent by multiprocessing by multiprocessing"
    finally:
        ForkingPickler._extra_reducers.pop(Registered)  # type: ignore[attr-defined]


def test_connections_travel(pool: Any, forking: Any) -> None:
    # Which only multiprocessing's own pickler can.
    reader, writer = forking.Pipe(duplex=False)
    with reader, writer:
        pool.submit(writer.__class__.send, writer, "hello").result(LIMIT)
        assert reader.recv() == "hello"


def test_objects_that_know_how_to_reduce_with_the_newest_protocol(pool: Any) -> None:
    value = ReducesByProtocol()
    assert pool.submit(tasks.identity, value).result(LIMIT) >= pickle.DEFAULT_PROTOCOL


class ReducesByProtocol:
    """Return the number of the protocol."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return int, (protocol,)


def test_a_module_that_is_missing_in_the_worker(lib: ModuleType) -> None:
    import multiprocessing
    import sys
    import types

    module = types.ModuleType("only_here")
    exec("def function(): pass", module.__dict__)
    sys.modules["only_here"] = module
    try:
        context = multiprocessing.get_context("spawn")
        with lib.ProcessPoolExecutor(1, mp_context=context) as pool:
            with pytest.raises(lib.process.BrokenProcessPool):
                pool.submit(module.function).result(LIMIT)
    finally:
        del sys.modules["only_here"]
