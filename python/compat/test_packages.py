"""Tests of real packages that use executors, with the standard library and with this package in its
place.

Each program runs in an interpreter of its own, as most packages patch others. A program must
print the same with the standard library and with ours. A package that is not installed is skipped.
"""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LIMIT = 120

#: The beginning of most programs.
COMMON = """
import concurrent.futures, threading, time
from concurrent.futures import (
    FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait,
)

def use(pool):
    print(pool.submit(abs, -1).result(timeout=10))
    futures = [pool.submit(abs, -n) for n in range(8)]
    print(sorted(future.result() for future in as_completed(futures, timeout=10)))
    print(len(wait(futures, timeout=10).done), list(pool.map(abs, range(-3, 0), timeout=10)))
    try:
        pool.submit(divmod, 1, 0).result(10)
    except ZeroDivisionError as error:
        print(repr(error))
"""

#: Settings for a program without an agent to send data to.
QUIET_DATADOG = """
import logging, os
logging.disable()
os.environ.update(
    DD_INSTRUMENTATION_TELEMETRY_ENABLED="0",
    DD_REMOTE_CONFIGURATION_ENABLED="0",
    DD_TRACE_AGENT_URL="http://127.0.0.1:9",
    DD_TRACE_STARTUP_LOGS="0",
)
"""

PROGRAMS = {
    ("gevent", "patched before the import"): """
        from gevent import monkey; monkey.patch_all()
        COMMON
        with ThreadPoolExecutor(4) as pool: use(pool)
    """,
    ("gevent", "patched after the import"): """
        COMMON
        from gevent import monkey; monkey.patch_all()
        with ThreadPoolExecutor(4) as pool: use(pool)
    """,
    ("gevent", "other greenlets run while one waits"): """
        from gevent import monkey; monkey.patch_all()
        COMMON
        import gevent
        future = Future()
        gevent.spawn_later(0.05, future.set_result, "set by a greenlet")
        print(future.result(timeout=10))
        first, second = Future(), Future()
        gevent.spawn_later(0.05, second.set_result, 2)
        print(wait([first, second], return_when=FIRST_COMPLETED, timeout=10).done == {second})
        gevent.spawn_later(0.05, first.set_result, 1)
        print([each.result() for each in as_completed([first, second], timeout=10)])
        try:
            Future().result(timeout=0.01)
        except concurrent.futures.TimeoutError:
            print("timeout")
    """,
    ("gevent", "tasks wait for tasks"): """
        from gevent import monkey; monkey.patch_all()
        COMMON
        with ThreadPoolExecutor(2) as pool:
            print(pool.submit(lambda: pool.submit(abs, -5).result()).result(timeout=10))
    """,
    ("gevent", "without patches"): """
        COMMON
        import gevent
        with ThreadPoolExecutor(2) as pool:
            print(gevent.spawn(lambda: pool.submit(abs, -4).result()).get(timeout=10))
            print(gevent.get_hub().threadpool.apply(abs, (-5,)))
            use(pool)
    """,
    ("gevent", "its own executor"): """
        COMMON
        from gevent.threadpool import ThreadPoolExecutor as GeventExecutor
        with GeventExecutor(2) as pool:
            print(pool.submit(abs, -3).result(timeout=10), list(pool.map(abs, [-1, -2])))
    """,
    ("futurist", "futures with conditions of eventlet"): """
        import warnings; warnings.simplefilter("ignore")
        COMMON
        import eventlet, futurist, futurist.waiters
        future = futurist.GreenFuture()
        eventlet.spawn_after(0.05, future.set_result, "set by a green thread")
        print(future.result(timeout=10))
        with futurist.GreenThreadPoolExecutor() as pool:
            futures = [pool.submit(pow, 2, n) for n in range(5)]
            print([each.result(timeout=10) for each in futures])
            print(len(futurist.waiters.wait_for_all(futures, timeout=10).done))
        with futurist.ThreadPoolExecutor(2) as pool: use(pool)
    """,
    ("eventlet", "patched before the import"): """
        import eventlet; eventlet.monkey_patch()
        COMMON
        with ThreadPoolExecutor(4) as pool: use(pool)
    """,
    ("eventlet", "patched after the import"): """
        COMMON
        import eventlet; eventlet.monkey_patch()
        with ThreadPoolExecutor(4) as pool: use(pool)
    """,
    ("eventlet", "other green threads run while one waits"): """
        import eventlet; eventlet.monkey_patch()
        COMMON
        future = Future()
        eventlet.spawn_after(0.05, future.set_result, "set by a green thread")
        print(future.result(timeout=10))
    """,
    ("google.cloud.pubsub_v1", "the scheduler drops what is pending"): """
        COMMON
        from google.cloud.pubsub_v1.subscriber.scheduler import ThreadScheduler
        scheduler = ThreadScheduler(ThreadPoolExecutor(1))
        running, release = threading.Event(), threading.Event()
        done = []
        scheduler.schedule(lambda message: (running.set(), release.wait()), "first")
        running.wait()
        for message in ["second", "third"]:
            scheduler.schedule(done.append, message)
        dropped = scheduler.shutdown(await_msg_callbacks=False)
        release.set()
        print(dropped, done)
    """,
    ("google.cloud.pubsub_v1", "the scheduler waits for what runs"): """
        COMMON
        from google.cloud.pubsub_v1.subscriber.scheduler import ThreadScheduler
        scheduler = ThreadScheduler()
        done = threading.Event()
        scheduler.schedule(lambda message: done.set(), "message")
        print(done.wait(10), scheduler.shutdown(await_msg_callbacks=True))
    """,
    ("ddtrace", "a task belongs to the span that submitted it"): """
        QUIET_DATADOG
        COMMON
        from ddtrace import patch
        from ddtrace.trace import tracer
        patch(futures=True)
        parent = lambda: tracer.current_trace_context().span_id
        with ThreadPoolExecutor(2) as pool:
            with tracer.trace("parent") as span:
                print(pool.submit(parent).result(timeout=10) == span.span_id)
                print([each == span.span_id for each in pool.map(lambda _: parent(), range(3))])
            use(pool)
    """,
    ("opentelemetry.instrumentation.threading", "the context of a submit"): """
        COMMON
        from opentelemetry import context
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor
        instrumentor = ThreadingInstrumentor()
        token = context.attach(context.set_value("key", "value"))
        for turn in range(2):
            instrumentor.instrument()
            with ThreadPoolExecutor(2) as pool:
                print(pool.submit(context.get_value, "key").result(timeout=10))
                print(list(pool.map(context.get_value, ["key"] * 3)))
                use(pool)
            instrumentor.uninstrument()
            with ThreadPoolExecutor(2) as pool:
                print(pool.submit(context.get_value, "key").result(timeout=10))
                use(pool)
    """,
    ("sentry_sdk", "the scope of a submit"): """
        COMMON
        import sentry_sdk
        sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=lambda _: None)
        with sentry_sdk.isolation_scope() as scope, ThreadPoolExecutor(2) as pool:
            scope.set_tag("who", "me")
            get = lambda *_: sentry_sdk.get_isolation_scope()._tags.get("who")
            print(pool.submit(get).result(timeout=10), list(pool.map(get, range(3))))
            use(pool)
    """,
    ("grpc", "a server on a pool of threads"): """
        COMMON
        import grpc
        class Handler(grpc.GenericRpcHandler):
            def service(self, details):
                return grpc.unary_unary_rpc_method_handler(lambda request, context: request[::-1])
        server = grpc.server(ThreadPoolExecutor(max_workers=4), handlers=[Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/test/reverse")
            print(call(b"abc", timeout=20))
            futures = [call.future(bytes([n, 7]), timeout=20) for n in range(50)]
            print(sorted(future.result()[1] for future in futures) == list(range(50)))
        print(server.stop(None).wait(20))
    """,
    ("distributed", "the client's executor"): """
        COMMON
        from distributed import Client
        if __name__ == "__main__":
            with Client(processes=False, n_workers=1, dashboard_address=None) as client:
                with client.get_executor() as pool:
                    print(isinstance(pool, concurrent.futures.Executor))
                    use(pool)
    """,
    ("loky", "its reusable executor"): """
        COMMON
        from loky import get_reusable_executor
        if __name__ == "__main__":
            with get_reusable_executor(2) as pool:
                use(pool)
                print(isinstance(pool.submit(abs, -1), Future))
                print(pool.submit(lambda: "a lambda").result(timeout=20))
    """,
    ("joblib", "its backends"): """
        COMMON
        from joblib import Parallel, delayed
        if __name__ == "__main__":
            for backend in ["loky", "threading", "multiprocessing"]:
                calls = (delayed(abs)(-n) for n in range(20))
                print(Parallel(n_jobs=2, backend=backend)(calls) == list(range(20)))
            with ThreadPoolExecutor(2) as pool:
                use(pool)
    """,
}

#: Instrumentation that is installed before `install()` is called.
PATCHED_BEFORE = {
    "opentelemetry.instrumentation.threading": """
        from opentelemetry import context
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor
        instrumentor = ThreadingInstrumentor()
        token = context.attach(context.set_value("key", "value"))
        instrumentor.instrument()
        INSTALL
        COMMON
        with ThreadPoolExecutor(2) as pool:
            print(pool.submit(context.get_value, "key").result(timeout=10))
            print(list(pool.map(context.get_value, ["key"] * 3)))
        instrumentor.uninstrument()
        with ThreadPoolExecutor(2) as pool:
            print(pool.submit(context.get_value, "key").result(timeout=10))
            use(pool)
        WORKS
    """,
    "sentry_sdk": """
        import sentry_sdk
        sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=lambda _: None)
        INSTALL
        COMMON
        with sentry_sdk.isolation_scope() as scope, ThreadPoolExecutor(2) as pool:
            scope.set_tag("who", "me")
            get = lambda *_: sentry_sdk.get_isolation_scope()._tags.get("who")
            print(pool.submit(get).result(timeout=10), list(pool.map(get, range(3))))
            use(pool)
        WORKS
    """,
    "ddtrace": """
        QUIET_DATADOG
        from ddtrace import patch
        from ddtrace.trace import tracer
        patch(futures=True)
        INSTALL
        COMMON
        parent = lambda: tracer.current_trace_context().span_id
        with ThreadPoolExecutor(2) as pool:
            with tracer.trace("parent") as span:
                print(pool.submit(parent).result(timeout=10) == span.span_id)
            use(pool)
        WORKS
    """,
}


def printed(program: str, path: Path, *options: str) -> str:
    """Run a program as a script, and return what it prints."""
    path.write_text(program)
    process = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", *options, str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    assert process.returncode == 0, (process.stdout, process.stderr)
    return process.stdout


def written_out(program: str, **parts: str) -> str:
    """Return a program with its parts in the place of their names."""
    program = textwrap.dedent(program)
    for name, part in {"COMMON": COMMON, "QUIET_DATADOG": QUIET_DATADOG, **parts}.items():
        program = program.replace(f"{name}\n", f"{part.strip()}\n")
    return program


def require(package: str) -> None:
    """Skip the test if a package is not installed."""
    try:
        found = importlib.util.find_spec(package)
    except ImportError:
        found = None
    if found is None:
        pytest.skip(f"{package} is not installed: see python/compat/requirements.txt")


@pytest.mark.parametrize(("package", "what"), PROGRAMS, ids=[": ".join(key) for key in PROGRAMS])
def test_a_program_prints_the_same(package: str, what: str, tmp_path: Path) -> None:
    require(package)
    program = written_out(PROGRAMS[package, what])
    expected = printed(program, tmp_path / "program.py")
    assert expected
    assert printed(program, tmp_path / "program.py", "-m", "concurrent_futures") == expected


@pytest.mark.parametrize("package", PATCHED_BEFORE)
def test_patches_from_before_carry_over(package: str, tmp_path: Path) -> None:
    require(package)
    program = PATCHED_BEFORE[package]
    expected = printed(written_out(program, INSTALL="", WORKS=""), tmp_path / "program.py")
    install = "import concurrent_futures; concurrent_futures.install()"
    # On the engine: the patch does not cost the speed.
    works = "print(type(pool) is concurrent_futures.ThreadPoolExecutor, pool._is_standard())"
    ours = printed(written_out(program, INSTALL=install, WORKS=works), tmp_path / "program.py")
    assert ours == f"{expected}True False\n"
