"""Operations on futures, for `thread_stress.py`."""

import asyncio
import gc
import importlib
import random
import time
import weakref
from collections import Counter
from functools import partial
from typing import Any

from stress_common import (
    LIMIT,
    Bare,
    InvalidStateError,
    Shared,
    fail,
    operation,
    outcome,
    some,
    square,
)


@operation
def submit_and_result(shared: Shared, chance: random.Random) -> None:
    number = chance.randrange(100)
    assert shared.threads.submit(square, number).result(LIMIT) == number * number
    error = shared.threads.submit(fail, number).exception(LIMIT)
    assert error.args == (number,)


@operation
def as_completed(shared: Shared, chance: random.Random) -> None:
    futures = {*some(shared, chance), *shared.futures}
    found = set()
    for future in shared.lib.as_completed(futures, LIMIT):
        found.add(future)
        outcome(future)
    assert found == futures


@operation
def wait(shared: Shared, chance: random.Random) -> None:
    futures = some(shared, chance)
    lib = shared.lib
    when = chance.choice([lib.ALL_COMPLETED, lib.FIRST_COMPLETED, lib.FIRST_EXCEPTION])
    done, not_done = lib.wait(futures + shared.futures, LIMIT, when)
    assert done
    assert not (done & not_done)
    lib.wait(shared.futures, chance.choice([0, 0.001]))


@operation
def cancel(shared: Shared, chance: random.Random) -> None:
    futures = some(shared, chance)
    for future in reversed(futures):
        future.cancel()
        assert future.cancelled() or future.running() or future.done()
    shared.futures[0].cancel()
    assert all(outcome(future) is None or future.done() for future in futures)


@operation
def callbacks(shared: Shared, chance: random.Random) -> None:
    futures = some(shared, chance)
    called: list[Any] = []
    expected = futures + shared.futures
    for future in expected:
        future.add_done_callback(called.append)
    shared.lib.wait(expected, LIMIT)
    end = time.monotonic() + LIMIT
    while len(called) < len(expected) and time.monotonic() < end:
        time.sleep(0)
    assert Counter(map(id, called)) == Counter(map(id, expected))


@operation
def set_by_hand(shared: Shared, chance: random.Random) -> None:
    future = shared.lib.Future()
    setters = [partial(future.set_result, n) for n in range(3)]
    setters += [partial(future.set_exception, KeyError(3))]
    calls = [shared.threads.submit(setter) for setter in setters]
    number = outcome(future)
    assert number in range(4)
    errors = [call.exception(LIMIT) for call in calls]
    assert sum(error is None for error in errors) == 1
    running = shared.lib.Future()
    if running.set_running_or_notify_cancel():
        running.set_result(number)
    assert running.result() == number


@operation
def attributes(shared: Shared, chance: random.Random) -> None:
    futures = some(shared, chance) + shared.futures
    repr(futures)
    for future in futures:
        with future._condition:
            assert future._state in (
                "PENDING",
                "RUNNING",
                "FINISHED",
                "CANCELLED",
                "CANCELLED_AND_NOTIFIED",
            )
            list(future._waiters)
        list(future._done_callbacks)
        assert weakref.ref(future)() is future
        vars(future)["note"] = chance.randrange(10)


@operation
def time_limits(shared: Shared, chance: random.Random) -> None:
    number = chance.randrange(100)
    assert shared.threads.submit(square, number).result() == number * number
    assert shared.threads.submit(square, number).exception() is None
    pending = shared.lib.Future()
    for ask in (pending.result, pending.exception):
        try:
            ask(chance.choice([0, 1e-4]))
        except TimeoutError:
            pass
        else:
            raise AssertionError("the future is pending")
    shared.threads.submit(pending.set_result, number)
    try:
        found = pending.result(chance.choice([0, 1e-4, LIMIT]))
    except TimeoutError:
        found = pending.result()
    assert found == number


def finish(bare: Bare, number: int) -> bool:
    """Set the outcome of a future, unless it has one."""
    try:
        if number % 2:
            bare.future.set_exception(KeyError(number))
        else:
            bare.future.set_result(number)
    except InvalidStateError:
        return False
    bare.set.append(number)
    assert bare.set == [number]
    assert outcome(bare.future) == number
    return True


@operation
def shared_bare_futures(shared: Shared, chance: random.Random) -> None:
    place = chance.randrange(len(shared.bare))
    bare = shared.bare[place]
    future = bare.future
    match chance.randrange(8):
        case 0:
            shared.bare[place] = Bare(shared.lib)
            finish(bare, chance.randrange(9))
            assert future.done()
        case 1:
            finish(bare, chance.randrange(9))
        case 2:
            if future.cancel():
                assert future.cancelled()
                assert not bare.set
        case 3:
            try:
                if not future.set_running_or_notify_cancel():
                    assert future.cancelled()
            except RuntimeError as error:
                if "unexpected state" not in str(error):
                    raise
        case 4:
            future.add_done_callback(lambda done: done.done() or fail(0))
        case 5:
            # The package reports it as the standard library does, and calls the others.
            future.add_done_callback(lambda _: fail(1))
        case 6:
            done, not_done = shared.lib.wait([future, shared.bare[0].future], 1e-4)
            assert future in done | not_done
        case 7:
            try:
                found = list(shared.lib.as_completed({future}, 1e-4))
            except TimeoutError:
                found = []
            assert all(each is future and each.done() for each in found)
    assert len(bare.set) <= 1
    repr(future)


@operation
def changing_containers(shared: Shared, chance: random.Random) -> None:
    future = shared.threads.submit(square, chance.randrange(100))
    container = chance.choice(shared.containers)
    is_full = len(container) > 20
    if isinstance(container, list):
        container.append(future)
        if is_full:
            container.pop(0)
    elif isinstance(container, set):
        container.add(future)
        if is_full:
            container.pop()
    else:
        container[future] = None
        if is_full:
            container.popitem()
    lib = shared.lib
    when = chance.choice([lib.ALL_COMPLETED, lib.FIRST_COMPLETED, lib.FIRST_EXCEPTION])
    try:
        if chance.randrange(2):
            done, not_done = lib.wait(container, LIMIT, when)
            assert when != lib.ALL_COMPLETED or not not_done
        else:
            done = set(lib.as_completed(container, LIMIT))
        assert all(isinstance(outcome(each), int) for each in done)
    except RuntimeError as error:
        if "changed" not in str(error):
            raise


class Waiter:
    """An object in the list of waiters, as other libraries put there."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def add_result(self, future: Any) -> None:
        """Note that the future has a result."""
        self.told.append(future)

    add_exception = add_cancelled = add_result


@operation
def waiters(shared: Shared, chance: random.Random) -> None:
    future = shared.lib.Future()
    waiter = Waiter()
    with future._condition:
        future._waiters.append(waiter)
    ends = [partial(future.set_result, 1), partial(future.set_exception, KeyError(1))]
    setting = shared.threads.submit(chance.choice(ends))
    waiting = shared.threads.submit(shared.lib.wait, [future], LIMIT)
    done, _ = shared.lib.wait([future], LIMIT)
    assert done == waiting.result(LIMIT).done == {future}
    assert setting.exception(LIMIT) is None
    assert waiter.told == [future]
    with future._condition:
        future._waiters.remove(waiter)
        assert future._waiters == []


@operation
def list_of_callbacks(shared: Shared, chance: random.Random) -> None:
    future = shared.lib.Future()
    by_method: list[Any] = []
    by_list: list[Any] = []
    setting = shared.threads.submit(future.set_result, 1)
    adding = shared.threads.submit(future.add_done_callback, by_method.append)
    if chance.randrange(2):
        future._done_callbacks.append(by_list.append)
    future.add_done_callback(by_method.append)
    for each in (setting, adding):
        assert each.exception(LIMIT) is None
    assert by_method == [future, future]
    # It is called if it was there in time.
    assert by_list in ([], [future])


@operation
def replaced_outcomes(shared: Shared, chance: random.Random) -> None:
    future = shared.lib.Future()
    future.set_result(0)
    readers = [shared.threads.submit(future.result) for _ in range(4)]
    for number in range(1, 10):
        future._result = number
    assert all(reader.result(LIMIT) in range(10) for reader in readers)
    assert future.result() == 9
    pending = shared.lib.Future()
    looks = [shared.threads.submit(getattr, pending, "_state") for _ in range(4)]
    for state in ("RUNNING", "PENDING", "RUNNING", "PENDING"):
        pending._state = state
    assert all(look.result(LIMIT) in ("RUNNING", "PENDING") for look in looks)
    pending.set_result(1)
    assert pending.result() == 1


@operation
def wait_by_standard_library(shared: Shared, chance: random.Random) -> None:
    standard = importlib.import_module("concurrent.futures")
    futures = some(shared, chance)
    if chance.randrange(2):
        assert standard.wait(futures, LIMIT).done == set(futures)
    else:
        assert set(standard.as_completed(futures, LIMIT)) == set(futures)


@operation
def event_loops(shared: Shared, chance: random.Random) -> None:
    numbers = [chance.randrange(100) for _ in range(5)]

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(shared.threads, square, number) for number in numbers]
        wrapped = [asyncio.wrap_future(shared.threads.submit(square, n)) for n in numbers]
        wrapped[0].cancel()
        await asyncio.wait(wrapped)
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [number * number for number in numbers]


@operation
def weak_references(shared: Shared, chance: random.Random) -> None:
    number = chance.randrange(100)
    dropped: list[Any] = []
    future = shared.threads.submit(square, number)
    place = chance.randrange(len(shared.weak))
    reference = shared.weak[place] = weakref.ref(future, dropped.append)
    if chance.randrange(2):
        assert future.result(LIMIT) == number * number
    assert reference() is future
    del future
    found = chance.choice(shared.weak)()
    if found is not None:
        assert outcome(found) ** 0.5 in range(100)
    assert dropped in ([], [reference])


@operation
def rings(shared: Shared, chance: random.Random) -> None:
    futures = some(shared, chance)
    for future, neighbour in zip(futures, futures[1:] + futures[:1], strict=True):
        vars(future)["next"] = neighbour
        future.add_done_callback(lambda _, kept=neighbour: kept)
    pending = shared.lib.Future()
    pending.itself = pending
    pending.add_done_callback(lambda _, kept=pending: kept)
    shared.lib.wait(futures, LIMIT)
    if chance.randrange(10) == 0:
        gc.collect(chance.randrange(3))
