"""Progress bars of ``map`` and ``as_completed``, by tqdm if that is installed."""

import functools
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")


class Count:
    """Passes the items of an iterable on, and counts them."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self.number = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.number += 1
            yield item


def _tqdm() -> "Any":
    """Return the class of bars, of notebooks in notebooks; None without tqdm."""
    try:
        with warnings.catch_warnings():
            # Of a notebook without its widgets: then the bar is of text.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm  # type: ignore[import-untyped]
    except ImportError:
        warnings.warn(
            "progress=True shows nothing, as tqdm is not installed", RuntimeWarning, stacklevel=4
        )
        return None
    return tqdm


def _is_bar(iterable: object) -> bool:
    """Return whether it is a bar itself, of tqdm's."""
    std = sys.modules.get("tqdm.std")
    return std is not None and isinstance(iterable, std.tqdm)


def name_of(function: "Callable[..., Any]") -> str:
    """Return the name of a function for people."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__name__


def _length(iterables: "Iterable[Iterable[Any]]") -> "int | None":
    """Return the number of calls; None if that is not known."""
    lengths = []
    for iterable in iterables:
        try:
            lengths.append(len(iterable))  # type: ignore[arg-type]
        except TypeError:
            return None
    return min(lengths, default=None)


def of_map(
    call: "Callable[[tuple[Iterable[Any], ...]], Iterator[_T]]",
    function: "Callable[..., Any]",
    iterables: "tuple[Iterable[Any], ...]",
    takes_all: bool,
) -> "Generator[_T, None, None]":
    """Return the iterator of a call of ``map``, with a bar.

    ``takes_all``, if the call takes all items at once: then their number is known afterwards.
    """
    if any(map(_is_bar, iterables)) or (tqdm := _tqdm()) is None:
        plain: Any = call(iterables)
        return plain  # type: ignore[no-any-return]
    total = _length(iterables)
    if total is not None or not takes_all or not iterables:
        return _shown(call(iterables), tqdm, total, name_of(function))
    # `zip` takes an item of the first iterable even if another one has ended.
    count = Count(iterables[-1])
    results = call((*iterables[:-1], count))
    return _shown(results, tqdm, count.number, name_of(function))


def of_futures(
    call: "Callable[[Iterable[_T]], Generator[_T, None, None]]", futures: "Iterable[_T]"
) -> "Generator[_T, None, None]":
    """Return the iterator of a call of ``as_completed``, with a bar."""
    if _is_bar(futures) or (tqdm := _tqdm()) is None:
        return call(futures)
    # Each future comes once.
    own = set(futures)
    return _shown(call(own), tqdm, len(own), "futures")


def _shown(
    results: "Iterator[_T]", tqdm: "Any", total: "int | None", name: str
) -> "Generator[_T, None, None]":
    """Yield the results, each of which is a step of a bar."""
    try:
        # The bar comes when the first result is asked for.
        with tqdm(total=total, desc=name) as bar:
            for result in results:
                bar.update()
                yield result
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            close()
