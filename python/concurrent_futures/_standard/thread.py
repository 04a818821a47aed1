"""The standard library's pool of threads, under this package's name."""

from concurrent.futures import thread
from concurrent.futures.thread import BrokenThreadPool, ThreadPoolExecutor
from typing import Any

__all__ = ["BrokenThreadPool", "ThreadPoolExecutor"]


def __getattr__(name: str) -> Any:
    return getattr(thread, name)
