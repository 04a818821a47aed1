"""Objects that one thread makes and another one gives up: their counts, and their ends.

The tests hold on every build. On a free-threaded one, `interp/bias.rs` changes the words of the
counts before an object changes threads.
"""

import gc
import sys
import threading
import types
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, STRESS, Background, eventually, held

#: The rounds of a test that repeats something.
ROUNDS = int(4 * STRESS)


class Plain:
    """An object that can be referred to weakly."""

    reference: Any
    name: str


def function() -> None:
    """Stands for functions, whose counts of references the interpreter may defer."""


def echo(value: Any, *_: object) -> Any:
    """Return the first argument."""
    return value


def ignore(*_: object) -> None:
    """Return nothing."""


def hand_on(pool: Any, depth: int, value: object) -> Any:
    """Submit a task that hands its argument to another task, and so on."""
    if depth == 0:
        return [value, value]
    future = pool.submit(hand_on, pool, depth - 1, [value])
    future.add_done_callback(partial(ignore, value))
    return future


def are_gone(references: Sequence[weakref.ref[Any]]) -> bool:
    """Return whether all objects are gone, after a collection of garbage."""
    gc.collect()
    return not any(each() for each in references)


def with_weak_reference() -> Plain:
    """Return an object that has a weak reference to itself."""
    made = Plain()
    made.reference = weakref.ref(made)
    return made


def attributes() -> dict[str, Any]:
    """Return the dictionary of an object that is gone."""
    made = Plain()
    made.name = "name"
    return vars(made)


MAKERS: dict[str, Callable[[], Any]] = {
    "object": Plain,
    "with weak reference": with_weak_reference,
    "list": lambda: [1, 2],
    "tuple": lambda: (Plain(), Plain()),
    "attributes": attributes,
    "text": lambda: "".join(["a text", "of now"]),
    "number": lambda: 10**30 + len(sys.argv),
    "function": lambda: types.FunctionType(function.__code__, {}),
    "class": lambda: type("Made", (), {}),
    "module": lambda: ModuleType("made"),
    "method": lambda: [].append,
    "generator": lambda: (number for number in range(3)),
    "exception": lambda: ValueError("made"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_calls_leave_the_count_of_references_as_it_was(lib: ModuleType, kind: str) -> None:
    value = MAKERS[kind]()

    def count() -> int:
        return sys.getrefcount(value)

    before = count()
    with lib.ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            assert pool.submit(echo, value).result(LIMIT) is value
            assert pool.submit(echo, value=value).result(LIMIT) is value
            assert [each is value for each in pool.map(echo, [value] * 5)] == [True] * 5
            assert [each is value for each in pool.map(echo, [value], [value])] == [True]
    eventually(lambda: gc.collect() >= 0 and count() == before)


def freed_by(give_up: Callable[[Callable[[], Plain]], None]) -> threading.Thread:
    """Return the thread that frees an object; `give_up` gets the function that makes it."""
    freed: list[threading.Thread] = []

    def make() -> Plain:
        made = Plain()
        weakref.finalize(made, lambda: freed.append(threading.current_thread()))
        return made

    give_up(make)
    eventually(lambda: freed)
    return freed[0]


def test_an_argument_is_freed_by_the_worker_that_gives_it_up(package: ModuleType) -> None:
    with package.ThreadPoolExecutor(1, "worker") as pool:

        def submit(make: Callable[[], Plain]) -> None:
            with held(pool):
                future = pool.submit(ignore, make())
            future.result(LIMIT)

        def submit_by_name(make: Callable[[], Plain]) -> None:
            with held(pool):
                results = pool.map(ignore, iter([make()]))
            assert list(results) == [None]

        for give_up in (submit, submit_by_name):
            assert freed_by(give_up).name.startswith("worker")


def test_a_result_is_freed_by_the_thread_that_gives_it_up(package: ModuleType) -> None:
    with package.ThreadPoolExecutor(1, "worker") as pool:

        def submit(make: Callable[[], Plain]) -> None:
            future = pool.submit(make)
            assert type(future.result(LIMIT)) is Plain
            # The worker gives its own reference to a future up before it takes the next task.
            pool.submit(int).result(LIMIT)

        def map_(make: Callable[[], Plain]) -> None:
            assert [type(each) for each in pool.map(lambda _: make(), [None])] == [Plain]

        for give_up in (submit, map_):
            assert freed_by(give_up) is threading.current_thread()


class Submits:
    """An object whose finalizer submits the object."""

    def __init__(self, submit: Callable[[object], None]) -> None:
        self._submit = submit
        self.tail = Plain()
        self.itself: object = None

    def __del__(self) -> None:
        self._submit(self)


@pytest.mark.parametrize("is_garbage", [False, True], ids=["counted", "garbage"])
def test_a_finalizer_hands_its_object_on(lib: ModuleType, is_garbage: bool) -> None:
    futures: list[Any] = []
    tails: list[weakref.ref[Plain]] = []
    with lib.ThreadPoolExecutor(2) as pool:

        def submit(value: object) -> None:
            futures.append(pool.submit(ignore, value))

        def make() -> None:
            value = Submits(submit)
            if is_garbage:
                value.itself = value
            tails.append(weakref.ref(value.tail))

        for _ in range(ROUNDS):
            make()
        eventually(lambda: gc.collect() >= 0 and len(futures) == ROUNDS)
        assert [future.result(LIMIT) for future in futures] == [None] * ROUNDS
    eventually(partial(are_gone, tails))


def test_references_are_given_up_while_their_object_is_handed_on(lib: ModuleType) -> None:
    def give_up(values: list[Plain], begun: threading.Barrier) -> None:
        begun.wait(LIMIT)
        while values:
            values.pop(0)

    with lib.ThreadPoolExecutor(2) as pool:
        for _ in range(ROUNDS):
            values = [Plain() for _ in range(50)]
            references = [weakref.ref(value) for value in values]
            begun = threading.Barrier(2)
            # The counts of these references are this thread's.
            other = Background(give_up, list(values), begun)
            begun.wait(LIMIT)
            futures = [pool.submit(ignore, value) for value in values]
            values.clear()
            other.outcome()
            assert [future.result(LIMIT) for future in futures] == [None] * 50
            eventually(partial(are_gone, references))


def test_texts_are_interned_while_they_are_handed_on(lib: ModuleType) -> None:
    texts = [f"a text that is interned {number}" for number in range(20 * ROUNDS)]
    with lib.ThreadPoolExecutor(2) as pool:
        futures = []
        own = []
        for text in texts:
            futures += [pool.submit(sys.intern, text) for _ in range(2)]
            own.append(sys.intern("".join(list(text))))
        interned = [future.result(LIMIT) for future in futures]
    assert own == texts
    assert all(each is own[place // 2] for place, each in enumerate(interned))


def test_threads_hand_one_object_to_each_other(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(4) as pool:
        for _ in range(ROUNDS):
            value = Plain()
            ended = weakref.ref(value)
            futures = [hand_on(pool, 5, value) for _ in range(3)]
            del value
            while futures:
                result = futures.pop().result(LIMIT)
                if isinstance(result, lib.Future):
                    futures.append(result)
            del result
            eventually(partial(are_gone, [ended]))
