"""Helpers of the tests of the private parts of thread pools."""

import importlib
import threading
import weakref
from types import ModuleType
from typing import Any


def thread_module(lib: ModuleType) -> Any:
    """Returns the module of the thread pools."""
    return importlib.import_module(f"{lib.__name__}.thread")


def args_of(item: Any) -> Any:
    """Returns the arguments of the call of a task. From CPython 3.14 on, they are a part of the
    call."""
    return item.task[1] if hasattr(item, "task") else item.args


def run_item(pool: Any, item: Any) -> None:
    """Runs a task of the queue, as a worker does; from CPython 3.14 on, it has a context."""
    if hasattr(pool, "_create_worker_context"):
        item.run(pool._create_worker_context())
    else:
        item.run()


def daemon_pool(lib: ModuleType) -> Any:
    """Returns the class, found in many programs, whose threads do not keep the program from
    ending."""
    module = thread_module(lib)

    class DaemonPool(lib.ThreadPoolExecutor):  # type: ignore[misc, name-defined]
        def _adjust_thread_count(self) -> None:
            if self._idle_semaphore.acquire(timeout=0):
                return

            def wake(_: object, put: Any = self._work_queue.put) -> None:
                put(None)

            if len(self._threads) < self._max_workers:
                reference = weakref.ref(self, wake)
                args: tuple[Any, ...]
                if hasattr(module, "WorkerContext"):
                    args = (reference, self._create_worker_context(), self._work_queue)
                else:
                    args = (reference, self._work_queue, self._initializer, self._initargs)
                thread = threading.Thread(target=module._worker, daemon=True, args=args)
                thread.start()
                self._threads.add(thread)

    return DaemonPool
