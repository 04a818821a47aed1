"""Tests of callbacks: their time, thread and order, and the fate of their errors."""

import functools
import logging
import sys
import threading
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, Background, eventually, future_in, held, raised


@pytest.mark.parametrize("state", ["CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"])
def test_a_callback_added_to_a_done_future_is_called_at_once(lib: ModuleType, state: str) -> None:
    future = future_in(lib, state)
    called: list[tuple[Any, int]] = []
    added = future.add_done_callback(lambda done: called.append((done, threading.get_ident())))
    assert added is None
    assert called == [(future, threading.get_ident())]


def test_it_gets_the_future_when_it_is_done(lib: ModuleType) -> None:
    seen: list[Any] = []

    def look(future: Any) -> None:
        seen.append((future, future._state, future.done(), future.cancelled()))
        seen.append(None if future.cancelled() else (future._result, future.exception()))

    error = ValueError()
    futures = [lib.Future() for _ in range(3)]
    for future in futures:
        future.add_done_callback(look)
    assert seen == []
    futures[0].set_result(3)
    futures[1].set_exception(error)
    futures[2].cancel()
    assert seen == [
        (futures[0], "FINISHED", True, False),
        (3, None),
        (futures[1], "FINISHED", True, False),
        (None, error),
        (futures[2], "CANCELLED", True, True),
        None,
    ]


def test_it_may_ask_for_the_result(lib: ModuleType) -> None:
    future = lib.Future()
    results: list[Any] = []
    future.add_done_callback(lambda done: results.append(done.result()))
    future.add_done_callback(lambda done: results.append(done.exception()))
    future.add_done_callback(lambda done: results.append(lib.wait([done])))
    future.add_done_callback(lambda done: results.append(list(lib.as_completed([done]))))
    future.set_result(7)
    assert results == [7, None, ({future}, set()), [future]]


def test_callbacks_are_called_in_order(lib: ModuleType) -> None:
    future = lib.Future()
    order: list[int] = []
    for n in range(20):
        future.add_done_callback(lambda _, n=n: order.append(n))
    future.set_result(None)
    assert order == list(range(20))


def test_the_same_callback_twice_is_called_twice(lib: ModuleType) -> None:
    future = lib.Future()
    called: list[Any] = []
    future.add_done_callback(called.append)
    future.add_done_callback(called.append)
    future.set_result(None)
    assert called == [future, future]


def test_callables_of_all_kinds(lib: ModuleType) -> None:
    called: list[Any] = []

    class Callable:
        """A callable object."""

        def __call__(self, future: Any) -> str:
            called.append(future)
            return "ignored"

        def method(self, future: Any) -> None:
            called.append(future)

    future = lib.Future()
    future.add_done_callback(Callable())
    future.add_done_callback(Callable().method)
    future.add_done_callback(functools.partial(lambda _, future: called.append(future), 1))
    future.add_done_callback(fn=called.append)
    future.set_result(None)
    assert called == [future] * 4


def test_they_are_called_by_the_worker(lib: ModuleType) -> None:
    names: list[str] = []
    with lib.ThreadPoolExecutor(1, "worker") as pool:
        with held(pool):
            future = pool.submit(int)
            future.add_done_callback(lambda _: names.append(threading.current_thread().name))
        future.result()
    assert names == ["worker_0"]


def test_cancel_calls_them_in_its_thread(lib: ModuleType) -> None:
    called: list[int] = []
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        future = pool.submit(int)
        future.add_done_callback(lambda _: called.append(threading.get_ident()))
        assert future.cancel()
        assert called == [threading.get_ident()]
        assert future.cancel()
        assert len(called) == 1
    assert len(called) == 1


def test_waiting_threads_need_not_wait_for_callbacks(lib: ModuleType) -> None:
    release, called = threading.Event(), threading.Event()

    def callback(_: Any) -> None:
        called.set()
        release.wait(LIMIT)

    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            future = pool.submit(pow, 2, 3)
            future.add_done_callback(callback)
            waiting = [
                Background(future.result),
                Background(lib.wait, [future]),
                Background(list, lib.as_completed([future])),
            ]
        assert called.wait(LIMIT)
        assert future.done()
        assert future.result() == 8
        assert [each.outcome() for each in waiting] == [8, ({future}, set()), [future]]
        release.set()


@pytest.mark.parametrize("before", [True, False])
def test_one_that_fails_is_logged_and_does_not_stop_the_next(
    lib: ModuleType, caplog: pytest.LogCaptureFixture, before: bool
) -> None:
    def fails(_: Any) -> None:
        raise ValueError("in a callback")

    future = lib.Future()
    called: list[Any] = []
    if not before:
        future.set_result(5)
    future.add_done_callback(fails)
    future.add_done_callback(called.append)
    if before:
        future.set_result(5)
    assert called == [future]
    assert future.result() == 5
    [record] = caplog.records
    assert record.name == "concurrent.futures"
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"exception calling callback for {future!r}"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


def test_one_that_cannot_be_called_is_logged(
    lib: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    future = lib.Future()
    future.add_done_callback(None)
    future.set_result(None)
    future.add_done_callback(5)
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], TypeError)


def test_one_that_fails_in_a_worker_does_no_harm(
    lib: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            future = pool.submit(int)
            future.add_done_callback(lambda _: 1 / 0)
        assert future.result() == 0
        assert pool.submit(pow, 2, 2).result() == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"exception calling callback for {future!r}"
    ]


def test_callbacks_may_add_callbacks(lib: ModuleType) -> None:
    future = lib.Future()
    order: list[str] = []

    def first(future: Any) -> None:
        order.append("first")
        future.add_done_callback(lambda _: order.append("added"))

    future.add_done_callback(first)
    future.add_done_callback(lambda _: order.append("second"))
    future.set_result(None)
    # The future is done, so what is added is called at once.
    assert order == ["first", "added", "second"]


def test_callbacks_may_use_other_futures(lib: ModuleType) -> None:
    one, two, three = lib.Future(), lib.Future(), lib.Future()
    one.add_done_callback(lambda done: two.set_result(done.result() + 1))
    two.add_done_callback(lambda done: three.set_exception(ValueError(done.result())))
    three.add_done_callback(lambda _: one.cancel())
    one.set_result(1)
    assert two.result() == 2
    assert three.exception().args == (2,)


def test_callbacks_may_submit(lib: ModuleType) -> None:
    submitted: list[Any] = []
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            future = pool.submit(int)
            future.add_done_callback(lambda _: submitted.append(pool.submit(pow, 2, 5)))
        eventually(lambda: submitted)
        assert submitted[0].result() == 32


def test_the_list_of_callbacks_is_readable(lib: ModuleType) -> None:
    future = lib.Future()
    future.add_done_callback(print)
    future.add_done_callback(repr)
    assert list(future._done_callbacks) == [print, repr]


def test_invoke_callbacks_calls_them(lib: ModuleType) -> None:
    # As executors do that set the state by hand.
    future = lib.Future()
    called: list[Any] = []
    future.add_done_callback(called.append)
    with future._condition:
        future._state = "FINISHED"
        future._result = 3
        future._condition.notify_all()
    assert called == []
    future._invoke_callbacks()
    assert called == [future]
    assert future.result() == 3


def test_each_is_called_once_however_adding_and_finishing_race(lib: ModuleType) -> None:
    for _ in range(150):
        future = lib.Future()
        calls = [0] * 20
        barrier = threading.Barrier(3)

        def add(
            numbers: range,
            future: Any = future,
            calls: list[int] = calls,
            barrier: threading.Barrier = barrier,
        ) -> None:
            def called(n: int, _: Any) -> None:
                calls[n] += 1

            barrier.wait()
            for n in numbers:
                future.add_done_callback(functools.partial(called, n))

        threads = [Background(add, range(10)), Background(add, range(10, 20))]
        barrier.wait()
        future.set_result(None)
        for thread in threads:
            thread.outcome()
        assert calls == [1] * 20


def test_a_tasks_callbacks_are_called_once_each(lib: ModuleType) -> None:
    calls: list[Any] = []
    with lib.ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(int) for _ in range(500)]
        for future in futures:
            future.add_done_callback(calls.append)
    assert sorted(map(id, calls)) == sorted(map(id, futures))


def test_a_failed_future_calls_them_too(lib: ModuleType) -> None:
    called: list[Any] = []
    future = raised(lib, ValueError())
    future.add_done_callback(called.append)
    assert called == [future]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_that_ends_programs_reaches_the_finishing_thread(
    lib: ModuleType, error: type[BaseException]
) -> None:
    def fails(_: Any) -> None:
        raise error("in a callback")

    future = lib.Future()
    future.add_done_callback(fails)
    with pytest.raises(error, match="in a callback"):
        future.set_result(1)
    assert future.result() == 1
    with pytest.raises(error, match="in a callback"):
        future.add_done_callback(fails)
    pending = lib.Future()
    pending.add_done_callback(fails)
    with pytest.raises(error, match="in a callback"):
        pending.cancel()
    assert pending.cancelled()


def test_a_callback_in_a_worker_sees_the_exception_of_its_task_being_handled(
    lib: ModuleType,
) -> None:
    gate = threading.Event()
    seen: list[BaseException | None] = []

    def fail() -> None:
        gate.wait(LIMIT)
        raise ValueError("of the task")

    with lib.ThreadPoolExecutor(1) as pool:
        failed = pool.submit(fail)
        succeeded = pool.submit(int)
        for future in (failed, succeeded):
            future.add_done_callback(lambda _: seen.append(sys.exc_info()[1]))
        gate.set()
    assert seen == [failed.exception(), None]
