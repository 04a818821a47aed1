"""Tests of spare workers: a pool whose workers all wait for its own tasks gets one, and no other
pool does."""

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from concurrent_futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    DeadlockError,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from support import LIMIT, eventually, held, prints, until_asleep

# Each waits for a future of the calling task's pool, and returns its result.
WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "result": lambda _, future: future.result(),
    "result with a limit": lambda _, future: future.result(LIMIT),
    "exception": lambda _, future: (future.exception(), future.result())[1],
    "wait": lambda _, future: wait([future]).done.pop().result(),
    "wait for the first": lambda _, future: (
        wait([future], LIMIT, return_when=FIRST_COMPLETED).done.pop().result()
    ),
    "as_completed": lambda _, future: next(as_completed([future])).result(),
    "as_completed with a limit": lambda _, future: next(as_completed([future], LIMIT)).result(),
    "map": lambda pool, future: next(pool.map(lambda future: future.result(), [future])),
}


@pytest.fixture(params=WAYS)
def wait_for(request: pytest.FixtureRequest) -> Callable[[Any, Any], Any]:
    """Returns a way to wait for a future."""
    return WAYS[request.param]


def warm(pool: Any, workers: int) -> None:
    """Starts as many workers of the pool."""
    barrier = threading.Barrier(workers)
    for future in [pool.submit(barrier.wait, LIMIT) for _ in range(workers)]:
        future.result(LIMIT)


@pytest.mark.parametrize("way", ["wait", "as_completed"])
def test_of_a_helper_and_work_the_work_is_done_first(lib: ModuleType, way: str) -> None:
    """With idle workers, a task that waits for the first of its subtasks runs none of them."""

    def outer() -> bool:
        stop = threading.Event()
        helper = pool.submit(stop.wait, LIMIT)
        work = pool.submit(pow, 3, 2)
        if way == "wait":
            done = lib.wait([helper, work], return_when=FIRST_COMPLETED).done
        else:
            done = {next(lib.as_completed([helper, work]))}
        stop.set()
        return bool(done == {work})

    with lib.ThreadPoolExecutor(4) as pool:
        warm(pool, 4)
        for _ in range(50):
            assert pool.submit(outer).result(LIMIT)


def test_with_idle_workers_a_subtask_has_a_thread_of_its_own(lib: ModuleType) -> None:
    lock, number = threading.RLock(), threading.local()

    def inner() -> tuple[int, bool, int | None]:
        return threading.get_ident(), lock.acquire(blocking=False), getattr(number, "is", None)

    def outer() -> bool:
        number.__dict__["is"] = 1
        with lock:
            thread, has_lock, seen = pool.submit(inner).result()
        del number.__dict__["is"]
        return thread != threading.get_ident() and not has_lock and seen is None

    with lib.ThreadPoolExecutor(4) as pool:
        warm(pool, 4)
        assert all(pool.submit(outer).result(LIMIT) for _ in range(200))


def test_the_only_worker_may_wait_for_its_pool(wait_for: Callable[[Any, Any], Any]) -> None:
    def outer() -> tuple[int, int]:
        inner = pool.submit(threading.get_ident)
        return threading.get_ident(), wait_for(pool, inner)

    with ThreadPoolExecutor(1) as pool:
        for _ in range(20):
            one, other = pool.submit(outer).result(LIMIT)
            assert one != other


def test_the_waiting_tasks_thread_state_is_not_shared(wait_for: Callable[[Any, Any], Any]) -> None:
    """Checks locks, thread-locals, contexts and running loops of the task that waits."""
    lock, local = threading.RLock(), threading.local()
    variable = contextvars.ContextVar("variable", default=0)

    async def loop() -> int:
        return 5

    def inner() -> tuple[bool, bool, int, int]:
        has_lock = lock.acquire(blocking=False)
        return has_lock, hasattr(local, "value"), variable.get(), asyncio.run(loop())

    def outer() -> Any:
        async def main() -> Any:
            return wait_for(pool, pool.submit(inner))

        local.value = 1
        variable.set(1)
        with lock:
            return asyncio.run(main())

    # As in the standard library, a worker has the context of the call that starts its thread. This
    # is so where threads inherit contexts: by default in free-threaded builds from CPython 3.14 on.
    inherited = int(getattr(sys.flags, "thread_inherit_context", 0))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(outer).result(LIMIT) == (False, False, inherited, 5)


def test_a_subtask_has_the_whole_recursion_limit() -> None:
    def descend(depth: int, last: Callable[[], int]) -> int:
        return descend(depth - 1, last) if depth else last()

    depth = sys.getrecursionlimit() * 2 // 3

    def outer() -> int:
        return descend(depth, lambda: pool.submit(descend, depth, lambda: 7).result())

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(outer).result(LIMIT) == 7


def test_threads_are_as_many_as_the_program_needs(lib: ModuleType) -> None:
    def outer() -> int:
        return int(pool.submit(pow, 3, 2).result(LIMIT))

    with lib.ThreadPoolExecutor(3, "name") as pool:
        warm(pool, 3)
        with held(pool):
            assert [pool.submit(outer).result(LIMIT) for _ in range(50)] == [9] * 50
        assert sorted(thread.name for thread in pool._threads) == ["name_0", "name_1", "name_2"]


def test_spare_threads_are_kept_known_and_ended() -> None:
    names: list[str] = []

    def inner() -> None:
        names.append(threading.current_thread().name)

    def outer() -> None:
        for _ in range(5):
            pool.submit(inner).result()

    with ThreadPoolExecutor(1, "name") as pool:
        for _ in range(3):
            pool.submit(outer).result(LIMIT)
        threads = set(pool._threads)
        assert {thread.name for thread in threads} == {"name_0", "name_1"}
        # Tasks that are submitted from outside are the regular worker's.
        for _ in range(20):
            pool.submit(inner).result(LIMIT)
    assert names == ["name_1"] * 15 + ["name_0"] * 20
    assert not any(thread.is_alive() for thread in threads)


def test_the_initializer_is_called_in_a_spare_thread() -> None:
    local = threading.local()

    def initialize(value: int) -> None:
        local.value = value

    def outer() -> Any:
        return local.value, pool.submit(lambda: local.value).result()

    with ThreadPoolExecutor(1, initializer=initialize, initargs=(3,)) as pool:
        assert pool.submit(outer).result(LIMIT) == (3, 3)


def test_an_initializer_that_fails_in_a_spare_thread_breaks_the_pool() -> None:
    calls: list[int] = []

    def initialize() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise ValueError

    with ThreadPoolExecutor(1, initializer=initialize) as pool:
        outer = pool.submit(lambda: pool.submit(pow, 3, 2).exception())
        assert isinstance(outer.result(LIMIT), BrokenExecutor)
        with pytest.raises(BrokenExecutor):
            pool.submit(int)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_more_tasks_run_than_the_pool_allows(workers: int) -> None:
    """Checks that waiting workers do not count, nor those that go on while other tasks run
    already."""
    lock = threading.Lock()
    running, most = 0, 0

    @contextlib.contextmanager
    def runs() -> Iterator[None]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        yield
        with lock:
            running -= 1

    def leaf() -> int:
        with runs():
            return sum(range(1000))

    def outer() -> int:
        return sum(pool.submit(leaf).result() for _ in range(5))

    with ThreadPoolExecutor(workers) as pool:
        assert [future.result(LIMIT) for future in [pool.submit(outer) for _ in range(20)]]
    assert most <= workers


def test_subtasks_of_all_workers_run_at_the_same_time() -> None:
    """As many spare workers come as there are tasks that wait, up to the pool's size."""
    barrier = threading.Barrier(4)
    all_run = threading.Barrier(4)

    def outer() -> int:
        all_run.wait(LIMIT)
        return int(pool.submit(barrier.wait, LIMIT).result())

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(outer) for _ in range(4)]
        assert sorted(future.result(LIMIT) for future in futures) == [0, 1, 2, 3]
        assert len(pool._threads) == 8


def test_a_worker_takes_no_task_while_a_spare_worker_runs_in_its_place() -> None:
    """The task that waited goes on by another future, while the spare worker runs."""
    release, runs = threading.Event(), threading.Event()
    order: list[str] = []
    pending: list[Any] = []

    def slow() -> None:
        runs.set()
        release.wait(LIMIT)
        order.append("slow")

    def outer() -> Any:
        pending.append(pool.submit(order.append, "cancelled"))
        asks = other.submit(pending[0].exception)
        eventually(asks.running)
        until_asleep(next(iter(other._threads)))
        slows = pool.submit(slow)
        assert wait([slows, asks], return_when=FIRST_COMPLETED).done == {asks}
        return slows

    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
        task = pool.submit(outer)
        assert runs.wait(LIMIT)
        assert pending[0].cancel()
        slows = task.result(LIMIT)
        later = pool.submit(order.append, "later")
        until_asleep(next(thread for thread in pool._threads if thread.name.endswith("_0")))
        release.set()
        slows.result(LIMIT)
        later.result(LIMIT)
    assert order == ["slow", "later"]


def test_a_short_time_limit_passes(lib: ModuleType) -> None:
    def outer() -> Any:
        inner = pool.submit(pow, 2, 2)
        for _ in range(3):
            with pytest.raises(lib.TimeoutError):
                inner.result(0.001)
            with pytest.raises(lib.TimeoutError):
                next(lib.as_completed([inner], 0.001))
            assert lib.wait([inner], 0.001).not_done == {inner}
        return inner

    with lib.ThreadPoolExecutor(1) as pool:
        assert pool.submit(outer).result(LIMIT).result(LIMIT) == 4


def test_two_pools_whose_tasks_wait_for_pending_tasks_of_the_other() -> None:
    def outer(own: Any, other: Any) -> int:
        both_run.wait(LIMIT)
        return int(other.submit(pow, 3, 2).result())

    both_run = threading.Barrier(2)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        futures = [one.submit(outer, one, two), two.submit(outer, two, one)]
        assert [future.result(LIMIT) for future in futures] == [9, 9]


def test_a_pool_inside_a_task_may_need_the_pool_of_the_task() -> None:
    def outer() -> int:
        behind = pool.submit(pow, 3, 2)
        with ThreadPoolExecutor(1) as inside:
            task = inside.submit(behind.result)
        return int(task.result())

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(outer).result(LIMIT) == 9


def test_two_tasks_that_shut_each_others_pools_down() -> None:
    def outer(other: Any) -> str:
        both_run.wait(LIMIT)
        try:
            other.shutdown(wait=True)
        except DeadlockError:
            return "deadlock"
        return "ended"

    both_run = threading.Barrier(2)
    one, two = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    futures = [one.submit(outer, two), two.submit(outer, one)]
    assert sorted(future.result(LIMIT) for future in futures) == ["deadlock", "ended"]


def test_two_bounded_pools_whose_tasks_submit_to_each_other() -> None:
    def outer(other: Any) -> None:
        both_run.wait(LIMIT)
        for _ in range(5):
            other.submit(int)

    both_run = threading.Barrier(2)
    with ThreadPoolExecutor(1, max_pending=1) as one, ThreadPoolExecutor(1, max_pending=1) as two:
        futures = [one.submit(outer, two), two.submit(outer, one)]
        assert [future.result(LIMIT) for future in futures] == [None, None]


def test_a_wait_that_needs_a_thread_which_cannot_be_started_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def outer() -> Any:
        inner = pool.submit(pow, 3, 2)
        try:
            return inner, inner.exception()
        except DeadlockError as error:
            return inner, error

    with ThreadPoolExecutor(1) as pool:
        warm(pool, 1)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            inner, error = pool.submit(outer).result(LIMIT)
        assert isinstance(error, DeadlockError)
        assert "can't start new thread" in str(error)
        assert inner.result(LIMIT) == 9
        # And the next one gets its thread.
        inner, error = pool.submit(outer).result(LIMIT)
        assert error is None


def test_fewer_workers_than_allowed_may_all_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the start of the second of two threads fail."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def outer() -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            inner = pool.submit(pow, 3, 2)
        return inner.result()

    with ThreadPoolExecutor(2) as pool:
        assert pool.submit(outer).result(LIMIT) == 9


def test_cycles_through_spare_workers_are_errors() -> None:
    """Lets a subtask wait for the task that waits for it."""

    def inner() -> Any:
        return outer_future[0].result()

    def outer() -> Any:
        go.wait(LIMIT)
        return pool.submit(inner).result()

    go = threading.Event()
    outer_future: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(20):
            outer_future[:] = [pool.submit(outer)]
            go.set()
            assert isinstance(outer_future[0].exception(LIMIT), DeadlockError)


def test_a_time_limit_elsewhere_hides_no_cycle() -> None:
    def ask(n: int) -> Any:
        go.wait(LIMIT)
        try:
            return futures[1 - n].exception()
        except DeadlockError as error:
            return error

    def watch() -> Any:
        go.wait(LIMIT)
        return futures[0].exception(LIMIT)

    go = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        watcher = pool.submit(watch)
        futures = [pool.submit(ask, n) for n in range(2)]
        eventually(lambda: all(future.running() for future in futures))
        go.set()
        errors = [future.result(LIMIT) for future in futures]
        assert sum(isinstance(error, DeadlockError) for error in errors) == 1
        assert watcher.result(LIMIT) is None


@pytest.mark.parametrize("workers", [1, 4])
def test_subtasks_as_deep_as_threads_allow(workers: int) -> None:
    def nest(depth: int) -> int:
        return int(pool.submit(nest, depth - 1).result()) + 1 if depth else 0

    with ThreadPoolExecutor(workers) as pool:
        assert pool.submit(nest, 500).result(LIMIT) == 500


def test_a_child_of_a_fork_knows_no_blocked_workers(package: ModuleType) -> None:
    out = prints(
        package,
        """
        import os, threading, warnings
        warnings.simplefilter("ignore")
        gate, both_run = threading.Event(), threading.Barrier(2)
        def inner():
            gate.wait()
            return 1
        def outer():
            both_run.wait()
            return pool.submit(inner).result()
        pool = futures.ThreadPoolExecutor(2)
        tasks = [pool.submit(outer) for _ in range(2)]
        while len(pool._threads) < 4: pass
        pid = os.fork()
        if pid == 0:
            gate.set()
            both_run = threading.Barrier(2)
            print([task.result() for task in [pool.submit(outer) for _ in range(2)]], flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        gate.set()
        print([task.result() for task in tasks])
        """,
        forks=True,
    )
    assert out == "[1, 1]\n[1, 1]\n"


def test_a_wait_that_an_outsider_cancels_is_no_deadlock() -> None:
    """Checks that a pending task gets a worker rather than an error, or is cancelled before."""

    def outer(other: Any) -> Any:
        both_run.wait(LIMIT)
        needed.append(other.submit(pow, 3, 2))
        return needed[-1].result()

    both_run = threading.Barrier(2)
    needed: list[Any] = []
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        futures = [one.submit(outer, two), two.submit(outer, one)]
        eventually(lambda: len(needed) == 2)
        for future in needed:
            future.cancel()
        for future in futures:
            error = future.exception(LIMIT)
            assert not isinstance(error, DeadlockError)


def test_the_end_of_the_program_waits_for_subtasks(package: ModuleType) -> None:
    out = prints(
        package,
        """
        import threading
        submitted = threading.Event()
        def outer():
            subtask = pool.submit(pow, 3, 2)
            submitted.set()
            print(subtask.result())
        pool = futures.ThreadPoolExecutor(1)
        pool.submit(outer)
        # At the program's end, no call can be submitted.
        submitted.wait()
        """,
    )
    assert out == "9\n"
