"""`InterpreterPoolExecutor` as an executor: map, waits, callbacks, limits, and subclasses."""

from __future__ import annotations

import sys

import pytest

if sys.version_info < (3, 14):
    pytest.skip("CPython has pools of interpreters from version 3.14 on", allow_module_level=True)

import pickle
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import interpreter_tasks as tasks
from interpreter_support import SECONDS, NotShareableError, ids, interpreters, pool_of
from interpreter_tasks import Adder
from support import LIMIT, Background, until_asleep


def test_map(lib: ModuleType) -> None:
    with pool_of(lib, 2) as pool:
        assert list(pool.map(abs, range(-500, 0))) == list(range(500, 0, -1))
        assert list(pool.map(pow, [2, 3], [3, 2], chunksize=5)) == [8, 9]
        assert list(pool.map(tasks.make_deep, [1, 2], timeout=LIMIT)) == [
            tasks.make_deep(1),
            tasks.make_deep(2),
        ]
        results = pool.map(abs, iter([-1, "a", -2]))
        assert next(results) == 1
        with pytest.raises(TypeError):
            next(results)
        submitted: list[int] = []

        def items() -> Iterator[int]:
            for number in range(10):
                submitted.append(number)
                yield number

        results = pool.map(abs, items(), buffersize=3)
        assert submitted == [0, 1, 2]
        assert next(results) == 0
        assert submitted == [0, 1, 2, 3]
        assert list(results) == list(range(1, 10))


def test_max_pending(package: ModuleType) -> None:
    def wait(arrived: Any, go: Any) -> None:
        arrived.put(None)
        go.get()

    arrived, go = interpreters.create_queue(), interpreters.create_queue()
    with pytest.raises(ValueError, match="max_pending"):
        pool_of(package, max_pending=0)
    with pool_of(package, max_pending=1) as pool:
        pool.submit(wait, arrived, go)
        arrived.get(timeout=SECONDS)
        pending = pool.submit(tasks.count)
        submitting = Background(pool.submit, abs, -2)
        until_asleep(submitting)
        assert submitting.is_alive()
        go.put(None)
        assert pending.result(LIMIT) == 1
        assert submitting.outcome().result(LIMIT) == 2


def test_callbacks_and_waits(lib: ModuleType) -> None:
    called: list[int] = []
    with pool_of(lib, 2) as pool:
        futures = [pool.submit(abs, -number) for number in range(20)]
        for future in futures:
            future.add_done_callback(lambda future: called.append(future.result()))
        assert {future.result() for future in lib.as_completed(futures)} == set(range(20))
        assert lib.wait(futures).not_done == set()
    assert sorted(called) == list(range(20))


def test_a_pool_whose_private_parts_are_touched_keeps_its_interpreters(lib: ModuleType) -> None:
    before = ids()
    with pool_of(lib) as pool:
        assert [pool.submit(tasks.count).result(LIMIT) for _ in range(3)] == [1, 2, 3]
        assert pool._idle_semaphore is not None
        assert pool._create_worker_context is not None
        assert [pool.submit(tasks.count).result(LIMIT) for _ in range(3)] == [4, 5, 6]
        assert len(ids() - before) == 1
    assert ids() == before


def test_subclasses_that_override_the_preparation(lib: ModuleType) -> None:
    prepared: list[Any] = []

    class Pool(lib.InterpreterPoolExecutor):  # type: ignore[misc, name-defined]
        @classmethod
        def prepare_context(cls, initializer: Any, initargs: Any) -> Any:
            create, resolve = super().prepare_context(initializer, initargs)
            prepared.append(create)
            return create, lambda fn, args, kwargs: resolve(fn, (*args, 1), kwargs)

    with Pool(1) as pool:
        assert pool.submit(pow, 2).result(LIMIT) == 2
        assert list(pool.map(divmod, [3, 4])) == [(3, 0), (4, 0)]
    assert len(prepared) == 1


def test_a_subclass_with_its_own_submit(lib: ModuleType) -> None:
    class Pool(lib.InterpreterPoolExecutor):  # type: ignore[misc, name-defined]
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return super().submit(fn, *args, 10, **kwargs)

    with Pool(1) as pool:
        assert pool.submit(pow, 2).result(LIMIT) == 1024
        assert list(pool.map(divmod, [30, 45])) == [(3, 0), (4, 5)]


def test_pickling_a_pool_fails(lib: ModuleType) -> None:
    with pool_of(lib) as pool, pytest.raises((TypeError, pickle.PicklingError)):
        pickle.dumps(pool)


def test_many_threads_submit_many_kinds_of_calls(lib: ModuleType) -> None:
    def submit(pool: Any) -> int:
        failures = 0
        for number in range(60):
            calls: list[tuple[Any, tuple[Any, ...], Any]] = [
                (abs, (-number,), number),
                (tasks.make_deep, (number,), tasks.make_deep(number)),
                (lambda number: number + 1, (number,), number + 1),
                (tasks.echo, ([number],), (([number],), {})),
                (Adder(number), (1,), number + 1),
            ]
            futures = [(pool.submit(function, *args), result) for function, args, result in calls]
            failing = pool.submit(tasks.fail, ValueError, number)
            unsent = pool.submit(tasks.make_closure())
            for future, result in futures:
                failures += future.result(LIMIT) != result
            failures += failing.exception(LIMIT).args != (number,)
            failures += type(unsent.exception(LIMIT)) is not NotShareableError
        return failures

    with pool_of(lib, 3) as pool:
        threads = [Background(submit, pool) for _ in range(4)]
        for thread in threads:
            assert thread.outcome() == 0
