"""Tests of install() and uninstall(): this package in the place of concurrent.futures."""

import asyncio
import concurrent.futures
import concurrent.futures._base
import concurrent.futures.thread
import importlib.util
import inspect
import multiprocessing
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator

import pytest

import concurrent_futures

REPLACED = ("Future", "ThreadPoolExecutor", "wait", "as_completed")
ORIGINALS = {name: getattr(concurrent.futures, name) for name in REPLACED}


@pytest.fixture
def installed() -> Iterator[None]:
    concurrent_futures.install()
    yield
    concurrent_futures.uninstall()


@pytest.fixture
def module(request: pytest.FixtureRequest) -> Iterator[types.ModuleType]:
    """Makes a loaded module with nothing in it."""
    name = f"module_of_{request.node.name}"
    module = types.ModuleType(name)
    sys.modules[name] = module
    yield module
    del sys.modules[name]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", REPLACED)
def test_the_names_of_the_standard_library_stand_for_this_package(name: str) -> None:
    assert getattr(concurrent.futures, name) is getattr(concurrent_futures, name)
    assert getattr(concurrent.futures, name) is not ORIGINALS[name]


@pytest.mark.usefixtures("installed")
def test_its_submodules_stand_for_this_package() -> None:
    assert concurrent.futures.thread.ThreadPoolExecutor is concurrent_futures.ThreadPoolExecutor
    for name in ("Future", "wait", "as_completed"):
        assert getattr(concurrent.futures._base, name) is getattr(concurrent_futures, name)


@pytest.mark.parametrize("name", REPLACED)
def test_uninstall_puts_the_originals_back(name: str) -> None:
    concurrent_futures.install()
    concurrent_futures.uninstall()
    assert getattr(concurrent.futures, name) is ORIGINALS[name]
    assert concurrent.futures._base.Future is ORIGINALS["Future"]
    assert concurrent.futures.thread.ThreadPoolExecutor is ORIGINALS["ThreadPoolExecutor"]


def test_a_module_that_imported_a_name_before_gets_it_too(module: types.ModuleType) -> None:
    exec("from concurrent.futures import Future, ThreadPoolExecutor as Pool", vars(module))
    concurrent_futures.install()
    assert module.Future is concurrent_futures.Future
    assert module.Pool is concurrent_futures.ThreadPoolExecutor
    concurrent_futures.uninstall()
    assert module.Future is ORIGINALS["Future"]
    assert module.Pool is ORIGINALS["ThreadPoolExecutor"]


@pytest.mark.usefixtures("installed")
def test_a_module_that_imports_a_name_later_gets_it_too(module: types.ModuleType) -> None:
    exec("from concurrent.futures import Future", vars(module))
    assert module.Future is concurrent_futures.Future


def test_installing_again_changes_nothing_and_is_undone_once(module: types.ModuleType) -> None:
    concurrent_futures.install()
    concurrent_futures.install()
    assert concurrent.futures.Future is concurrent_futures.Future
    concurrent_futures.uninstall()
    assert concurrent.futures.Future is ORIGINALS["Future"]
    concurrent_futures.uninstall()
    assert concurrent.futures.Future is ORIGINALS["Future"]


@pytest.mark.usefixtures("installed")
def test_installing_again_finds_originals_that_came_later(module: types.ModuleType) -> None:
    module.__dict__["Future"] = ORIGINALS["Future"]
    concurrent_futures.install()
    assert module.Future is concurrent_futures.Future
    concurrent_futures.uninstall()
    assert module.Future is ORIGINALS["Future"]


def test_uninstalling_first_does_nothing() -> None:
    concurrent_futures.uninstall()
    assert concurrent.futures.Future is ORIGINALS["Future"]


def test_uninstall_keeps_names_assigned_in_between(module: types.ModuleType) -> None:
    exec("from concurrent.futures import Future, wait", vars(module))
    concurrent_futures.install()
    module.__dict__["Future"] = int
    del module.__dict__["wait"]
    concurrent_futures.uninstall()
    assert module.Future is int
    assert not hasattr(module, "wait")


def test_uninstall_forgets_modules_that_are_gone() -> None:
    name = "module_that_goes"
    module = types.ModuleType(name)
    exec("from concurrent.futures import Future", vars(module))
    sys.modules[name] = module
    concurrent_futures.install()
    del sys.modules[name], module
    concurrent_futures.uninstall()
    assert concurrent.futures.Future is ORIGINALS["Future"]


def test_this_package_and_its_users_keep_their_names(module: types.ModuleType) -> None:
    exec("from concurrent_futures import Future", vars(module))
    concurrent_futures.install()
    concurrent_futures.uninstall()
    assert module.Future is concurrent_futures.Future
    assert issubclass(concurrent_futures.Future, ORIGINALS["Future"])


@pytest.mark.usefixtures("module")
def test_odd_objects_in_sys_modules_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Touchy:
        def __getattribute__(self, name: str) -> object:
            raise AssertionError(f"touched: {name}")

    monkeypatch.setitem(sys.modules, "touchy", Touchy())
    monkeypatch.setitem(sys.modules, "nothing", None)
    concurrent_futures.install()
    concurrent_futures.uninstall()


def test_a_module_that_loads_at_the_first_touch_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = importlib.util.find_spec("this")  # It prints when it is loaded.
    assert spec is not None and spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "this", lazy)
    spec.loader.exec_module(lazy)
    concurrent_futures.install()
    concurrent_futures.uninstall()
    assert object.__getattribute__(lazy, "__class__") is not types.ModuleType


def test_threads_that_install_and_uninstall_at_once_leave_the_originals() -> None:
    start = threading.Barrier(4)

    def toggle() -> None:
        start.wait()
        for _ in range(5):
            concurrent_futures.install()
            concurrent_futures.uninstall()

    threads = [threading.Thread(target=toggle) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in REPLACED:
        assert getattr(concurrent.futures, name) is ORIGINALS[name]


@pytest.mark.usefixtures("installed")
def test_a_pool_of_the_standard_library_name_is_ours_and_works() -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert isinstance(pool, concurrent_futures.ThreadPoolExecutor)
        future = pool.submit(pow, 2, 5)
        assert isinstance(future, concurrent_futures.Future)
        assert future.result() == 32


@pytest.mark.usefixtures("installed")
def test_asyncio_runs_its_default_executor_on_this_package() -> None:
    async def main() -> threading.Thread:
        thread = await asyncio.to_thread(threading.current_thread)
        default_executor = vars(asyncio.get_running_loop())["_default_executor"]
        assert type(default_executor) is concurrent_futures.ThreadPoolExecutor
        assert thread in default_executor._threads
        return thread

    assert asyncio.run(main()) is not threading.main_thread()


@pytest.fixture
def older() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Returns a pool of the standard library, made before install()."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert type(pool) is ORIGINALS["ThreadPoolExecutor"]
        concurrent_futures.install()
        yield pool
    concurrent_futures.uninstall()


def test_older_pools_go_on(older: concurrent.futures.ThreadPoolExecutor) -> None:
    future = older.submit(pow, 2, 5)
    assert future.result() == 32
    assert concurrent.futures.wait([future]).done == {future}


def test_older_objects_are_instances_of_the_names_now(
    older: concurrent.futures.ThreadPoolExecutor,
) -> None:
    assert isinstance(older, concurrent.futures.ThreadPoolExecutor)
    assert isinstance(older, concurrent.futures.Executor)
    assert isinstance(ORIGINALS["Future"](), concurrent.futures.Future)
    assert issubclass(concurrent.futures.ProcessPoolExecutor, concurrent.futures.Executor)
    assert not isinstance(object(), concurrent.futures.Future)


def test_asyncio_takes_older_pools_and_futures(
    older: concurrent.futures.ThreadPoolExecutor,
) -> None:
    old_future = ORIGINALS["Future"]()
    old_future.set_result("old")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(older)
        assert await loop.run_in_executor(None, pow, 2, 5) == 32
        assert await asyncio.wrap_future(old_future) == "old"

    asyncio.run(main())


@pytest.mark.usefixtures("installed")
def test_classes_derived_from_the_originals_before_go_on() -> None:
    old_future_class: Callable[[], concurrent.futures.Future[int]]
    old_future_class = type("Derived", (ORIGINALS["Future"],), {})
    future = old_future_class()
    assert isinstance(future, concurrent.futures.Future)
    future.set_result(1)
    assert [each.result() for each in concurrent.futures.as_completed([future])] == [1]


@pytest.mark.usefixtures("installed")
def test_process_pools_give_futures_of_this_package() -> None:
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        future = pool.submit(pow, 2, 5)
        assert isinstance(future, concurrent_futures.Future)
        assert future.result(60) == 32


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", concurrent_futures.__all__)
def test_public_names_that_the_standard_library_has_are_the_same_object(name: str) -> None:
    if hasattr(concurrent.futures, name):
        assert getattr(concurrent.futures, name) is getattr(concurrent_futures, name)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="there are none before CPython 3.14")
@pytest.mark.usefixtures("installed")
def test_interpreter_pools_go_on() -> None:
    with concurrent.futures.InterpreterPoolExecutor(1) as pool:  # type: ignore[attr-defined, unused-ignore]
        assert pool.submit(pow, 2, 5).result(60) == 32


def run(program: str) -> str:
    """Run a program in a new interpreter; return its output."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    ).stdout


def test_installing_before_the_first_import_of_the_submodules() -> None:
    program = """
        import concurrent_futures
        concurrent_futures.install()
        from concurrent.futures.thread import ThreadPoolExecutor
        from concurrent.futures.process import ProcessPoolExecutor
        import concurrent.futures.thread
        assert ThreadPoolExecutor is concurrent_futures.ThreadPoolExecutor
        assert concurrent.futures.thread.ThreadPoolExecutor is ThreadPoolExecutor
        assert ProcessPoolExecutor is concurrent_futures.ProcessPoolExecutor
    """
    assert run(program) == ""


def test_the_main_module_is_searched_too() -> None:
    program = """
        from concurrent.futures import ThreadPoolExecutor
        import concurrent_futures
        concurrent_futures.install()
        print(ThreadPoolExecutor is concurrent_futures.ThreadPoolExecutor)
    """
    assert run(program) == "True\n"


def test_both_have_documentation() -> None:
    assert inspect.getdoc(concurrent_futures.install)
    assert inspect.getdoc(concurrent_futures.uninstall)
