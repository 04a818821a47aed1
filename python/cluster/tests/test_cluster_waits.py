"""Threads that wait for a call and complete its future themselves."""

import signal
import threading
import time
from decimal import Decimal
from typing import Any

import cluster_tasks as tasks
import pytest
from cluster_support import LIMIT, embedded_executor, wait_until

from concurrent_futures import CancelledError, ClusterExecutor, Future, ThreadPoolExecutor

pytest_plugins = ["cluster_support"]

#: Longer than the time in which a waiting thread completes the future of its call itself.
LONG = 0.05


class CountingClient:
    """A client that counts what it delivers."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def deliver(self, *arguments: Any) -> int | None:
        count: int | None = self.client.deliver(*arguments)
        self.count += count or 0
        return count


def test_a_short_call_wakes_no_other_thread_than_the_one_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with embedded_executor(workers=1) as executor:
        client = CountingClient(executor._state.client)
        monkeypatch.setattr(executor._state, "client", client)

        def begin() -> bool:
            # The delivery that has begun before is not counted.
            executor.submit(int).add_done_callback(lambda _: None)
            return client.count > 0

        wait_until("deliveries are counted", begin)
        for n in range(50):
            assert executor.submit(tasks.same, n).result(LIMIT) == n
        before = client.count
        for n in range(200):
            assert executor.submit(tasks.same, n).result(LIMIT) == n
        # A busy machine makes some calls long.
        assert client.count - before < 150


@pytest.mark.parametrize(
    ("value", "is_plain"),
    [
        (None, True),
        (True, True),
        (-(2**70), True),
        (1.5, True),
        ("é" * 300, True),
        (b"x" * 1000, True),
        ((1, (), (2,), (3, 4), (5, 6, 7), (8, 9, 10, 11)), True),
        ([[], [1], list(range(300)), {"a": {1: None}}, {2}, set()], True),
        # A frozen set is made by its items, whose hashes are those of plain values.
        (frozenset([1, 2]), True),
        (complex(1, 2), False),
        (Decimal(1), False),
        ([1, bytearray(b"x")], False),
        (int, False),
    ],
    ids=repr,
)
def test_only_a_plain_value_is_unpickled_by_the_thread_that_waits(
    monkeypatch: pytest.MonkeyPatch, embedded: ClusterExecutor, value: Any, is_plain: bool
) -> None:
    client = CountingClient(embedded._state.client)
    monkeypatch.setattr(embedded._state, "client", client)

    def begin() -> bool:
        # The delivery that has begun before is not counted.
        embedded.submit(int).add_done_callback(lambda _: None)
        return client.count > 0

    wait_until("deliveries are counted", begin)
    embedded.submit(int).result(LIMIT)
    wait_until("the deliveries are over", lambda: embedded.submit(int).result(LIMIT) == 0)
    before = client.count
    for _ in range(30):
        assert embedded.submit(tasks.same, value).result(LIMIT) == value
    wait_until("all are noted", lambda: is_plain or client.count - before >= 30)
    assert is_plain == (client.count - before < 30)


def test_callbacks_run_in_the_thread_of_the_executor(embedded: ClusterExecutor) -> None:
    for _ in range(20):
        names: list[str] = []

        def note(_: Any, names: list[str] = names) -> None:
            names.append(threading.current_thread().name)

        future = embedded.submit(time.sleep, 0.002)
        future.add_done_callback(note)
        assert future.result(LIMIT) is None
        wait_until("the callback runs", lambda names=names: len(names) == 1)  # type: ignore[misc]
        assert names == ["ClusterExecutor-futures"]


def test_threads_that_wait_at_once_get_their_own_results(embedded: ClusterExecutor) -> None:
    found: dict[int, list[int]] = {}

    def work(thread: int) -> None:
        calls = range(thread * 1000, thread * 1000 + 100)
        found[thread] = [embedded.submit(tasks.same, n).result(LIMIT) for n in calls]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: list(range(n * 1000, n * 1000 + 100)) for n in range(6)}


def test_threads_that_wait_for_the_same_call_all_get_its_result(embedded: ClusterExecutor) -> None:
    for n in range(30):
        future = embedded.submit(tasks.same, n)
        with ThreadPoolExecutor(3) as waiting:
            found = [waiting.submit(future.result, LIMIT) for _ in range(3)]
        assert [one.result() for one in found] == [n] * 3


def test_a_call_that_is_cancelled_while_a_thread_waits_raises_there() -> None:
    with embedded_executor(workers=1) as executor:
        blocker = executor.submit(time.sleep, 1)
        for _ in range(10):
            future = executor.submit(int)
            canceller = threading.Timer(0.002, future.cancel)
            canceller.start()
            with pytest.raises(CancelledError):
                future.result(LIMIT)
            canceller.join()
        assert not blocker.done()


@pytest.mark.parametrize("limit", [0.001, 0.5 * LONG, 2 * LONG])
def test_a_wait_ends_when_its_time_is_over(embedded: ClusterExecutor, limit: float) -> None:
    future = embedded.submit(time.sleep, 10 * LONG)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        future.result(limit)
    assert limit <= time.monotonic() - began
    assert future.result(LIMIT) is None


@pytest.mark.parametrize("limit", [0, -1, -0.5, float("-inf")])
def test_a_wait_without_time_raises_at_once(embedded: ClusterExecutor, limit: float) -> None:
    future = embedded.submit(time.sleep, LONG)
    with pytest.raises(TimeoutError):
        future.result(limit)
    with pytest.raises(TimeoutError):
        future.exception(limit)
    assert future.exception(LIMIT) is None


@pytest.mark.parametrize("limit", ["1", float("inf"), float("nan"), 1e30, 10**400, [], True])
def test_an_odd_time_limit_has_the_effect_that_it_has_in_other_pools(
    embedded: ClusterExecutor, limit: Any
) -> None:
    def outcome(future: Future[Any]) -> Any:
        try:
            return future.result(limit)
        except Exception as error:
            return type(error), str(error)

    done: Future[int] = Future()
    threading.Timer(LONG, done.set_result, (0,)).start()
    future = embedded.submit(tasks.sleep_and_wait, LONG)
    first, second = outcome(done), outcome(future)
    assert (first == 0) == (second == LONG)
    if first != 0:
        assert first == second


class Raises:
    """An object whose unpickling raises an exception in the process of the executor."""

    error: BaseException = ValueError()

    def __reduce__(self) -> Any:
        return (raise_here, ())


def raise_here() -> None:
    raise Raises.error


def make_raises(_: Any) -> Any:
    return Raises()


class SignalError(Exception):
    """Raised by the handler of a signal."""


def test_no_exception_of_a_signals_handler_is_lost() -> None:
    """A signal comes while a thread waits, and while it takes its result."""
    handled = 0

    def handle(*_: Any) -> None:
        nonlocal handled
        handled += 1
        raise SignalError

    former = signal.signal(signal.SIGALRM, handle)
    caught = 0
    try:
        with embedded_executor(workers=1) as executor:
            for n in range(400):
                future = executor.submit(tasks.same, [n, "text", {n: (1.5, b"x")}])
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + n * 7 % 1500))
                    future.result(LIMIT)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except SignalError:
                    caught += 1
                assert future.result(LIMIT) == [n, "text", {n: (1.5, b"x")}]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert handled > 0
    assert caught == handled


def test_a_result_that_cannot_be_unpickled_is_an_exception_of_the_future() -> None:
    with embedded_executor(workers=1) as executor:
        for error in (ValueError("no luck"), SystemExit("no luck"), KeyboardInterrupt("no luck")):
            Raises.error = error
            for _ in range(5):
                assert executor.submit(make_raises, 0).exception(LIMIT) is error
