"""Python's ``concurrent.futures`` on an engine in Rust.

Replace the dot of the import by an underscore::

    from concurrent_futures import ThreadPoolExecutor, as_completed, wait

or change nothing: ``python -m concurrent_futures script.py`` runs a program with this
package in place of the standard library's, and so does :func:`install`.

As in the standard library, a module is loaded when one of its names is first used. Programs with
threads only load nothing for processes, and worker processes load no executors.
"""

import os
import sys

# Type checkers take this name for `typing.TYPE_CHECKING`; it costs no import of that module.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from concurrent_futures._base import (
        ALL_COMPLETED,
        FIRST_COMPLETED,
        FIRST_EXCEPTION,
        BrokenExecutor,
        CancelledError,
        DeadlockError,
        Executor,
        Future,
        InvalidStateError,
        TimeoutError,
        as_completed,
        wait,
    )
    from concurrent_futures._dashboard import Dashboard, dashboard
    from concurrent_futures._dump import dump, register_dump, unregister_dump
    from concurrent_futures._install import install, uninstall
    from concurrent_futures._recording import Recording, recording
    from concurrent_futures._stats import ExecutorStats, QueueTimes
    from concurrent_futures.process import (
        BrokenProcessPool,
        ProcessPoolExecutor,
        TaskTerminatedError,
        TaskTimeoutError,
        WorkerDiedError,
    )
    from concurrent_futures.thread import ThreadPoolExecutor
    from concurrent_futures_cluster import ClusterExecutor as ClusterExecutor

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "BrokenProcessPool",
    "CancelledError",
    "Dashboard",
    "DeadlockError",
    "Executor",
    "ExecutorStats",
    "Future",
    "InvalidStateError",
    "ProcessPoolExecutor",
    "QueueTimes",
    "Recording",
    "TaskTerminatedError",
    "TaskTimeoutError",
    "ThreadPoolExecutor",
    "TimeoutError",
    "WorkerDiedError",
    "as_completed",
    "dashboard",
    "dump",
    "install",
    "recording",
    "register_dump",
    "uninstall",
    "unregister_dump",
    "wait",
]

if sys.version_info >= (3, 14):
    if TYPE_CHECKING:
        from concurrent_futures.interpreter import (
            InterpreterPoolExecutor as InterpreterPoolExecutor,
        )

    try:
        import _interpreters as _interpreters
    except ImportError:
        pass  # This CPython has no interpreters beside the main one, nor has the standard library.
    else:
        __all__ += ["InterpreterPoolExecutor"]


def _checkpoint() -> None:
    """Do nothing; the interpreter serves waiting threads, signals, and exceptions meanwhile."""


try:
    from concurrent_futures._engine import HAS_PROCESSES as _HAS_PROCESSES
    from concurrent_futures._engine import __version__ as __version__
except ImportError as error:
    if "subinterpreter" not in str(error):
        raise
    # This interpreter is not the first of its process: the standard library does the work.
    _HAS_PROCESSES = False
    __path__.insert(0, os.path.join(__path__[0], "_standard"))
if not _HAS_PROCESSES:
    # On Windows, for one: there, the standard library does the work of process pools.
    __path__.insert(0, os.path.join(__path__[-1], "_no_processes"))

#: The modules of all names except those in `_base`.
_MODULES = {
    "BrokenProcessPool": "concurrent_futures.process",
    "Dashboard": "concurrent_futures._dashboard",
    "ExecutorStats": "concurrent_futures._stats",
    "InterpreterPoolExecutor": "concurrent_futures.interpreter",
    "ProcessPoolExecutor": "concurrent_futures.process",
    "QueueTimes": "concurrent_futures._stats",
    "Recording": "concurrent_futures._recording",
    "TaskTerminatedError": "concurrent_futures.process",
    "TaskTimeoutError": "concurrent_futures.process",
    "ThreadPoolExecutor": "concurrent_futures.thread",
    "WorkerDiedError": "concurrent_futures.process",
    "dashboard": "concurrent_futures._dashboard",
    "dump": "concurrent_futures._dump",
    "install": "concurrent_futures._install",
    "recording": "concurrent_futures._recording",
    "register_dump": "concurrent_futures._dump",
    "uninstall": "concurrent_futures._install",
    "unregister_dump": "concurrent_futures._dump",
}

_SUBMODULES = ["_base", "process", "thread"]
if "InterpreterPoolExecutor" in __all__:
    _SUBMODULES.append("interpreter")

# After a reload, they are looked up anew.
for _name in (*__all__, *_SUBMODULES):
    globals().pop(_name, None)


def _load(name: str) -> object:
    """Import a module, and return it, without loading ``importlib``."""
    __import__(name)
    return sys.modules[name]


def _cluster_executor() -> object:
    """Return the executor of the distribution for clusters."""
    try:
        module: object = _load("concurrent_futures_cluster")
    except ModuleNotFoundError as error:
        if error.name != "concurrent_futures_cluster":
            raise
        raise ImportError(
            "ClusterExecutor is in another distribution: pip install concurrent-futures[cluster]",
            name="concurrent_futures_cluster",
        ) from None
    return getattr(module, "ClusterExecutor")  # noqa: B009


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the module of a name at the first access, and return the object."""
        if name == "__version__":
            # The engine, which has it, cannot be loaded.
            from importlib.metadata import version

            value: object = version("concurrent-futures")
        elif name in __all__:
            value = getattr(_load(_MODULES.get(name, "concurrent_futures._base")), name)
            # As in the standard library, these are there when the first executor is. At the end of
            # the interpreter, no module can be imported.
            if "concurrent_futures._base" in sys.modules:
                # Another thread may be importing it. Then this one waits.
                base = _load("concurrent_futures._base")
                for each in __all__:
                    # Names may be missing if that thread waits for a module of this one.
                    if each not in _MODULES and each not in globals() and hasattr(base, each):
                        globals()[each] = getattr(base, each)
        elif name == "ClusterExecutor":
            # Not in `__all__`, as another distribution has it.
            value = _cluster_executor()
        elif name in _SUBMODULES:
            value = _load(f"concurrent_futures.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_SUBMODULES})
