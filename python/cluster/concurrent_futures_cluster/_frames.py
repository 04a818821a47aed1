"""Pickles, with long buffers beside them.

A *frame* is a pickle, or a pickle and the long buffers of its objects, such as the content of an
array. Without buffers in it, a pickle is made and read with fewer copies.

A frame with buffers begins with the letter B, as no pickle does. The number of buffers follows, and
a table: for each buffer its length, and whether it is writable. The length of the pickle comes
next, then the pickle, and then the buffers.
"""

from __future__ import annotations

import pickle
import struct

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    #: Returns whether a buffer is to be in the pickle.
    Callback = Callable[[pickle.PickleBuffer], bool]
    #: Pickles an object.
    Dump = Callable[[Any, Callback], bytes]

#: The length from which on a buffer is beside the pickle.
_LONG = 64 * 1024

_MARK = b"B"
_COUNT = struct.Struct("<I")
_BUFFER = struct.Struct("<QB")
_LENGTH = struct.Struct("<Q")


def dumps(value: Any, dump: Dump) -> bytes:
    """Return the frame of an object."""
    buffers: list[memoryview] = []

    def is_inside(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:
            # One that is not contiguous: pickling says so.
            return True
        if raw.nbytes < _LONG:
            return True
        buffers.append(raw)
        return False

    data = dump(value, is_inside)
    if not buffers:
        return data
    table = [_BUFFER.pack(raw.nbytes, not raw.readonly) for raw in buffers]
    head = (_MARK, _COUNT.pack(len(table)), *table, _LENGTH.pack(len(data)), data)
    return b"".join((*head, *buffers))


def loads(frame: bytes) -> Any:
    """Return the object of a frame. Buffers are writable if they were so before."""
    if frame[:1] != _MARK:
        return pickle.loads(frame)
    view = memoryview(frame)
    (count,) = _COUNT.unpack_from(view, 1)
    start = 1 + _COUNT.size
    table = list(_BUFFER.iter_unpack(view[start : start + count * _BUFFER.size]))
    start += count * _BUFFER.size
    (length,) = _LENGTH.unpack_from(view, start)
    start += _LENGTH.size
    end = start + length
    buffers: list[bytes | bytearray] = []
    data = view[start:end]
    for length, is_writable in table:
        content = view[end : end + length]
        buffers.append(bytearray(content) if is_writable else bytes(content))
        end += length
    return pickle.loads(data, buffers=buffers)
