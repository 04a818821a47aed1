"""Servers, hosts that come and go, keys, and the end of executors."""

import functools
import gc
import json
import os
import signal
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import cluster_tasks as tasks
import pytest
from cluster_support import LEASE, LIMIT, Server, has_line, rows_of, wait_until

from concurrent_futures import (
    BrokenProcessPool,
    CancelledError,
    ClusterExecutor,
    WorkerDiedError,
    recording,
    wait,
)
from concurrent_futures_cluster import (
    ClusterConnectionError,
    ClusterError,
    ClusterHost,
    HostLostError,
    NoWorkersError,
    _host,
    _waits,
)

pytest_plugins = ["cluster_support"]


def test_hosts_are_found_and_listed(server: Server, executor: ClusterExecutor) -> None:
    assert executor.wait_for_host(LIMIT)
    (host,) = executor.hosts()
    assert (host.workers, host.queue) == (2, "default")
    assert host.environment.startswith("python3-")
    assert executor.submit(tasks.double, 4).result(LIMIT) == 8


def test_a_task_of_a_killed_host_runs_elsewhere(server: Server, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    first = server.host(1)
    with server.executor() as executor, recording() as recorded:
        future = executor.submit(tasks.note_and_wait, str(begun), str(go))
        wait_until("the task runs", lambda: has_line(begun) and future.running())
        first.kill()
        second = server.host(1)
        wait_until("it runs again", lambda: len(begun.read_text().splitlines()) == 2)
        go.touch()
        runs = [int(line.split()[0]) for line in begun.read_text().splitlines()]
        assert future.result(LIMIT) == runs[1]
    hosts = [first.process.pid, second.process.pid]
    lost, ran = rows_of(json.loads(recorded.columns()))
    assert (lost["outcome"], lost["error"], lost["attempt"]) == (6, "the host was lost", 0)
    assert (ran["outcome"], ran["attempt"]) == (2, 1)
    assert [lost["worker"]["pid"], ran["worker"]["pid"]] == hosts
    assert lost["worker"]["name"].endswith(" · lost")
    assert lost["submit"] < lost["start"] < lost["end"]


def test_results_of_map_that_have_come_stay_if_their_host_is_killed(
    server: Server, tmp_path: Path
) -> None:
    begun, go, there = tmp_path / "begun", tmp_path / "go", tmp_path
    first = server.host(1)
    with server.executor() as executor:
        # Two calls that are done at once, and one that waits, as one task.
        paths = [str(there), str(there), str(go)]
        results = executor.map(tasks.note_and_wait, [str(begun)] * 3, paths, chunksize=3)
        worker = next(results)
        first.kill()
        server.host(1)
        wait_until("they run again", lambda: len(begun.read_text().splitlines()) == 6)
        pids = [int(line.split()[0]) for line in begun.read_text().splitlines()]
        assert (worker, len(set(pids))) == (pids[0], 2)
        go.touch()
        second, third = results
        # The second result has come with the first one, or is that of the second run.
        assert second in (worker, third)
        assert third == pids[5]


def test_a_task_of_a_killed_host_fails_if_it_must_not_run_again(
    server: Server, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    first = server.host(1)
    with server.executor(on_host_loss="fail") as executor:
        future = executor.submit(tasks.note_and_wait, str(begun), str(tmp_path / "never"))
        wait_until("the task runs", lambda: has_line(begun))
        first.kill()
        server.host(1)
        error = future.exception(LIMIT)
        assert isinstance(error, HostLostError)
        assert "task #1 (cluster_tasks.note_and_wait): the host" in str(error)
        assert len(begun.read_text().splitlines()) == 1


def test_a_drained_host_finishes_its_task_and_ends(server: Server, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    host = server.host(1)
    with server.executor() as executor:
        future = executor.submit(tasks.note_and_wait, str(begun), str(go))
        wait_until("the task runs", lambda: has_line(begun))
        host.signal(signal.SIGTERM)
        second = executor.submit(tasks.double, 1)
        go.touch()
        future.result(LIMIT)
        assert host.wait() == 0
        assert len(begun.read_text().splitlines()) == 1
        assert not second.done()
        server.host(1)
        assert second.result(LIMIT) == 2


def test_a_host_that_cannot_wait_gives_its_task_back(server: Server, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    host = server.host(1, "--drain", "0")
    with server.executor() as executor:
        future = executor.submit(tasks.note_and_wait, str(begun), str(go))
        wait_until("the task runs", lambda: has_line(begun))
        host.signal(signal.SIGTERM)
        assert host.wait() == 0
        server.host(1)
        wait_until("it runs again", lambda: len(begun.read_text().splitlines()) == 2)
        go.touch()
        assert isinstance(future.result(LIMIT), int)


def test_a_task_that_waits_for_another_one_leaves_its_place_to_it(server: Server) -> None:
    server.host(1)
    with server.executor() as executor:
        deep = executor.submit(tasks.nest, server.url, LEASE, 3)
        wide = executor.submit(tasks.nest_in_map, server.url, LEASE, 2)
        assert deep.result(LIMIT) == 3
        assert wide.result(LIMIT) == 7


def test_all_ways_to_wait_leave_the_place_of_the_task_to_another_one(server: Server) -> None:
    server.host(1)
    ways = [
        "wait",
        "wait for the first",
        "as_completed",
        "threads too",
        "the standard library's",
        "room",
    ]
    with server.executor() as executor:
        for way in ways:
            future = executor.submit(tasks.wait_in_one_way, server.url, LEASE, way)
            assert future.result(LIMIT) == 3, way


def test_an_executor_ends_without_its_only_host(server: Server, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    host = server.host(1)
    with server.executor(wait_for_workers=1) as executor:
        assert executor.wait_for_host(LIMIT)
        running = executor.submit(tasks.note_and_wait, str(begun), str(tmp_path / "never"))
        waiting = executor.submit(tasks.double, 1)
        wait_until("the task runs", lambda: has_line(begun))
        host.kill()
    for number, name, future in ((1, "note_and_wait", running), (2, "double", waiting)):
        error = future.exception(LIMIT)
        assert isinstance(error, NoWorkersError)
        assert str(error).startswith(f"task #{number} (cluster_tasks.{name}): no host came")


def test_the_workers_of_a_killed_host_end(server: Server, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    host = server.host(1)
    with server.executor() as executor:
        future = executor.submit(tasks.note_and_wait, str(begun), str(tmp_path / "never"))
        wait_until("the task runs", lambda: has_line(begun))
        worker = int(begun.read_text().split()[0])
        host.kill()
        wait_until("the worker ends", lambda: not _is_alive(worker))
        executor._state.client.abandon()
        assert isinstance(future.exception(LIMIT), ClusterError)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_without_a_fitting_host_the_error_names_the_hosts(server: Server) -> None:
    server.host(3, "--tag", "other")
    with server.executor(wait_for_workers=1) as executor:
        wait_until("the host is there", lambda: len(executor.hosts()) == 1)
        error = executor.submit(abs, -1).exception(LIMIT)
        assert isinstance(error, NoWorkersError)
        (host,) = error.hosts
        assert host.workers == 3
        assert str(host.pid) in str(error)


def test_a_host_with_another_key_gets_no_task(server: Server) -> None:
    server.host(1, CONCURRENT_FUTURES_KEY="right")
    with server.executor(key="right") as executor:
        assert executor.submit(abs, -1).result(LIMIT) == 1
    with server.executor(key="wrong", wait_for_workers=1) as executor:
        error = executor.submit(abs, -1).exception(LIMIT)
        assert isinstance(error, NoWorkersError)
        assert "1 hosts of the queue have another key or version" in str(error)


def test_workers_do_not_see_the_key(server: Server) -> None:
    server.host(1, CONCURRENT_FUTURES_KEY="secret")
    with server.executor(key="secret") as executor:
        variables = executor.submit(os.getenv, "CONCURRENT_FUTURES_KEY")
        assert variables.result(LIMIT) is None


def test_queues_are_apart(server: Server) -> None:
    server.host(1, "--queue", "one")
    with server.executor(queue="one") as one, server.executor(queue="two") as two:
        waiting = two.submit(os.getpid)
        assert one.submit(abs, -1).result(LIMIT) == 1
        assert not waiting.done()
        server.host(1, "--queue", "two")
        assert isinstance(waiting.result(LIMIT), int)


def test_a_server_that_begins_anew_loses_no_task(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server.host(2)
    with server.executor() as executor:
        futures = [executor.submit(tasks.wait_for, str(go), n) for n in range(50)]
        wait_until("some run", lambda: any(future.running() for future in futures))
        server.kill()
        server.run()
        go.touch()
        assert [future.result(LIMIT) for future in futures] == list(range(50))


def test_a_host_may_start_before_its_server(server: Server) -> None:
    server.kill()
    host = server.host(1)
    server.run()
    with server.executor() as executor:
        assert executor.submit(abs, -1).result(LIMIT) == 1
    host.signal(signal.SIGINT)
    assert host.wait() == 0


def test_a_host_in_this_process_works(server: Server) -> None:
    with server.executor() as executor, ClusterHost(server.url, workers=1, lease=1.5):
        assert executor.submit(tasks.double, "ab").result(LIMIT) == "abab"
        (host,) = executor.hosts()
        assert host.pid == os.getpid()


def test_python_code_of_a_host_submits_its_first_call_only(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[Any] = []
    original = _host._submit

    def counted(pool: Any, job: Any) -> Any:
        submitted.append(job.token)
        return original(pool, job)

    monkeypatch.setattr(_host, "_submit", counted)
    with server.executor() as executor, ClusterHost(server.url, workers=2, lease=1.5):
        assert executor.submit(tasks.double, 1).result(LIMIT) == 2
        futures = [executor.submit(tasks.double, n) for n in range(500)]
        assert [future.result(LIMIT) for future in futures] == [2 * n for n in range(500)]
        # These outcomes take Python code.
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 1, 0).result(LIMIT)
        with pytest.raises(WorkerDiedError, match=r"_exit\)$"):
            executor.submit(os._exit, 3).result(LIMIT)
        assert executor.submit(bytes, 3_000_000).result(LIMIT) == bytes(3_000_000)
        assert len(submitted) == 1


def test_a_host_goes_on_with_a_new_pool_if_its_own_is_broken(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "refuse"
    begin = functools.partial(tasks.begin_unless, str(flag))
    monkeypatch.setattr(_waits, "begin", begin)
    with server.executor() as executor, ClusterHost(server.url, workers=1, lease=1.5):
        assert executor.submit(tasks.double, 1).result(LIMIT) == 2
        assert executor.submit(tasks.double, 2).result(LIMIT) == 4
        flag.touch()
        with pytest.raises(WorkerDiedError):
            executor.submit(os._exit, 3).result(LIMIT)
        # The next worker cannot begin.
        with pytest.raises(BrokenProcessPool):
            executor.submit(tasks.double, 3).result(LIMIT)
        flag.unlink()
        futures = [executor.submit(tasks.double, n) for n in range(100)]
        assert [future.result(LIMIT) for future in futures] == [2 * n for n in range(100)]


def test_short_calls_run_on_the_workers_of_their_host_only(server: Server) -> None:
    server.host(2)
    with server.executor() as executor:
        for _ in range(5):
            futures = [executor.submit(tasks.sleep_and_tell, 0) for _ in range(400)]
            pids = {future.result(LIMIT) for future in futures}
            assert len(pids) <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_long_call_among_short_ones_holds_up_none_of_them(
    server: Server, tmp_path: Path, workers: int
) -> None:
    go = tmp_path / "go"
    server.host(workers)
    with server.executor() as executor:
        # From now on, the host knows that calls are short, and hands some over together.
        wait([executor.submit(tasks.double, n) for n in range(300)], LIMIT)
        long: list[Any] = []
        short = []
        for n in range(300):
            if n == 150:
                long.append(executor.submit(tasks.wait_for, str(go), "long"))
            short.append(executor.submit(tasks.double, n))
        if workers == 1:
            # The only worker is busy. So the others run elsewhere, those in its pool as well.
            wait_until("the long one runs", long[0].running)
            server.host(1)
        assert [future.result(LIMIT) for future in short] == [2 * n for n in range(300)]
        assert not long[0].done()
        go.touch()
        assert long[0].result(LIMIT) == "long"


def test_submissions_wait_for_room(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with server.executor(max_pending=2) as executor:
        futures = [executor.submit(tasks.wait_for, str(go), n) for n in range(2)]
        is_through = threading.Event()

        def submit() -> None:
            futures.append(executor.submit(tasks.wait_for, str(go), 2))
            is_through.set()

        thread = threading.Thread(target=submit)
        thread.start()
        assert not is_through.wait(0.3)
        server.host(2)
        assert is_through.wait(LIMIT)
        thread.join()
        go.touch()
        assert [future.result(LIMIT) for future in futures] == [0, 1, 2]


def test_a_shutdown_waits_for_all_tasks(server: Server) -> None:
    server.host(2)
    executor = server.executor()
    futures = [executor.submit(tasks.double, n) for n in range(100)]
    results = executor.map(tasks.double, range(1000))
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert list(results) == [2 * n for n in range(1000)]
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(abs, [1])
    executor.shutdown()


def test_a_shutdown_without_waiting_lets_tasks_finish(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server.host(2)
    executor = server.executor()
    futures = [executor.submit(tasks.wait_for, str(go), n) for n in range(20)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    go.touch()
    assert [future.result(LIMIT) for future in futures] == list(range(20))
    executor._state.thread.join(LIMIT)
    assert not executor._state.thread.is_alive()


@pytest.mark.parametrize("waits", [True, False])
def test_a_shutdown_cancels_what_no_host_has_begun(
    server: Server, tmp_path: Path, waits: bool
) -> None:
    go = tmp_path / "go"
    server.host(1)
    executor = server.executor()
    running = executor.submit(tasks.wait_for, str(go), 1)
    wait_until("the task runs", running.running)
    pending = [executor.submit(tasks.double, n) for n in range(50)]
    results = executor.map(tasks.double, range(50))
    if waits:
        timer = threading.Timer(0.5, go.touch)
        timer.start()
    executor.shutdown(wait=waits, cancel_futures=True)
    done, not_done = wait(pending, LIMIT)
    assert (len(done), not_done) == (50, set())
    assert all(future.cancelled() for future in pending)
    with pytest.raises(CancelledError):
        list(results)
    go.touch()
    assert running.result(LIMIT) == 1
    executor._state.thread.join(LIMIT)


def test_an_executor_that_is_dropped_finishes_its_tasks(server: Server) -> None:
    server.host(1)
    executor = server.executor()
    future = executor.submit(tasks.double, 3)
    thread = executor._state.thread
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    assert future.result(LIMIT) == 6
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_settings_that_make_no_sense_are_refused() -> None:
    refused: list[dict[str, Any]] = [
        {"priority": 3},
        {"max_pending": 0},
        {"retries": -1},
        {"task_timeout": 0},
        {"on_host_loss": "ignore"},
        {"queue": "a.b"},
        {"key": ""},
        {"lease": -1},
        {"lease": 0.9},
        {"workers": 2},
    ]
    for options in refused:
        with pytest.raises(ValueError, match=next(iter(options))):
            ClusterExecutor("nats://127.0.0.1:1", **options)
    with pytest.raises(ValueError, match="no address"):
        ClusterExecutor("http://127.0.0.1:1")
    with pytest.raises(TypeError, match="by_value"):
        ClusterExecutor("nats://127.0.0.1:1", by_value="module")


def test_the_embedded_server_has_its_own_way_to_log_in() -> None:
    for name in ("token", "credentials", "nkey", "tls"):
        with pytest.raises(ValueError, match="embedded server"):
            ClusterExecutor("embedded", **{name: "x"})  # type: ignore[arg-type]


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ClusterConnectionError, match="cannot connect"):
        ClusterExecutor("nats://127.0.0.1:1")


def test_a_server_on_another_machine_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONCURRENT_FUTURES_KEY", raising=False)
    with pytest.raises(ClusterError, match="give a key"):
        ClusterExecutor("nats://10.0.0.1:4222")


def test_many_threads_submit_and_cancel(server: Server) -> None:
    server.host(2)
    with server.executor() as executor:
        futures: list[Any] = []

        def work(seed: int) -> None:
            for n in range(40):
                future = executor.submit(tasks.double, n)
                futures.append((n, future))
                if (n + seed) % 3 == 0:
                    future.cancel()

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done, not_done = wait([future for _, future in futures], LIMIT)
        assert (len(done), not_done) == (160, set())
        for n, future in futures:
            assert future.cancelled() or future.result() == 2 * n


def test_a_stopped_host_that_goes_on_changes_no_outcome(server: Server, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    first = server.host(1)
    with server.executor() as executor:
        future = executor.submit(tasks.note_and_wait, str(begun), str(go))
        wait_until("the task runs", lambda: has_line(begun))
        first.signal(signal.SIGSTOP)
        server.host(1)
        wait_until("it runs again", lambda: len(begun.read_text().splitlines()) == 2)
        go.touch()
        second = int(begun.read_text().splitlines()[1].split()[0])
        assert future.result(LIMIT) == second
        first.signal(signal.SIGCONT)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            assert future.result() == second
            time.sleep(0.05)
