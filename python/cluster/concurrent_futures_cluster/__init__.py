"""Executors whose workers are on many machines, behind a NATS server with JetStream.

``concurrent_futures.ClusterExecutor`` is the executor of this package. As in that package, a
module is loaded when one of its names is first used: the workers of hosts load next to nothing.
"""

# Type checkers take this name for `typing.TYPE_CHECKING`; it costs no import of that module.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from concurrent_futures_cluster._errors import (
        ClusterConnectionError,
        ClusterError,
        HostInfo,
        HostLostError,
        NoFunctionError,
        NoWorkersError,
        ObjectStoreError,
        PoisonTaskError,
        SessionInUseError,
        SessionLostError,
        UnknownSessionError,
    )
    from concurrent_futures_cluster._executor import ClusterExecutor
    from concurrent_futures_cluster._future import ClusterFuture
    from concurrent_futures_cluster._host import ClusterHost

__all__ = [
    "ClusterConnectionError",
    "ClusterError",
    "ClusterExecutor",
    "ClusterFuture",
    "ClusterHost",
    "HostInfo",
    "HostLostError",
    "NoFunctionError",
    "NoWorkersError",
    "ObjectStoreError",
    "PoisonTaskError",
    "SessionInUseError",
    "SessionLostError",
    "UnknownSessionError",
]

#: The modules of all names except the errors.
_MODULES = {
    "ClusterExecutor": "_executor",
    "ClusterFuture": "_future",
    "ClusterHost": "_host",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the module of a name at the first access, and return the object."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module = import_module(f"{__name__}.{_MODULES.get(name, '_errors')}")
        value = globals()[name] = getattr(module, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
