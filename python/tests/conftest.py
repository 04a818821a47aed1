"""Fixtures for all tests: the two implementations, and the end of tests that hang."""

import concurrent.futures
import faulthandler
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT
from tasks import Flag

# Tests take less than a few seconds. One that takes this long hangs: the run ends with the
# stacks of all threads, whoever holds the interpreter's lock.
HANGS = 5 * LIMIT

_terminal = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--reference`."""
    parser.addoption(
        "--reference",
        action="store_true",
        help="run the tests of process pools with the standard library's, too: it must pass those "
        "that are for both, but has hangs of its own, and takes as long again",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the standard library's process pools out, without `--reference`."""
    if config.getoption("--reference"):
        return

    def is_reference(item: pytest.Item) -> bool:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        is_of_processes = item.path.name.startswith("test_process_")
        return is_of_processes and parameters.get("lib") is concurrent.futures

    config.hook.pytest_deselected(items=list(filter(is_reference, items)))
    items[:] = [item for item in items if not is_reference(item)]


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the real standard error, as a test's own is captured; makes Ctrl-C end the tests."""
    global _terminal
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background by a shell; programs that tests start would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    capture = config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        _terminal = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Ends a test that takes too long."""
    faulthandler.dump_traceback_later(HANGS, exit=True, file=_terminal)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=[concurrent.futures, concurrent_futures], ids=["stdlib", "package"])
def lib(request: pytest.FixtureRequest) -> ModuleType:
    """Returns each of the two implementations, to show that they behave the same."""
    module: ModuleType = request.param
    return module


@pytest.fixture
def package() -> ModuleType:
    """Returns the package alone, for tests of what goes beyond the standard library."""
    return concurrent_futures


@pytest.fixture(scope="module", params=multiprocessing.get_all_start_methods())
def context(request: pytest.FixtureRequest) -> Any:
    """Returns a context for each start method of worker processes."""
    return multiprocessing.get_context(request.param)


@pytest.fixture
def forking() -> Any:
    """Returns the context of the quickest start method, for tests that do not depend on it."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("there is no fork")
    return multiprocessing.get_context("fork")


@pytest.fixture
def running(tmp_path: Path) -> Flag:
    """Returns an event by which a task reports that it runs."""
    return Flag(tmp_path / "running")


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Flag]:
    """Returns an event that ends a task, and is set at the end of the test at the latest."""
    flag = Flag(tmp_path / "release")
    yield flag
    flag.set()
