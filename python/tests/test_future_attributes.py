"""Tests of the private attributes of futures, which other code reads and sets, and of copies."""

import copy
import gc
import pickle
import threading
import weakref
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, STATES, Background, future_in, held, until_asleep


class Owner:
    """An object to which only a callback refers."""


def test_callbacks_stay_when_they_were_called(lib: ModuleType) -> None:
    future = lib.Future()
    callbacks = [lambda _: None, lambda _: None]
    for callback in callbacks:
        future.add_done_callback(callback)
    future.set_result(1)
    assert future._done_callbacks == callbacks


def test_objects_that_callbacks_refer_to_live_as_long_as_the_future(lib: ModuleType) -> None:
    def attach(future: Any) -> weakref.ref[Owner]:
        owner = Owner()
        future.add_done_callback(lambda _, owner=owner: None)
        return weakref.ref(owner)

    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            future = pool.submit(int)
            reference = attach(future)
        future.result(LIMIT)
    gc.collect()
    assert reference() is not None
    del future
    gc.collect()
    assert reference() is None


def test_the_list_of_callbacks_is_one_list(lib: ModuleType) -> None:
    future = lib.Future()
    callbacks = future._done_callbacks
    assert callbacks == []
    future.add_done_callback(print)
    assert future._done_callbacks is callbacks
    assert callbacks == [print]


@pytest.mark.parametrize("before", [0, 1, 2])
def test_changes_of_the_list_of_callbacks_have_an_effect(lib: ModuleType, before: int) -> None:
    called: list[int] = []

    def callback(number: int) -> Any:
        return lambda _: called.append(number)

    future = lib.Future()
    for number in range(before):
        future.add_done_callback(callback(number))
    future._done_callbacks.append(callback(10))
    future.add_done_callback(callback(11))
    future._done_callbacks.insert(0, callback(12))
    del future._done_callbacks[-1:]
    future.set_result(1)
    assert called == [12, *range(before), 10]


def test_callbacks_that_are_taken_out_are_not_called(lib: ModuleType) -> None:
    called: list[Any] = []
    future = lib.Future()
    future.add_done_callback(called.append)
    future._done_callbacks.remove(called.append)
    future.add_done_callback(called.append)
    future._done_callbacks.clear()
    future.set_result(1)
    assert called == []
    assert future._done_callbacks == []


def test_a_list_of_callbacks_that_is_put_there(lib: ModuleType) -> None:
    called: list[Any] = []
    future = lib.Future()
    future.add_done_callback(lambda _: called.append("replaced"))
    callbacks = [called.append]
    future._done_callbacks = callbacks
    future.add_done_callback(lambda _: called.append("added"))
    assert len(callbacks) == 2
    future.set_result(1)
    assert called == [future, "added"]


def test_callbacks_in_something_that_is_no_list(lib: ModuleType) -> None:
    class Reversed(list[Any]):
        def append(self, callback: Any) -> None:
            self.insert(0, callback)

    called: list[Any] = []
    future = lib.Future()
    future._done_callbacks = Reversed()
    future.add_done_callback(lambda _: called.append(1))
    future.add_done_callback(lambda _: called.append(2))
    future.set_result(None)
    assert called == [2, 1]


def test_a_callback_that_is_added_to_the_list_by_another(lib: ModuleType) -> None:
    called: list[Any] = []
    future = lib.Future()

    def add(_: Any) -> None:
        future._done_callbacks.append(lambda _: called.append("by the list"))
        future.add_done_callback(lambda _: called.append("at once"))

    future.add_done_callback(add)
    future.set_result(1)
    assert called == ["at once", "by the list"]


def test_invoke_callbacks_calls_all_again(lib: ModuleType) -> None:
    called: list[Any] = []
    future = lib.Future()
    future.add_done_callback(called.append)
    future.set_result(1)
    future._invoke_callbacks()
    assert called == [future, future]


def test_a_condition_that_is_put_there(lib: ModuleType) -> None:
    future = lib.Future()
    condition = threading.Condition()
    future._condition = condition
    assert future._condition is condition
    with condition:
        setter = Background(future.set_result, 5)
        until_asleep(setter)
        assert not future.done()
    setter.outcome()
    assert future.result(LIMIT) == 5


@pytest.mark.parametrize("outcome", ["result", "exception"])
def test_waiting_by_a_condition_that_is_put_there(lib: ModuleType, outcome: str) -> None:
    """futurist puts conditions of eventlet there: other green threads run in their ``wait``."""
    waits: list[float | None] = []

    class Cooperative(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            if outcome == "result":
                future.set_result(5)
            else:
                future.set_exception(KeyError(5))
            return True

    future = lib.Future()
    future._condition = Cooperative()
    if outcome == "result":
        assert future.result() == 5
    else:
        assert isinstance(future.exception(), KeyError)
    assert waits == [None]
    # Done: there is no wait.
    future.exception(LIMIT)
    assert waits == [None]


def test_a_condition_that_is_put_there_ends_a_wait_too_early(lib: ModuleType) -> None:
    class Hasty(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            return False

    future = lib.Future()
    future._condition = Hasty()
    with pytest.raises(lib.TimeoutError):
        future.result()
    assert not future.done()


def test_waiters_that_are_put_there(lib: ModuleType) -> None:
    told = []

    class Waiter:
        def add_result(self, future: Any) -> None:
            told.append(future)

    future = lib.Future()
    future._waiters = [Waiter()]
    future.set_result(1)
    assert told == [future]


@pytest.mark.parametrize("state", STATES)
def test_a_copy_shares_the_attributes_of_the_future(lib: ModuleType, state: str) -> None:
    future = future_in(lib, state)
    future.extra = 1
    copied = copy.copy(future)
    assert type(copied) is type(future)
    assert copied is not future
    assert copied._state == state
    assert copied.extra == 1
    for name in ("_condition", "_waiters", "_done_callbacks", "_result", "_exception"):
        assert getattr(copied, name) is getattr(future, name)


def test_a_copy_is_done_for_itself(lib: ModuleType) -> None:
    called: list[Any] = []
    future = lib.Future()
    future.add_done_callback(called.append)
    copied = copy.copy(future)
    copied.set_result(1)
    assert future._state == "PENDING"
    assert called == [copied]
    future.set_result(2)
    assert called == [copied, future]
    assert (copied.result(), future.result()) == (1, 2)


@pytest.mark.parametrize("state", STATES)
def test_neither_pickles_nor_deep_copies(lib: ModuleType, state: str) -> None:
    future = future_in(lib, state)
    for function in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"cannot pickle '_thread.RLock' object"):
            function(future)


class Reduced:
    """A base class whose instances pickle as the call `dict()`."""

    def __reduce__(self) -> Any:
        return dict, ()


def test_a_class_that_pickles_in_its_own_way(lib: ModuleType) -> None:
    kind: Any = type("Kind", (Reduced, lib.Future), {})
    assert pickle.loads(pickle.dumps(kind())) == {}


def test_a_class_that_leaves_out_attributes_that_cannot_be_pickled(lib: ModuleType) -> None:
    class Kind(lib.Future):  # type: ignore[name-defined, misc]
        def __getstate__(self) -> dict[str, Any]:
            state: dict[str, Any] = super().__getstate__()
            state = dict(state)
            del state["_condition"]
            return state

    future = Kind()
    future.set_result(5)
    copied = copy.copy(future)
    assert copied._state == "FINISHED"
    assert copied._result == 5
