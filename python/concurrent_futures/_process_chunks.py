"""Chunks of ``map``, for executors of processes whose ``submit`` is called for each task."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")


def chunks(items: "Iterator[Any]", size: int) -> "Iterator[tuple[Any, ...]]":
    """Yield the items in tuples of a size; the last one may be shorter."""
    while chunk := tuple(itertools.islice(items, size)):
        yield chunk


def _process_chunk(fn: "Callable[..., _T]", chunk: "tuple[Any, ...]") -> "list[_T]":
    """Call a function for each item of a chunk; the task of a worker."""
    return [fn(*args) for args in chunk]


def flatten(results: "Iterator[list[_T]]") -> "Iterator[_T]":
    """Yield the items of lists, without keeping a reference to a yielded item."""
    for chunk in results:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
