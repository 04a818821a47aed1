"""Dumps of pools, which need the engine: in this interpreter there are none."""

from typing import Any, NoReturn

__all__ = ["dump", "register_dump", "unregister_dump"]


def dump(file: Any = None) -> "NoReturn":
    """Raise RuntimeError: only the first interpreter of a process knows the pools."""
    raise RuntimeError("ask for dumps in the first interpreter of the process")


def register_dump(signum: int, file: Any = None) -> "NoReturn":
    """Raise RuntimeError: only the first interpreter of a process gets signals."""
    dump(file)


def unregister_dump() -> bool:
    """Return False: no dumps are registered here."""
    return False
