"""What all tests share: the two implementations, and an end for tests that hang."""

import concurrent.futures
import faulthandler
import os
import signal
from collections.abc import Iterator
from types import ModuleType

import pytest

import concurrent_futures
from support import LIMIT

# Tests take less than a few seconds. One that takes this long hangs: the run ends with the
# stacks of all threads, whoever holds the interpreter's lock.
HANGS = 5 * LIMIT

_terminal = 2


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the real standard error, as a test's own is captured; has Ctrl-C end the tests."""
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
    """Watches one test."""
    faulthandler.dump_traceback_later(HANGS, exit=True, file=_terminal)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=[concurrent.futures, concurrent_futures], ids=["stdlib", "package"])
def lib(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the two implementations: a test with it shows that they behave the same."""
    module: ModuleType = request.param
    return module


@pytest.fixture
def package() -> ModuleType:
    """The package alone: for tests of what goes beyond the standard library."""
    return concurrent_futures
