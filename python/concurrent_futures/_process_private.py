"""Stand-ins for the private parts of a process pool while the engine has its tasks.

See `_private`, too.
"""

import concurrent.futures.process as _stdlib_process
import threading
import weakref
from types import MappingProxyType

from concurrent_futures import TYPE_CHECKING, _engine, _private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from concurrent_futures._base import Future
    from concurrent_futures.process import ProcessPoolExecutor


class Wakeup:
    """Stands for the object that wakes the thread that manages an executor."""

    def __init__(self, supervisor: "_engine.Supervisor | None") -> None:
        self.supervisor = supervisor

    def wakeup(self) -> None:
        """Take a wake-up: end the executor, if the interpreter ends."""
        if self.supervisor is not None and _stdlib_process._global_shutdown:
            self.supervisor.close()

    def clear(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def wakeups() -> "list[tuple[threading.Thread, Wakeup]]":
    """Return the supervisors' threads, each with its wake-up."""
    found = _private.members(_stdlib_process._threads_wakeups)
    return [(thread, wakeup) for thread, wakeup in found if isinstance(wakeup, Wakeup)]


class CallQueue:
    """Stands for the queue of calls, which only the engine has."""

    def __init__(self, executor: "ProcessPoolExecutor") -> None:
        self._executor = weakref.ref(executor)

    def qsize(self) -> int:
        """Return the number of pending tasks."""
        executor = self._executor()
        return 0 if executor is None else executor._pending()

    def empty(self) -> bool:
        """Return whether no task is pending."""
        return self.qsize() == 0

    def close(self) -> None:
        """Do nothing: it is closed with the executor."""

    def join_thread(self) -> None:
        """Do nothing: there is no thread."""


class IdleWorkers(threading.Semaphore):
    """Stands for the semaphore that counts idle workers."""

    def __init__(self, executor: "ProcessPoolExecutor") -> None:
        self._executor = weakref.ref(executor)
        super().__init__(0)

    @property
    def _value(self) -> int:
        executor = self._executor()
        return 0 if executor is None else executor._idle()

    @_value.setter
    def _value(self, value: int) -> None:
        """Hold no count: only the engine counts idle workers."""


class WorkItem(_stdlib_process._WorkItem):  # type: ignore[type-arg]
    """Stands for a task that is not done. Its call was pickled when it was submitted."""

    def __init__(self, future: "Future[Any]") -> None:
        self.future = future


def pending_work_items(executor: "ProcessPoolExecutor") -> "Mapping[int, WorkItem]":
    """Return a view of the tasks that are not done. A change of the view has no effect."""
    futures = executor._unfinished_futures()
    return MappingProxyType({number: WorkItem(future) for number, future in enumerate(futures)})


class MaxWorkers(_private.Stored):
    """The number of workers that the pool may have. It can be set."""

    def __set__(self, executor: "ProcessPoolExecutor", value: int) -> None:
        vars(executor)["_max_workers"] = value
        if not executor._is_standard:
            executor._allow_workers(min(value, _engine.MAX_WORKERS))


class Lock(_private.Stored):
    """The lock of ``submit``. ``submit`` takes it from the first access of other code on."""

    def __set__(self, executor: "ProcessPoolExecutor", value: "Any") -> None:
        vars(executor)["_shutdown_lock"] = value
        executor._leave_submit_to_python()

    def _value(self, executor: "ProcessPoolExecutor") -> "Any":
        lock = vars(executor).setdefault("_shutdown_lock", threading.Lock())
        executor._leave_submit_to_python()
        return lock


class Refusal(_private.Computed):
    """The reason why the pool accepts no calls. It can be set, and ``submit`` then looks at it."""

    def __set__(self, executor: "ProcessPoolExecutor", value: "Any") -> None:
        vars(executor)[self._name] = value
        executor._leave_submit_to_python()
