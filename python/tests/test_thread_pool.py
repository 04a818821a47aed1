"""Tests of ThreadPoolExecutor: submitting, and the threads that do the work."""

import concurrent.futures
import math
import re
import sys
import threading
import traceback
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, Background, eventually, held, until_asleep


def capture(*args: Any, **kwargs: Any) -> Any:
    """Return the arguments of the call."""
    return args, kwargs


def test_submit_calls_with_the_arguments(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        assert pool.submit(pow, 2, 8).result() == 256
        assert pool.submit(int, "ff", base=16).result() == 255
        assert pool.submit(capture).result() == ((), {})
        assert pool.submit(capture, None, a=1, b=()).result() == ((None,), {"a": 1, "b": ()})
        many = tuple(range(50))
        assert pool.submit(capture, *many).result() == (many, {})


def test_the_tasks_keywords_may_have_the_names_of_submits_own(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        names = {"self": 1, "fn": 2, "args": 3, "kwargs": 4, "executor": 5, "timeout": 6}
        assert pool.submit(capture, **names).result() == ((), names)


def test_a_task_gets_and_gives_the_very_objects(lib: ModuleType) -> None:
    value = object()
    with lib.ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda x: x, value).result() is value
        assert pool.submit(lambda *, x: x, x=value).result() is value


def test_callables_of_all_kinds(lib: ModuleType) -> None:
    class Callable:
        """A class whose methods can be called in four ways."""

        def __call__(self) -> str:
            return "object"

        def method(self) -> str:
            return "method"

        @classmethod
        def classmethod(cls) -> str:
            return "class method"

        @staticmethod
        def staticmethod() -> str:
            return "static method"

    it = Callable()
    with lib.ThreadPoolExecutor(1) as pool:
        calls = [it, it.method, it.classmethod, it.staticmethod, [1, 2].__len__, dict, "a".upper]
        results = [pool.submit(call).result() for call in calls]
    assert results == ["object", "method", "class method", "static method", 2, {}, "A"]


def test_the_exception_comes_with_the_workers_traceback(lib: ModuleType) -> None:
    def fails() -> None:
        raise LookupError("not there")

    with lib.ThreadPoolExecutor(1) as pool:
        future = pool.submit(fails)
        with pytest.raises(LookupError, match="not there") as caught:
            future.result()
    assert caught.value is future.exception()
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "fails"
    assert frames[0] == test_the_exception_comes_with_the_workers_traceback.__name__


def test_exceptions_keep_cause_context_and_notes(lib: ModuleType) -> None:
    def fails() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            failed = ValueError("second")
            failed.add_note("a note")
            raise failed from error

    with lib.ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="second") as caught:
        pool.submit(fails).result()
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__notes__ == ["a note"]


def test_tasks_run_at_the_same_time(lib: ModuleType) -> None:
    barrier = threading.Barrier(4)
    with lib.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(barrier.wait, LIMIT) for _ in range(4)]
        assert sorted(future.result() for future in futures) == [0, 1, 2, 3]


def test_a_future_is_pending_then_running_then_finished(lib: ModuleType) -> None:
    release, started = threading.Event(), threading.Event()

    def task() -> bool:
        started.set()
        return release.wait(LIMIT)

    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            future = pool.submit(task)
            assert type(future) is lib.Future
            assert future._state == "PENDING"
        assert started.wait(LIMIT)
        assert future.running()
        assert not future.cancel()
        release.set()
        assert future.result() is True
        assert future._state == "FINISHED"


def test_a_cancelled_task_is_not_run(lib: ModuleType) -> None:
    runs: list[int] = []
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            futures = [pool.submit(runs.append, n) for n in range(10)]
            assert all(future.cancel() for future in futures[::2])
            assert all(future.cancelled() for future in futures[::2])
        pool.submit(int).result()
        assert runs == [1, 3, 5, 7, 9]
        eventually(lambda: futures[0]._state == "CANCELLED_AND_NOTIFIED")


def test_one_worker_takes_tasks_in_order(lib: ModuleType) -> None:
    order: list[int] = []
    with lib.ThreadPoolExecutor(1) as pool:
        for n in range(500):
            pool.submit(order.append, n)
    assert order == list(range(500))


def test_the_default_number_of_workers_is_the_versions() -> None:
    assert (
        concurrent_futures.ThreadPoolExecutor()._max_workers
        == concurrent.futures.ThreadPoolExecutor()._max_workers
    )


@pytest.mark.parametrize("number", [1, 7, True, 1000, 10_000])
def test_the_number_of_workers(lib: ModuleType, number: int) -> None:
    with lib.ThreadPoolExecutor(max_workers=number) as pool:
        assert pool._max_workers == number
        assert pool.submit(int).result() == 0


@pytest.mark.parametrize("number", [1 << 31, sys.maxsize])
def test_more_workers_than_there_can_be_are_as_good_as_no_limit(
    lib: ModuleType, number: int
) -> None:
    with lib.ThreadPoolExecutor(number) as pool:
        assert pool._max_workers == number
        assert pool.submit(pow, 2, 3).result() == 8


@pytest.mark.parametrize("number", [2.0, 1.5, 0.5])
def test_the_number_of_workers_may_come_from_a_division(lib: ModuleType, number: float) -> None:
    with lib.ThreadPoolExecutor(number) as pool:
        assert pool._max_workers == number
        futures = [pool.submit(abs, n) for n in range(20)]
        assert [future.result() for future in futures] == list(range(20))
        assert 1 <= len(pool._threads) <= math.ceil(number)


@pytest.mark.parametrize("number", [0, -1, -(1 << 70)])
def test_no_workers_are_an_error(lib: ModuleType, number: int) -> None:
    with pytest.raises(ValueError, match="^max_workers must be greater than 0$"):
        lib.ThreadPoolExecutor(number)


def test_workers_are_ordinary_threads(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.current_thread).result()
        assert type(thread) is threading.Thread
        assert thread in threading.enumerate()
        assert thread.is_alive()
        assert not thread.daemon
        assert pool.submit(threading.get_ident).result() == thread.ident
        assert pool.submit(threading.get_native_id).result() == thread.native_id
        assert set(pool._threads) == {thread}
    assert not thread.is_alive()
    assert thread not in threading.enumerate()


def test_threads_have_the_pools_name(lib: ModuleType) -> None:
    barrier = threading.Barrier(3)

    def name() -> str:
        barrier.wait(LIMIT)
        return threading.current_thread().name

    with lib.ThreadPoolExecutor(3, thread_name_prefix="load") as pool:
        futures = [pool.submit(name) for _ in range(3)]
        assert sorted(each.result() for each in futures) == ["load_0", "load_1", "load_2"]


def test_pools_without_a_name_are_numbered(lib: ModuleType) -> None:
    names = []
    for _ in range(2):
        with lib.ThreadPoolExecutor() as pool:
            names.append(pool.submit(lambda: threading.current_thread().name).result())
    numbers = [re.fullmatch(r"ThreadPoolExecutor-(\d+)_0", name) for name in names]
    assert numbers[0] and numbers[1], names
    assert int(numbers[0][1]) < int(numbers[1][1])


@pytest.mark.parametrize(
    "prefix", ["naïve → ☃", "with space", "x" * 500, "%d_%s", "nul\0", "half a pair \udc80"]
)
def test_names_of_all_kinds(lib: ModuleType, prefix: str) -> None:
    with lib.ThreadPoolExecutor(1, prefix) as pool:
        name = pool.submit(lambda: threading.current_thread().name).result()
    assert name == f"{prefix}_0"


def test_a_busy_pool_starts_all_its_workers_and_no_more(lib: ModuleType) -> None:
    release = threading.Semaphore(0)
    with lib.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(release.acquire) for _ in range(60)]
        assert len(pool._threads) == 4
        for _ in futures:
            release.release()
        assert all(future.result() for future in futures)
        assert len(pool._threads) == 4


def test_idle_threads_are_reused(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(4) as pool:
        thread = pool.submit(threading.current_thread).result()
        for _ in range(10):
            until_asleep(thread)
            assert pool.submit(threading.current_thread).result() is thread
        assert len(pool._threads) == 1


def test_a_pool_that_is_kept_busy_by_one_uses_few_threads() -> None:
    # The standard library starts another worker when the one that gave the result is not
    # idle yet.
    with concurrent_futures.ThreadPoolExecutor(8) as pool:
        for n in range(300):
            assert pool.submit(abs, n).result() == n
        assert len(pool._threads) <= 2


def test_thread_locals_belong_to_workers(lib: ModuleType) -> None:
    local = threading.local()

    def count() -> int:
        local.count = getattr(local, "count", 0) + 1
        return int(local.count)

    with lib.ThreadPoolExecutor(1) as pool:
        assert [pool.submit(count).result() for _ in range(3)] == [1, 2, 3]
    assert not hasattr(local, "count")


def test_the_queue_tells_its_size(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        assert pool._work_queue.qsize() == 0
        with held(pool):
            for n in range(5):
                assert pool._work_queue.qsize() == n
                pool.submit(int)
        pool.submit(int).result()
        eventually(lambda: pool._work_queue.qsize() == 0)


def test_the_fields_are_readable(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(3)
    assert (pool._max_workers, len(pool._threads)) == (3, 0)
    assert not pool._shutdown
    assert not pool._broken
    pool.shutdown()
    assert pool._shutdown
    assert not pool._broken


def test_executors_can_be_subclassed(lib: ModuleType) -> None:
    class Counting(lib.ThreadPoolExecutor):  # type: ignore[name-defined, misc]
        """An executor that counts its submissions."""

        def __init__(self, label: str, **settings: Any) -> None:
            super().__init__(max_workers=2, **settings)
            self.label = label
            self.submitted = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.submitted += 1
            return super().submit(fn, *args, **kwargs)

    with Counting("mine", thread_name_prefix="counted") as pool:
        assert isinstance(pool, Counting)
        assert pool.submit(pow, 2, 2).result() == 4
        # `map` submits through what the subclass made of `submit`.
        assert list(pool.map(abs, [-1, -2, -3])) == [1, 2, 3]
        name = pool.submit(lambda: threading.current_thread().name).result()
    assert pool.submitted == 5
    assert name.startswith("counted_")


def test_a_subclass_may_wrap_the_futures(lib: ModuleType) -> None:
    class Tagging(lib.ThreadPoolExecutor):  # type: ignore[name-defined, misc]
        """An executor that tags each future with its function."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future = super().submit(fn, *args, **kwargs)
            future.called = (fn, args)
            return future

    with Tagging(1) as pool:
        future = pool.submit(abs, -1)
    assert future.called == (abs, (-1,))


def test_a_subclass_may_give_futures_of_another_kind(lib: ModuleType) -> None:
    class Inline(lib.ThreadPoolExecutor):  # type: ignore[name-defined, misc]
        """Runs short tasks at once."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            if fn is not abs:
                return super().submit(fn, *args, **kwargs)
            future = concurrent.futures.Future[Any]()
            future.set_result(fn(*args, **kwargs))
            return future

    with Inline(1) as pool:
        assert pool.submit(abs, -1).result() == 1
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
        assert list(pool.map(pow, [2, 3], [3, 2])) == [8, 9]


def test_an_executor_of_ones_own_needs_only_submit(lib: ModuleType) -> None:
    class Inline(lib.Executor):  # type: ignore[name-defined, misc]
        """Runs its tasks at once."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future = lib.Future()
            future.set_running_or_notify_cancel()
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)
            return future

    with Inline() as executor:
        assert executor.submit(divmod, 7, 2).result() == (3, 1)
        assert list(executor.map(pow, [2, 3], [3, 2])) == [8, 9]
        assert isinstance(executor.submit(divmod, 1, 0).exception(), ZeroDivisionError)


def test_the_base_class_cannot_submit(lib: ModuleType) -> None:
    executor = lib.Executor()
    with pytest.raises(NotImplementedError):
        executor.submit(int)
    with pytest.raises(NotImplementedError):
        executor.map(int, [1])
    assert executor.shutdown() is None


def test_many_threads_submit_at_once(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(3) as pool:

        def submit(n: int) -> int:
            return sum(future.result() for future in [pool.submit(abs, n) for _ in range(200)])

        threads = [Background(submit, n) for n in range(5)]
        assert [thread.outcome() for thread in threads] == [200 * n for n in range(5)]


def test_tasks_may_submit_tasks(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        inner = pool.submit(pool.submit, pow, 3, 3).result()
        assert inner.result() == 27


def test_pools_within_tasks(lib: ModuleType) -> None:
    def inner(n: int) -> int:
        with lib.ThreadPoolExecutor(2) as pool:
            return sum(pool.map(abs, range(n)))

    with lib.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(inner, range(8))) == [sum(range(n)) for n in range(8)]


def test_an_exception_of_native_code_has_a_traceback(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        error = pool.submit(int, "no number").exception(LIMIT)
        # A frame of the worker, whatever its name is. The standard library has two from 3.14 on.
        assert len(traceback.extract_tb(error.__traceback__)) in (1, 2)
        with pytest.raises(ValueError, match="no number") as info:
            next(pool.map(int, ["no number"]))
        own = traceback.extract_stack()[-1].name
        assert info.traceback[0].name == own
        assert info.traceback[-1].name != own
