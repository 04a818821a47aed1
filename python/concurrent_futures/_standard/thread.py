"""Stand-in for the pool of threads, which is the standard library's here."""

from concurrent.futures import thread
from concurrent.futures.thread import BrokenThreadPool, ThreadPoolExecutor
from typing import Any

__all__ = ["BrokenThreadPool", "ThreadPoolExecutor"]


def __getattr__(name: str) -> Any:
    return getattr(thread, name)
