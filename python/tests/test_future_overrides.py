"""Tests that overridden methods of futures are called where the standard library calls them."""

import threading
from types import ModuleType
from typing import Any

import pytest

from support import LIMIT, eventually, held


def recording(lib: ModuleType, called: list[str]) -> Any:
    """Makes a class of futures that notes which of its methods are called."""

    class Recording(lib.Future):  # type: ignore[name-defined, misc]
        def _invoke_callbacks(self) -> None:
            called.append("_invoke_callbacks")
            super()._invoke_callbacks()

        def cancel(self) -> bool:
            called.append("cancel")
            cancelled: bool = super().cancel()
            return cancelled

        def done(self) -> bool:
            called.append("done")
            done: bool = super().done()
            return done

        def result(self, timeout: float | None = None) -> Any:
            called.append(f"result {timeout is None}")
            return super().result(timeout)

        def set_exception(self, exception: BaseException | None) -> None:
            called.append("set_exception")
            super().set_exception(exception)

        def set_result(self, result: Any) -> None:
            called.append("set_result")
            super().set_result(result)

        def set_running_or_notify_cancel(self) -> bool:
            called.append("set_running_or_notify_cancel")
            running: bool = super().set_running_or_notify_cancel()
            return running

    return Recording


@pytest.mark.parametrize("callbacks", [0, 1, 2])
@pytest.mark.parametrize("end", ["set_result", "set_exception", "cancel"])
def test_invoke_callbacks(lib: ModuleType, end: str, callbacks: int) -> None:
    called: list[str] = []
    future = recording(lib, called)()
    for _ in range(callbacks):
        future.add_done_callback(lambda _: called.append("callback"))
    if end == "cancel":
        future.cancel()
    elif end == "set_result":
        future.set_result(1)
    else:
        future.set_exception(ValueError())
    assert called == [end, "_invoke_callbacks"] + ["callback"] * callbacks


def test_callbacks_that_an_override_calls_itself(lib: ModuleType) -> None:
    swallowed = []

    class Future(lib.Future):  # type: ignore[name-defined, misc]
        def _invoke_callbacks(self) -> None:
            for callback in self._done_callbacks:
                try:
                    callback(self)
                except BaseException as error:
                    swallowed.append(error)

    future = Future()
    errors = [SystemExit(3), KeyboardInterrupt(), ValueError()]

    def fail(error: BaseException) -> None:
        raise error

    for error in errors:
        future.add_done_callback(lambda _, error=error: fail(error))
    future.set_result(1)
    assert swallowed == errors


def test_callbacks_that_an_override_puts_off(lib: ModuleType) -> None:
    loop = []

    class Future(lib.Future):  # type: ignore[name-defined, misc]
        def _invoke_callbacks(self) -> None:
            loop.append(super()._invoke_callbacks)

    future = Future()
    called: list[Any] = []
    future.add_done_callback(called.append)
    future.set_result(1)
    assert called == []
    loop[0]()
    assert called == [future]


def test_a_method_of_one_future(lib: ModuleType) -> None:
    called = []
    future = lib.Future()
    future.add_done_callback(lambda _: called.append("callback"))
    future._invoke_callbacks = lambda: called.append("own")
    future.set_result(1)
    assert called == ["own"]


def returning(lib: ModuleType, make: Any) -> Any:
    """Makes an executor whose `submit` returns futures of another class, which are done with its
    own."""

    class Pool(lib.ThreadPoolExecutor):  # type: ignore[name-defined, misc]
        def submit(self, fn: Any, /, *args: Any, **keywords: Any) -> Any:
            future = make()

            def copy(inner: Any) -> None:
                if future.set_running_or_notify_cancel():
                    future.set_result(inner.result())

            super().submit(fn, *args, **keywords).add_done_callback(copy)
            return future

    return Pool


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_map_over_futures_of_another_class(lib: ModuleType, timeout: float | None) -> None:
    called: list[str] = []
    with returning(lib, recording(lib, called))(1) as pool:
        assert list(pool.map(int, "123", timeout=timeout)) == [1, 2, 3]
    asked = [name for name in called if name.startswith(("result", "cancel"))]
    assert asked == [f"result {timeout is None}", "cancel"] * 3


def test_results_that_are_overridden_are_those_of_map(lib: ModuleType) -> None:
    class Future(lib.Future):  # type: ignore[name-defined, misc]
        def result(self, timeout: float | None = None) -> Any:
            return "own"

    with returning(lib, Future)(1) as pool:
        assert list(pool.map(int, "12")) == ["own", "own"]


def test_closing_map_calls_cancel_of_another_class(lib: ModuleType) -> None:
    called: list[str] = []
    with returning(lib, recording(lib, called))(1) as pool:
        results = pool.map(int, "123")
        assert next(results) == 1
        eventually(lambda: called.count("_invoke_callbacks") == 3)
        called.clear()
        results.close()
        assert called == ["cancel", "cancel"]


def test_map_over_futures_of_the_standard_library(package: ModuleType) -> None:
    import concurrent.futures

    with returning(package, concurrent.futures.Future)(1) as pool:
        assert list(pool.map(int, "12")) == [1, 2]


def test_done_is_not_asked_by_functions_over_many(lib: ModuleType) -> None:
    class Future(lib.Future):  # type: ignore[name-defined, misc]
        def done(self) -> bool:
            return True

    future = Future()
    assert lib.wait([future], 0).not_done == {future}
    with pytest.raises(TimeoutError):
        next(lib.as_completed([future], 0))


def test_wait_asks_futures_of_another_class_for_their_exception(lib: ModuleType) -> None:
    class Future(lib.Future):  # type: ignore[name-defined, misc]
        def exception(self, timeout: float | None = None) -> BaseException | None:
            return ValueError()

    future = Future()
    future.set_result(1)
    done, not_done = lib.wait([future, lib.Future()], LIMIT, lib.FIRST_EXCEPTION)
    assert done == {future}
    assert len(not_done) == 1


def patched_class(lib: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """Replaces a method of the class itself; returns the futures whose method was called."""
    called: list[Any] = []
    original = getattr(lib.Future, name)

    def method(self: Any, *args: Any) -> Any:
        called.append(self)
        return original(self, *args)

    monkeypatch.setattr(lib.Future, name, method)
    return called


@pytest.mark.parametrize(
    "name", ["set_running_or_notify_cancel", "set_result", "_invoke_callbacks"]
)
def test_a_patched_method_is_called_for_the_futures_of_pools(
    lib: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with lib.ThreadPoolExecutor(1) as pool:
        assert pool.submit(int, "1").result(LIMIT) == 1
        called = patched_class(lib, monkeypatch, name)
        futures = [pool.submit(int, "5") for _ in range(3)]
        assert [future.result(LIMIT) for future in futures] == [5, 5, 5]
        assert [future._state for future in futures] == ["FINISHED"] * 3
    assert called == futures
    monkeypatch.undo()
    with lib.ThreadPoolExecutor(1) as pool:
        assert pool.submit(int, "5").result(LIMIT) == 5
    assert len(called) == 3


def test_a_patched_set_exception_is_called_for_the_futures_of_pools(
    lib: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = patched_class(lib, monkeypatch, "set_exception")
    with lib.ThreadPoolExecutor(1) as pool:
        future = pool.submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            future.result(LIMIT)
    assert called == [future]


def test_a_patched_cancel_is_called_for_pending_futures(
    lib: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lib.ThreadPoolExecutor(1) as pool, held(pool) as release:
        futures = [pool.submit(int) for _ in range(3)]
        called = patched_class(lib, monkeypatch, "cancel")
        pool.shutdown(wait=False, cancel_futures=True)
        release.set()
        eventually(lambda: all(future.done() for future in futures))
    assert called == futures
    assert all(future.cancelled() for future in futures)


def test_the_class_of_a_pool_future_is_assigned(lib: ModuleType) -> None:
    called: list[str] = []
    with lib.ThreadPoolExecutor(1) as pool:
        with held(pool):
            future = pool.submit(int, "5")
            future.__class__ = recording(lib, called)
        assert lib.Future.result(future, LIMIT) == 5
        eventually(lambda: "_invoke_callbacks" in called)
    assert called == ["set_running_or_notify_cancel", "set_result", "_invoke_callbacks"]


def test_an_executor_whose_threads_race_with_cancel(lib: ModuleType) -> None:
    """Futures whose methods are overridden are cancelled or run, never both."""
    for _ in range(50):
        with lib.ThreadPoolExecutor(2) as pool:
            ran: list[int] = []
            with held(pool, 2):
                futures = [pool.submit(ran.append, number) for number in range(20)]
                for future in futures:
                    future.__class__ = recording(lib, [])
            cancelled = threading.Thread(target=lambda fs=futures: [f.cancel() for f in fs])
            cancelled.start()
            cancelled.join(LIMIT)
            lib.wait(futures, LIMIT)
        finished = {n for n, future in enumerate(futures) if not future.cancelled()}
        assert finished == set(ran)
