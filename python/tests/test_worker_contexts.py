"""Tests of the contexts of workers, by which classes derive from thread pools from CPython 3.14
on."""

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, held

has_contexts = pytest.mark.skipif(sys.version_info < (3, 14), reason="there are none before")


def thread_module(lib: ModuleType) -> Any:
    """Returns the module of the thread pools."""
    return importlib.import_module(f"{lib.__name__}.thread")


def counting_pool(lib: ModuleType, log: list[Any]) -> Any:
    """Makes a class whose contexts note each step, and add to each result."""
    module = thread_module(lib)

    class Context(module.WorkerContext):  # type: ignore[misc, name-defined]
        added = 0

        def initialize(self) -> None:
            log.append("initialize")
            super().initialize()

        def run(self, task: Any) -> Any:
            return super().run(task) + self.added

        def finalize(self) -> None:
            log.append("finalize")

    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        @classmethod
        def prepare_context(cls, initializer: Any, initargs: Any, *, added: int = 0) -> Any:
            log.append((type(initargs), added))
            create, resolve = Context.prepare(initializer, initargs)

            def create_adding() -> Any:
                context = create()
                context.added = added
                return context

            return create_adding, resolve

    return Pool


@has_contexts
def test_a_class_gives_its_workers_contexts(lib: ModuleType) -> None:
    log: list[Any] = []
    with counting_pool(lib, log)(1, "", log.append, ["initializer"], added=10) as pool:
        assert pool.submit(int, "3").result(LIMIT) == 13
        assert list(pool.map(int, "12")) == [11, 12]
    assert log == [(list, 10), "initialize", "initializer", "finalize"]


@has_contexts
def test_an_option_that_no_context_takes_is_refused(lib: ModuleType) -> None:
    for kind in (lib.ThreadPoolExecutor, counting_pool(lib, [])):
        with pytest.raises(TypeError, match=r"prepare_context\(\) got an unexpected keyword argum"):
            kind(1, unheard_of=1)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="a context may take it")
def test_an_option_that_there_is_not_is_refused(lib: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected keyword argument 'more'"):
        lib.ThreadPoolExecutor(1, more=1)


@has_contexts
def test_a_class_names_the_error_of_its_broken_pools(lib: ModuleType) -> None:
    class BrokenHereError(thread_module(lib).BrokenThreadPool):  # type: ignore[misc]
        pass

    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        BROKEN = BrokenHereError

    with Pool(1, initializer=lambda: 1 / 0) as pool:
        for _ in range(2):
            with pytest.raises(BrokenHereError):
                pool.submit(int).result(LIMIT)


@has_contexts
@pytest.mark.parametrize("has_begun", [False, True])
def test_a_context_that_is_asked_for_has_the_initializer(lib: ModuleType, has_begun: bool) -> None:
    called: list[int] = []
    with lib.ThreadPoolExecutor(1, "", called.append, (7,)) as pool:
        if has_begun:
            pool.submit(int).result(LIMIT)
        context = pool._create_worker_context()
        context.initialize()
        task = pool._resolve_work_item_task(int, ("11",), {"base": 2})
        assert context.run(task) == 3
        assert pool.submit(int, "4").result(LIMIT) == 4
    assert called == [7, 7]


@has_contexts
def test_contexts_that_are_set_later_are_those_of_new_workers(lib: ModuleType) -> None:
    called: list[int] = []
    context = thread_module(lib).WorkerContext
    with lib.ThreadPoolExecutor(2) as pool, held(pool):
        pool._create_worker_context = lambda: context(called.append, (1,))
        assert pool.submit(int, "4").result(LIMIT) == 4
    assert called == [1]


@has_contexts
def test_a_replaced_run_of_contexts_is_called(
    lib: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = thread_module(lib).WorkerContext
    original = context.run
    tasks: list[Any] = []

    def run(self: Any, task: Any) -> Any:
        tasks.append(task)
        return original(self, task)

    monkeypatch.setattr(context, "run", run)
    with lib.ThreadPoolExecutor(1) as pool:
        assert pool.submit(int, "4").result(LIMIT) == 4
    assert tasks == [(int, ("4",), {})]
