"""The worker processes of a pool, as the engine starts and ends them."""

import multiprocessing
import os
import threading
import time
import weakref
from operator import methodcaller

from concurrent_futures import TYPE_CHECKING, _engine, _worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext
    from typing import Any

    from concurrent_futures._process_private import Wakeup

# Checks, a millisecond apart, for the exit code of a worker whose status another thread has taken.
_CHECKS_OF_EXIT_CODE = 20


class Workers:
    """The worker processes of a pool. They do not refer to the executor, which may be garbage."""

    def __init__(self, context: "BaseContext", task: "_worker.Task") -> None:
        self._context = context
        # The executor keeps the task, which may refer to the executor.
        self._task = weakref.ref(task)
        self._kept: _worker.Task | None = None
        self._is_over = False
        #: The threads that pickle and unpickle.
        self._job_threads: set[threading.Thread] = set()
        method = start_method(context)
        self._is_forked = method == "fork"
        #: Starts a process.
        self._start: Callable[[Any], None] = methodcaller("start")
        if method == "fork":
            from concurrent_futures import _streams  # Other start methods need it not.

            self._start = _streams.start
        #: The supervisor; kept until the object is dropped as a whole, while interrupts are held
        #: back.
        self.supervisor: threading.Thread | None = None
        #: The wakeup, which refers to the native supervisor, which refers to this object.
        self.wakeup: Wakeup | None = None
        #: The processes, by process id. The executor shows the same dictionary.
        self.processes: dict[int, Any] = {}
        self._is_shown = True

    def start(self, channel: int) -> int:
        """Start a worker with its end of a channel; return its process id."""
        context: Any = self._context
        task = self._task()
        if task is None:
            raise RuntimeError("the executor is gone, and no more workers are started")
        process = context.Process(
            target=_worker.run,
            args=(
                _worker.Descriptor(channel),
                _worker.Descriptor(_engine.life_of_this_process()),
                task,
                os.getpid() if self._is_forked else None,
            ),
        )
        self._start(process)
        pid: int = process.pid
        self.processes[pid] = process
        return pid

    def forget(self) -> None:
        """Forget the processes as soon as they have ended, as the executor shows them no more.

        A process that is dropped runs a finalizer, in which an interrupt would be lost. So either
        the supervisor drops the processes, or a thread that holds interrupts back, as the caller
        of this method.
        """
        self._is_shown = False
        if self._is_over:
            self.processes = {}

    def keep(self, task: "_worker.Task | None") -> None:
        """Keep the settings, as the executor may end before the last worker begins."""
        self.forget()
        self._kept = task
        if self._is_over:
            # Futures keep this object, and the thread is of no use any more.
            self._kept = self.supervisor = None

    def start_callbacks(self, callbacks: "_engine.CallbacksThread") -> None:
        """Start a thread that calls callbacks."""
        name = "ProcessPoolExecutor-callbacks"
        threading.Thread(target=callbacks.run, name=name).start()

    def start_jobs(self, jobs: "_engine.JobsThread", name: str) -> None:
        """Start a thread that pickles or unpickles."""
        for ended in list(self._job_threads):
            if not ended.is_alive():
                self._job_threads.discard(ended)
        thread = threading.Thread(target=jobs.run, name=name)
        thread.start()
        self._job_threads.add(thread)

    def exit_of(self, pid: int, replaced: bool) -> "int | None":
        """Return the exit code of a worker that has ended; forget the worker if it is replaced."""
        process = self.processes[pid]
        process.join()
        if replaced:
            del self.processes[pid]
        code: int | None = process.exitcode
        for _ in range(_CHECKS_OF_EXIT_CODE):
            if code is not None:
                break
            # Another thread has taken the status from the system, and is about to note the code.
            time.sleep(0.001)
            code = process.exitcode
        return code

    def let_go(self) -> None:
        """Drop the references to the processes, which have all ended.

        Their descriptors are closed with them, and not at some later time when a program may have
        closed these itself, and others have their numbers.
        """
        self._is_over = True
        if not self._is_shown:
            self.processes = {}
        if self._kept is not None:
            self._kept = self.supervisor = None
        if self.wakeup is not None:
            # The table of wake-ups would keep all of the pool: a value there refers to its key.
            self.wakeup.supervisor = None
        # They have been told to end. A program that has waited for the pool finds no thread of it.
        for thread in list(self._job_threads):
            if thread is not threading.current_thread():
                thread.join()
        self._job_threads.clear()


def start_method(context: "BaseContext") -> "str | None":
    """Return the name of the way in which a context starts processes."""
    return context.get_start_method(allow_none=False)


def default_context(max_tasks_per_child: "int | None") -> "BaseContext":
    """Return the default context of this Python's executor."""
    if max_tasks_per_child is not None:
        return multiprocessing.get_context("spawn")
    return multiprocessing.get_context()


def check_tasks_per_child(max_tasks_per_child: int, method: "str | None") -> None:
    """Raise the standard library's error for a number of tasks that a worker cannot have."""
    if not isinstance(max_tasks_per_child, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if max_tasks_per_child <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
    if method == "fork":
        raise ValueError(
            "max_tasks_per_child is incompatible with"
            " the 'fork' multiprocessing start method;"
            " supply a different mp_context."
        )


def end_all(processes: "dict[int, Any]", kill: bool) -> None:
    """End processes by their own methods, as some kinds of processes do more than send a signal."""
    for process in list(processes.values()):
        if kill:
            process.kill()
        else:
            process.terminate()
