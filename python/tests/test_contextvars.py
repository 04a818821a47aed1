"""Tests of contexts: those of the running version, or copies of the submitter's."""

import concurrent.futures
import contextvars
from typing import Any

import concurrent_futures
from concurrent_futures import ThreadPoolExecutor
from support import LIMIT, held

variable = contextvars.ContextVar("variable", default="default")


def seen_by(pool: Any) -> list[str]:
    """Return a variable's values in tasks, callbacks and initializers, after other tasks have set
    it."""
    seen: list[str] = []
    variable.set("submitter")
    seen.append(pool.submit(variable.get).result())
    pool.submit(variable.set, "task").result()
    seen.append(pool.submit(variable.get).result())
    seen.extend(pool.map(lambda _: variable.get(), range(2)))
    with held(pool):
        future = pool.submit(variable.get)
        future.add_done_callback(lambda _: seen.append(variable.get()))
    future.result()
    pool.submit(int).result()
    seen.append(variable.get())
    return seen


def test_by_default_it_is_the_versions_rule() -> None:
    results = []
    for lib in (concurrent.futures, concurrent_futures):
        with lib.ThreadPoolExecutor(1, initializer=variable.set, initargs=("worker",)) as pool:
            results.append(contextvars.copy_context().run(seen_by, pool))
        with lib.ThreadPoolExecutor(1) as pool:
            results.append(contextvars.copy_context().run(seen_by, pool))
    assert results[:2] == results[2:]


def test_the_submitters_context_may_be_copied() -> None:
    with ThreadPoolExecutor(1, copy_context=True) as pool:
        assert pool.submit(variable.get).result() == "default"
        token = variable.set("submitter")
        assert pool.submit(variable.get).result() == "submitter"
        assert list(pool.map(lambda _: variable.get(), range(3))) == ["submitter"] * 3
        variable.reset(token)
        assert pool.submit(variable.get).result() == "default"


def test_it_is_copied_when_the_task_is_submitted() -> None:
    with ThreadPoolExecutor(1, copy_context=True) as pool:
        token = variable.set("before")
        with held(pool):
            future = pool.submit(variable.get)
            variable.set("after")
        assert future.result() == "before"
        variable.reset(token)


def test_each_task_has_a_copy_of_its_own() -> None:
    with ThreadPoolExecutor(1, copy_context=True) as pool:
        pool.submit(variable.set, "task").result()
        assert variable.get() == "default"
        assert pool.submit(variable.get).result() == "default"


def test_tasks_within_tasks_get_the_tasks_context() -> None:
    def outer() -> tuple[str, str]:
        variable.set("outer")
        inside = pool.submit(inner).result()
        return inside, variable.get()

    def inner() -> str:
        before = variable.get()
        variable.set("inner")
        return before

    with ThreadPoolExecutor(1, copy_context=True) as pool:
        assert pool.submit(outer).result(LIMIT) == ("outer", "outer")


def test_a_task_that_fails_leaves_its_context() -> None:
    def fails() -> None:
        variable.set("failed")
        raise ValueError

    with ThreadPoolExecutor(1, copy_context=True) as pool:
        assert isinstance(pool.submit(fails).exception(), ValueError)
        assert pool.submit(variable.get).result() == "default"


def test_many_submitters_each_with_its_own() -> None:
    def submit(n: int) -> list[str]:
        variable.set(str(n))
        return [future.result() for future in [pool.submit(variable.get) for _ in range(50)]]

    with ThreadPoolExecutor(3, copy_context=True) as pool:
        for n in range(10):
            assert contextvars.Context().run(submit, n) == [str(n)] * 50
