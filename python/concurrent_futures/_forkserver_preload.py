"""The modules that ``multiprocessing``'s fork server loads before it forks workers.

A worker that comes from the fork server runs the main program again, up to its guard. With that,
the worker imports this package and the standard library's executors. If the server has loaded them
already, all its children have them. The package starts no thread, opens no file and keeps nothing
of its process when it is imported, and so it may be.

The server is an interpreter of its own, which looks for modules first in the working directory at
its start. A program looks in its own folder instead, and may have added other folders. So the
server is told to load the package only if it would find the very modules that the program has.
Otherwise its children load them by themselves, as ever.
"""

import os
import site
import sys

from concurrent_futures import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_PACKAGE = "concurrent_futures"
_MODULE = "concurrent_futures.process"


def preload() -> None:
    """Make the fork server load the package when it is started, if it is not running yet.

    The modules that ``set_forkserver_preload`` was given come first, and stay.
    """
    # Here, as it is of use to programs with a fork server only.
    from multiprocessing import forkserver

    server: Any = vars(forkserver).get("_forkserver")
    names = getattr(server, "_preload_modules", None)
    # From CPython 3.15 on, programs may want to hear of what cannot be loaded.
    is_silent = getattr(server, "_preload_on_error", "ignore") == "ignore"
    if isinstance(names, list) and _MODULE not in names and is_silent and _finds_the_same():
        server._preload_modules = [*names, _MODULE]


def _finds_the_same() -> bool:
    """Return whether a new interpreter finds this package, and the same modules for it."""
    names = sys.stdlib_module_names.intersection(sys.modules)
    if not all(map(_is_the_librarys, names)):
        return False
    try:
        if not sys.flags.safe_path and _has_any(os.getcwd(), names):
            return False
        for folder in _search_path():
            if os.path.lexists(os.path.join(folder, _PACKAGE)):
                return os.path.samefile(folder, os.path.join(os.path.dirname(__file__), ".."))
    except OSError:  # One of the folders cannot be read.
        return False
    return False


def _is_the_librarys(name: str) -> bool:
    """Return whether a module is the standard library's, not a program's of the same name."""
    origin = getattr(getattr(sys.modules.get(name), "__spec__", None), "origin", None)
    return origin in (None, "built-in", "frozen") or str(origin).startswith(_LIBRARY)


_LIBRARY = os.path.join(os.path.dirname(os.__file__), "")


def _has_any(folder: str, names: "frozenset[str]") -> bool:
    """Return whether one of the modules, or this package, would be loaded from a folder."""
    found = {entry.partition(".")[0] for entry in os.listdir(folder)}
    return not found.isdisjoint(names | {_PACKAGE})


def _search_path() -> "Iterator[str]":
    """Yield the package folders of a new interpreter, except the working directory."""
    if not sys.flags.ignore_environment:
        yield from filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if not sys.flags.no_site:
        if site.ENABLE_USER_SITE:
            yield site.getusersitepackages()
        yield from site.getsitepackages()
