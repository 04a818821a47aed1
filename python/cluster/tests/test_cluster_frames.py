"""Frames: pickles with long buffers beside them."""

import pickle
from typing import Any

import numpy
import pytest

from concurrent_futures_cluster import _frames

LENGTH = 100_000


def dump(value: Any, is_inside: Any) -> bytes:
    return pickle.dumps(value, 5, buffer_callback=is_inside)


def address(array: Any) -> int:
    """Return where the content of an array is."""
    return int(array.__array_interface__["data"][0])


def is_inside(array: Any, memory: bytearray) -> bool:
    """Return whether the content of an array is in this memory."""
    return 0 <= address(array) - address(numpy.frombuffer(memory, "u1")) < len(memory)


@pytest.mark.parametrize("name", ["", "a", "a name of some length"])
def test_a_writable_frame_is_the_memory_of_its_object(name: str) -> None:
    array = numpy.arange(LENGTH, dtype="f8")
    memory = bytearray(_frames.dumps((name, array), dump))
    came = _frames.loads(memoryview(memory))
    assert came[0] == name
    assert numpy.array_equal(came[1], array)
    assert is_inside(came[1], memory)
    assert came[1].flags.aligned
    assert came[1].flags.writeable


def test_an_object_has_memory_of_its_own_if_the_frame_is_not_writable() -> None:
    array = numpy.arange(LENGTH, dtype="f8")
    frame = _frames.dumps(array, dump)
    came = _frames.loads(frame)
    came[0] = 7
    assert _frames.loads(frame)[0] == 0


def test_a_buffer_at_an_odd_place_is_copied() -> None:
    first, second = numpy.zeros(LENGTH + 1, "u1"), numpy.arange(LENGTH, dtype="f8")
    memory = bytearray(_frames.dumps((first, second), dump))
    came = _frames.loads(memory)
    assert [is_inside(array, memory) for array in came] == [True, False]
    assert came[1].flags.aligned
    assert numpy.array_equal(came[1], second)


def test_a_frame_without_zeros_behind_its_pickle_is_read() -> None:
    """Earlier versions made such frames."""
    array = numpy.arange(LENGTH, dtype="f8")
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(array, 5, buffer_callback=buffers.append)
    data += b"\0" * (len(data) % 2 == 0)
    head = (b"B", (1).to_bytes(4, "little"), array.nbytes.to_bytes(8, "little"), b"\1")
    memory = bytearray(b"".join((*head, len(data).to_bytes(8, "little"), data, array.data)))
    came = _frames.loads(memory)
    assert numpy.array_equal(came, array)
    assert came.flags.aligned


def test_a_buffer_that_is_fixed_stays_so() -> None:
    array = numpy.arange(LENGTH, dtype="f8")
    array.flags.writeable = False
    memory = bytearray(_frames.dumps(array, dump))
    assert not _frames.loads(memory).flags.writeable


def test_the_pieces_of_a_frame_are_the_frame() -> None:
    array = numpy.arange(LENGTH, dtype="f8")
    head, *buffers = _frames.pieces(array, dump)
    assert [address(numpy.frombuffer(buffer)) for buffer in buffers] == [address(array)]
    assert b"".join((head, *buffers)) == _frames.dumps(array, dump)
    assert _frames.pieces("short", dump) == (_frames.dumps("short", dump),)


def test_bytes_are_passed_beside_the_pickle_if_the_protocol_can() -> None:
    content = bytearray(b"content")
    buffers: list[pickle.PickleBuffer] = []
    passed = pickle.dumps(_frames.Passed(content), 5, buffer_callback=buffers.append)
    assert len(buffers) == 1
    assert pickle.loads(passed, buffers=[content]) is content
    for protocol in (4, 5):
        assert pickle.loads(pickle.dumps(_frames.Passed(content), protocol)) == content
