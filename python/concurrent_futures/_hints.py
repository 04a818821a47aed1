"""Annotations that are for type checkers only."""

from __future__ import annotations

from types import FunctionType

from concurrent_futures import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeVar

    _T = TypeVar("_T")


def without_hints(annotated: _T) -> _T:
    """Have ``typing.get_type_hints`` find none in a function, or in the methods of a class.

    So it is in the standard library, whose executors have no annotations. What ours are made of is
    not loaded when a program runs, so that they could not be evaluated.
    """
    members = [annotated, *vars(annotated).values()]
    for member in members:
        function = getattr(member, "__func__", member)
        if isinstance(function, FunctionType):
            function.__no_type_check__ = True  # type: ignore[attr-defined]
    return annotated
