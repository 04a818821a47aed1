"""Pickles, with long buffers beside them.

A *frame* is a pickle, or a pickle and the long buffers of its objects, such as the content of an
array. Without buffers in it, a pickle is made and read with fewer copies.

A frame with buffers begins with the letter B, as no pickle does. The number of buffers follows, and
a table: for each buffer its length, and whether it is writable. The length of the pickle comes
next, then the pickle, and then the buffers. Zeros behind the pickle count as part of it, so that
the first buffer begins at a multiple of `_ALIGNMENT`.

A receiver whose frame is in memory of its own makes objects around the buffers there, without a
copy. The memory of such a frame is kept as long as one of these objects.
"""

from __future__ import annotations

import pickle
import struct

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, SupportsIndex

    from typing_extensions import Buffer

    #: Returns whether a buffer is to be in the pickle.
    Callback = Callable[[pickle.PickleBuffer], bool]
    #: Pickles an object.
    Dump = Callable[[Any, Callback], bytes]

#: The length from which on a buffer is beside the pickle.
_LONG = 64 * 1024

#: The alignment of numbers, and the least one of memory.
_ALIGNMENT = 16

_MARK = b"B"
_COUNT = struct.Struct("<I")
_BUFFER = struct.Struct("<QB")
_LENGTH = struct.Struct("<Q")


def dumps(value: Any, dump: Dump) -> bytes:
    """Return the frame of an object."""
    head, *buffers = pieces(value, dump)
    return b"".join((head, *buffers)) if buffers else head


def pieces(value: Any, dump: Dump) -> tuple[bytes, *tuple[memoryview, ...]]:
    """Return the frame of an object in pieces: the buffers are those of the object."""
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
        return (data,)
    table = [_BUFFER.pack(raw.nbytes, not raw.readonly) for raw in buffers]
    before = len(_MARK) + _COUNT.size + len(table) * _BUFFER.size + _LENGTH.size
    data += bytes(-(before + len(data)) % _ALIGNMENT)
    head = (_MARK, _COUNT.pack(len(table)), *table, _LENGTH.pack(len(data)), data)
    return b"".join(head), *buffers


def loads(frame: Buffer) -> Any:
    """Return the object of a frame. Buffers are writable if they were so before.

    A writable frame is the object's from now on.
    """
    view = memoryview(frame)
    if view[:1] != _MARK:
        return pickle.loads(frame)
    (count,) = _COUNT.unpack_from(view, 1)
    start = 1 + _COUNT.size
    table = list(_BUFFER.iter_unpack(view[start : start + count * _BUFFER.size]))
    start += count * _BUFFER.size
    (length,) = _LENGTH.unpack_from(view, start)
    start += _LENGTH.size
    end = start + length
    buffers: list[Buffer] = []
    data = view[start:end]
    for length, is_writable in table:
        content = view[end : end + length]
        if not is_writable:
            buffers.append(bytes(content))
        elif view.readonly or end % _ALIGNMENT:
            buffers.append(bytearray(content))
        else:
            buffers.append(content)
        end += length
    return pickle.loads(data, buffers=buffers)


class Passed:
    """Bytes on the way to another process of this machine, where `received` returns them.

    They go through shared memory, which is the receiver's, if there is some.
    """

    __slots__ = ("_content",)

    def __init__(self, content: Buffer) -> None:
        self._content = content

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        if protocol.__index__() >= 5:
            return received, (pickle.PickleBuffer(self._content),)
        return received, (bytes(self._content),)


def received(content: Buffer) -> Buffer:
    """Return bytes that were passed."""
    return content
