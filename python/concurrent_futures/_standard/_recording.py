"""Recordings, which need the engine: in this interpreter there are none."""

from typing import Any, NoReturn

__all__ = ["Recording", "recording"]


class Recording:
    """A recording, which only the first interpreter of a process can make."""

    def __new__(cls, **_options: Any) -> "NoReturn":
        """Raise RuntimeError."""
        raise RuntimeError("start the recording in the first interpreter of the process")

    @classmethod
    def open(cls, path: Any) -> "NoReturn":
        """Raise RuntimeError."""
        raise RuntimeError("open the recording in the first interpreter of the process")


def recording(**options: Any) -> Recording:
    """Raise RuntimeError: only the first interpreter of a process can record."""
    return Recording(**options)
