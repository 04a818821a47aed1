"""The parts of a fuzzed program: tasks, gates that hold tasks, and a record of all outcomes.

Programs run on the standard library and on this package; their records must be the same. So a
record holds nothing that the scheduler decides. Before a program looks, it waits until the tasks
that can start have started, and until the futures that can be done are done.
"""

from __future__ import annotations

import contextvars
import decimal
import functools
import gc
import logging
import os
import re
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

#: The most seconds that a program waits for something that must come.
LIMIT = float(os.environ.get("CONCURRENT_FUTURES_FUZZ_LIMIT", "10"))

HERE = str(Path(__file__).parent)

#: The folder of the running program, in which its gates are files; inherited by its workers.
folder = Path()

_local = threading.local()
_variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


class OopsError(Exception):
    """An exception with a state."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text, code)
        self.code = code


class Rude(BaseException):
    """An exception that is no `Exception`."""


class AwkwardError(Exception):
    """An exception that can be pickled, but not unpickled."""

    def __init__(self, text: str, extra: int) -> None:
        super().__init__(text)
        self.extra = extra


class Box:
    """A mutable object that can be shared and referred to weakly."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.calls: list[Any] = []

    def add(self, value: Any) -> int:
        """Note a value; return the number of noted values."""
        self.calls.append(value)
        return len(self.calls)

    def __repr__(self) -> str:
        return f"Box({self.value!r}, {self.calls!r})"


class NoReduce:
    """An object that refuses to be pickled."""

    def __reduce__(self) -> str:
        raise TypeError("NoReduce cannot be pickled")


class Picky:
    """An object whose unpickling fails."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (fail, ("unpickled",))


# The tasks.


def value(x: Any = None) -> Any:
    """Return the argument."""
    return x


def square(x: int) -> int:
    """Return the square."""
    return x * x


def fail(text: str = "failed", *_: Any) -> Any:
    """Raise an exception with a state."""
    raise OopsError(text, 7)


def fail_from(text: str) -> Any:
    """Raise an exception with a cause."""
    try:
        {}[text]  # type: ignore[index]
    except KeyError as error:
        raise ValueError(text) from error


def fail_during(text: str) -> Any:
    """Raise an exception while another is handled."""
    try:
        raise LookupError(text)
    except LookupError:
        return 1 // 0


def rude() -> Any:
    """Raise an exception that is no `Exception`."""
    raise Rude("rude")


def leave() -> Any:
    """Raise an exception that ends a thread or an interpreter."""
    raise SystemExit(3)


def awkward() -> Any:
    """Raise an exception that cannot be unpickled."""
    raise AwkwardError("awkward", 1)


def stop(x: Any = None) -> Any:
    """Raise an exception that ends an iteration."""
    raise StopIteration(x)


def odd_fails(x: int) -> int:
    """Return even numbers; raise for odd ones."""
    if x % 2:
        raise OopsError("odd", x)
    return x


def both(x: Any, y: Any = None, *rest: Any, key: Any = None) -> Any:
    """Return all arguments."""
    return (x, y, rest, key)


def touch(box: Any, x: Any = None) -> Any:
    """Change the argument, and return how often it was changed."""
    if isinstance(box, Box):
        return box.add(x)
    box.append(x)
    return len(box)


def is_same(x: Any, y: Any) -> bool:
    """Return whether both arguments are one object."""
    return x is y


def unpicklable() -> Any:
    """Return an object that cannot be pickled."""
    return lambda: None


def picky() -> Any:
    """Return an object that cannot be unpickled."""
    return Picky()


def depth() -> bool:
    """Return whether the stack below the task is short."""
    return len(traceback.extract_stack()) < 12


def locals_kept() -> bool:
    """Return whether the thread-local values are those of this task alone."""
    before = getattr(_local, "busy", False)
    _local.busy = True
    try:
        return not before
    finally:
        _local.busy = False


def context_kept() -> tuple[int, int]:
    """Return the values that the task sees of other tasks' contexts."""
    return (_variable.get(), decimal.getcontext().prec)


def thread_name(prefix: str) -> bool:
    """Return whether the thread is named after its pool."""
    return re.fullmatch(re.escape(prefix) + r"_\d+", threading.current_thread().name) is not None


def is_main() -> bool:
    """Return whether the task runs in the main thread."""
    return threading.current_thread() is threading.main_thread()


def gated(gate: str, x: Any = None) -> Any:
    """Say that the task runs, wait for the gate, and return the argument."""
    (folder / f"{gate}.started").touch()
    wait_for(lambda: (folder / f"{gate}.open").exists())
    return x


def gated_fail(gate: str, text: str) -> Any:
    """Wait for the gate, and raise."""
    gated(gate)
    raise OopsError(text, 8)


def wait_for(condition: Callable[[], object]) -> bool:
    """Wait until the condition holds; False if it never does."""
    end = time.monotonic() + LIMIT
    pause = 0.0001
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(0.002, 1.5 * pause)
    return True


# Tasks that use executors.


def nest(pool: Any, fn: Callable[..., Any], *args: Any) -> Any:
    """Submit a task of the same pool, and wait for it, with values of this thread in place."""
    _local.busy = True
    _variable.set(5)
    precision = decimal.getcontext().prec
    decimal.getcontext().prec = 3
    try:
        future = pool.submit(fn, *args)
        return future.result(LIMIT)
    finally:
        decimal.getcontext().prec = precision
        _variable.set(0)
        _local.busy = False


def nest_forever(pool: Any, fn: Callable[..., Any], *args: Any) -> Any:
    """Submit and wait without a time limit, holding a lock that the inner task asks for."""
    lock = threading.RLock()
    with lock:
        future = pool.submit(_try_lock, lock, fn, args)
        return future.result()


def _try_lock(lock: Any, fn: Callable[..., Any], args: Any) -> Any:
    free = lock.acquire(blocking=False)
    if free:
        lock.release()
    return (free, fn(*args))


def crash(code: int) -> Any:
    """End the worker process."""
    os._exit(code)


def submitted(pool: Any, count: int) -> Iterator[Any]:
    """Yield results of tasks of the same pool, as items of a map."""
    for index in range(count):
        yield pool.submit(value, index).result(LIMIT)


def nest_map(pool: Any, fn: Callable[..., Any], items: Any) -> Any:
    """Map in a task."""
    return list(pool.map(fn, items))


def nest_first(cf: Any, pool: Any, fn: Callable[..., Any], *args: Any) -> Any:
    """Wait for the first of two tasks, one of which waits for the other."""
    gate = threading.Event()
    slow = pool.submit(gate.wait, LIMIT)
    fast = pool.submit(fn, *args)
    try:
        done, not_done = cf.wait([slow, fast], return_when=cf.FIRST_COMPLETED)
        return (fast in done, slow in not_done)
    finally:
        gate.set()


def nest_completed(cf: Any, pool: Any, fn: Callable[..., Any], items: Any) -> Any:
    """Take tasks of the same pool as they are completed."""
    futures = [pool.submit(fn, item) for item in items]
    return sorted(repr(future.result()) for future in cf.as_completed(futures))


def noting(pool_class: Any) -> Any:
    """Return a subclass that notes what is submitted, and changes it."""

    class Noting(pool_class):  # type: ignore[misc]
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.noted = [*getattr(self, "noted", []), fn.__name__]
            return super().submit(fn, *args, **kwargs)

        def shutdown(self, *args: Any, **kwargs: Any) -> Any:
            self.noted = [*getattr(self, "noted", []), "shutdown"]
            return super().shutdown(*args, **kwargs)

    return Noting


class Stage:
    """One run of a program on one library."""

    def __init__(self, cf: ModuleType, work: Path) -> None:
        global folder
        folder = work
        self.cf = cf
        self.lines: list[str] = []
        self.calls: dict[str, list[Any]] = {}
        self._handler = _Log(self)
        self._logger = logging.getLogger("concurrent.futures")
        self._logger.addHandler(self._handler)
        self._propagate = self._logger.propagate
        self._logger.propagate = False

    def close(self) -> None:
        """Undo the changes of the process."""
        self._logger.removeHandler(self._handler)
        self._logger.propagate = self._propagate

    def rec(self, label: str, fn: Callable[[], Any]) -> Any:
        """Record the outcome of a call; return its value."""
        try:
            result = fn()
        except BaseException as error:
            self.lines.append(f"{label}: raised {describe(error)}")
            return None
        self.lines.append(f"{label}: {show(result)}")
        return result

    def do(self, label: str, fn: Callable[[], Any]) -> Any:
        """Call a function, and record only an exception."""
        try:
            return fn()
        except BaseException as error:
            self.lines.append(f"{label}: raised {describe(error)}")
            return None

    def open(self, gate: str) -> None:
        """Let the task of a gate go on."""
        (folder / f"{gate}.open").touch()

    def settle(self, started: Iterable[str], done: Iterable[Any]) -> None:
        """Wait until the tasks of these gates run, and until these futures are done."""
        for gate in started:
            if not wait_for((folder / f"{gate}.started").exists):
                self.lines.append(f"the task of {gate} never started")
        for index, future in enumerate(done):
            if future is not None and not wait_for(future.done):
                self.lines.append(f"future {index} of those that must be done never was")

    def callback(self, name: str, kind: str, other: Any = None) -> Callable[[Any], None]:
        """Return a callback that notes its call."""
        calls = self.calls.setdefault(name, [])

        def call(future: Any) -> None:
            calls.append((kind, future._state))
            if kind == "raises":
                raise OopsError("callback", 9)
            if kind == "rude":
                raise Rude("callback")
            if kind == "adds":
                future.add_done_callback(lambda _: calls.append("added"))
            if kind == "submits":
                calls.append(other.submit(value, 1).result(LIMIT))
            if kind == "result":
                calls.append(describe_outcome(future))
            if kind == "cancels":
                calls.append(other.cancel())

        return call

    def leave(self, label: str, pool: Any, error: BaseException | None) -> None:
        """Leave the block of an executor, by an exception perhaps."""

        def block() -> Any:
            with pool as entered:
                if error is not None:
                    raise error
                return entered is pool

        self.rec(label, block)

    def called(self, name: str, count: int) -> None:
        """Record the calls of callbacks, when there are as many as there must be."""
        calls = self.calls.get(name, [])
        wait_for(lambda: len(calls) >= count)
        self.lines.append(f"callbacks of {name}: {calls}")

    def released(self, label: str, reference: weakref.ref[Any]) -> None:
        """Record whether an object goes away."""

        def gone() -> bool:
            gc.collect()
            return reference() is None

        self.lines.append(f"{label} is released: {wait_for(gone)}")

    def states(self, futures: dict[str, Any]) -> None:
        """Record the states of futures."""
        for name, future in futures.items():
            if future is not None:
                self.lines.append(
                    f"{name}: {future._state} {future.done()} {future.running()} "
                    f"{future.cancelled()}"
                )

    def consume(self, label: str, make: Callable[[], Any], take: str) -> None:
        """Iterate over the result of `make`, in one of several ways."""
        iterator = self.do(label, make)
        if iterator is None:
            return
        self.rec(label, functools.partial(CONSUMERS[take], self, iterator))
        del iterator

    def wait(self, label: str, futures: dict[str, Any], timeout: Any, when: str) -> None:
        """Record what `wait` returns."""
        names = {future: name for name, future in futures.items()}

        def call() -> Any:
            done, not_done = self.cf.wait(futures.values(), timeout, when)
            return sorted(names[f] for f in done), sorted(names[f] for f in not_done)

        self.rec(label, call)


class _Log(logging.Handler):
    """Records what the library logs."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        text = clean(record.getMessage())
        logged = self._stage.calls.setdefault("log", [])
        logged.append(f"{record.levelname} {text} {describe(error) if error else ''}")


# The ways to consume an iterator.


def _all(_: Stage, iterator: Any) -> Any:
    return list(iterator)


def _some(_: Stage, iterator: Any) -> Any:
    return [next(iterator), next(iterator, "end")]


def _close(_: Stage, iterator: Any) -> Any:
    first = next(iterator, "end")
    iterator.close()
    return first, next(iterator, "end")


def _close_at_once(_: Stage, iterator: Any) -> Any:
    iterator.close()
    return list(iterator)


def _drop(_: Stage, iterator: Any) -> Any:
    return next(iterator, "end")


def _raise_in_loop(_: Stage, iterator: Any) -> Any:
    for item in iterator:
        raise OopsError("in the loop", item if isinstance(item, int) else 0)
    return "nothing"


def _divide_in_list(_: Stage, iterator: Any) -> Any:
    return [1 // 0 for _ in iterator]


def _throw(_: Stage, iterator: Any) -> Any:
    first = next(iterator, "end")
    try:
        iterator.throw(OopsError("thrown", 1))
    except (OopsError, StopIteration) as error:
        return first, type(error).__name__, list(iterator)
    return first, "nothing"


def _throw_outer(stage: Stage, iterator: Any) -> Any:
    def outer() -> Generator[Any, None, None]:
        for item in iterator:
            try:
                yield item
            except LookupError as error:
                yield f"caught {error}"

    generator = outer()
    first = next(generator, "end")
    second: Any = stage.do("throw", lambda: generator.throw(KeyError("x")))
    return first, second, list(generator)


def _each(stage: Stage, iterator: Any) -> Any:
    results = []
    for _ in range(12):
        try:
            results.append(next(iterator))
        except StopIteration:
            results.append("end")
            break
        except Exception as error:
            results.append(describe(error))
    return results


def _hint_then_all(_: Stage, iterator: Any) -> Any:
    # A list asks for the length; generators have none.
    return list(iterator), list(iterator)


def _break(_: Stage, iterator: Any) -> Any:
    for item in iterator:
        return item
    return "nothing"


def _zip(_: Stage, iterator: Any) -> Any:
    return list(zip(range(3), iterator, strict=False))


def _in_generator(_: Stage, iterator: Any) -> Any:
    generator = (item for item in iterator)
    first = next(generator, "end")
    generator.close()
    return first, next(iterator, "end")


CONSUMERS: dict[str, Callable[[Stage, Any], Any]] = {
    "all": _all,
    "some": _some,
    "close": _close,
    "close at once": _close_at_once,
    "drop": _drop,
    "raise in loop": _raise_in_loop,
    "divide in list": _divide_in_list,
    "throw": _throw,
    "throw outer": _throw_outer,
    "each": _each,
    "hint": _hint_then_all,
    "break": _break,
    "zip": _zip,
    "in generator": _in_generator,
}


# Iterables that do something on the way.


def failing_after(count: int, items: Iterable[Any] = range(9)) -> Iterator[Any]:
    """Yield some items, then raise."""
    for index, item in enumerate(items):
        if index == count:
            raise OopsError("producer", index)
        yield item


class FailsToIterate:
    """An iterable that has no iterator."""

    def __iter__(self) -> Iterator[Any]:
        raise OopsError("iter", 0)


# The records of values.


def show(thing: Any) -> str:
    """Return a text that is the same on both libraries."""
    if isinstance(thing, BaseException):
        return describe(thing)
    return clean(repr(thing))


def clean(text: str) -> str:
    """Return a text without addresses and names of modules."""
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = text.replace("concurrent_futures", "concurrent.futures")
    text = text.replace("concurrent.futures._engine", "concurrent.futures._base")
    return re.sub(r"\b(PROCESS|pid|process|Future)[ =]\d+", r"\1 0", text)


def describe(error: BaseException) -> str:
    """Return the comparable parts of an exception."""
    parts = [type(error).__name__, clean(str(error))]
    code = getattr(error, "code", None)
    if code is not None:
        parts.append(f"code {code}")
    # The package says why a pool broke: COMPATIBILITY.md.
    if error.__cause__ is not None and not type(error).__name__.startswith("Broken"):
        parts.append(f"from {type(error.__cause__).__name__}")
    if error.__context__ is not None and not error.__suppress_context__:
        parts.append(f"during {type(error.__context__).__name__}")
    frames = [
        frame.name
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == __file__ and not frame.name.startswith(("rec", "do", "<lambda>", "_"))
    ]
    return f"{' '.join(parts)} in {'/'.join(frames)}"


def describe_outcome(future: Any) -> str:
    """Return the outcome of a future that is done."""
    try:
        error = future.exception(0)
        return describe(error) if error else show(future.result(0))
    except BaseException as error:
        return describe(error)
