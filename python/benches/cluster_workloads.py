"""The calls of `cluster.py`, which workers import."""

from typing import Any


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def more(array: Any) -> Any:
    """Return another array."""
    return array + 1
