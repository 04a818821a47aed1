"""A client of direct calls, as another native module is one: by the C interface of a capsule."""

import ctypes
import pickle
import threading
from collections.abc import Callable
from typing import Any

from support import LIMIT

NAME = b"concurrent_futures.direct_calls.1"

VALUE, CANCELLED, OTHER = range(3)

_Pointer = ctypes.c_void_p
_Done = ctypes.CFUNCTYPE(None, _Pointer, _Pointer, ctypes.c_uint32, _Pointer, ctypes.c_size_t)


class _Call(ctypes.Structure):
    _fields_ = (
        ("argument", _Pointer),
        ("length", ctypes.c_size_t),
        ("token", ctypes.c_uint64),
        ("time_limit", ctypes.c_uint64),
        ("retries", ctypes.c_uint32),
        ("context", _Pointer),
        ("done", _Done),
    )


class _Submitted(ctypes.Structure):
    _fields_ = (("task", _Pointer), ("wants_worker", ctypes.c_bool))


class _Calls(ctypes.Structure):
    _fields_ = (
        ("pool", _Pointer),
        ("hold", ctypes.CFUNCTYPE(None, _Pointer)),
        ("release_pool", ctypes.CFUNCTYPE(None, _Pointer)),
        ("submit", ctypes.CFUNCTYPE(_Submitted, _Pointer, ctypes.POINTER(_Call))),
        ("start_worker", ctypes.PYFUNCTYPE(ctypes.c_bool, _Pointer)),
        ("receive_soon", ctypes.CFUNCTYPE(None, _Pointer)),
        ("cancel", ctypes.CFUNCTYPE(ctypes.c_bool, _Pointer)),
        ("terminate", ctypes.CFUNCTYPE(ctypes.c_bool, _Pointer)),
        ("take", ctypes.PYFUNCTYPE(ctypes.py_object, _Pointer)),
        ("release_task", ctypes.CFUNCTYPE(None, _Pointer)),
    )


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = _Pointer
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)


class DirectCall:
    """A call that the pool has accepted."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self.over = threading.Event()
        #: The end of the call, and the bytes of its value. More than one would be a fault.
        self.ends: list[tuple[int, bytes]] = []
        #: The references to the task.
        self.tasks: list[int] = []
        #: Whether the pool wants another worker.
        self.wants_worker = False

    def note(self, task: int, end: int, data: bytes) -> None:
        """Keep the end of the call."""
        self.tasks.append(task)
        self.ends.append((end, data))
        self.over.set()

    def end(self) -> tuple[int, bytes]:
        """Wait for the end of the call, and return the end."""
        assert self.over.wait(LIMIT)
        (end,) = self.ends
        return end

    def outcome(self) -> Any:
        """Return the object of an outcome that is no short value, or raise its exception."""
        assert self.end() == (OTHER, b"")
        return self._client.calls.take(self.tasks[0])

    def cancel(self) -> bool:
        """Cancel the call unless a worker has begun it."""
        return bool(self._client.calls.cancel(self.tasks[0]))

    def terminate(self) -> bool:
        """End the call, and its worker."""
        return bool(self._client.calls.terminate(self.tasks[0]))

    def release(self) -> None:
        """Give all references to the task up."""
        while self.tasks:
            self._client.calls.release_task(self.tasks.pop())


class Client:
    """Submits calls to a pool without the interpreter's help."""

    def __init__(self, pool: Any, function: Callable[[bytes, int], Any]) -> None:
        capsule = pool._direct_calls(function)
        assert capsule is not None
        address = _pointer_of(capsule, NAME)
        # A copy, which has a reference of its own.
        self.calls = _Calls.from_buffer_copy(ctypes.string_at(address, ctypes.sizeof(_Calls)))
        self.calls.hold(self.calls.pool)
        self._done = _Done(self._note)
        self._pending: dict[int, DirectCall] = {}
        self._lock = threading.Lock()
        self._last = 0

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        number: int = 0,
        time_limit: float = 0,
        retries: int = 0,
        starts: bool = True,
    ) -> DirectCall | None:
        """Submit a call; return None if the pool refuses it."""
        order = pickle.dumps((function, arguments))
        made = DirectCall(self)
        with self._lock:
            self._last += 1
            key = self._last
            self._pending[key] = made
        buffer = ctypes.create_string_buffer(order, len(order))
        address = ctypes.addressof(buffer)
        nanoseconds = int(time_limit * 1e9)
        call = _Call(address, len(order), number, nanoseconds, retries, key, self._done)
        submitted = self.calls.submit(self.calls.pool, ctypes.byref(call))
        if not submitted.task:
            del self._pending[key]
            return None
        made.tasks.append(submitted.task)
        made.wants_worker = bool(submitted.wants_worker)
        if submitted.wants_worker and starts:
            self.calls.start_worker(submitted.task)
        return made

    def _note(self, key: int, task: int, end: int, data: int | None, length: int) -> None:
        # With a second end, there is no entry any more.
        made = self._pending.pop(key)
        made.note(task, end, ctypes.string_at(data, length) if data and length else b"")

    def release(self) -> None:
        """Give the reference to the pool up."""
        self.calls.release_pool(self.calls.pool)
