"""Operations on pools, for `thread_stress.py`."""

import contextvars
import gc
import io
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

from stress_common import LIMIT, Shared, fail, operation, outcome, some, square

VARIABLE = contextvars.ContextVar("VARIABLE", default=-1)


def is_refusal(error: Exception) -> bool:
    """Return whether an iterator says that another thread uses it."""
    return "executing" in str(error) or "in use" in str(error)


@operation
def map_(shared: Shared, chance: random.Random) -> None:
    items = range(chance.randrange(30))
    results = shared.threads.map(square, items, timeout=LIMIT)
    assert list(results) == [item * item for item in items]
    if shared.is_ours:
        buffered = shared.threads.map(square, items, buffersize=2)
        assert list(buffered) == [item * item for item in items]


@operation
def map_is_left(shared: Shared, chance: random.Random) -> None:
    results = shared.threads.map(square, range(30))
    assert next(results) == 0
    if chance.randrange(2):
        results.close()


@operation
def share_iterators(shared: Shared, chance: random.Random) -> None:
    place = chance.randrange(len(shared.iterators))
    if chance.randrange(4) == 0:
        if chance.randrange(2):
            made = shared.threads.map(square, range(20))
        else:
            made = shared.lib.as_completed(some(shared, chance), LIMIT)
        shared.iterators[place] = made
    try:
        if chance.randrange(30) == 0:
            getattr(shared.iterators[place], "close", lambda: None)()
        else:
            next(shared.iterators[place], None)
    except (ValueError, RuntimeError) as error:
        if not is_refusal(error):
            raise


@operation
def nested(shared: Shared, chance: random.Random) -> None:
    pool = shared.threads
    if not shared.is_ours:
        pool = shared.lib.ThreadPoolExecutor(8)
    assert pool.submit(lambda: pool.submit(square, 3).result(LIMIT)).result(LIMIT) == 9
    if not shared.is_ours:
        pool.shutdown()


@operation
def bounded(shared: Shared, chance: random.Random) -> None:
    futures = [shared.bounded.submit(square, number) for number in range(10)]
    futures[-1].cancel()
    for number, future in enumerate(futures):
        assert outcome(future) in (None, number * number)


@operation
def pools_come_and_go(shared: Shared, chance: random.Random) -> None:
    local = threading.local()
    pool = shared.lib.ThreadPoolExecutor(
        chance.randrange(1, 4), initializer=setattr, initargs=(local, "number", 5)
    )
    futures = [pool.submit(lambda: local.number) for _ in range(chance.randrange(10))]
    pool.shutdown(chance.choice([True, False]), cancel_futures=chance.choice([True, False]))
    try:
        pool.submit(square, 1)
    except RuntimeError:
        pass
    else:
        raise AssertionError("the pool is shut down")
    assert {outcome(future) for future in futures} <= {5, None}


@operation
def garbage(shared: Shared, chance: random.Random) -> None:
    pool = shared.lib.ThreadPoolExecutor(1)
    future = pool.submit(square, 2)
    future.pool, future.itself = pool, future
    assert future.result(LIMIT) == 4
    pool.shutdown()
    if chance.randrange(10) == 0:
        gc.collect(chance.randrange(3))


@operation
def record(shared: Shared, chance: random.Random) -> None:
    if not shared.is_ours:
        return
    options: dict[str, Any] = {"records_per_thread": 1024}
    with tempfile.TemporaryDirectory() as folder:
        if chance.randrange(2):
            options["arguments"] = 20
        is_file = chance.randrange(20) == 0 and shared.alone.acquire(blocking=False)
        if is_file:
            options["file"] = Path(folder) / "run"
        try:
            with shared.lib.recording(**options) as recording:
                for future in some(shared, chance):
                    outcome(future)
            assert recording.error is None
        finally:
            if is_file:
                shared.alone.release()
        if is_file:
            assert shared.lib.Recording.open(Path(folder) / "run").trace()
        elif chance.randrange(20) == 0:
            recording.save(Path(folder) / "run.json")
            assert b"square" in recording.trace()


@operation
def other_pools(shared: Shared, chance: random.Random) -> None:
    for pool in shared.others:
        futures = [pool.submit(square, number) for number in range(chance.randrange(1, 10))]
        called: list[Any] = []
        for future in futures:
            future.add_done_callback(called.append)
        futures[-1].cancel()
        list(shared.lib.as_completed(futures, LIMIT))
        for number, future in enumerate(futures):
            assert outcome(future) in (None, number * number)
        assert isinstance(pool.submit(fail, 1).exception(LIMIT), KeyError)
        assert list(pool.map(square, range(10))) == [n * n for n in range(10)]


@operation
def shut_down_while_others_submit(shared: Shared, chance: random.Random) -> None:
    place = chance.randrange(len(shared.pools))
    pool = shared.pools[place]
    futures = []
    try:
        for number in range(10):
            futures.append(pool.submit(square, number))
    except RuntimeError as error:
        if "after shutdown" not in str(error):
            raise
    end = chance.randrange(8)
    if end == 0:
        shared.pools[place] = shared.lib.ThreadPoolExecutor(2)
        pool.shutdown(chance.choice([True, False]), cancel_futures=chance.choice([True, False]))
    elif end == 1 and chance.randrange(4) == 0:
        # From now on, the standard library's code does the work of the pool.
        assert pool._shutdown_lock is not None
    for number, future in enumerate(futures):
        assert outcome(future) in (None, number * number)


@operation
def pools_are_dropped(shared: Shared, chance: random.Random) -> None:
    pool = shared.lib.ThreadPoolExecutor(chance.randrange(1, 4))
    futures = [pool.submit(square, number) for number in range(chance.randrange(10))]
    del pool
    assert [future.result(LIMIT) for future in futures] == [n * n for n in range(len(futures))]


@operation
def initializers_fail(shared: Shared, chance: random.Random) -> None:
    pool = shared.lib.ThreadPoolExecutor(2, initializer=fail, initargs=(1,))
    futures = []
    try:
        for number in range(chance.randrange(1, 10)):
            futures.append(pool.submit(square, number))
    except shared.lib.BrokenExecutor:
        pass
    assert all(isinstance(each.exception(LIMIT), shared.lib.BrokenExecutor) for each in futures)
    pool.shutdown()


@operation
def contexts(shared: Shared, chance: random.Random) -> None:
    if not shared.is_ours:
        return
    number = chance.randrange(100)

    def submit() -> Any:
        VARIABLE.set(number)
        futures = [shared.copying.submit(VARIABLE.get) for _ in range(3)]
        shared.copying.submit(VARIABLE.set, -2)
        results = shared.copying.map(lambda _: VARIABLE.get(), range(3))
        VARIABLE.set(-3)
        return futures, results

    futures, results = contextvars.copy_context().run(submit)
    assert [future.result(LIMIT) for future in futures] == [number] * 3
    assert list(results) == [number] * 3
    assert VARIABLE.get() == -1


@operation
def figures(shared: Shared, chance: random.Random) -> None:
    pool = shared.threads
    repr(pool)
    assert len(pool._threads) <= pool._max_workers == 4
    if not shared.is_ours:
        return
    assert pool._work_queue.qsize() >= 0
    assert not pool._shutdown
    assert not pool._broken
    before = pool.stats()
    assert before.workers <= 4
    assert pool.submit(square, 2).result(LIMIT) == 4
    assert pool.stats().finished > before.finished
    if chance.randrange(20) == 0 and shared.alone.acquire(blocking=False):
        try:
            text = io.StringIO()
            shared.lib.dump(text)
            assert "of threads" in text.getvalue()
        finally:
            shared.alone.release()


@operation
def labels(shared: Shared, chance: random.Random) -> None:
    if not shared.is_ours:
        return
    labelled = shared.threads.options(label=f"label {chance.randrange(100)}")
    assert labelled.submit(square, 3).result(LIMIT) == 9
    assert list(labelled.map(square, range(5))) == [n * n for n in range(5)]
