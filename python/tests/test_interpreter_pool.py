"""`InterpreterPoolExecutor`: each worker has an interpreter of its own."""

from __future__ import annotations

import sys

import pytest

if sys.version_info < (3, 14):
    pytest.skip("CPython has pools of interpreters from version 3.14 on", allow_module_level=True)

import functools
import gc
import inspect
import logging
import math
import operator
import re
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import concurrent_futures
import interpreter_tasks as tasks
from interpreter_support import (
    FOLDER,
    SECONDS,
    NotShareableError,
    ids,
    interpreters,
    pool_of,
    run,
    stdlib,
)
from interpreter_tasks import Adder, Number, Pair, Record
from support import IS_FREE, LIMIT, eventually

BROKEN = "A thread initializer failed, the thread pool is not usable anymore"


@pytest.fixture
def pool(lib: ModuleType) -> Iterator[Any]:
    with pool_of(lib) as pool:
        yield pool


@pytest.fixture
def both() -> Iterator[tuple[Any, Any]]:
    """A pool of each library, for comparisons."""
    with pool_of(stdlib) as reference, pool_of(concurrent_futures) as ours:
        yield reference, ours


def outcome(pool: Any, function: Any, *args: Any, **kwargs: Any) -> str:
    """The outcome of a call as a text, exceptions with tracebacks of the worker and causes."""
    try:
        return repr(pool.submit(function, *args, **kwargs).result(LIMIT))
    except Exception as error:
        lines = []
        cause: BaseException | None = error
        while cause is not None:
            lines.append(f"{type(cause).__name__}: {cause} {getattr(cause, '__notes__', '')}")
            cause = cause.__cause__
        return without_chance("\n".join(lines))


def without_chance(text: str) -> str:
    """A text without addresses of objects and numbers of queues."""
    return re.sub(r"0x[0-9a-f]+|Queue\(\d+\)", "...", text)


# ---- the class


def test_the_classes_names_and_signature(lib: ModuleType) -> None:
    executor = lib.InterpreterPoolExecutor
    module = sys.modules[executor.__module__]
    assert issubclass(executor, lib.ThreadPoolExecutor)
    assert issubclass(executor, stdlib.InterpreterPoolExecutor)
    assert executor.BROKEN is module.BrokenInterpreterPool
    assert module.BrokenInterpreterPool is stdlib.BrokenInterpreterPool
    assert module.WorkerContext is stdlib.WorkerContext
    assert executor.__name__ == executor.__qualname__ == "InterpreterPoolExecutor"
    names = list(inspect.signature(executor).parameters)
    assert names[:4] == ["max_workers", "thread_name_prefix", "initializer", "initargs"]
    assert "InterpreterPoolExecutor" in lib.__all__
    assert "InterpreterPoolExecutor" in dir(lib)


def test_wrong_arguments(lib: ModuleType) -> None:
    executor = lib.InterpreterPoolExecutor
    with pytest.raises(ValueError, match="^max_workers must be greater than 0$"):
        executor(0)
    with pytest.raises(TypeError, match="^scripts not supported$"):
        executor(initializer="pass")
    for name in ("on_worker_death", "copy_context", "other"):
        with pytest.raises(TypeError, match=name):
            executor(1, **{name: True})
    with executor(1) as pool:
        with pytest.raises(TypeError, match="^scripts not supported$"):
            pool.submit("pass")
        with pytest.raises(TypeError):
            pool.submit()
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_the_names_of_threads(lib: ModuleType) -> None:
    def name() -> str:
        import importlib

        _thread: Any = importlib.import_module("_thread")
        return str(_thread._get_name())

    with lib.InterpreterPoolExecutor(1) as pool:
        assert pool.submit(name).result(LIMIT) == "InterpreterPoolExecutor-"[:15]
        [thread] = pool._threads
        assert re.fullmatch(r"InterpreterPoolExecutor-\d+_0", thread.name)
    with lib.InterpreterPoolExecutor(1, "loader") as pool:
        assert pool.submit(name).result(LIMIT) == "loader_0"


# ---- calls


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -1, 2**31, -(2**63), 2**63, 10**40, 1.5, -0.0, math.inf, math.nan,
        "", "text", "\u20ac\U0001f600\0", "\ud800", "x" * 40_000, b"", b"bytes\0", b"x" * 40_000,
        (), (1, "a", None), ((1, (2, b"3")), []), [], [1, "a"], [[1], [2.5]], list(range(100)),
        {}, {"a": 1, 2: None}, {"a": [1], "b": (2, 3)}, {1, 2}, frozenset("a"), 1j, range(3),
        slice(1), ..., int, Record(1, "a"), Pair(1, [2]), Number(7), bytearray(b"b"),
        operator.itemgetter(1),
    ],
    ids=lambda value: repr(value)[:30].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_values_arrive_as_with_the_standard_library(both: tuple[Any, Any], value: Any) -> None:
    reference, ours = both
    expected = outcome(reference, tasks.describe, value, key=value)
    for _ in range(3):
        assert outcome(ours, tasks.describe, value, key=value) == expected
    returned, keywords = ours.submit(tasks.echo, value, key=value).result(LIMIT)
    assert (repr(returned), repr(keywords)) == (repr((value,)), repr({"key": value}))
    assert type(returned[0]) is type(value)
    assert outcome(ours, tasks.make_deep, value) == outcome(reference, tasks.make_deep, value)


def test_objects_that_interpreters_share(pool: Any) -> None:
    queue = interpreters.create_queue()
    for number in range(3):
        pool.submit(operator.methodcaller("put", number), queue).result(LIMIT)
        assert queue.get(timeout=SECONDS) == number
    buffer = bytearray(b"abc")
    with memoryview(buffer) as view:
        pool.submit(operator.setitem, view, 0, 120).result(LIMIT)
    assert buffer == b"xbc"


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    return [nested(depth - 1)] if depth else []


def recursive() -> Any:
    """A list that contains itself."""
    value: list[Any] = [1]
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        [[1, [2, (3, {"a": None})]]], {"a": {"b": [{"c": (1, [2])}]}}, {(1, 2): [3], 4: {5: {}}},
        [[0]] * 3, [(), ()], nested(3), nested(15), nested(16), nested(17), nested(200),
        recursive(), [list(range(10)) for _ in range(7)], [[number] for number in range(100)],
        list(range(500)),
        [str(number) * 500 for number in range(70)], [["x" * 40_000]],
        [[Record(1, "a")]], [{1: {2}}], {"a": [b"b", 2**70]},
        ([1], [1]), (([1],),), [Number(5)], {Number(5): 1}, {None: [True, 1.5]},
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_containers_of_containers(both: tuple[Any, Any], value: Any) -> None:
    reference, ours = both
    for pool in both:
        assert repr(pool.submit(tasks.echo, value).result(LIMIT)) == repr(((value,), {}))
        assert repr(pool.submit(tasks.echo, k=value).result(LIMIT)) == repr(((), {"k": value}))
    for call in (
        (tasks.identities, value),
        (tasks.identities, [value, value]),
        (tasks.identities, (value, value)),
        (tasks.identities, {1: value, 2: value}),
    ):
        assert outcome(ours, *call) == outcome(reference, *call)
    for number in range(4):
        returned = [pool.submit(tasks.share, value, number).result(LIMIT) for pool in both]
        identities = [tasks.identities(each) for each in returned]
        assert identities[0] == identities[1]


def test_arguments_that_are_one_object(both: tuple[Any, Any]) -> None:
    reference, ours = both
    shared = [1, 2]
    calls: list[Callable[[Any], str]] = [
        lambda pool: outcome(pool, tasks.are_one_object, first=shared, second=shared),
        lambda pool: outcome(pool, tasks.are_one_object, shared, shared),
        lambda pool: outcome(pool, tasks.are_one_object, shared, second=shared),
    ]
    for call in calls:
        assert call(ours) == call(ours) == call(reference)


def as_code(number: int) -> tuple[int, str]:
    return number + 1, __name__ if number < 0 else ""


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (abs, (-1,)), (len, ("abc",)), (pow, (2, 5)), (int, ("5",)), (Record, (1, "a")),
        (math.sqrt, (4,)),
        (tasks.echo, (1, 2)), (Adder(3), (4,)), (Adder(3).method, (4,)), (Adder.static, (4,)),
        (Adder.of_class, (4,)),
        (functools.partial(tasks.echo, 1, key=2), (3,)), (str.upper, ("a",)),
        ("a".join, (["b", "c"],)),
        (lambda number: number * 2, (4,)), (tasks.make_function(), ()),
        (operator.attrgetter("real"), (5,)),
        (tasks.make_closure(), ()), (lambda number=3: number, ()), (lambda *, number=3: number, ()),
        (5, ()), (None, ()), ([], (1,)), (tasks.Unpicklable(), ()), (tasks.UnpicklableHere(), ()),
        (abs, (tasks.Unpicklable(),)), (abs, (tasks.UnpicklableHere(),)),
        (abs, (threading.Lock(),)), (abs, ()),
    ],
)  # fmt: skip
def test_all_kinds_of_functions(
    both: tuple[Any, Any], function: Any, arguments: tuple[Any, ...]
) -> None:
    reference, ours = both
    expected = outcome(reference, function, *arguments)
    for _ in range(3):
        assert outcome(ours, function, *arguments) == expected
    assert outcome(ours, tasks.count) == "1"


def test_interpreters_have_their_own_modules(pool: Any) -> None:
    assert [pool.submit(tasks.count).result(LIMIT) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert tasks.COUNTER == 0


@pytest.mark.parametrize("count", [tasks.count_by_variable, tasks.count_by_local])
def test_context_and_thread_local_variables_end_with_the_call(
    pool: Any, count: Callable[[], int]
) -> None:
    assert [pool.submit(count).result(LIMIT) for _ in range(5)] == [1] * 5


def test_each_worker_has_an_interpreter_of_its_own(lib: ModuleType) -> None:
    def meet(arrived: Any, go: Any) -> int:
        import _interpreters

        arrived.put(None)
        go.get()
        return int(_interpreters.get_current()[0])

    before = ids()
    arrived, go = interpreters.create_queue(), interpreters.create_queue()
    with pool_of(lib, 3) as pool:
        for _ in range(3):
            futures = [pool.submit(meet, arrived, go) for _ in range(3)]
            for _ in range(3):
                arrived.get(timeout=SECONDS)
            for _ in range(3):
                go.put(None)
            assert {future.result(LIMIT) for future in futures} == ids() - before
    assert ids() == before


def test_functions_of_the_main_program(lib: ModuleType, tmp_path: Path) -> None:
    program = f"""
    from {lib.__name__} import InterpreterPoolExecutor

    STATUS = "main"

    def initialize(status):
        global STATUS
        assert STATUS == "main"  # A function that reads no global is sent as code.
        STATUS = status

    def status():
        return STATUS, __name__

    def change():
        global status
        old = status
        status = lambda: old()[0]

    def count(numbers=[]):
        numbers.append(None)
        return len(numbers)

    if __name__ == "__main__":
        with InterpreterPoolExecutor(1, initializer=initialize, initargs=("worker",)) as pool:
            for _ in range(3):
                print(pool.submit(status).result(), pool.submit(count).result(), STATUS)
            pool.submit(change).result()
            print(pool.submit(status).result())
    """
    assert run(program, tmp_path) == [
        *(f"('worker', '<fake __main__>') {number} main" for number in (1, 2, 3)),
        # Unpickling does not look for the function where its global variables are.
        "('worker', '<fake __main__>')",
    ]


# ---- functions that change between calls


def test_a_function_that_is_replaced_in_the_interpreter(pool: Any) -> None:
    call = pool.submit
    assert call(tasks.to_be_replaced).result(LIMIT) == "not replaced"
    assert call(tasks.to_be_replaced).result(LIMIT) == "not replaced"
    call(tasks.replace, "to_be_replaced").result(LIMIT)
    assert call(tasks.to_be_replaced).result(LIMIT) == "replaced"
    call(tasks.forget_me).result(LIMIT)
    assert call(tasks.to_be_replaced).result(LIMIT) == "not replaced"


def test_a_function_that_is_replaced_in_the_main_interpreter(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = tasks.to_be_replaced
    assert pool.submit(function).result(LIMIT) == "not replaced"
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "to_be_replaced", tasks.replaced)
        with pytest.raises(NotShareableError):
            pool.submit(function).result(LIMIT)
        assert pool.submit(tasks.to_be_replaced).result(LIMIT) == "replaced"
    assert pool.submit(function).result(LIMIT) == "not replaced"


def changing() -> Any:
    """A function that is sent as code."""
    namespace: dict[str, Any] = {"__name__": "unknown"}
    exec("def function(x): return len(x)", namespace)
    return namespace["function"]


def with_code(function: FunctionType) -> None:
    function.__code__ = (lambda x: x * 2).__code__


def with_defaults(function: FunctionType) -> None:
    function.__defaults__ = ("abc",)


def with_keyword_defaults(function: FunctionType) -> None:
    function.__kwdefaults__ = {"x": "abc"}


def with_global(function: FunctionType) -> None:
    function.__globals__["len"] = tasks.replaced


@pytest.mark.parametrize("change", [with_code, with_defaults, with_keyword_defaults, with_global])
def test_a_function_that_changes(
    both: tuple[Any, Any], change: Callable[[FunctionType], None]
) -> None:
    outcomes = []
    for pool in both:
        function = changing()
        of_pool = [outcome(pool, function, "ab") for _ in range(3)]
        change(function)
        of_pool += [outcome(pool, function, "ab") for _ in range(3)]
        outcomes.append(of_pool)
    assert outcomes[0] == outcomes[1]


def test_more_functions_than_are_kept(pool: Any) -> None:
    functions: list[Any] = []
    for number in range(100):
        namespace: dict[str, Any] = {}
        exec(f"def function(): return {number}", namespace)
        functions.append(namespace["function"])
    for _ in range(3):
        futures = [pool.submit(function) for function in functions]
        assert [future.result(LIMIT) for future in futures] == list(range(100))


def test_functions_and_arguments_are_not_kept_alive(pool: Any) -> None:
    class Argument(list[int]):
        pass

    function = changing()
    argument = Argument([1, 2])
    for each in ("abc", argument):
        futures = [pool.submit(function, each) for _ in range(3)]
        for future in futures:
            with_error = future.exception(LIMIT)
            assert with_error is None or isinstance(with_error, NotShareableError)
        del futures, future, with_error
    references = [weakref.ref(function), weakref.ref(argument)]
    del function, argument, each
    # The worker may be about to drop them.
    eventually(lambda: gc.collect() >= 0 and [each() for each in references] == [None, None])


def test_modules_that_a_task_removes(pool: Any) -> None:
    for _ in range(3):
        assert pool.submit(tasks.clear_modules).result(LIMIT) == ["aaa"] * 100
        with pytest.raises(KeyError):
            pool.submit(tasks.fail, KeyError, "k").result(LIMIT)


# ---- failures


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (tasks.fail, (ValueError, "text", 5)), (tasks.fail, (SystemExit, 3)),
        (tasks.fail, (KeyboardInterrupt,)),
        (tasks.fail_with_cause, ()), (tasks.fail_unpicklably, ()),
        (tasks.make_unpicklable, ()), (tasks.make_unpicklable_there, ()),
        (tasks.make_closure, ()),
        (lambda: [][1], ()), (divmod, (1, 0)), (lambda: __import__("no_such_module"), ()),
    ],
)  # fmt: skip
def test_failures_are_those_of_the_standard_library(
    both: tuple[Any, Any],
    function: Any,
    arguments: tuple[Any, ...],
    capfd: pytest.CaptureFixture[str],
) -> None:
    if IS_FREE and function is tasks.make_unpicklable_there:
        pytest.skip("free-threaded CPython 3.14 ends with a signal when it shows that error")
    outcomes = []
    for pool in both:
        for _ in range(3):
            error = pool.submit(function, *arguments).exception(LIMIT)
            # Without the frames of the standard library's worker.
            lines = [
                line
                for line in traceback.format_exception(error)
                if "result = ctx.run" not in line and "return self.interp.call" not in line
            ]
            causes = error.__cause__, error.__context__, error.__suppress_context__
            printed = capfd.readouterr().err
            text = "".join([repr(error), repr(causes), *lines, printed])
            outcomes.append(without_chance(text))
            del error
    assert len(set(outcomes)) == 1, "\n------\n".join(sorted(set(outcomes)))


def test_an_exception_has_the_traceback_of_the_worker_in_its_cause(pool: Any) -> None:
    for _ in range(3):
        error = pool.submit(tasks.fail, ValueError, "text").exception(LIMIT)
        assert (type(error), error.args) == (ValueError, ("text",))
        cause = error.__cause__
        assert type(cause) is interpreters.ExecutionFailed
        assert cause.excinfo.msg == "text"
        assert cause.excinfo.type.__name__ == "ValueError"
        assert "in fail\n    raise kind(*args)" in str(cause)


@pytest.mark.parametrize("make", [tasks.make_unpicklable, tasks.make_unpicklable_there])
def test_a_result_that_cannot_be_sent_fails_its_call_alone(
    pool: Any, make: Callable[[], object]
) -> None:
    assert pool.submit(tasks.count).result(LIMIT) == 1
    for _ in range(2):
        error = pool.submit(make).exception(LIMIT)
        assert type(error) is NotShareableError
    assert pool.submit(tasks.count).result(LIMIT) == 2


def test_an_initializer_that_fails(lib: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    broken = stdlib.BrokenInterpreterPool
    with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
        pool = lib.InterpreterPoolExecutor(1, initializer=divmod, initargs=(1, 0))
        with pytest.raises(broken, match=f"^{BROKEN}$"):
            pool.submit(abs, 1).result(LIMIT)
        with pytest.raises(broken, match=f"^{BROKEN}$"):
            pool.submit(abs, 1)
        pool.shutdown()
    [record] = caplog.records
    assert record.message == "Exception in initializer:"
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError
    assert isinstance(record.exc_info[1].__cause__, interpreters.ExecutionFailed)


@pytest.mark.parametrize("initializer", [5, tasks.make_closure(), tasks.Unpicklable()])
def test_an_initializer_that_cannot_be_sent(
    lib: ModuleType, initializer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = ids()
    with lib.InterpreterPoolExecutor(2, initializer=initializer) as pool:
        with pytest.raises(stdlib.BrokenInterpreterPool):
            pool.submit(abs, 1).result(LIMIT)
    assert {record.message for record in caplog.records} == {"Exception in initializer:"}
    assert ids() == before


@pytest.mark.parametrize("initargs", [[FOLDER], {FOLDER: 1}, (FOLDER,)], ids=type)
def test_all_kinds_of_arguments_of_an_initializer(lib: ModuleType, initargs: Any) -> None:
    initializer = tasks.use_folder
    with lib.InterpreterPoolExecutor(1, initializer=initializer, initargs=initargs) as pool:
        assert pool.submit(tasks.count).result(LIMIT) == 1


@pytest.mark.parametrize("initargs", [5, None, (), ("a", "b"), (each for each in "a")], ids=type)
def test_arguments_with_which_an_initializer_cannot_be_called(
    lib: ModuleType, initargs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    initializer = tasks.use_folder
    with lib.InterpreterPoolExecutor(1, initializer=initializer, initargs=initargs) as pool:
        with pytest.raises(stdlib.BrokenInterpreterPool, match=f"^{BROKEN}$"):
            pool.submit(abs, 1).result(LIMIT)
    [record] = caplog.records
    assert record.message == "Exception in initializer:"
    kind = NotShareableError if isinstance(initargs, Iterator) else TypeError
    assert record.exc_info is not None and record.exc_info[0] is kind


# ---- pools and other interpreters


def test_submitting_from_an_interpreter_to_a_pool_of_the_main_one(pool: Any) -> None:
    for _ in range(2):
        with pytest.raises(NotShareableError):
            pool.submit(tasks.submit_to, pool).result(LIMIT)
        with pytest.raises(NotShareableError):
            pool.submit(pool.submit, abs, 1).result(LIMIT)
    interpreter = interpreters.create()
    with pytest.raises(NotShareableError):
        interpreter.call(len, [pool])
    with pytest.raises(NotShareableError):
        interpreter.prepare_main(pool=pool)
    interpreter.close()
    assert pool.submit(abs, -1).result(LIMIT) == 1


def test_the_package_in_the_interpreter_of_a_worker(lib: ModuleType) -> None:
    with pool_of(lib) as pool:
        for _ in range(2):
            results = pool.submit(tasks.use_package, lib.__name__).result(LIMIT)
            # The native module serves the first interpreter only.
            assert results == [1, 2, 3, "concurrent.futures.interpreter"]
