"""Tests that garbage is collected: pools to which their own settings refer, and the leftovers of
calls."""

import gc
import multiprocessing
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import LIMIT, eventually, exit_code


class Service:
    """An owner of a pool whose settings contain a method of the owner."""

    pool: Any

    def begin(self, *args: object) -> None:
        """Act as the initializer."""


def initializer(lib: ModuleType, context: Any) -> Service:
    """Return a service whose method is its pool's initializer."""
    service = Service()
    service.pool = lib.ProcessPoolExecutor(1, mp_context=context, initializer=service.begin)
    return service


def argument(lib: ModuleType, context: Any) -> Service:
    """Return a service whose method is an argument of its pool's initializer."""
    service = Service()
    service.pool = lib.ProcessPoolExecutor(
        1, mp_context=context, initializer=id, initargs=(service.begin,)
    )
    return service


@pytest.mark.parametrize("is_used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("make", [initializer, argument])
def test_a_pool_in_a_cycle_with_its_settings_is_collected(
    lib: ModuleType, forking: Any, make: Callable[..., Service], is_used: bool
) -> None:
    service = make(lib, forking)
    processes: list[Any] = []
    if is_used:
        assert service.pool.submit(abs, -1).result(LIMIT) == 1
        processes = list(service.pool._processes.values())
    alive = weakref.ref(service), weakref.ref(service.pool)
    del service
    eventually(lambda: gc.collect() is not None and not any(ref() for ref in alive))
    for process in processes:
        assert exit_code(process) == 0


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_pool_that_is_gone_starts_the_workers_that_its_calls_need(
    package: ModuleType, start: str
) -> None:
    pool = package.ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context(start),
        initializer=tasks.note,
        initargs=("begun",),
        max_tasks_per_child=1,
    )
    futures = [pool.submit(tasks.note, number) for number in range(3)]
    del pool
    # Each has a worker of its own, whose initializer was called.
    assert [future.result(LIMIT) for future in futures] == [2, 2, 2]


def test_the_arguments_of_a_call_are_given_up_when_it_is_pickled(
    lib: ModuleType, forking: Any
) -> None:
    with lib.ProcessPoolExecutor(1, mp_context=forking) as pool:
        value = tasks.Stateful()
        alive = weakref.ref(value)
        future = pool.submit(tasks.identity, value)
        del value
        assert future.result(LIMIT).number == 0
        assert pool.submit(abs, -1).result(LIMIT) == 1
        eventually(lambda: alive() is None)


def test_a_pool_keeps_no_function_that_it_has_called(
    package: ModuleType, forking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(value: Any) -> Any:
        return value

    function.__module__, function.__qualname__ = "tasks", "identity"
    monkeypatch.setattr(tasks, "identity", function)
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        assert pool.submit(function, 1).result(LIMIT) == 1
        alive = weakref.ref(function)
        monkeypatch.undo()
        del function
        eventually(lambda: gc.collect() is not None and alive() is None)


def test_a_pool_that_has_ended_keeps_neither_its_arguments_nor_itself(
    lib: ModuleType, forking: Any
) -> None:
    def count() -> int:
        gc.collect()
        return sum(type(each).__name__ == "Workers" for each in gc.get_objects())

    before = count()
    argument = Service()
    kept = weakref.ref(argument)
    with lib.ProcessPoolExecutor(
        1, mp_context=forking, initializer=repr, initargs=(argument,)
    ) as pool:
        assert pool.submit(abs, -1).result() == 1
    del argument, pool
    eventually(lambda: count() <= before and kept() is None)
