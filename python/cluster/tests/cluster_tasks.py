"""Tasks of the tests, which hosts import."""

import concurrent.futures
import os
import pickle
import signal
import threading
import time
from pathlib import Path
from typing import Any, SupportsIndex

from concurrent_futures import (
    FIRST_COMPLETED,
    ClusterExecutor,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)


def wait_for(path: str, value: Any = None) -> Any:
    """Return a value when there is a file."""
    while not Path(path).exists():
        time.sleep(0.005)
    return value


def begin_unless(flag: str, *arguments: Any) -> None:
    """Begin a worker of a host, unless there is a file."""
    from concurrent_futures_cluster import _waits

    if Path(flag).exists():
        raise RuntimeError("the worker is to fail")
    _waits.begin(*arguments)


def note_and_wait(begun: str, path: str) -> int:
    """Note in a file that the call has begun, and wait for another file; return the process id."""
    with open(begun, "a") as file:
        file.write(f"{os.getpid()} {os.getppid()}\n")
    wait_for(path)
    return os.getpid()


def sleep_and_wait(seconds: float, path: str = "/") -> float:
    """Return the seconds, when they have passed and there is a file."""
    time.sleep(seconds)
    wait_for(path)
    return seconds


def sleep_and_tell(seconds: float) -> int:
    """Return the process id, after some seconds."""
    time.sleep(seconds)
    return os.getpid()


def call(function: Any, argument: Any) -> Any:
    """Call a function: for calls of several functions in one `map`."""
    return function(argument)


def same(value: Any) -> Any:
    return value


def owner(array: Any) -> Any:
    """Return the object that has the memory of an array."""
    while not isinstance(array, memoryview):
        array = array.base
    return array.obj


def change(array: Any) -> tuple[str, Any]:
    """Change an array; return the name of the type that has its memory, and the array."""
    array[0] = 7
    return type(owner(array)).__name__, array


class Gaps:
    """An object whose pickle has a buffer that is not contiguous."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return same, (pickle.PickleBuffer(memoryview(bytes(400_000))[::2]),)


def double(value: Any) -> Any:
    return value + value


def fail(text: str) -> None:
    raise OwnError(text, code=7)


def die_if(value: int, deadly: int) -> int:
    """Kill the worker for one of the values."""
    if value == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def die_once(path: str) -> str:
    """Kill the first worker that runs it."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "survived"
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def unpicklable(value: int) -> Any:
    return threading.Lock() if value == 3 else value


def nest(url: str, lease: float, depth: int) -> int:
    """Return the depth, by a task that waits for another one of the same cluster."""
    if depth == 0:
        return 0
    with ClusterExecutor(url, lease=lease) as executor:
        return 1 + executor.submit(nest, url, lease, depth - 1).result()


def nest_in_map(url: str, lease: float, depth: int) -> int:
    """Return the number of the tasks in a tree of this depth, whose tasks wait in `map`."""
    if depth == 0:
        return 1
    with ClusterExecutor(url, lease=lease) as executor:
        below = executor.map(nest_in_map, [url] * 2, [lease] * 2, [depth - 1] * 2)
        return 1 + sum(below)


def wait_in_one_way(url: str, lease: float, way: str) -> int:
    """Return 3, by a task that waits for another one of the same cluster in this way."""
    with ClusterExecutor(url, lease=lease, max_pending=1) as executor:
        future = executor.submit(double, 1)
        match way:
            case "wait":
                assert wait([future]).done == {future}
            case "wait for the first":
                futures: list[Future[Any]] = [future, Future()]
                assert wait(futures, return_when=FIRST_COMPLETED).done == {future}
            case "as_completed":
                assert list(as_completed([future])) == [future]
            case "threads too":
                with ThreadPoolExecutor() as threads:
                    both: list[Future[Any]] = [threads.submit(double, 2), future]
                    assert set(as_completed(both)) == set(both)
            case "the standard library's":
                assert concurrent.futures.wait([future]).done == {future}
                again: list[Future[Any]] = [future]
                assert list(concurrent.futures.as_completed(again)) == [future]
            case "room":
                future = executor.submit(double, 1)
        return 1 + int(future.result())


class OwnError(Exception):
    """An exception whose arguments are not those of its class."""

    def __init__(self, text: str, *, code: int) -> None:
        super().__init__(text)
        self.code = code


class Refuses:
    """An object that cannot be unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("refused to be unpickled")


def make_refusing() -> Refuses:
    return Refuses()


class Unfinished:
    """An object that cannot be pickled until a file is there. Each refusal leaves a note."""

    def __init__(self, go: str, refused: str) -> None:
        self.go, self.refused = go, refused

    def __reduce__(self) -> Any:
        if not os.path.exists(self.go):
            Path(self.refused).touch()
            raise ValueError("not yet")
        return str, ("finished",)


def make_unfinished(paths: tuple[str, str]) -> Unfinished:
    return Unfinished(*paths)
