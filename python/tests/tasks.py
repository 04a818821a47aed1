"""The tasks of worker processes in the tests: each worker imports this module, whatever its start
method.

It loads little, as each worker of some start methods reads it anew.
"""

import contextlib
import importlib
import multiprocessing.util
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

# As in `support`, which loads more than workers need.
LIMIT = float(os.environ.get("CONCURRENT_FUTURES_TEST_LIMIT", "60"))


class Flag:
    """An event for processes that have nothing in common: a file that is there or not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self) -> None:
        """Set the flag for good."""
        self.path.touch()

    def is_set(self) -> bool:
        """Return whether the flag was set."""
        return self.path.exists()

    def wait(self) -> bool:
        """Wait until the flag is set."""
        end = time.monotonic() + LIMIT
        while not self.is_set():
            if time.monotonic() > end:
                raise TimeoutError(f"nobody sets {self.path.name}")
            time.sleep(0.001)
        return True


def first() -> str:
    """Stands for a function that a test replaces."""
    return "first"


def second(item: int = 0) -> str:
    """Replaces the function `first`."""
    return "second"


class First:
    """Stands for a class that a test replaces."""

    def __reduce__(self) -> tuple[object, ...]:
        return str, (type(self).__name__,)


class Second(First):
    """Replaces the class `First`."""


def rebind() -> None:
    """Puts `second` and `Second` in the place of `first` and `First`, as tools do that reload
    modules."""
    globals().update(first=second, First=Second)


def rebinds_itself(item: int) -> str:
    """Puts another function in the place of this one."""
    globals()["rebinds_itself"] = second
    return "rebound"


def reload(name: str) -> None:
    """Reloads a module."""
    importlib.reload(sys.modules[name])


class Methods:
    """A class with methods of all kinds."""

    @staticmethod
    def static(value: Any) -> Any:
        """A static method."""
        return "static", value

    @classmethod
    def of_class(cls, value: Any) -> Any:
        """A class method."""
        return cls.__name__, value

    def plain(self, value: Any) -> Any:
        """A plain method."""
        return "plain", value


class Stateful:
    """A callable that returns its state."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> int:
        return self.number


def capture(*args: Any, **kwargs: Any) -> Any:
    """Return the arguments of the call."""
    return args, kwargs


def identity(value: Any) -> Any:
    """Return the argument."""
    return value


def now_and_then_late(number: int) -> int:
    """Returns the argument, one of ten times a little later."""
    if number % 10 == 0:
        time.sleep(0.005)
    return number


def pid(_: object = None) -> int:
    """Returns the process that runs the task."""
    return os.getpid()


def fail(error: BaseException) -> NoReturn:
    """Raises an error."""
    raise error


def fail_with_cause() -> NoReturn:
    """Raises an error that has a cause and a note."""
    try:
        raise KeyError("first")
    except KeyError as error:
        failed = ValueError("second")
        failed.add_note("a note")
        raise failed from error


def hold(running: Flag, release: Flag) -> int:
    """Set a flag, and run until the test ends the task."""
    running.set()
    release.wait()
    return os.getpid()


def hold_at(folder: str) -> int:
    """Do as `hold`, with the flags in a folder: its name is a plain argument."""
    return hold(Flag(Path(folder) / "begun"), Flag(Path(folder) / "end"))


class HoldsAt:
    """An object that holds its worker, as `hold_at` does."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self) -> int:
        return hold_at(self._folder)

    def hold(self) -> int:
        """Do as a call of the object."""
        return hold_at(self._folder)


def meet(folder: Path, number: int) -> int:
    """Waits until as many tasks are in this call; returns the process."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + LIMIT
    while len(list(folder.iterdir())) < number:
        if time.monotonic() > end:
            raise TimeoutError("the others do not come")
        time.sleep(0.001)
    return os.getpid()


def append(path: Path, line: object) -> None:
    """Appends a line to a file, whole."""
    with path.open("a") as file:
        file.write(f"{line}\n")


def fails_at(value: int, bad: int) -> int:
    """Return the value, unless it is the bad one."""
    if value == bad:
        raise ValueError(f"{value} is bad")
    return value


def die(number: int) -> NoReturn:
    """Kills its own process by a signal."""
    # No file of the memory: some signals would write one.
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), number)
    signal.pause()
    raise AssertionError("still alive")


def exit_at_once(code: int) -> NoReturn:
    """Ends its process without any cleaning up."""
    os._exit(code)


def exit_while_told(told: Path) -> None:
    """End the process while the file is there, and write to the file."""
    with contextlib.suppress(FileNotFoundError), told.open("r+") as file:
        file.seek(0, os.SEEK_END)
        file.write(".")
        file.flush()
        os._exit(3)


def exit_at(value: int, bad: int) -> int:
    """Returns the value; but the process ends at the bad one."""
    if value == bad:
        os._exit(3)
    return value


def big(size: int) -> bytes:
    """Return this many bytes."""
    return b"x" * size


def write_output(text: str) -> None:
    """Writes to the worker's standard output and error, without a newline and unflushed."""
    sys.stdout.write(text)
    sys.stderr.write(text)


@dataclass(frozen=True)
class Point:
    """A class with methods, such as many programs define."""

    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)

    def moved(self, by: int) -> "Point":
        """Return the point at this distance from this one."""
        return Point(self.x + by, self.y + by, [*self.tags, "moved"])

    @classmethod
    def origin(cls) -> "Point":
        """Returns the point at the origin."""
        return cls(0)

    @staticmethod
    def distance(first: "Point", second: "Point") -> int:
        """Return the distance of the points."""
        return abs(first.x - second.x) + abs(first.y - second.y)


def points(number: int) -> list[Point]:
    """Returns many objects that native code pickles and unpickles."""
    return [Point(n, n) for n in range(number)]


class Counter:
    """An object that can be called, and has a state."""

    def __init__(self, start: int) -> None:
        self.count = start

    def __call__(self, step: int = 1) -> int:
        self.count += step
        return self.count


class TwoArgumentsError(Exception):
    """An exception that can be pickled, but not unpickled: it needs an argument that pickle does
    not know."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class DetailedError(Exception):
    """An exception with several arguments, all of which it passes on."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Unpicklable:
    """An object that cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        raise pickle.PicklingError("not this one")


class UnpicklableError(Exception):
    """An error that cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        raise pickle.PicklingError("not this error")


class OnPickling:
    """An object that raises, exits, or is killed when it is pickled."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        misbehave(self.how)
        return OnPickling, (self.how,)


class OnUnpickling:
    """An object that raises, exits, or is killed when it is unpickled."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        return misbehave, (self.how,)


def misbehave(how: str) -> str:
    """Fails in the way that the argument names."""
    if how == "raise":
        raise LookupError("on purpose")
    if how == "exit":
        sys.exit(7)
    if how == "os._exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    return how


def make(kind: str, *args: Any) -> Any:
    """Makes an object of this module, so that it begins to exist in the worker."""
    return globals()[kind](*args)


def fail_making(kind: str, *args: Any) -> NoReturn:
    """Raises an error of this module."""
    raise globals()[kind](*args)


_STATE: list[Any] = []


def keep(*values: Any) -> None:
    """Keeps the initializer's arguments for the tasks."""
    _STATE[:] = values


def kept() -> list[Any]:
    """Return the values that the initializer has kept."""
    return _STATE


def initialize_by_appending(path: Path) -> None:
    """Appends a line for its process, as an initializer."""
    append(path, os.getpid())
    keep("initialized")


def add_one_with_lock() -> int:
    """Counts in shared memory, with the lock that the initializer got."""
    lock, value = _STATE
    with lock:
        before: int = value.value
        value.value = before + 1
    return before


def put_into_queue(item: object) -> None:
    """Puts something into the queue that the initializer got."""
    [queue] = _STATE
    queue.put(item)


def start_process(flag: Flag) -> int:
    """Starts a process of its own, which sets the flag."""
    import multiprocessing

    process = multiprocessing.Process(target=flag.set)
    process.start()
    process.join(LIMIT)
    assert process.exitcode is not None
    return process.exitcode


def nested(library: str, method: str, depth: int) -> int:
    """Uses a pool in a worker of a pool, and so on; returns the depth."""
    import importlib
    import multiprocessing

    if depth == 0:
        return 1
    context = multiprocessing.get_context(method)
    lib = importlib.import_module(library)
    with lib.ProcessPoolExecutor(1, mp_context=context) as pool:
        return 1 + int(pool.submit(nested, library, method, depth - 1).result(LIMIT))


def descriptors(process: int | str = "self") -> dict[str, str]:
    """Return the open files of a process: their numbers and targets."""
    found = {}
    for entry in Path(f"/proc/{process}/fd").iterdir():
        try:
            found[entry.name] = os.readlink(entry)
        except OSError:  # Closed in the meantime, or the listing's own.
            continue
    return found


def process_name() -> tuple[str, int | None]:
    """Return the worker's name and its parent, as multiprocessing knows them."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    return multiprocessing.current_process().name, parent.pid if parent is not None else None


def local_function() -> Any:
    """Returns a function that pickle does not find."""
    return lambda: None


class Pid:
    """An object that knows which thread of which process has unpickled it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.thread = ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        import threading

        self.pid = state["pid"]
        self.thread = threading.current_thread().name


class UnpicklesWhen:
    """An object whose unpickling says that it has begun, and waits until it may go on."""

    def __init__(self, begun: Flag, go_on: Flag) -> None:
        self.flags = begun, go_on

    def __reduce__(self) -> tuple[object, ...]:
        return wait_in_unpickling, self.flags


def wait_in_unpickling(begun: Flag, go_on: Flag) -> str:
    """Set a flag when unpickling has begun, and wait until it may go on."""
    begun.set()
    go_on.wait()
    return "unpickled"


def connected_socket() -> Any:
    """Returns one end of a pair of sockets that this process serves, after the other end has sent
    something."""
    import socket

    ours, theirs = socket.socketpair()
    theirs.sendall(b"hello")
    served.append(theirs)
    return ours


def connection() -> Any:
    """Returns one end of a pipe that this process serves, after the other end has sent
    something."""
    import multiprocessing

    ours, theirs = multiprocessing.Pipe()
    theirs.send("hello")
    served.append(theirs)
    return ours


served: list[Any] = []


def number_of(value: Any) -> Any:
    """Returns the number of an object."""
    return value.number


class LockedCounter:
    """An object with a lock that its pickling takes, and that is not pickled."""

    def __init__(self) -> None:
        import threading

        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        with self.lock:
            return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def count(self, number: int) -> int:
        """Return the argument."""
        return number


def note(value: object) -> int:
    """Return the number of values that this worker has noted, with this one."""
    served.append(value)
    return len(served)


def length_and_first(values: list[bytes]) -> tuple[int, int]:
    """Return the length of the first value, and its first byte."""
    return len(values[0]), values[0][0]


def note_blocked_signals(path: Path) -> None:
    """Writes the signals that are blocked in this process, and in a process that it starts."""
    own = [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
    code = "import signal; print([int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with path.open("a") as file:
        file.write(f"{own} {child.stdout}")


def note_blocked_signals_at_the_end(path: Path) -> None:
    """Note the blocked signals when the process ends."""
    multiprocessing.util.Finalize(None, note_blocked_signals, (path,), exitpriority=0)


def served_socket(number: int) -> Any:
    """Return a socket of `connected_socket`."""
    return connected_socket()


def pid_or_number(number: int) -> Any:
    """Return an object, or the argument if it is even."""
    return Pid() if number % 2 else number


def cannot_arrive(number: int) -> Any:
    """Return the argument 0, or an object that fails when it is unpickled."""
    return OnUnpickling("raise") if number else number


def fail_by_number(number: int) -> int:
    """Raises an error of this module, but for 0."""
    if number:
        raise DetailedError(number, "reason")
    return number


def call(order: bytes, number: int) -> Any:
    """Makes the call that is pickled in the order; the number stands for the argument "number"."""
    function, arguments = pickle.loads(order)
    return function(*(number if argument == "number" else argument for argument in arguments))
