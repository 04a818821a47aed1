"""The standard library's own classes and functions, also where ours stand in their place.

This package may be imported while it is installed: once more, after a program has taken its modules
out of ``sys.modules``. Then ``concurrent.futures`` has the objects of the first import, each with a
note of its original.
"""

from __future__ import annotations

import concurrent.futures

from concurrent_futures import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def __getattr__(name: str) -> Any:
    """Return what the standard library's module had under a name."""
    found = getattr(concurrent.futures, name)
    return getattr(found, "_original", found)
