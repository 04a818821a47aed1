"""Tests that the names, classes and signatures are the standard library's."""

import concurrent.futures
import inspect
import subprocess
import sys
import threading
from typing import Any, get_type_hints

import pytest

import concurrent_futures
import concurrent_futures._base
import concurrent_futures.process
import concurrent_futures.thread
from support import LIMIT

CLASSES = ["Future", "Executor", "ThreadPoolExecutor"]


def methods(name: str) -> list[str]:
    """Returns the public methods of one of the standard library's classes, and its constructor."""
    listed = dir(getattr(concurrent.futures, name))
    # From 3.14 on, there are some for those who derive other executors, without documentation.
    hooks = ("BROKEN", "prepare_context")
    public = [method for method in listed if not method.startswith("_") and method not in hooks]
    return ["__init__", *public]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Returns names, kinds and defaults of all parameters but the first, `self`."""
    found = list(inspect.signature(function).parameters.values())[1:]
    # For what is derived from it, too: see above.
    return [(each.name, each.kind, each.default) for each in found if each.name != "ctxkwargs"]


@pytest.mark.parametrize("name", concurrent_futures.__all__)
def test_get_type_hints_raises_no_error(name: str) -> None:
    public = getattr(concurrent_futures, name)
    if not callable(public):
        return
    members = vars(public).values() if isinstance(public, type) else []
    for member in (public, *members):
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function) or isinstance(function, type):
            get_type_hints(function)


@pytest.mark.parametrize("name", concurrent.futures.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert hasattr(concurrent_futures, name)
    assert name in concurrent_futures.__all__


@pytest.mark.parametrize(
    "name",
    [
        "CancelledError",
        "TimeoutError",
        "InvalidStateError",
        "BrokenExecutor",
        "FIRST_COMPLETED",
        "FIRST_EXCEPTION",
        "ALL_COMPLETED",
    ],
)
def test_exceptions_and_constants_are_the_standard_librarys_own(name: str) -> None:
    assert getattr(concurrent_futures, name) is getattr(concurrent.futures, name)
    assert getattr(concurrent_futures._base, name) is getattr(concurrent.futures, name)


def test_those_of_the_submodules_are_too() -> None:
    ours, theirs = concurrent_futures, concurrent.futures
    assert ours.thread.BrokenThreadPool is theirs.thread.BrokenThreadPool
    assert ours.process.BrokenProcessPool is theirs.process.BrokenProcessPool
    for state in ["PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"]:
        assert getattr(ours._base, state) == getattr(theirs._base, state)


def test_a_deadlock_is_a_runtime_error() -> None:
    assert issubclass(concurrent_futures.DeadlockError, RuntimeError)


def test_futures_are_futures_of_the_standard_library() -> None:
    future = concurrent_futures.Future[int]()
    assert isinstance(future, concurrent.futures.Future)
    with concurrent_futures.ThreadPoolExecutor(1) as pool:
        submitted = pool.submit(int)
    assert type(submitted) is type(future)


def test_executors_are_executors_of_the_standard_library() -> None:
    pool = concurrent_futures.ThreadPoolExecutor()
    assert isinstance(pool, concurrent.futures.ThreadPoolExecutor)
    assert isinstance(pool, concurrent.futures.Executor)
    assert isinstance(pool, concurrent_futures.Executor)


@pytest.mark.parametrize(
    ("name", "method"), [(name, method) for name in CLASSES for method in methods(name)]
)
def test_methods_take_the_standard_librarys_parameters(name: str, method: str) -> None:
    ours = parameters(getattr(getattr(concurrent_futures, name), method))
    theirs = parameters(getattr(getattr(concurrent.futures, name), method))
    # Our own parameters come after those of the standard library, and by keyword only.
    assert [each for each in ours if each in theirs] == theirs
    for _, kind, _ in [each for each in ours if each not in theirs]:
        assert kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", ["wait", "as_completed"])
def test_functions_take_the_standard_librarys_parameters(name: str) -> None:
    ours = inspect.signature(getattr(concurrent_futures, name)).parameters.values()
    theirs = inspect.signature(getattr(concurrent.futures, name)).parameters.values()
    found = [(each.name, each.kind, each.default) for each in ours]
    expected = [(each.name, each.kind, each.default) for each in theirs]
    # Our own parameters come after those of the standard library, and by keyword only.
    assert found[: len(expected)] == expected
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in found[len(expected) :])


@pytest.mark.parametrize(
    ("name", "method"), [(name, method) for name in CLASSES for method in methods(name)]
)
def test_everything_is_documented(name: str, method: str) -> None:
    assert inspect.getdoc(getattr(concurrent_futures, name))
    assert inspect.getdoc(getattr(getattr(concurrent_futures, name), method))


def test_functions_and_modules_are_documented() -> None:
    for named in concurrent_futures.__all__:
        value = getattr(concurrent_futures, named)
        assert isinstance(value, str) or inspect.getdoc(value), named
    for module in [
        concurrent_futures,
        concurrent_futures._base,
        concurrent_futures.thread,
        concurrent_futures.process,
    ]:
        assert module.__doc__, module


def test_importing_starts_no_thread() -> None:
    # Nor does making an executor.
    before = threading.active_count()
    concurrent_futures.ThreadPoolExecutor()
    assert threading.active_count() == before


def loaded_by(code: str, *names: str) -> list[str]:
    """Returns those of these modules that a new interpreter has loaded after some code."""
    code = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (
            "import concurrent_futures",
            ["concurrent", "logging", "multiprocessing", "threading"],
        ),
        (
            "from concurrent_futures import ThreadPoolExecutor",
            ["concurrent_futures.process", "multiprocessing", "pickle", "typing"],
        ),
        (
            "from concurrent_futures import ProcessPoolExecutor",
            ["concurrent_futures._install", "concurrent_futures.thread", "typing"],
        ),
        (
            "import concurrent_futures._worker",
            ["concurrent", "concurrent_futures._base", "logging", "traceback", "typing"],
        ),
    ],
)
def test_only_what_is_needed_is_loaded(code: str, names: list[str]) -> None:
    without = loaded_by("import site", *names)
    assert loaded_by(code, *names) == without


@pytest.mark.parametrize("name", ["process", "thread", "_base"])
def test_submodules_are_there_without_their_import(name: str) -> None:
    code = f"import concurrent_futures; concurrent_futures.{name}"
    assert loaded_by(code, f"concurrent_futures.{name}")


def test_all_names_are_there_from_the_beginning() -> None:
    code = """
import concurrent_futures
assert {*concurrent_futures.__all__, "process", "thread"} <= {*dir(concurrent_futures)}
from concurrent_futures import *
assert {*concurrent_futures.__all__} <= {*globals()}
"""
    assert loaded_by(code, "concurrent_futures.process") == ["concurrent_futures.process"]


def test_there_are_no_other_names() -> None:
    with pytest.raises(AttributeError, match="module 'concurrent_futures' has no attribute 'no'"):
        concurrent_futures.no  # type: ignore[attr-defined] # noqa: B018
