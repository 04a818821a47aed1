"""Recordings: which worker ran which task when."""

import os
from typing import Any

from concurrent_futures import _engine

__all__ = ["Recording", "recording"]


class Recording(_engine.Recording):
    """A recording of the tasks of this process's pools, from its start until it is stopped.

    As a context manager, it is stopped at the end of the block. The child of a fork records
    nothing.

    Examples
    --------
    >>> from concurrent_futures import ThreadPoolExecutor, recording
    >>> with ThreadPoolExecutor() as pool, recording() as run:
    ...     length = pool.submit(len, "page").result()
    >>> run.is_running
    False
    """

    __slots__ = ()

    @classmethod
    def open(cls, path: "str | os.PathLike[str]") -> "Recording":
        """Open the file of ``recording(file=…)``, to save the recording in other formats.

        Opens also a file that grows, and that of a program which was killed: such a file has all
        that was written before.

        Raises OSError if the file cannot be read, is damaged, or has another format.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from concurrent_futures import Recording, ThreadPoolExecutor, recording
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "run.recording")
        ...     with ThreadPoolExecutor() as pool, recording(file=path):
        ...         length = pool.submit(len, "page").result()
        ...     b'"len"' in Recording.open(path).trace()
        True
        """
        options: dict[str, Any] = {"opened": os.fsdecode(path)}
        return cls(**options)

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Save the recording to a file, which is there as a whole or not at all.

        A name that ends with ``.html`` gives a page for browsers, which needs no network. A name
        that ends with ``.json`` gives a trace for https://ui.perfetto.dev and ``chrome://tracing``.
        A name that ends with ``.columns.json`` gives the format for other tools, which
        docs/recording.md describes. A recording that is running is saved as it is now.

        Raises ValueError for another ending, and OSError if the file cannot be written.

        Examples
        --------
        >>> import json, pathlib, tempfile
        >>> from concurrent_futures import ThreadPoolExecutor, recording
        >>> with ThreadPoolExecutor() as pool, recording() as run:
        ...     length = pool.submit(len, "page").result()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "run.columns.json")
        ...     run.save(path)
        ...     columns = json.loads(path.read_bytes())
        >>> columns["finished"]
        True
        """
        name = os.fsdecode(path)
        if not name.endswith((".json", ".html")):
            raise ValueError(f"{name!r} does not end with .json or .html")
        self._save(name)

    def _repr_html_(self) -> str:
        """Return the page as it is now, for notebooks."""
        from html import escape

        page = escape(self._page(None).decode())
        style = "width: 100%; height: 40em; border: 1px solid #8888"
        return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{page}"></iframe>'


def recording(
    *,
    records_per_thread: "int | None" = None,
    arguments: "int | None" = None,
    file: "str | os.PathLike[str] | None" = None,
) -> Recording:
    """Start a recording of all pools of this process.

    Parameters
    ----------
    records_per_thread
        The number of records that each thread keeps: the oldest are dropped, and counted. A
        record has 32 bytes; that of a failed task, of a wait or of a worker process has 96. The
        default is 1048576. A recording that begins while another runs has the other's number.
    arguments
        The length, in characters, up to which the ``repr`` of a call's arguments is shown. By
        default it is not made: arguments may be secrets, and ``repr`` runs code of the program.
    file
        A file that grows while the program runs, instead of a buffer that drops the oldest
        records. `Recording.open` reads the file, also that of a program which was killed: a thread
        writes twenty times a second. A disk that gets full ends the recording, and
        `Recording.error` tells it.

    Raises ValueError if ``records_per_thread`` is 0, OSError if the file cannot be written.

    Examples
    --------
    >>> from concurrent_futures import ThreadPoolExecutor, recording
    >>> with ThreadPoolExecutor() as pool, recording(arguments=100) as run:
    ...     length = pool.submit(len, "page").result()
    >>> b"'page'" in run.trace()
    True
    """
    options: dict[str, Any] = {"records_per_thread": records_per_thread, "arguments": arguments}
    if file is not None:
        options["file"] = os.fsdecode(file)
    return Recording(**options)
