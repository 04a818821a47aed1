"""Tests of garbage: references are dropped in time, cycles are collected, and no memory is lost
over many rounds."""

import asyncio
import contextlib
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, eventually, freed, future_in, held, memory_in_use, prints, raised


class Object:
    """An object that can be referred to weakly, and refers to others."""

    def __init__(self, *others: Any) -> None:
        self.others = others

    def method(self, *_: Any) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def without_automatic_collections() -> Iterator[None]:
    """Turn automatic collections off, so that only reference counts and the test's own collections
    free objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def test_a_tasks_function_and_arguments_are_dropped_when_it_ran(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        objects = [Object(), Object(), Object()]
        references = [weakref.ref(each) for each in objects]
        future = pool.submit(objects[0].method, objects[1], *objects[2:])
        del objects
        assert future.result() is None
        for reference in references:
            eventually(partial(freed, reference))
        assert future.done()


def test_those_of_a_discarded_task_are_too(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        it = Object()
        reference = weakref.ref(it)
        pool.submit(it.method, it)
        del it
        eventually(partial(freed, reference))


def test_those_of_a_cancelled_task_are_dropped_in_the_end(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        it = Object()
        reference = weakref.ref(it)
        with held(pool):
            future = pool.submit(it.method, it)
            del it
            assert future.cancel()
        eventually(partial(freed, reference))


def test_ours_drop_those_of_a_cancelled_task_at_once() -> None:
    with concurrent_futures.ThreadPoolExecutor(1) as pool, held(pool):
        it = Object()
        reference = weakref.ref(it)
        future = pool.submit(it.method, it)
        del it
        assert future.cancel()
        assert reference() is None


def test_the_result_goes_with_the_future(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        future = pool.submit(Object)
        reference = weakref.ref(future.result())
        assert reference() is not None
        del future
        eventually(partial(freed, reference))


def test_a_future_is_dropped_when_its_task_ran(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            reference = weakref.ref(pool.submit(int))
            assert reference() is not None
        eventually(partial(freed, reference))


def test_an_idle_worker_keeps_nothing(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(Object, Object()) for _ in range(3)]
        results = [weakref.ref(future.result()) for future in futures]
        references = [weakref.ref(future) for future in futures]
        futures.clear()
        for reference in results + references:
            eventually(partial(freed, reference))


def test_raising_leaves_no_cycle(lib: ModuleType) -> None:
    def fails(it: Object) -> None:
        raise ValueError(it)

    def ask(pool: Any) -> list[weakref.ref[Any]]:
        it = Object()
        future = pool.submit(fails, it)
        with pytest.raises(ValueError, match="Object"):
            future.result()
        with pytest.raises(ValueError, match="Object"):
            next(pool.map(fails, [it]))
        return [weakref.ref(future), weakref.ref(it)]

    with lib.ThreadPoolExecutor(1) as pool:
        references = ask(pool)
        # The objects that pytest made of the exceptions have cycles of their own.
        gc.collect()
        for reference in references:
            eventually(partial(freed, reference))


def test_a_future_that_failed_is_freed_without_the_collector(lib: ModuleType) -> None:
    future = lib.Future()
    future.set_exception(ValueError())
    reference = weakref.ref(future)
    with contextlib.suppress(ValueError):
        future.result()
    del future
    assert reference() is None


@pytest.mark.parametrize(
    "tie",
    [
        lambda future: future.set_result(future),
        lambda future: future.set_result([future]),
        lambda future: future.set_exception(ValueError(future)),
        lambda future: setattr(future, "me", future),
        lambda future: future.add_done_callback(lambda _, me=future: None),
        lambda future: future._waiters.append(future),
        lambda future: setattr(future._condition, "future", future),
        lambda future: setattr(future, "_result", future),
        lambda future: setattr(future, "_exception", [future]),
    ],
)
def test_a_cycle_through_a_future_is_collected(lib: ModuleType, tie: Any) -> None:
    future = lib.Future()
    reference = weakref.ref(future)
    tie(future)
    del future
    gc.collect()
    assert reference() is None


def test_futures_take_part_in_garbage_collection(lib: ModuleType) -> None:
    value = Object()
    future = lib.Future()
    future.add_done_callback(value.method)
    assert gc.is_tracked(future)
    assert future in gc.get_referrers(future.__dict__) or value.method is not None
    future.set_result(value)
    referents = gc.get_referents(future) + gc.get_referents(future.__dict__)
    assert value in referents


def test_a_cycle_of_many_futures_is_collected(lib: ModuleType) -> None:
    futures = [lib.Future() for _ in range(1000)]
    references = [weakref.ref(future) for future in futures]
    for n, future in enumerate(futures):
        if n % 2:
            future.set_result(futures[n - 1])
        else:
            future.add_done_callback(Object(futures[n - 1]).method)
    del future, futures
    gc.collect()
    assert all(reference() is None for reference in references)


def test_cycles_through_tasks_and_their_futures_are_collected(lib: ModuleType) -> None:
    def task(holder: Object) -> Object:
        return holder

    references = []
    with lib.ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            holder = Object()
            holder.others = (pool.submit(task, holder), pool)
            references.append(weakref.ref(holder))
            holder.others[0].result()
        del holder
        pool.submit(int).result()

        def all_are_freed() -> bool:
            gc.collect()
            return all(reference() is None for reference in references)

        eventually(all_are_freed)


@pytest.mark.parametrize("state", ["new", "used", "shut down", "without end"])
def test_an_executor_in_a_cycle_is_collected_and_its_threads_end(
    lib: ModuleType, state: str
) -> None:
    pool = lib.ThreadPoolExecutor(2)
    pool.me = pool
    pool.holder = Object(pool)
    if state != "new":
        pool.future = pool.submit(Object, pool)
        pool.future.result()
    if state == "shut down":
        pool.shutdown()
    threads = list(pool._threads)
    reference = weakref.ref(pool)
    del pool

    def collected() -> bool:
        gc.collect()
        return reference() is None

    eventually(collected)
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_an_executor_in_its_initializers_cycle_is_collected(lib: ModuleType) -> None:
    holder = Object()
    pool = lib.ThreadPoolExecutor(1, initializer=holder.method, initargs=(holder,))
    holder.others = (pool,)
    reference = weakref.ref(pool)
    del pool, holder
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("state", ["new", "shut down"])
def test_executors_whose_initializer_is_their_own_method_are_freed(
    lib: ModuleType, state: str
) -> None:
    class Own(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(1, initializer=self.begin, initargs=(self,))

        def begin(self, _: object) -> None:
            pass

    for _ in range(5):
        pool = Own()
        if state != "new":
            assert pool.submit(int).result() == 0
            pool.shutdown()
        del pool

    # Weak references would be gone before that.
    def are_freed() -> bool:
        gc.collect()
        return not any(type(each) is Own for each in gc.get_objects())

    eventually(are_freed)


def test_pending_tasks_are_not_collected(lib: ModuleType) -> None:
    # Though only the queue refers to them.
    ran: list[int] = []
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            for n in range(100):
                holder = Object()
                holder.others = (pool.submit(lambda _, n: ran.append(n), holder, n),)
            del holder
            gc.collect()
    assert ran == list(range(100))


def test_collecting_while_everything_is_in_use(lib: ModuleType) -> None:
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            gc.collect()

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        with lib.ThreadPoolExecutor(2) as pool:
            for _ in range(20):
                futures = [pool.submit(Object, n) for n in range(50)]
                for future in futures:
                    future.add_done_callback(Object(future).method)
                lib.wait(futures[:10])
                assert len(list(lib.as_completed(futures, LIMIT))) == 50
                assert [result.others for result in pool.map(Object, range(20))] == [
                    (n,) for n in range(20)
                ]
    finally:
        stop.set()
        thread.join()


def test_an_object_whose_deletion_uses_the_pool(lib: ModuleType) -> None:
    class Last:
        """Submit a task."""

        def __del__(self) -> None:
            late.append(pool.submit(pow, 2, 3))

    late: list[Any] = []
    with lib.ThreadPoolExecutor(1) as pool:
        last = Last()
        reference = weakref.ref(last)
        future = pool.submit(id, last)
        del last
        future.result()
        eventually(lambda: freed(reference) and len(late) == 1)
        cancelled = pool.submit(Last)
        reference = weakref.ref(cancelled.result())
        del cancelled
        eventually(lambda: freed(reference) and len(late) == 2)
        assert [future.result(LIMIT) for future in late] == [8, 8]


def test_reference_counts_are_what_they_were(lib: ModuleType) -> None:
    value, error = Object(), ValueError()
    counts = sys.getrefcount(value), sys.getrefcount(error), sys.getrefcount(None)
    with lib.ThreadPoolExecutor(1) as pool:
        for _ in range(500):
            future = lib.Future()
            future.add_done_callback(value.method)
            future.set_result(value)
            assert future.result() is value
            assert future._result is value
            failed = raised(lib, error)
            assert failed.exception() is error
            assert failed._exception is error
            lib.wait([future, failed])
            list(lib.as_completed([future, failed]))
            pool.submit(value.method, value, error).result()
            assert list(pool.map(id, [value, error])) == [id(value), id(error)]
        del future, failed
    eventually(lambda: sys.getrefcount(value) == counts[0])
    eventually(lambda: sys.getrefcount(error) == counts[1])
    if sys.version_info < (3, 12):
        assert abs(sys.getrefcount(None) - counts[2]) < 400


def finished_tasks(pool: Any) -> None:
    """Runs tasks whose results are taken."""
    assert sum(future.result() for future in [pool.submit(abs, n) for n in range(200)]) == 19900


def failing_tasks(pool: Any) -> None:
    """Runs tasks that raise exceptions."""
    for future in [pool.submit(divmod, n, 0) for n in range(100)]:
        with contextlib.suppress(ZeroDivisionError):
            future.result()


def cancelled_tasks(pool: Any) -> None:
    """Cancels tasks that are still pending."""
    for future in [pool.submit(abs, n) for n in range(200)]:
        future.cancel()


def dropped_tasks(pool: Any) -> None:
    """Run tasks whose results are not taken."""
    for n in range(200):
        pool.submit(abs, n)
    pool.submit(int).result()


def callbacks(pool: Any) -> None:
    """Adds callbacks before and after the end of a task."""
    for future in [pool.submit(abs, n) for n in range(200)]:
        future.add_done_callback(Object(future).method)
        future.add_done_callback(id)


def waits(pool: Any) -> None:
    """Waits in all ways, also with time limits that pass."""
    left = {pool.submit(abs, n) for n in range(100)}
    while left:
        _, left = concurrent_futures.wait(left, return_when="FIRST_COMPLETED")
    futures = [pool.submit(abs, n) for n in range(100)]
    assert len(list(concurrent_futures.as_completed(futures))) == 100
    pending = concurrent_futures.Future[int]()
    concurrent_futures.wait([*futures, pending], 0.0001)
    for _ in concurrent_futures.as_completed([*futures, pending]):
        break
    with contextlib.suppress(TimeoutError):
        pending.result(0.0001)


def maps(pool: Any) -> None:
    """Uses up some results of `map`, and drops others."""
    assert sum(pool.map(abs, range(100))) == 4950
    assert sum(pool.map(abs, range(100), buffersize=3)) == 4950
    next(pool.map(abs, range(100)))
    pool.map(abs, range(10))


def standard_waits(pool: Any) -> None:
    """Waits by the standard library's functions."""
    import concurrent.futures

    futures = [pool.submit(abs, n) for n in range(100)]
    concurrent.futures.wait(futures[:50])
    assert len(list(concurrent.futures.as_completed(futures))) == 100


def cycles(_: Any) -> None:
    """Make garbage in reference cycles."""
    for _ in range(100):
        future = concurrent_futures.Future[Any]()
        future.add_done_callback(Object(future).method)
        future.set_result(future)
        pending = concurrent_futures.Future[Any]()
        pending.add_done_callback(Object(pending).method)


def pools(_: Any) -> None:
    """Make and end executors."""
    for n in range(4):
        pool = concurrent_futures.ThreadPoolExecutor(2)
        pool.submit(abs, n).result()
        pool.map(abs, range(10))
        if n % 2:
            pool.shutdown()
        else:
            threads = list(pool._threads)
            del pool
            for thread in threads:
                thread.join()


def awaits(pool: Any) -> None:
    """Awaits futures."""

    async def main() -> None:
        assert sum(await asyncio.gather(*[pool.submit(abs, n) for n in range(100)])) == 4950

    asyncio.run(main())


@pytest.mark.parametrize(
    "work",
    [
        finished_tasks,
        failing_tasks,
        cancelled_tasks,
        dropped_tasks,
        callbacks,
        waits,
        maps,
        standard_waits,
        cycles,
        pools,
        awaits,
    ],
)
def test_nothing_leaks_over_many_rounds(work: Callable[[Any], None]) -> None:
    """Checks that neither the memory of Python and the engine nor the number of objects grows."""
    rounds = 40
    with concurrent_futures.ThreadPoolExecutor(2) as pool:

        def some_rounds(number: int) -> tuple[int, int, int]:
            for _ in range(number):
                work(pool)
            pool.submit(int).result()
            gc.collect()
            return (len(gc.get_objects()), *memory_in_use())

        some_rounds(10)
        # A first measurement makes objects, too. Memory that grows for another reason (a larger
        # arena, a cache) grows once; a leak grows each time.
        growths = []
        before = some_rounds(rounds)
        for _ in range(4):
            after = some_rounds(rounds)
            growths.append([b - a for a, b in zip(before, after, strict=True)])
            before = after
        objects, blocks, in_use = (min(each) for each in zip(*growths, strict=True))
    assert objects < rounds, growths
    assert blocks < 3 * rounds, growths
    assert in_use < rounds * 400, growths


@pytest.mark.parametrize(
    "tie",
    [
        "new.set_result(old)",
        "new.set_exception(ValueError(old))",
        "new.add_done_callback(partial(print, old))",
        "new.set_result([old])",
        "new = pool.submit(identity, old); new.result()",
        "new.next = old",
    ],
)
def test_a_long_chain_of_futures_is_freed_without_overflowing_the_stack(
    package: ModuleType, tie: str
) -> None:
    out = prints(
        package,
        f"""
        import threading, gc
        from functools import partial
        def identity(it):
            return it
        def build_and_drop():
            old = None
            with futures.ThreadPoolExecutor(1) as pool:
                for _ in range(50_000):
                    new = futures.Future()
                    {tie}
                    old = new
            del new, old
            gc.collect()
        build_and_drop()
        thread = threading.Thread(target=build_and_drop)
        thread.start()
        thread.join()
        print("freed")
        """,
    )
    assert out == "freed\n"


def test_futures_that_are_made_without_init(lib: ModuleType) -> None:
    # They are of no use, but must not crash anything.
    future = lib.Future.__new__(lib.Future)
    uses: list[Callable[[Any], object]] = [
        repr,
        lambda future: future.done(),
        lambda future: future.cancel(),
        lambda future: lib.wait([future], 0),
    ]
    for use in uses:
        with contextlib.suppress(AttributeError):
            use(future)
    del future
    gc.collect()


def test_executors_that_are_made_without_init(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor.__new__(lib.ThreadPoolExecutor)
    uses: list[Callable[[Any], object]] = [
        repr,
        lambda pool: pool.submit(int),
        lambda pool: pool.map(int, [1]),
        lambda pool: pool.shutdown(),
    ]
    for use in uses:
        with contextlib.suppress(AttributeError, RuntimeError):
            use(pool)
    del pool
    gc.collect()


def test_a_future_in_every_state_is_freed(lib: ModuleType) -> None:
    for state in ["PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"]:
        future = future_in(lib, state)
        reference = weakref.ref(future)
        del future
        assert reference() is None
