"""``ProcessPoolExecutor``: the standard library's own, so far.

Its futures work with this package's ``wait`` and ``as_completed``.
"""

from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor"]
