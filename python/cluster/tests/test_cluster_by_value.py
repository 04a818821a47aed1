"""Functions that travel by value: constant ones are pickled once, and no program can tell."""

import gc
import pickle
import sys
import types
import weakref
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest
from cluster_support import run_program

from concurrent_futures_cluster import _by_value
from concurrent_futures_cluster._calls import CallPickler

NAME = "a_module_that_no_host_imports"


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """Make a module whose functions travel by value."""
    made = types.ModuleType(NAME)
    sys.modules[NAME] = made
    yield made
    del sys.modules[NAME]


@pytest.fixture
def pickler(module: types.ModuleType) -> CallPickler:
    """Make the pickler of an executor that was told of the module."""
    return CallPickler((module,))


def define(module: types.ModuleType, source: str) -> Any:
    """Run the source of the function `f` in the module, and return the function."""
    exec(source, vars(module))
    return module.f


def call(pickler: CallPickler, function: Any, *args: object) -> tuple[Any, Any]:
    """Send a call. Return its result, and the function that the worker has made."""
    made, arguments, keywords = pickle.loads(pickler.dumps(function, args, {}))
    return made(*arguments, **keywords), made


CONSTANT = {
    "arithmetic": "def f(x): return 2 * x + 1",
    "a lambda": "f = lambda x: x + 1",
    "a simple global": "base = 40\ndef f(x): return base + x",
    "a tuple": "parts = (1, 'a', (2.5, None))\ndef f(x): return parts, x",
    "a default": "def f(x, y=3): return x + y",
    "a module": "import math\ndef f(x): return math.sqrt(x)",
    "what other modules have": "from math import sqrt as root\ndef f(x): return int(root(x))",
    "an import": "def f(x):\n    import json\n    return json.dumps(x)",
    "another function": "def g(x): return x + 1\ndef f(x): return g(g(x))",
    "recursion": "def f(x): return 1 if x < 2 else x * f(x - 1)",
    "each other": "def g(x): return f(x - 1) if x else 0\ndef f(x): return g(x)",
    "a closure": "def outer(y):\n    return lambda x: x + y\nf = outer(5)",
    "a comprehension": "def f(x): return [x * i for i in range(3) if i != x]",
    "a function within": "def f(x):\n    def g(y):\n        return x + y\n    return g(1)",
}

CHANGING = {
    "a global that it writes": "n = 0\ndef f(x):\n    global n\n    n += x\n    return n",
    "a list": "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)",
    "a default that may change": "def f(x, seen=[]):\n    seen.append(x)\n    return len(seen)",
    "a keyword with a default": "def f(x, *, seen=0): return x",
    "its own attribute": "def f(x):\n    f.n = getattr(f, 'n', 0) + 1\n    return f.n",
    "an attribute": "def f(x): return x\nf.n = 1",
    "a cell": "def outer():\n    n = 0\n    def f(x):\n        nonlocal n\n        n += x\n"
    "        return n\n    return f\nf = outer()",
    "a class": "class C: n = 1\ndef f(x): return x + C.n",
    "its globals": "n = 0\ndef f(x):\n    globals()['n'] += x\n    return n",
    "a function that changes": "n = 0\ndef g(x):\n    global n\n    n += x\n    return n\n"
    "def f(x): return g(x)",
    "an object": "class C:\n    n = 0\nc = C()\ndef f(x):\n    c.n += x\n    return c.n",
}


@pytest.mark.parametrize("source", CONSTANT.values(), ids=CONSTANT)
def test_a_constant_function_is_pickled_and_made_once(
    module: types.ModuleType, pickler: CallPickler, source: str
) -> None:
    function = define(module, source)
    result, made = call(pickler, function, 4)
    again, same = call(pickler, function, 4)
    assert result == again == function(4)
    assert made is same
    assert made is not function


@pytest.mark.parametrize("source", CHANGING.values(), ids=CHANGING)
def test_all_other_functions_are_made_for_each_call(
    module: types.ModuleType, pickler: CallPickler, source: str
) -> None:
    function = define(module, source)
    result, made = call(pickler, function, 1)
    again, other = call(pickler, function, 1)
    assert result == again
    assert made is not other


CHANGES = {
    "a global": ("n = 1\ndef f(x): return x + n", "n = 10"),
    "a global that was not there": ("def f(x): return len(x) if x else 0", "len = lambda x: 50"),
    "a global that is there no more": ("abs = lambda x: -7\ndef f(x): return abs(x)", "del abs"),
    "a function": ("def g(x): return x\ndef f(x): return g(x)", "def g(x): return -x"),
    "what a function refers to": (
        "n = 1\ndef g(x): return x + n\ndef f(x): return g(x)",
        "n = 10",
    ),
    "the code": ("def f(x): return x", "f.__code__ = (lambda x: -x).__code__"),
    "the code of another one": (
        "def g(x): return x\ndef f(x): return g(x)",
        "g.__code__ = (lambda x: -x).__code__",
    ),
    "a default": ("def f(x, y=1): return x + y", "f.__defaults__ = (10,)"),
    "a global that can change from now on": ("n = 1\ndef f(x): return [n, x]", "n = [1]"),
    "an attribute": ("def f(x): return getattr(f, 'n', 0)", "f.n = 5"),
}


@pytest.mark.parametrize(("source", "change"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_what_a_function_refers_to_reaches_the_next_call(
    module: types.ModuleType, pickler: CallPickler, source: str, change: str
) -> None:
    function = define(module, source)
    argument: object = [1, 2] if "len" in source else 3
    assert call(pickler, function, argument)[0] == function(argument)
    exec(change, vars(module))
    assert call(pickler, function, argument)[0] == function(argument)
    assert call(pickler, function, argument)[0] == function(argument)


def test_modules_that_a_program_registers_with_cloudpickle_travel_by_value(
    module: types.ModuleType, pickler: CallPickler
) -> None:
    other = types.ModuleType("another_module_that_no_host_imports")
    sys.modules[other.__name__] = other
    exec("n = 1\ndef g(x): return x + n", vars(other))
    exec(f"from {other.__name__} import g", vars(module))
    function = define(module, "def f(x): return g(x)")
    cloudpickle.register_pickle_by_value(other)
    try:
        assert call(pickler, function, 1)[0] == 2
        exec("n = 10", vars(other))
        assert call(pickler, function, 1)[0] == 11
    finally:
        cloudpickle.unregister_pickle_by_value(other)
        del sys.modules[other.__name__]


def test_a_constant_function_is_not_kept_alive(
    module: types.ModuleType, pickler: CallPickler
) -> None:
    function = define(module, CONSTANT["recursion"])
    call(pickler, function, 3)
    reference = weakref.ref(function)
    del function, module.f
    gc.collect()
    assert reference() is None


def test_a_worker_keeps_a_bounded_number_of_functions(
    module: types.ModuleType, pickler: CallPickler
) -> None:
    for number in range(2 * _by_value._MOST):
        function = define(module, f"def f(x): return x + {number}")
        assert call(pickler, function, 1)[0] == 1 + number
    assert len(_by_value._made) <= _by_value._MOST


PROGRAM = """
from concurrent_futures import ClusterExecutor

base = 1
count = 0

def add(x):
    return base + x

def counted():
    global count
    count += 1
    return count

with ClusterExecutor(workers=1) as executor:
    print([executor.submit(add, n).result() for n in range(3)], list(executor.map(add, range(3))))
    base = 10
    print([executor.submit(add, n).result() for n in range(3)], list(executor.map(add, range(3))))
    print([executor.submit(counted).result() for _ in range(3)])
"""


def test_a_program_changes_the_globals_of_its_functions_between_calls() -> None:
    ended = run_program(PROGRAM)
    expected = "[1, 2, 3] [1, 2, 3]\n[10, 11, 12] [10, 11, 12]\n[1, 1, 1]\n"
    assert (ended.returncode, ended.stdout) == (0, expected), ended.stderr
