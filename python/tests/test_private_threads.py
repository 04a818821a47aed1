"""Tests of the private parts of thread pools, as popular code reads, replaces and overrides
them."""

import importlib
import queue
import threading
import time
import weakref
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, Background, eventually, held, prints, run


def thread_module(lib: ModuleType) -> Any:
    """Returns the module of the thread pools."""
    return importlib.import_module(f"{lib.__name__}.thread")


def args_of(item: Any) -> Any:
    """Returns the arguments of the call of a task. From CPython 3.14 on, they are a part of the
    call."""
    return item.task[1] if hasattr(item, "task") else item.args


def run_item(pool: Any, item: Any) -> None:
    """Runs a task of the queue, as a worker does; from CPython 3.14 on, it has a context."""
    if hasattr(pool, "_create_worker_context"):
        item.run(pool._create_worker_context())
    else:
        item.run()


class Ordered:
    """A task of a priority queue."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __lt__(self, other: "Ordered") -> bool:
        return bool(args_of(self.item) < args_of(other.item))


class PriorityQueue(queue.PriorityQueue[Any]):
    """A queue from which tasks with the least arguments come first, and the marks that wake workers
    last."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Adds a task."""
        super().put((item is None, item and Ordered(item)), block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes a task."""
        is_wake_up, ordered = super().get(block, timeout)
        return None if is_wake_up else ordered.item


# ---- the queue


def test_the_queue_counts_pending_tasks(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        assert pool._work_queue.empty()
        futures = [pool.submit(int) for _ in range(3)]
        assert pool._work_queue.qsize() == 3
        assert not pool._work_queue.empty()
    assert [future.result() for future in futures] == [0, 0, 0]


def test_pending_tasks_are_taken_out_of_the_queue_and_cancelled(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        futures = [pool.submit(int) for _ in range(3)]
        items = []
        with pytest.raises(queue.Empty):
            while True:
                items.append(pool._work_queue.get(block=False))
        assert [item.future for item in items] == futures
        assert all(item.future.cancel() for item in items)
        last = pool.submit(int, "4")
    assert all(future.cancelled() for future in futures)
    assert last.result(LIMIT) == 4


def test_the_queue_is_drained_after_shutdown(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(1)
    with held(pool):
        futures = [pool.submit(int) for _ in range(3)]
        pool.shutdown(wait=False)
        with pytest.raises(queue.Empty):
            while True:
                item = pool._work_queue.get_nowait()
                if item is not None:
                    item.future.cancel()
    assert [future.cancelled() for future in futures] == [True] * 3
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(int)
    pool._work_queue.put(None)  # It was drained, too.
    for thread in pool._threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_a_task_from_the_queue_knows_its_call_and_can_be_run(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        future = pool.submit(int, "11", base=2)
        item = pool._work_queue.get_nowait()
        assert args_of(item) == ("11",)
        run_item(pool, item)
        assert future.result() == 3
        failing = pool.submit(int, "x")
        run_item(pool, pool._work_queue.get(timeout=LIMIT))
        assert isinstance(failing.exception(), ValueError)


def test_a_task_that_was_taken_is_put_back(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            future = pool.submit(int, "5")
            pool._work_queue.put(pool._work_queue.get_nowait())
        assert future.result(LIMIT) == 5


def test_tasks_stay_in_their_order_when_the_queue_is_touched(lib: ModuleType) -> None:
    order: list[int] = []
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            for number in range(50):
                pool.submit(order.append, number)
            pool._work_queue.put(pool._work_queue.get_nowait())
            for number in range(50, 100):
                pool.submit(order.append, number)
    assert order == [*range(1, 50), 0, *range(50, 100)]


def test_map_goes_on_when_the_queue_is_touched(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            waiting = Background(list, pool.map(abs, [-1, -2]))
            failing = pool.map(int, ["7", "x"])
            powers = pool.map(pow, [2, 3, 4], [1, 2, 3])
            pool._work_queue.put(pool._work_queue.get_nowait())
            late = pool.map(str, [8, 9])
        assert waiting.outcome() == [1, 2]
        assert next(failing) == 7
        with pytest.raises(ValueError, match="'x'"):
            next(failing)
        assert list(powers) == [2, 9, 64]
        assert list(late) == ["8", "9"]


def test_calls_of_map_are_cancelled_after_the_queue_was_touched(lib: ModuleType) -> None:
    called: list[int] = []
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            results = pool.map(called.append, range(5), timeout=0)
            pool._work_queue.put(pool._work_queue.get_nowait())
            with pytest.raises(TimeoutError):
                next(results)
            last = pool.submit(int)
        assert last.result(LIMIT) == 0
    assert called == []


def test_the_call_of_map_that_code_takes_from_the_queue_is_that_of_the_iterator(
    lib: ModuleType,
) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        results = pool.map(pow, [2, 3], [5, 2])
        for _ in range(2):
            run_item(pool, pool._work_queue.get_nowait())
        assert list(results) == [32, 9]


def test_a_cancelled_task_is_notified_by_a_worker(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            future = pool.submit(int)
            pool._work_queue.put(pool._work_queue.get_nowait())
            assert future.cancel()
        eventually(lambda: future._state == "CANCELLED_AND_NOTIFIED")
        assert lib.wait([future], LIMIT).done == {future}


@pytest.mark.parametrize("when", ["in the constructor", "before tasks"])
def test_a_bounded_queue_blocks_submit(lib: ModuleType, when: str) -> None:
    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(1)
            if when == "in the constructor":
                self._work_queue: Any = queue.Queue(2)

    with Pool() as pool:
        if when == "before tasks":
            pool._work_queue = queue.Queue(2)
        check_bound(pool)


def test_a_queue_that_is_replaced_while_a_task_runs(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        with held(pool):
            before = pool._work_queue
            pool._work_queue = queue.Queue(2)
            # The thread that is there stays with its queue.
            future = pool.submit(threading.current_thread)
            assert future.result(LIMIT) in pool._threads
            assert len(pool._threads) == 2
            before.put(None)
        before.put(None)


def check_bound(pool: Any) -> None:
    """Checks that one task runs, two are pending, and no more are submitted."""
    with held(pool):
        futures = [pool.submit(int) for _ in range(2)]
        submitting = threading.Thread(target=lambda: futures.append(pool.submit(int)))
        submitting.start()
        submitting.join(0.05)
        assert submitting.is_alive()
    submitting.join(LIMIT)
    assert [future.result(LIMIT) for future in futures] == [0] * 3


def test_a_priority_queue_decides_which_task_comes_first(lib: ModuleType) -> None:
    done: list[int] = []
    pool = lib.ThreadPoolExecutor(1)
    pool._work_queue = PriorityQueue()
    with pool:
        with held(pool):
            for number in (3, 1, 2):
                pool.submit(done.append, number)
    assert done == [1, 2, 3]


def test_a_pool_whose_queue_was_set_before_its_constructor_ran(lib: ModuleType) -> None:
    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            before: Any = queue.Queue()
            self._work_queue = before
            super().__init__(1)

    with Pool() as pool:
        assert pool.submit(int, "1").result(LIMIT) == 1


# ---- threads


def test_an_overridden_adjust_thread_count_is_called(lib: ModuleType) -> None:
    calls: list[Any] = []

    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def _adjust_thread_count(self) -> None:
            calls.append(len(self._threads))
            super()._adjust_thread_count()

    with Pool(1) as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
    assert len(calls) == 2


def test_a_mixin_overrides(lib: ModuleType) -> None:
    calls: list[Any] = []

    class Mixin:
        def _adjust_thread_count(self) -> None:
            calls.append(1)
            super()._adjust_thread_count()  # type: ignore[misc]

    class Pool(Mixin, lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        pass

    with Pool(1) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
    assert calls == [1]


@pytest.mark.parametrize("of", ["class", "instance"])
def test_a_patched_adjust_thread_count_is_called(
    lib: ModuleType, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = lib.ThreadPoolExecutor._adjust_thread_count
    calls: list[Any] = []

    def patched(*pool: Any) -> None:
        calls.append(pool)
        original(*pool or (of_instance,))

    if of == "class":
        monkeypatch.setattr(lib.ThreadPoolExecutor, "_adjust_thread_count", patched)
    with lib.ThreadPoolExecutor(1) as of_instance:
        if of == "instance":
            of_instance._adjust_thread_count = patched
        assert of_instance.submit(abs, -1).result(LIMIT) == 1
    assert len(calls) == 1


def daemon_pool(lib: ModuleType) -> Any:
    """Returns the class, found in many programs, whose threads do not keep the program from
    ending."""
    module = thread_module(lib)

    class DaemonPool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def _adjust_thread_count(self) -> None:
            if self._idle_semaphore.acquire(timeout=0):
                return

            def wake(_: object, put: Any = self._work_queue.put) -> None:
                put(None)

            if len(self._threads) < self._max_workers:
                reference = weakref.ref(self, wake)
                args: tuple[Any, ...]
                if hasattr(module, "WorkerContext"):
                    args = (reference, self._create_worker_context(), self._work_queue)
                else:
                    args = (reference, self._work_queue, self._initializer, self._initargs)
                thread = threading.Thread(target=module._worker, daemon=True, args=args)
                thread.start()
                self._threads.add(thread)

    return DaemonPool


def test_a_pool_of_daemons(lib: ModuleType) -> None:
    with daemon_pool(lib)(2) as pool:
        assert pool.submit(lambda: threading.current_thread().daemon).result(LIMIT)
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_a_pool_of_daemons_lets_the_program_end(lib: ModuleType) -> None:
    assert (
        prints(
            lib,
            """
            import test_private_threads, threading
            pool = test_private_threads.daemon_pool(futures)(1)
            running = threading.Event()
            task = pool.submit(lambda: running.set() or threading.Event().wait())
            running.wait()
            print("the end")
            """,
        )
        == "the end\n"
    )


def test_more_workers_are_allowed_while_tasks_run(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool):
        pool._max_workers = 3
        barrier = threading.Barrier(2)
        futures = [pool.submit(barrier.wait, LIMIT) for _ in range(2)]
        assert sorted(future.result(LIMIT) for future in futures) == [0, 1]
        assert len(pool._threads) == 3


def test_a_task_that_waits_for_a_pending_one_is_served_by_a_worker_more(lib: ModuleType) -> None:
    def outer() -> int:
        pool._max_workers = 2
        pool.submit(int)  # This is when the standard library starts threads.
        result: int = inner[0].result(LIMIT)
        return result

    with lib.ThreadPoolExecutor(1) as pool:
        ready = threading.Event()
        inner: list[Any] = []
        task = pool.submit(lambda: ready.wait(LIMIT) and outer())
        inner.append(pool.submit(int, "7"))
        ready.set()
        assert task.result(LIMIT) == 7


def test_threads_go_on_when_the_pool_is_touched(lib: ModuleType) -> None:
    started: list[int] = []
    with lib.ThreadPoolExecutor(2, initializer=lambda: started.append(1)) as pool:
        with held(pool, 2):
            before = set(pool._threads)
            assert not pool._shutdown_lock.locked()
            future = pool.submit(threading.current_thread)
        assert future.result(LIMIT) in before
        assert pool._threads == before
    assert started == [1, 1]
    assert not any(thread.is_alive() for thread in before)


def test_idle_threads_take_tasks_after_the_pool_was_touched(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.current_thread).result(LIMIT)
        eventually(lambda: pool._idle_semaphore._value == 1)
        assert pool.submit(threading.current_thread).result(LIMIT) is thread


def test_the_threads_of_a_touched_pool_end_with_it(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(2)
    threads = {pool.submit(threading.current_thread).result(LIMIT)}
    assert pool._idle_semaphore is not None
    del pool
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_the_end_of_a_program_waits_for_a_touched_pool(lib: ModuleType) -> None:
    assert (
        prints(
            lib,
            """
            import threading, time
            pool = futures.ThreadPoolExecutor(1)
            running = threading.Event()
            pool.submit(lambda: (running.set(), time.sleep(0.2), print("first")))
            pool.submit(print, "second")
            running.wait()
            pool._shutdown_lock
            pool.submit(print, "third")
            print("the end")
            """,
        )
        == "the end\nfirst\nsecond\nthird\n"
    )


def test_shutdown_waits_for_no_thread_that_was_taken_out(lib: ModuleType) -> None:
    # Found in many programs that end on Ctrl-C at once.
    pool = lib.ThreadPoolExecutor(1)
    with held(pool):
        thread = next(iter(pool._threads))
        pool._threads.clear()
        pool.shutdown()
        assert thread.is_alive()
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_a_replaced_kind_of_threads_is_used(
    lib: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Thread(threading.Thread):
        pass

    monkeypatch.setattr(threading, "Thread", Thread)
    with lib.ThreadPoolExecutor(1) as pool:
        assert type(pool.submit(threading.current_thread).result(LIMIT)) is Thread


@pytest.mark.parametrize("how", ["the worker", "the class", "a method of it"])
def test_names_that_the_standard_library_uses_are_replaced(
    lib: ModuleType, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("concurrent.futures.thread")
    calls: list[str] = []
    if how == "the worker":
        worker = module._worker

        def patched(*args: Any) -> None:
            calls.append(how)
            worker(*args)

        monkeypatch.setattr(module, "_worker", patched)
    elif how == "the class":

        class Item(module._WorkItem):  # type: ignore[misc, name-defined]
            def run(self, *args: Any) -> None:
                calls.append(how)
                super().run(*args)

        monkeypatch.setattr(module, "_WorkItem", Item)
    else:
        original = module._WorkItem.run

        def run_patched(self: Any, *args: Any) -> None:
            calls.append(how)
            original(self, *args)

        monkeypatch.setattr(module._WorkItem, "run", run_patched)
    with lib.ThreadPoolExecutor(1) as pool:
        assert pool.submit(int, "3").result(LIMIT) == 3
    assert calls == [how]


def test_threads_and_their_queues_are_known(lib: ModuleType) -> None:
    module = thread_module(lib)
    with lib.ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.current_thread).result(LIMIT)
        assert module._threads_queues[thread] is pool._work_queue


def test_the_end_of_the_interpreter_called_by_hand_ends_the_threads(lib: ModuleType) -> None:
    program = f"""
    import {lib.__name__}.thread, threading
    pool = futures.ThreadPoolExecutor(1)
    pool.submit(print, "task")
    {lib.__name__}.thread._python_exit()
    print([thread.is_alive() for thread in pool._threads])
    try:
        pool.submit(print)
    except RuntimeError as error:
        print(error)
    """
    out = prints(lib, program).splitlines()
    assert out[:2] == ["task", "[False]"]
    assert out[2].startswith("cannot schedule new futures after")


# ---- state


def test_a_pool_that_was_marked_as_shut_down_refuses(lib: ModuleType) -> None:
    pool = lib.ThreadPoolExecutor(1)
    pool._shutdown = True
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(int)
    pool._shutdown = False
    assert pool.submit(int).result(LIMIT) == 0
    pool.shutdown()


def test_a_pool_that_was_marked_as_broken_refuses(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        pool._broken = "it is full of holes"
        with pytest.raises(thread_module(lib).BrokenThreadPool, match="full of holes"):
            pool.submit(int)


def test_the_holder_of_the_lock_keeps_others_from_submitting(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        with pool._shutdown_lock:
            submitting = threading.Thread(target=pool.submit, args=(int,))
            submitting.start()
            submitting.join(0.05)
            assert submitting.is_alive()
        submitting.join(LIMIT)
        assert not submitting.is_alive()


def test_a_submit_of_its_own_with_the_standard_librarys_parts(lib: ModuleType) -> None:
    module = thread_module(lib)

    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def submit(self, fn: Any, /, *args: Any) -> Any:
            with self._shutdown_lock:
                if self._shutdown:
                    raise RuntimeError("closed")
                future = lib.Future()
                parts: tuple[Any, ...]
                if hasattr(self, "_resolve_work_item_task"):
                    parts = (self._resolve_work_item_task(fn, args, {}),)
                else:
                    parts = (fn, args, {})
                self._work_queue.put(module._WorkItem(future, *parts))
                self._adjust_thread_count()
                return future

    with Pool(2) as pool:
        assert pool.submit(int, "7").result(LIMIT) == 7
        assert list(pool.map(int, "123")) == [1, 2, 3]
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(int)


def test_an_initializer_that_is_set_later_is_called(lib: ModuleType) -> None:
    called: list[int] = []
    pool = lib.ThreadPoolExecutor(1)
    if not hasattr(pool, "_initializer"):
        pytest.skip("this version's pools keep it elsewhere")
    pool._initializer, pool._initargs = called.append, (1,)
    with pool:
        pool.submit(int).result(LIMIT)
    assert called == [1]


def test_a_failing_initializer_breaks_a_pool_with_overrides(lib: ModuleType) -> None:
    class Pool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        failed = False

        def _initializer_failed(self) -> None:
            Pool.failed = True
            super()._initializer_failed()

    with Pool(1, initializer=lambda: 1 / 0) as pool:
        broken = thread_module(lib).BrokenThreadPool
        with pytest.raises(broken):
            pool.submit(int).result(LIMIT)
        with pytest.raises(broken):
            pool.submit(int)
    assert Pool.failed


def submit_many(pool: Any, start: threading.Barrier, futures: list[Any]) -> None:
    """Submits tasks from several threads when all threads are ready."""
    start.wait(LIMIT)
    futures.extend([pool.submit(abs, -n) for n in range(100)])


def test_submitters_while_the_pool_is_touched_lose_nothing(lib: ModuleType) -> None:
    for _ in range(20):
        with lib.ThreadPoolExecutor(3) as pool:
            results: list[Any] = []
            start = threading.Barrier(4)
            args = (pool, start, results)
            threads = [threading.Thread(target=submit_many, args=args) for _ in range(3)]
            for thread in threads:
                thread.start()
            start.wait(LIMIT)
            assert pool._idle_semaphore is not None
            for thread in threads:
                thread.join(LIMIT)
            assert sum(future.result(LIMIT) for future in results) == 3 * 4950


def test_the_standard_librarys_attributes_are_of_its_kinds(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        assert isinstance(pool._work_queue, queue.SimpleQueue)
        assert isinstance(pool._threads, set)
        assert isinstance(pool._idle_semaphore, threading.Semaphore)
        assert isinstance(pool._shutdown_lock, type(threading.Lock()))
        assert (pool._shutdown, pool._broken, pool._max_workers) == (False, False, 1)
    assert pool._shutdown is True
    for name in ("_work_queue", "_threads", "_shutdown", "_initializer"):
        assert not hasattr(lib.ThreadPoolExecutor, name)
    with pytest.raises(AttributeError):
        _ = pool._never_heard_of


def test_a_pool_has_the_attributes_of_this_versions_standard_library(package: ModuleType) -> None:
    # Other versions have other attributes, by which programs tell the versions apart.
    of_versions = {"_initializer", "_initargs", "_create_worker_context", "_resolve_work_item_task"}
    original = importlib.import_module("concurrent.futures").ThreadPoolExecutor(1)
    with original, package.ThreadPoolExecutor(1) as pool:
        theirs = set(vars(original))
        assert [name for name in theirs if not hasattr(pool, name)] == []
        assert [name for name in of_versions - theirs if hasattr(pool, name)] == []


def test_every_name_of_the_standard_librarys_modules_is_there(package: ModuleType) -> None:
    for name in ("_base", "thread", "process"):
        original = importlib.import_module(f"concurrent.futures.{name}")
        ours = importlib.import_module(f"concurrent_futures.{name}")
        assert [each for each in vars(original) if not hasattr(ours, each)] == []
        assert set(vars(original)) <= set(dir(ours))
        with pytest.raises(AttributeError, match=r"concurrent_futures\.\w+' has no attribute"):
            _ = ours.never_heard_of


def test_a_name_set_in_our_module_reaches_the_code_that_reads_it(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = thread_module(package)
    monkeypatch.setattr(ours, "_shutdown", True)
    assert importlib.import_module("concurrent.futures.thread")._shutdown is True


# ---- what needs the engine


def test_an_option_of_the_engine_on_a_class_that_overrides(package: ModuleType) -> None:
    with pytest.raises(ValueError, match="max_pending is not available, as .*DaemonPool overrides"):
        daemon_pool(package)(1, max_pending=2)


def test_private_parts_of_a_pool_with_an_option_of_the_engine(package: ModuleType) -> None:
    with package.ThreadPoolExecutor(1, max_pending=2) as pool:
        for name in ("_idle_semaphore", "_shutdown_lock"):
            assert not hasattr(pool, name)
        with pytest.raises(AttributeError, match="max_pending"):
            pool._work_queue = queue.Queue()
        assert pool._work_queue.qsize() == 0
        assert pool.submit(int).result(LIMIT) == 0


def test_the_context_of_a_call_is_kept_when_the_pool_is_touched(package: ModuleType) -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    with package.ThreadPoolExecutor(1, copy_context=True) as pool:
        with held(pool):
            variable.set("before")
            before = pool.submit(variable.get)
            assert pool._idle_semaphore is not None
            variable.set("after")
            after = pool.submit(variable.get)
        assert (before.result(LIMIT), after.result(LIMIT)) == ("before", "after")


def test_touched_pools_after_a_fork_do_not_disturb_the_child(lib: ModuleType) -> None:
    run(
        lib,
        """
        import os
        pool = futures.ThreadPoolExecutor(1)
        pool._shutdown_lock
        pool.submit(int).result()
        child = os.fork()
        if child == 0:
            with futures.ThreadPoolExecutor(1) as own:
                assert own.submit(abs, -1).result() == 1
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        forks=True,
    )


def test_as_completed_and_wait_over_a_touched_pool(lib: ModuleType) -> None:
    with lib.ThreadPoolExecutor(2) as pool:
        with held(pool, 2):
            pending = [pool.submit(time.sleep, 0) for _ in range(5)]
            pool._work_queue.put(pool._work_queue.get_nowait())
            later = [pool.submit(time.sleep, 0) for _ in range(5)]
            assert lib.wait(pending + later, timeout=0).not_done == {*pending, *later}
        assert {*lib.as_completed(pending + later, LIMIT)} == {*pending, *later}
