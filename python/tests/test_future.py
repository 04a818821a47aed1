"""Tests of Future: its states, its methods, and the attributes that other code touches."""

import logging
import re
import threading
import types
import weakref
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, NAN_IS_REFUSED, STATES, Background, future_in, raised, until_asleep

DONE = ["CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"]
CANCELLED = DONE[:2]
UNDONE = ["PENDING", "RUNNING"]


@pytest.mark.parametrize("state", STATES)
def test_each_state_tells_what_it_is(lib: ModuleType, state: str) -> None:
    future = future_in(lib, state)
    assert future.done() is (state in DONE)
    assert future.cancelled() is (state in CANCELLED)
    assert future.running() is (state == "RUNNING")
    assert future._state == state


@pytest.mark.parametrize("state", STATES)
def test_only_a_pending_future_can_be_cancelled(lib: ModuleType, state: str) -> None:
    future = future_in(lib, state)
    assert future.cancel() is (state == "PENDING" or state in CANCELLED)
    assert future._state == ("CANCELLED" if state == "PENDING" else state)
    assert future.cancel() is future.cancelled()


@pytest.mark.parametrize("state", ["PENDING", "CANCELLED"])
def test_set_running_or_notify_cancel(lib: ModuleType, state: str) -> None:
    future = future_in(lib, state)
    assert future.set_running_or_notify_cancel() is (state == "PENDING")
    assert future._state == ("RUNNING" if state == "PENDING" else "CANCELLED_AND_NOTIFIED")


@pytest.mark.parametrize("state", ["RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED"])
def test_set_running_twice_is_an_error(
    lib: ModuleType, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    future = future_in(lib, state)
    with (
        caplog.at_level(logging.CRITICAL, "concurrent.futures"),
        pytest.raises(RuntimeError, match="^Future in unexpected state$"),
    ):
        future.set_running_or_notify_cancel()
    assert future._state == state
    [record] = caplog.records
    assert record.getMessage() == f"Future {id(future)} in unexpected state: {state}"
    assert record.levelno == logging.CRITICAL


@pytest.mark.parametrize("state", UNDONE)
def test_set_result(lib: ModuleType, state: str) -> None:
    future = future_in(lib, state)
    value = object()
    assert future.set_result(value) is None
    assert future._state == "FINISHED"
    assert future.result() is value
    assert future.result(0) is value
    assert future.result(timeout=None) is value
    assert future.exception() is None


@pytest.mark.parametrize("state", UNDONE)
def test_set_exception(lib: ModuleType, state: str) -> None:
    future = future_in(lib, state)
    error = ValueError("no")
    assert future.set_exception(error) is None
    assert future._state == "FINISHED"
    assert future.exception() is error
    assert future.exception(timeout=0) is error
    with pytest.raises(ValueError, match="^no$") as caught:
        future.result()
    assert caught.value is error


@pytest.mark.parametrize("method", ["set_result", "set_exception"])
@pytest.mark.parametrize("state", DONE)
def test_a_done_future_cannot_be_set(lib: ModuleType, state: str, method: str) -> None:
    future = future_in(lib, state)
    text = re.escape(f"{state}: {future!r}")
    with pytest.raises(lib.InvalidStateError, match=f"^{text}$"):
        getattr(future, method)(ValueError())
    assert future._state == state
    if state == "FINISHED":
        assert future.result() == 42


@pytest.mark.parametrize("method", ["result", "exception"])
@pytest.mark.parametrize("timeout", [0, -1, 0.001, -0.5, False, float("nan")])
@pytest.mark.parametrize("state", UNDONE)
def test_a_time_limit_passes(lib: ModuleType, state: str, timeout: float, method: str) -> None:
    future = future_in(lib, state)
    if NAN_IS_REFUSED and timeout != timeout:
        with pytest.raises(ValueError, match=r"^Invalid value NaN \(not a number\)$"):
            getattr(future, method)(timeout)
        return
    with pytest.raises(TimeoutError) as caught:
        getattr(future, method)(timeout)
    assert caught.value.args == ()
    with pytest.raises(lib.TimeoutError):
        getattr(future, method)(timeout=timeout)
    assert future._state == state


@pytest.mark.parametrize("method", ["result", "exception"])
@pytest.mark.parametrize("state", CANCELLED)
def test_a_cancelled_future_raises(lib: ModuleType, state: str, method: str) -> None:
    future = future_in(lib, state)
    for timeout in (None, 0, 1):
        with pytest.raises(lib.CancelledError) as caught:
            getattr(future, method)(timeout)
        assert caught.value.args == ()


@pytest.mark.parametrize("timeout", [None, LIMIT, int(LIMIT), threading.TIMEOUT_MAX])
def test_result_waits(lib: ModuleType, timeout: float | None) -> None:
    future = lib.Future()
    waiting = Background(future.result, timeout)
    until_asleep(waiting)
    future.set_result(5)
    assert waiting.outcome() == 5


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_exception_waits(lib: ModuleType, timeout: float | None) -> None:
    future = lib.Future()
    waiting = Background(future.exception, timeout)
    until_asleep(waiting)
    error = OSError("gone")
    future.set_exception(error)
    assert waiting.outcome() is error


@pytest.mark.parametrize("method", ["result", "exception"])
def test_cancel_wakes_who_waits(lib: ModuleType, method: str) -> None:
    future = lib.Future()
    waiting = Background(getattr(future, method))
    until_asleep(waiting)
    assert future.cancel()
    with pytest.raises(lib.CancelledError):
        waiting.outcome()


def test_all_threads_that_wait_are_woken(lib: ModuleType) -> None:
    future = lib.Future()
    threads = [Background(future.result, None if n % 2 else LIMIT) for n in range(8)]
    until_asleep(threads[-1])
    future.set_result("all")
    assert [thread.outcome() for thread in threads] == ["all"] * 8


def test_one_of_many_may_give_up_waiting(lib: ModuleType) -> None:
    future = lib.Future()
    thread = Background(future.result)
    until_asleep(thread)
    for _ in range(20):
        with pytest.raises(TimeoutError):
            future.result(0.0001)
    future.set_result(1)
    assert thread.outcome() == 1


def test_waiting_races_with_finishing(lib: ModuleType) -> None:
    for n in range(300):
        future = lib.Future()
        barrier = threading.Barrier(2)

        def wait(future: Any = future, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            return future.result(LIMIT)

        thread = Background(wait)
        barrier.wait()
        future.set_result(n)
        assert thread.outcome() == n


def test_cancelling_races_with_starting(lib: ModuleType) -> None:
    won = set()
    for _ in range(300):
        future = lib.Future()
        barrier = threading.Barrier(2)

        def cancel(future: Any = future, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            return future.cancel()

        thread = Background(cancel)
        barrier.wait()
        started = future.set_running_or_notify_cancel()
        cancelled = thread.outcome()
        if not cancelled:
            assert started
            assert future._state == "RUNNING"
        won.add(cancelled)
        assert started is not future.cancelled()
    assert won <= {True, False}


def test_only_one_thread_sets_the_result(lib: ModuleType) -> None:
    for _ in range(100):
        future = lib.Future()
        barrier = threading.Barrier(3)

        def set_result(n: int, future: Any = future, barrier: Any = barrier) -> int | None:
            barrier.wait()
            try:
                future.set_result(n)
            except lib.InvalidStateError:
                return None
            return n

        threads = [Background(set_result, n) for n in range(3)]
        winners = {thread.outcome() for thread in threads} - {None}
        assert winners == {future.result(0)}


def test_repr_tells_the_state(lib: ModuleType) -> None:
    words = ["pending", "running", "cancelled", "cancelled", "finished returned int"]
    for state, word in zip(STATES, words, strict=True):
        future = future_in(lib, state)
        assert repr(future) == f"<Future at {id(future):#x} state={word}>"
    future = raised(lib, OSError())
    assert repr(future) == f"<Future at {id(future):#x} state=finished raised OSError>"
    assert str(future) == repr(future)


def test_a_future_can_be_subclassed(lib: ModuleType) -> None:
    class Named(lib.Future):  # type: ignore[name-defined, misc]
        """A future with a name, which keeps count of the results that it returned."""

        def __init__(self, name: str, *, given: int = 0) -> None:
            super().__init__()
            self.name = name
            self.given = given

        def result(self, timeout: float | None = None) -> Any:
            self.given += 1
            return super().result(timeout)

        def set_result(self, result: Any) -> None:
            super().set_result((self.name, result))

    future = Named("one", given=5)
    assert repr(future) == f"<Named at {id(future):#x} state=pending>"
    future.set_result(3)
    assert future.result() == ("one", 3)
    assert future.given == 6
    done, not_done = lib.wait([future, Named("two")], return_when=lib.FIRST_COMPLETED)
    assert [future.name for future in done] == ["one"]
    assert [future.name for future in not_done] == ["two"]


def test_futures_take_attributes(lib: ModuleType) -> None:
    future = lib.Future()
    future.url = "here"
    assert future.url == "here"
    assert vars(future)["url"] == "here"
    del future.url
    assert not hasattr(future, "url")
    with lib.ThreadPoolExecutor(1) as pool:
        submitted = pool.submit(int)
        submitted.url = "there"
        assert submitted.url == "there"


def test_futures_are_equal_to_themselves_only(lib: ModuleType) -> None:
    one, two = lib.Future(), lib.Future()
    assert one == one
    assert one != two
    assert {one: 1, two: 2}[two] == 2
    assert len({one, two, one}) == 2
    assert bool(one)


def test_weak_references(lib: ModuleType) -> None:
    future = lib.Future()
    gone: list[object] = []
    reference = weakref.ref(future, gone.append)
    assert reference() is future
    table = weakref.WeakKeyDictionary({future: 1})
    assert table[future] == 1
    del future
    assert reference() is None
    assert len(gone) == 1
    assert not table


def test_class_getitem(lib: ModuleType) -> None:
    alias: Any = lib.Future[int]
    assert type(alias()) is lib.Future
    assert alias.__origin__ is lib.Future
    assert alias.__args__ == (int,)
    assert type(alias) is types.GenericAlias


def test_the_fields_are_readable(lib: ModuleType) -> None:
    future = lib.Future()
    assert (future._state, future._result, future._exception) == ("PENDING", None, None)
    assert list(future._waiters) == []
    assert list(future._done_callbacks) == []
    future.set_result(3)
    assert (future._state, future._result, future._exception) == ("FINISHED", 3, None)
    error = ValueError()
    future = raised(lib, error)
    assert future._result is None
    assert future._exception is error


@pytest.mark.parametrize("state", STATES)
def test_the_state_can_be_set_by_hand(lib: ModuleType, state: str) -> None:
    future = lib.Future()
    future._state = state
    assert future._state == state
    assert future.done() is (state in DONE)
    assert future.cancelled() is (state in CANCELLED)
    assert future.running() is (state == "RUNNING")


def test_result_and_exception_can_be_set_by_hand(lib: ModuleType) -> None:
    future = lib.Future()
    future._state = "FINISHED"
    future._result = 42
    assert future.result(0) == 42
    future = lib.Future()
    future._exception = OSError("by hand")
    future._state = "FINISHED"
    with pytest.raises(OSError, match="by hand"):
        future.result(0)
    assert isinstance(future.exception(), OSError)


@pytest.mark.parametrize("method", ["result", "exception"])
def test_finishing_by_hand_wakes_waiting_threads(lib: ModuleType, method: str) -> None:
    future = lib.Future()
    waiting = Background(getattr(future, method), LIMIT)
    until_asleep(waiting)
    with future._condition:
        future._state = "FINISHED"
        future._exception = OSError("by hand")
        future._condition.notify_all()
    if method == "result":
        with pytest.raises(OSError, match="by hand"):
            waiting.outcome()
    else:
        assert isinstance(waiting.outcome(), OSError)


def test_a_finished_future_can_be_made_pending_again_by_hand(lib: ModuleType) -> None:
    # As some libraries do, to use a future twice.
    future = future_in(lib, "FINISHED")
    future._state = "PENDING"
    future._result = None
    assert not future.done()
    with pytest.raises(TimeoutError):
        future.result(0)
    future.set_result(2)
    assert future.result() == 2


def test_a_thread_that_waits_on_the_condition_is_notified(lib: ModuleType) -> None:
    for finish in ("set_result", "set_exception", "cancel"):
        future = lib.Future()
        ready = threading.Event()

        def wait(future: Any = future, ready: threading.Event = ready) -> Any:
            with future._condition:
                ready.set()
                return future._condition.wait_for(future.done, LIMIT)

        thread = Background(wait)
        assert ready.wait(LIMIT)
        getattr(future, finish)(*([OSError()] if finish != "cancel" else []))
        assert thread.outcome()


def test_the_condition_can_be_held_while_the_future_is_used(lib: ModuleType) -> None:
    future = lib.Future()
    with future._condition, future._condition:
        assert not future.done()
        assert "pending" in repr(future)
        future.set_result(1)
        assert future.result() == 1
    assert lib.wait([future], 0).done == {future}


def test_the_condition_stays_the_same(lib: ModuleType) -> None:
    future = lib.Future()
    condition = future._condition
    assert isinstance(condition, threading.Condition)
    future.set_result(1)
    assert future._condition is condition
    finished = future_in(lib, "FINISHED")
    assert finished._condition is finished._condition


def test_a_snapshot_is_done_cancelled_result_and_exception() -> None:
    snapshots = [future_in(concurrent_futures, state)._get_snapshot() for state in STATES]
    cancelled = (True, True, None, None)
    undone = (False, False, None, None)
    assert snapshots == [undone, undone, cancelled, cancelled, (True, False, 42, None)]
    error = ValueError()
    assert raised(concurrent_futures, error)._get_snapshot() == (True, False, None, error)
