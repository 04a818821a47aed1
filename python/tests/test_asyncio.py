"""Tests of pools under the event loops of asyncio, and of futures that are awaited."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Coroutine
from types import ModuleType
from typing import Any

import pytest

import concurrent_futures
from support import LIMIT, Background, eventually, held, raised

Future = concurrent_futures.Future
ThreadPoolExecutor = concurrent_futures.ThreadPoolExecutor


def limited(main: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine in a loop of its own, with a time limit."""

    async def within() -> None:
        async with asyncio.timeout(LIMIT):
            await main

    asyncio.run(within())


def test_run_in_executor(lib: ModuleType) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with lib.ThreadPoolExecutor(2, "mine") as pool:
            assert await loop.run_in_executor(pool, pow, 2, 10) == 1024
            thread = await loop.run_in_executor(pool, threading.current_thread)
            assert thread.name.startswith("mine_")
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(pool, divmod, 1, 0)
            many = [loop.run_in_executor(pool, abs, -n) for n in range(300)]
            assert await asyncio.gather(*many) == list(range(300))

    limited(main())


def test_cancelling_what_run_in_executor_gave_cancels_the_task(lib: ModuleType) -> None:
    ran: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with lib.ThreadPoolExecutor(1) as pool, held(pool):
            future = loop.run_in_executor(pool, ran.append, 1)
            future.cancel()
            await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await future

    limited(main())
    assert ran == []


def test_a_time_limit_cancels_a_pending_task(lib: ModuleType) -> None:
    async def main() -> None:
        with lib.ThreadPoolExecutor(1) as pool, held(pool):
            task = pool.submit(int)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(task), 0.001)
            assert task.cancelled()

    limited(main())


def test_the_default_executor(lib: ModuleType) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = lib.ThreadPoolExecutor(2, "default")
        loop.set_default_executor(pool)
        assert await loop.run_in_executor(None, pow, 3, 2) == 9
        thread = await asyncio.to_thread(threading.current_thread)
        assert thread.name.startswith("default_")
        address = await loop.getaddrinfo("127.0.0.1", 80)
        assert address[0][4] == ("127.0.0.1", 80)
        await loop.shutdown_default_executor()
        assert pool._shutdown
        assert not thread.is_alive()

    limited(main())


def test_to_thread_brings_the_context(lib: ModuleType) -> None:
    variable = contextvars.ContextVar("variable", default="default")

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(lib.ThreadPoolExecutor(1))
        variable.set("set")
        assert await asyncio.to_thread(variable.get) == "set"
        await asyncio.to_thread(variable.set, "in the thread")
        assert variable.get() == "set"

    limited(main())


def test_wrap_future(lib: ModuleType) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = lib.Future()
        wrapped = asyncio.wrap_future(future)
        assert asyncio.isfuture(wrapped)
        assert not asyncio.isfuture(future)
        loop.call_soon(future.set_result, 3)
        assert await wrapped == 3
        future = lib.Future()
        Background(future.set_exception, LookupError("elsewhere"))
        with pytest.raises(LookupError, match="elsewhere"):
            await asyncio.wrap_future(future)
        future = lib.Future()
        future.set_result("before")
        assert await asyncio.wrap_future(future, loop=loop) == "before"

    limited(main())


def test_wrap_future_passes_cancellation_on(lib: ModuleType) -> None:
    async def main() -> None:
        future = lib.Future()
        wrapped = asyncio.wrap_future(future)
        wrapped.cancel()
        await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        assert future.cancelled()
        future = lib.Future()
        wrapped = asyncio.wrap_future(future)
        assert future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped

    limited(main())


def test_run_coroutine_threadsafe_gives_a_future_to_wait_for(lib: ModuleType) -> None:
    loop = asyncio.new_event_loop()
    thread = Background(loop.run_forever)

    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    futures = [asyncio.run_coroutine_threadsafe(double(n), loop) for n in range(20)]
    assert lib.wait(futures, LIMIT).done == set(futures)
    assert sorted(future.result() for future in lib.as_completed(futures)) == list(range(0, 40, 2))
    loop.call_soon_threadsafe(loop.stop)
    thread.outcome()
    loop.close()


def test_loops_in_tasks(lib: ModuleType) -> None:
    async def inner(n: int) -> int:
        await asyncio.sleep(0)
        return n

    with lib.ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(asyncio.run, inner(n)) for n in range(10)]
        assert [future.result() for future in futures] == list(range(10))


def test_a_loop_in_debug_mode(lib: ModuleType) -> None:
    async def main() -> None:
        with lib.ThreadPoolExecutor(1) as pool:
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(pool, abs, -1) == 1
            assert await asyncio.wrap_future(pool.submit(abs, -2)) == 2

    asyncio.run(main(), debug=True)


def test_a_future_can_be_awaited() -> None:
    async def main() -> None:
        future = Future[str]()
        future.set_result("before")
        assert await future == "before"
        assert await future == "before"
        with ThreadPoolExecutor(1) as pool:
            with held(pool) as release:
                task = pool.submit(pow, 2, 3)
                asyncio.get_running_loop().call_soon(release.set)
                assert await task == 8
            with pytest.raises(ZeroDivisionError) as caught:
                await pool.submit(divmod, 1, 0)
            assert caught.value.__traceback__ is not None

    limited(main())


def test_futures_are_awaited_together() -> None:
    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(abs, -n) for n in range(200)]
            assert await asyncio.gather(*futures) == list(range(200))
            assert await asyncio.wait_for(pool.submit(int), LIMIT) == 0
            assert await asyncio.shield(pool.submit(int)) == 0

    limited(main())


def test_several_may_await_the_same_future() -> None:
    async def main() -> None:
        async def wait() -> int:
            return await future

        future = Future[int]()
        tasks = [asyncio.create_task(wait()) for _ in range(5)]
        await asyncio.sleep(0)
        future.set_result(9)
        assert await asyncio.gather(*tasks) == [9] * 5

    limited(main())


def test_several_loops_may_await_the_same_future() -> None:
    async def wait() -> int:
        waiting.release()
        return await future

    future = Future[int]()
    waiting = threading.Semaphore(0)
    threads = [Background(asyncio.run, wait()) for _ in range(4)]
    for _ in threads:
        assert waiting.acquire(timeout=LIMIT)
    future.set_result(3)
    assert [thread.outcome() for thread in threads] == [3] * 4


def test_awaiting_a_cancelled_future_raises_asyncios_error() -> None:
    async def main() -> None:
        future = Future[int]()
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        future = Future[int]()
        asyncio.get_running_loop().call_soon(future.cancel)
        with pytest.raises(asyncio.CancelledError):
            await future

    limited(main())


def test_cancelling_who_awaits_cancels_a_pending_future() -> None:
    async def main() -> None:
        async def wait(future: Any) -> Any:
            return await future

        with ThreadPoolExecutor(1) as pool, held(pool):
            future = pool.submit(int)
            task = asyncio.create_task(wait(future))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert future.cancelled()

    limited(main())


def test_cancelling_who_awaits_leaves_a_running_one_alone() -> None:
    async def main() -> None:
        async def wait(future: Any) -> Any:
            return await future

        release = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(release.wait, LIMIT)
            eventually(future.running)
            task = asyncio.create_task(wait(future))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert future.running()
            release.set()
            assert await future is True

    limited(main())


def test_a_loop_may_be_gone_before_the_future_is_done(caplog: pytest.LogCaptureFixture) -> None:
    async def wait(future: Any) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(future), 0.001)

    future = Future[int]()
    future.set_running_or_notify_cancel()
    asyncio.run(wait(future))
    future.set_result(1)
    assert future.result() == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_exception_that_a_coroutine_cannot_receive_does_not_hang_it() -> None:
    async def main() -> None:
        with pytest.raises((RuntimeError, TypeError)):
            await raised(concurrent_futures, StopIteration("from a task"))

    limited(main())


def test_awaiting_needs_a_loop() -> None:
    async def wait() -> int:
        return await Future[int]()

    coroutine = wait()
    with pytest.raises(RuntimeError):
        coroutine.send(None)


def test_awaiting_races_with_finishing() -> None:
    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            for n in range(500):
                assert await pool.submit(abs, -n) == n

    limited(main())


def test_a_coroutine_in_a_task_awaits_a_task_of_the_pool() -> None:
    async def inner(pool: Any) -> int:
        return int(await pool.submit(pow, 2, 4))

    with ThreadPoolExecutor(2) as pool:
        assert pool.submit(lambda: asyncio.run(inner(pool))).result(LIMIT) == 16
