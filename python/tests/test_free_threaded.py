"""Python code of several threads at once, on the same futures, iterators, lists and pools.

The tests hold on every build; only a free-threaded one runs the threads at the same time.
"""

import gc
import inspect
import os
import random
import shutil
import subprocess
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import IS_FREE, LIMIT, STRESS, Background, environment, prints, program, run

free_threaded = pytest.mark.skipif(not IS_FREE, reason="this build has the interpreter lock")

THREADS = 8
#: The seconds of a test that repeats something.
SHORT = STRESS / 5


def together(*functions: Callable[[], Any]) -> list[Any]:
    """Call functions at the same time, each in a thread; return what they return."""
    barrier = threading.Barrier(len(functions))

    def call(function: Callable[[], Any]) -> Any:
        barrier.wait(LIMIT)
        return function()

    threads = [Background(call, function) for function in functions]
    return [thread.outcome() for thread in threads]


def for_a_while() -> Iterator[int]:
    """Count until the time of a test is over."""
    end = time.monotonic() + SHORT
    number = 0
    while time.monotonic() < end:
        yield number
        number += 1


class Changing:
    """Calls a function again and again in another thread while the block runs."""

    def __init__(self, change: Callable[[], object]) -> None:
        self._change = change
        self._is_over = False
        self._begun = threading.Event()

    def _work(self) -> None:
        while not self._is_over:
            self._change()
            self._begun.set()

    def __enter__(self) -> None:
        self._thread = Background(self._work)
        self._begun.wait(LIMIT)

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.outcome()


# ---- the build


@free_threaded
def test_the_package_leaves_the_lock_off(package: ModuleType) -> None:
    code = """
        import sys
        from concurrent_futures import _engine
        with futures.ThreadPoolExecutor(2) as pool:
            print(list(pool.map(abs, [-1, -2])))
        with futures.ProcessPoolExecutor(1) as pool:
            print(pool.submit(abs, -3).result())
        print(sys._is_gil_enabled())
    """
    command = program(package, code)
    command[1:1] = ["-W", "error"]
    environ = environment()
    environ.pop("PYTHON_GIL", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=LIMIT)
    assert (done.stdout, done.stderr) == ("[1, 2]\n3\nFalse\n", "")


@free_threaded
def test_with_the_lock_switched_on_from_the_beginning(package: ModuleType) -> None:
    code = """
        import sys
        with futures.ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(pow, n, 2) for n in range(1000)]
            print(sum(future.result() for future in futures.as_completed(waiting)))
            inner = pool.submit(lambda: pool.submit(abs, -1).result())
            print(inner.result(), sys._is_gil_enabled())
        with futures.ProcessPoolExecutor(2) as pool:
            print(sum(pool.map(abs, range(-100, 0))))
    """
    command = program(package, code)
    environ = environment() | {"PYTHON_GIL": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=LIMIT)
    assert (done.stdout, done.stderr) == ("332833500\n1 True\n5050\n", "")


#: A module that does not say that it needs no lock.
NEEDS_LOCK = """
#include <Python.h>
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "needs_lock", NULL, 0, NULL, slots};
PyMODINIT_FUNC PyInit_needs_lock(void) { return PyModuleDef_Init(&module); }
"""


@free_threaded
def test_a_module_that_switches_the_lock_on_while_pools_run(
    package: ModuleType, tmp_path: Path
) -> None:
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists() or shutil.which("cc") is None:
        pytest.skip("there is no C compiler, or no header of CPython")
    source = tmp_path / "needs_lock.c"
    source.write_text(NEEDS_LOCK)
    built = source.with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))
    subprocess.run(["cc", "-shared", "-fPIC", f"-I{include}", "-o", built, source], check=True)
    code = f"""
        import sys, threading, warnings
        sys.path.insert(0, {str(tmp_path)!r})
        warnings.simplefilter("ignore", RuntimeWarning)
        begun = threading.Barrier(5)
        release = threading.Event()
        def work():
            begun.wait()
            while not release.is_set():
                pass
            return True
        with futures.ThreadPoolExecutor(6) as pool:
            busy = [pool.submit(work) for _ in range(4)]
            waiter = pool.submit(lambda: futures.wait(busy).done)
            begun.wait()
            before = sys._is_gil_enabled()
            import needs_lock
            after = sys._is_gil_enabled()
            print(before, after, list(pool.map(abs, range(-3, 0))))
            release.set()
            print([future.result() for future in busy], len(waiter.result()))
    """
    out = prints(package, code)
    assert out == "False True [3, 2, 1]\n[True, True, True, True] 4\n"


# ---- everything at once


def exercise(lib: ModuleType, pool: Any, shared: list[Any], seed: int) -> int:
    """Call all operations at random; return the number of futures whose outcome was checked."""
    chance = random.Random(seed)
    checked = 0
    for number in for_a_while():
        futures = [pool.submit(pow, number % 100, 2) for _ in range(chance.randrange(1, 20))]
        called: list[Any] = []
        for future in futures[::3]:
            future.add_done_callback(called.append)
        # Other threads find them there, and do the same.
        shared[chance.randrange(len(shared))] = futures[0]
        others = [future for future in shared if future is not None]
        match chance.randrange(8):
            case 0:
                done, not_done = lib.wait(futures, LIMIT)
                assert len(done) == len(futures)
                assert not not_done
            case 1:
                assert set(lib.as_completed(futures + others, LIMIT)) == {*futures, *others}
            case 2:
                lib.wait(others, LIMIT, lib.FIRST_COMPLETED)
            case 3:
                expected = [n * n for n in range(20)]
                assert list(pool.map(pow, range(20), [2] * 20, timeout=LIMIT)) == expected
            case 4:
                futures[-1].cancel()
            case 5:
                pending = lib.Future()
                together = [pending, *futures]
                pool.submit(pending.set_result, number)
                assert set(lib.as_completed(together, LIMIT)) == set(together)
                assert pending.result() == number
            case 6:
                assert futures[0].exception(LIMIT) is None
                assert futures[0].done()
                assert not futures[0].running()
                assert "FINISHED" in (futures[0]._state,)
                repr(others)
            case 7:
                with futures[0]._condition:
                    list(futures[0]._waiters)
                others[0]._done_callbacks.append(called.append)
                weakref.ref(others[0])
        for future in futures:
            if not future.cancelled():
                assert future.result(LIMIT) == (number % 100) ** 2
                checked += 1
        for future in others:
            if not future.cancelled():
                future.result(LIMIT)
    return checked


def test_eight_threads_call_all_operations_on_one_pool(lib: ModuleType) -> None:
    shared: list[Any] = [None] * 10
    with lib.ThreadPoolExecutor(4) as pool:
        calls = [partial(exercise, lib, pool, shared, seed) for seed in range(THREADS)]
        assert all(together(*calls))


def test_garbage_is_collected_while_other_threads_submit(package: ModuleType) -> None:
    def work() -> list[Any]:
        references = []
        for number in for_a_while():
            pool = package.ThreadPoolExecutor(2)
            future = pool.submit(abs, -number)
            # A cycle of future and pool, of which only the collector frees anything.
            future.pool = pool
            future.itself = future
            assert future.result(LIMIT) == number
            pool.shutdown()
            references += [weakref.ref(future), weakref.ref(pool)]
        return references

    with Changing(lambda: (gc.get_objects()[-10:], gc.collect(0))):
        references = [each for found in together(*[work] * 4) for each in found]
    gc.collect()
    assert references
    assert not [reference for reference in references if reference() is not None]


# ---- futures


def test_each_callback_is_called_once(lib: ModuleType) -> None:
    for number in for_a_while():
        future = lib.Future()
        called: list[int] = []
        if number % 3 == 0:
            assert future._done_callbacks == []
        if number % 3 == 1:
            assert future._waiters == []

        def add(first: int, future: Any = future, called: list[int] = called) -> None:
            for each in range(first, first + 10):
                future.add_done_callback(lambda _, each=each: called.append(each))

        def finish(future: Any = future) -> None:
            future.set_result(None)

        adders = [partial(add, 10 * place) for place in range(6)]
        together(*adders, finish, partial(getattr, future, "_done_callbacks"))
        assert sorted(called) == list(range(60))


def test_one_thread_of_eight_sets_the_outcome(lib: ModuleType) -> None:
    for _ in for_a_while():
        future = lib.Future()

        def finish(value: int, future: Any = future) -> int | None:
            try:
                if value % 2:
                    future.set_exception(KeyError(value))
                else:
                    future.set_result(value)
            except lib.InvalidStateError:
                return None
            return value

        setters = [partial(finish, value) for value in range(6)]
        *set_by, asked, awaited = together(
            *setters,
            partial(future.exception, LIMIT),
            partial(lib.wait, [future], LIMIT),
        )
        (winner,) = [value for value in set_by if value is not None]
        assert awaited.done == {future}
        if winner % 2:
            assert asked.args == (winner,)
        else:
            assert future.result() == winner


def test_a_pending_call_is_made_or_cancelled(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        for _ in for_a_while():
            made: list[None] = []
            futures = [pool.submit(made.append, None) for _ in range(20)]

            def cancel(futures: list[Any] = futures) -> list[bool]:
                return [future.cancel() for future in reversed(futures)]

            first, *others = together(*[cancel] * 4)
            lib.wait([future for future in futures if not future.cancelled()], LIMIT)
            assert all(other == first for other in others)
            assert len(made) == first.count(False)


def test_outcomes_are_replaced_while_other_threads_read_them(lib: ModuleType) -> None:
    future = lib.Future()
    future.set_result([0])

    def replace() -> None:
        for number in for_a_while():
            future._result = [number]

    def read() -> int:
        return sum(isinstance(future.result()[0], int) for _ in for_a_while())

    assert all(together(replace, replace, *[read] * 6)[2:])


# ---- lists, sets and dictionaries that change


@pytest.mark.parametrize("kind", [list, set, dict.fromkeys])
def test_containers_that_change_while_they_are_waited_for(
    lib: ModuleType, kind: Callable[[list[Any]], Any]
) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        known = [pool.submit(abs, -n) for n in range(50)]
        changing = kind(known)
        numbers = iter(range(1_000_000))

        def change() -> None:
            future = pool.submit(abs, -next(numbers))
            known.append(future)
            if isinstance(changing, list):
                changing.append(future)
                changing.pop(0)
            elif isinstance(changing, set):
                changing.add(future)
                changing.pop()
            else:
                changing[future] = None
                changing.popitem()

        def work(look: Callable[[], set[Any]]) -> int:
            found = 0
            for _ in for_a_while():
                try:
                    found += len(look())
                except RuntimeError as error:
                    if "changed" not in str(error):
                        raise
            return found

        with Changing(change):
            looks: list[Callable[[], set[Any]]] = [
                lambda: lib.wait(changing, LIMIT).done,
                lambda: lib.wait(changing, LIMIT, lib.FIRST_COMPLETED).done,
                lambda: set(lib.as_completed(changing, LIMIT)),
            ]
            together(*[partial(work, look) for look in looks])
        assert all(isinstance(future.result(LIMIT), int) for future in known)


def test_items_of_map_change_while_they_are_submitted(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        items = list(range(100))

        def change() -> None:
            items.append(items.pop(0))

        with Changing(change):
            for _ in for_a_while():
                results = list(pool.map(abs, items))
                assert set(results) <= set(range(100))


@pytest.mark.parametrize("is_dict", [False, True], ids=["list", "dict"])
def test_arguments_for_processes_change_while_they_are_pickled(
    package: ModuleType, forking: Any, is_dict: bool
) -> None:
    with package.ProcessPoolExecutor(2, mp_context=forking) as pool:
        changing: Any = dict.fromkeys(range(20), "text") if is_dict else ["text"] * 20

        def change() -> None:
            if is_dict:
                changing[len(changing)] = "more"
                changing.popitem()
            else:
                changing.append("more")
                changing.pop()

        def check(copy: Any) -> None:
            values = list(copy.values()) if is_dict else copy
            assert values in (["text"] * 20, ["text"] * 20 + ["more"])

        with Changing(change):
            for _ in for_a_while():
                one = pool.submit(tasks.identity, changing)
                several = pool.map(tasks.identity, [changing] * 20)
                try:
                    check(one.result(LIMIT))
                    for copy in several:
                        check(copy)
                except RuntimeError as error:
                    # As `pickle` says; it is the outcome of the call.
                    if "changed size" not in str(error):
                        raise
                except IndexError as error:
                    # From CPython 3.15 on, for a list.
                    if not any("serializing list item" in note for note in error.__notes__):
                        raise


# ---- iterators that threads share


def is_refusal(error: Exception) -> bool:
    """Return whether an iterator says that another thread uses it."""
    return "executing" in str(error) or "in use" in str(error)


def taken_by_all(iterator: Any) -> list[Any]:
    """Take all items of an iterator by eight threads; return them."""
    is_over = threading.Event()

    def take() -> list[Any]:
        taken = []
        while not is_over.is_set():
            try:
                taken.append(next(iterator))
            except StopIteration:
                is_over.set()
            except (ValueError, RuntimeError) as error:
                if not is_refusal(error):
                    raise
        return taken

    return [item for taken in together(*[take] * THREADS) for item in taken]


def test_results_of_map_are_taken_once(package: ModuleType) -> None:
    with package.ThreadPoolExecutor(4) as pool:
        for _ in for_a_while():
            assert sorted(taken_by_all(pool.map(abs, range(-200, 0)))) == list(range(1, 201))
            buffered = pool.map(abs, range(-100, 0), buffersize=3)
            assert sorted(taken_by_all(buffered)) == list(range(1, 101))


def test_results_of_map_of_processes_are_taken_once(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(2, mp_context=forking) as pool:
        for _ in for_a_while():
            assert sorted(taken_by_all(pool.map(abs, range(-200, 0)))) == list(range(1, 201))


def test_completed_futures_are_taken_once(package: ModuleType) -> None:
    with package.ThreadPoolExecutor(4) as pool:
        for _ in for_a_while():
            futures = [pool.submit(abs, n) for n in range(100)]
            taken = taken_by_all(package.as_completed(futures))
            assert len(taken) == 100
            assert set(taken) == set(futures)


def test_iterators_are_like_generators(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(abs, n) for n in range(3)]
        lib.wait(futures)
        makes: list[Callable[[], Any]] = [
            partial(pool.map, abs, range(3)),
            partial(lib.as_completed, futures),
        ]
        for make in makes:
            iterator = make()
            kinds = inspect.isgenerator(iterator), isinstance(iterator, Generator)
            assert kinds == (True, True)
            assert iterator is iter(iterator)
            assert repr(iterator).startswith(f"<generator object {iterator.__qualname__} at 0x")
            name = iterator.__qualname__
            assert name in ("Executor.map.<locals>.result_iterator", "as_completed")
            assert inspect.getgeneratorstate(iterator) == inspect.GEN_CREATED
            assert iterator.send(None) in (0, *futures)
            assert inspect.getgeneratorstate(iterator) == inspect.GEN_SUSPENDED
            assert not iterator.gi_running
            with pytest.raises(KeyError):
                iterator.throw(KeyError(1))
            assert inspect.getgeneratorstate(iterator) == inspect.GEN_CLOSED
            assert list(iterator) == []

            def all_of(iterator: Any) -> Iterator[Any]:
                yield from iterator

            assert len(list(all_of(make()))) == 3
            assert weakref.ref(iterator)() is iterator
            unused = make()
            unused.close()
            assert next(unused, None) is None


def test_iterators_are_closed_while_other_threads_take_from_them(package: ModuleType) -> None:
    def close(iterator: Any) -> None:
        while True:
            try:
                iterator.close()
                return
            except (ValueError, RuntimeError) as error:
                if not is_refusal(error):
                    raise

    with package.ThreadPoolExecutor(4) as pool:
        for _ in for_a_while():
            futures = [pool.submit(abs, n) for n in range(50)]
            for iterator in (pool.map(abs, range(50)), package.as_completed(futures)):
                together(
                    partial(taken_by_all, iterator),
                    partial(close, iterator),
                )


# ---- processes


def test_eight_threads_use_one_pool_of_processes(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(2, mp_context=forking) as pool:

        def work() -> int:
            count = 0
            for number in for_a_while():
                called: list[Any] = []
                one = pool.submit(pow, number, 2)
                one.add_done_callback(called.append)
                # Not plain: a thread of the pool pickles it.
                two = pool.submit(tasks.capture, object, [number])
                three = pool.map(abs, range(number, number + 20))
                cancelled = pool.submit(abs, 1)
                cancelled.cancel()
                assert package.wait([one, two], LIMIT).done == {one, two}
                assert one.result() == number * number
                assert two.result() == ((object, [number]), {})
                assert list(three) == list(range(number, number + 20))
                count += 1
            return count

        assert all(together(*[work] * THREADS))


def test_functions_are_renamed_while_they_are_submitted(package: ModuleType, forking: Any) -> None:
    name = tasks.identity.__qualname__
    with package.ProcessPoolExecutor(2, mp_context=forking) as pool:

        def rename() -> None:
            # Each time another object, which is freed when it is replaced.
            tasks.identity.__qualname__ = "".join(["no", "such", str(time.perf_counter())])
            tasks.identity.__qualname__ = "".join(list(name))

        try:
            with Changing(rename):
                for number in for_a_while():
                    future = pool.submit(tasks.identity, number)
                    if future.exception(LIMIT) is None:
                        assert future.result() == number
        finally:
            tasks.identity.__qualname__ = name


# ---- forks, and the end


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forks_while_other_threads_use_pools(package: ModuleType) -> None:
    out = prints(
        package,
        """
        import os, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        is_over = False
        pool = futures.ThreadPoolExecutor(4)
        def work():
            count = 0
            while not is_over:
                some = [pool.submit(abs, -n) for n in range(20)]
                for future in some:
                    future.add_done_callback(lambda _: None)
                futures.wait(some)
                count += sum(future.result() for future in futures.as_completed(some))
                count += sum(pool.map(abs, range(20)))
            return count > 0
        others = futures.ThreadPoolExecutor(6)
        busy = [others.submit(work) for _ in range(6)]
        ended = []
        for _ in range(40):
            child = os.fork()
            if not child:
                with futures.ThreadPoolExecutor(2) as own:
                    right = sum(own.map(abs, range(-4, 0))) == 10
                right = right and pool.submit(abs, -1).result() == 1
                pool.shutdown()
                os._exit(0 if right else 1)
            ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        is_over = True
        print(set(ended), {future.result() for future in busy})
        """,
        forks=True,
    )
    assert out == "{0} {True}\n"


@pytest.mark.parametrize("round_", range(5))
def test_daemon_threads_at_the_end(package: ModuleType, round_: int) -> None:
    process = run(
        package,
        """
        import threading
        pool = futures.ThreadPoolExecutor(2)
        never = futures.Future()
        begun = threading.Barrier(9)
        def wait():
            begun.wait()
            futures.wait([never])
        def result():
            begun.wait()
            never.result()
        def iterate():
            begun.wait()
            next(futures.as_completed([never, futures.Future()]))
        def submit():
            begun.wait()
            while True:
                try:
                    future = pool.submit(abs, -1)
                    future.add_done_callback(lambda _: None)
                    assert future.result() == 1
                except RuntimeError:
                    pass  # The interpreter ends.
        for target in [wait, result, iterate, *[submit] * 5]:
            threading.Thread(target=target, daemon=True).start()
        begun.wait()
        print(pool.submit(abs, -2).result())
        """,
    )
    assert process.stdout == "2\n"
