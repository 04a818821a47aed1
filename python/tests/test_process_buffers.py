"""Tests of long buffers, which go through shared memory and arrive as private memory."""

import array
import gc
import os
import pickle
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks
from support import IS_FREE, LIMIT, eventually

numpy = pytest.importorskip("numpy")

# Long enough to go through shared memory.
LONG = 1_000_000
# Around the lengths where the way changes.
LENGTHS = [0, 1, 127 << 10, 128 << 10, (128 << 10) + 1, 255 << 10, 256 << 10, 1 << 20, 5_000_001]


class Buffer:
    """Offers its memory to the pickler, as arrays do."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce_ex__(self, protocol: Any) -> tuple[object, ...]:
        return Buffer, (pickle.PickleBuffer(self.content),)


@pytest.fixture
def pool(lib: ModuleType, context: Any) -> Iterator[Any]:
    """Makes a pool of two processes."""
    with lib.ProcessPoolExecutor(2, mp_context=context) as made:
        yield made


@pytest.fixture
def quick(package: ModuleType, forking: Any) -> Iterator[Any]:
    """Makes a pool of one process, started in the quickest way."""
    with package.ProcessPoolExecutor(1, mp_context=forking) as made:
        yield made


def call(pool: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Return the result of the function in a worker."""
    return pool.submit(function, *args).result(LIMIT)


def numbers(length: int, first: int = 0) -> Any:
    """Returns an array of bytes."""
    few = (numpy.arange(first, first + 251) % 251).astype(numpy.uint8)
    return numpy.resize(few, length)


def shared_memory() -> list[str]:
    """Returns the segments that this process has, mapped or open."""
    names = ("concurrent-futures-buffer", "/dev/shm/cf-")
    maps = Path("/proc/self/maps").read_text().splitlines()
    found = [line for line in maps if any(name in line for name in names)]
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if any(name in target for name in names):
            found.append(target)
    return found


def test_arrays_of_any_length_come_back(pool: Any) -> None:
    for length in LENGTHS:
        sent = numbers(length)
        back = call(pool, tasks.identity, sent)
        assert back.dtype == sent.dtype
        assert numpy.array_equal(back, sent)
        assert back is not sent


def test_bytes_of_any_length_come_back(pool: Any) -> None:
    for length in LENGTHS:
        sent = numbers(length).tobytes()
        both = (sent, bytearray(sent))
        for value in (sent, [sent, {"key": (sent, "text")}], bytearray(sent), both):
            back = call(pool, tasks.identity, value)
            assert type(back) is type(value)
            assert back == value


def test_many_buffers_in_one_call(quick: Any) -> None:
    sent = {n: numbers(LONG + n, n) for n in range(5)} | {"short": numbers(10)}
    back = call(quick, tasks.identity, sent)
    assert back.keys() == sent.keys()
    assert all(numpy.array_equal(back[key], sent[key]) for key in sent)


def test_arrays_of_every_kind(quick: Any) -> None:
    matrix = numbers(LONG).reshape(1000, 1000)
    values = {
        "fortran": numpy.asfortranarray(matrix),
        "strided": matrix[::2, ::3],
        "reversed": matrix[::-1],
        "transposed": matrix.T,
        "floats": numpy.linspace(0, 1, LONG),
        "objects": numpy.array([None, "text", 1.5] * 10, dtype=object),
        "structured": numpy.zeros(LONG, dtype=[("a", "i4"), ("b", "f8")]),
        "empty": numpy.empty((0, 5)),
        "array.array": array.array("d", range(100_000)),
    }
    back = call(quick, tasks.identity, values)
    for name, value in values.items():
        if isinstance(value, array.array):
            assert back[name] == value
        else:
            assert back[name].dtype == value.dtype, name
            assert back[name].shape == value.shape, name
            assert numpy.array_equal(back[name], value), name


def test_spans_with_long_items_and_results(quick: Any) -> None:
    sent = [numbers(LONG, n) for n in range(20)]
    for chunksize in (1, 3, 100):
        back = list(quick.map(tasks.identity, sent, chunksize=chunksize))
        assert len(back) == len(sent)
        assert all(numpy.array_equal(a, b) for a, b in zip(sent, back, strict=True))


def add_one(values: Any) -> Any:
    """Changes its argument in place."""
    values += 1
    return values


def test_a_task_may_change_its_argument(quick: Any) -> None:
    sent = numpy.zeros(LONG, dtype=numpy.uint8)
    for _ in range(5):
        assert (call(quick, add_one, sent) == 1).all()
    assert (sent == 0).all()


def test_a_result_may_be_changed_and_stays_as_it_is(quick: Any) -> None:
    kept = []
    for n in range(100):
        result = call(quick, tasks.identity, numpy.full(LONG, n, dtype=numpy.uint8))
        assert result.flags.writeable
        if n % 3:
            result += 100
            kept.append((n + 100, result))
        elif n % 2:
            kept.append((n, result))
    for n, result in kept:
        assert (result == n).all()


def is_writable(value: Any) -> bool:
    """Change an array, or all arrays of a collection, in place; return whether that was allowed."""
    if isinstance(value, (list, tuple)):
        return all(map(is_writable, value))
    if value.flags.writeable:
        value[:1] = 1
    return bool(value.flags.writeable)


def read_only(length: int) -> Any:
    """Returns an array that may not be changed."""
    return numpy.frombuffer(bytes(length), dtype=numpy.uint8)


@pytest.mark.parametrize("length", [80, 100_000, LONG])
def test_read_only_arrays_arrive_as_in_the_standard_library(pool: Any, length: int) -> None:
    # By protocol 4, which was the default before 3.14, all arrays arrive writable.
    expected = pickle.DEFAULT_PROTOCOL < 5
    fixed, free = read_only(length), numpy.zeros(length, dtype=numpy.uint8)
    assert call(pool, is_writable, free) is True
    for value in fixed, [free, fixed], [fixed, free]:
        assert call(pool, is_writable, value) is expected
        assert list(pool.map(is_writable, [value] * 3)) == [expected] * 3
        assert list(pool.map(is_writable, [value] * 3, chunksize=2)) == [expected] * 3
    assert is_writable(call(pool, read_only, length)) is expected
    for result in [
        *pool.map(read_only, [length] * 3),
        *pool.map(read_only, [length] * 3, chunksize=3),
    ]:
        assert is_writable(result) is expected
    assert not fixed.any()
    assert not free.any()


_kept: list[Any] = []


def keep(value: Any) -> None:
    """Keeps its argument for as long as the worker lives."""
    _kept.append(value)


def kept() -> list[int]:
    """Return the sums of the kept arrays."""
    return [int(value.sum(dtype=int)) for value in _kept]


def test_a_worker_may_keep_its_arguments(quick: Any) -> None:
    sums = []
    for n in range(50):
        values = numpy.full(LONG, n, dtype=numpy.uint8)
        call(quick, keep, values)
        sums.append(n * LONG)
        call(quick, tasks.identity, numpy.full(LONG, 200, dtype=numpy.uint8))
    assert call(quick, kept) == sums


def test_a_result_outlives_its_pool(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        result = call(pool, tasks.identity, numbers(LONG))
        pending = pool.submit(tasks.identity, numbers(LONG, 7))
    assert numpy.array_equal(result, numbers(LONG))
    assert numpy.array_equal(pending.result(), numbers(LONG, 7))


def test_a_result_outlives_its_worker(package: ModuleType, forking: Any) -> None:
    with package.ProcessPoolExecutor(1, forking, on_worker_death="isolate") as pool:
        result = call(pool, tasks.identity, numbers(LONG))
        with pytest.raises(package.WorkerDiedError):
            call(pool, os._exit, 1)
        for n in range(5):
            assert numpy.array_equal(call(pool, tasks.identity, numbers(LONG, n)), numbers(LONG, n))
        assert numpy.array_equal(result, numbers(LONG))


def die_at_first(flag: tasks.Flag, values: Any) -> int:
    """Kills its worker the first time, after having changed its argument."""
    values += 1
    if not flag.is_set():
        flag.set()
        os._exit(1)
    return int(values.sum(dtype=int))


def test_a_repeated_call_has_its_argument_as_it_was(
    package: ModuleType, forking: Any, running: tasks.Flag
) -> None:
    with package.ProcessPoolExecutor(1, forking, on_worker_death="isolate") as pool:
        sent = numpy.zeros(LONG, dtype=numpy.uint8)
        future = pool.options(retries=1).submit(die_at_first, running, sent)
        assert future.result(LIMIT) == LONG


def test_a_fork_has_its_own_copy_of_a_result(quick: Any) -> None:
    result = call(quick, tasks.identity, numpy.full(LONG, 1, dtype=numpy.uint8))
    here, there = os.pipe()
    back, answer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            # Not before the parent has given it up, and the pool has had much else.
            os.read(here, 1)
            is_same = bool((result == 1).all())
            result += 1
            os.write(answer, b"y" if is_same and (result == 2).all() else b"n")
            os.read(here, 1)
        finally:
            os._exit(0)
    assert (result == 1).all()
    del result
    for n in range(10):
        other = call(quick, tasks.identity, numpy.full(LONG, n, dtype=numpy.uint8))
        assert (other == n).all()
        del other
    os.write(there, b"x")
    assert os.read(back, 1) == b"y"
    result = call(quick, tasks.identity, numpy.full(LONG, 9, dtype=numpy.uint8))
    assert (result == 9).all()
    os.write(there, b"x")
    os.waitpid(pid, 0)
    for fd in (here, there, back, answer):
        os.close(fd)


def fork_and_keep(values: Any) -> int:
    """Forks a process that keeps the argument longer than the worker does."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(there)
        os.read(here, 1)
        os._exit(0 if (values == 5).all() else 1)
    os.close(here)
    _kept.append((pid, there))
    return pid


def what_the_fork_says() -> int:
    """Returns the exit code of the process that was forked."""
    pid, there = _kept.pop()
    os.close(there)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_of_a_worker_has_its_own_copy_of_an_argument(quick: Any) -> None:
    call(quick, fork_and_keep, numpy.full(LONG, 5, dtype=numpy.uint8))
    for n in range(10):
        other = call(quick, tasks.identity, numpy.full(LONG, 100 + n, dtype=numpy.uint8))
        assert (other == 100 + n).all()
    assert call(quick, what_the_fork_says) == 0


def test_nothing_is_left_of_buffers(package: ModuleType, context: Any) -> None:
    gc.collect()
    eventually(lambda: not shared_memory())
    with package.ProcessPoolExecutor(2, mp_context=context) as pool:
        for length in (LONG, 40_000_000, 80_000_000):
            sent = numbers(length)
            for back in pool.map(tasks.identity, [sent] * 4):
                assert numpy.array_equal(back, sent)
            del back
        gc.collect()
        # The number of segments that are kept for the next arrays is limited.
        assert len(shared_memory()) <= 64
    del pool
    gc.collect()
    eventually(lambda: not shared_memory())


def test_cancelled_and_abandoned_calls_leave_no_shared_memory(
    package: ModuleType, forking: Any
) -> None:
    release = os.pipe()
    with package.ProcessPoolExecutor(1, mp_context=forking) as pool:
        busy = pool.submit(os.read, release[0], 1)
        futures = [pool.submit(tasks.identity, numbers(LONG, n)) for n in range(100)]
        for future in futures[1::2]:
            assert future.cancel()
        os.write(release[1], b"x")
        busy.result(LIMIT)
        for n, future in enumerate(futures):
            if n % 2 == 0:
                assert numpy.array_equal(future.result(LIMIT), numbers(LONG, n))
        del futures, future
    del pool
    gc.collect()
    eventually(lambda: not shared_memory())
    for fd in release:
        os.close(fd)


def test_hundreds_of_results_may_be_kept(quick: Any) -> None:
    results = [call(quick, tasks.identity, numbers(200_000, n)) for n in range(300)]
    for n, result in enumerate(results):
        assert numpy.array_equal(result, numbers(200_000, n))


def test_hundreds_of_calls_may_be_pending(quick: Any) -> None:
    futures = [quick.submit(tasks.identity, numbers(200_000, n)) for n in range(300)]
    for n, future in enumerate(futures):
        assert numpy.array_equal(future.result(LIMIT), numbers(200_000, n))


def test_without_descriptors_buffers_take_the_other_way(quick: Any) -> None:
    sent = numbers(LONG)
    assert numpy.array_equal(call(quick, tasks.identity, sent), sent)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()
    used = len(os.listdir("/proc/self/fd"))
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, limits[1]))
        while True:
            try:
                held.append(os.dup(0))
            except OSError:
                break
        for n in range(5):
            # Of other lengths than before, so that no segment fits.
            other = numbers(LONG * (n + 2))
            back = call(quick, tasks.identity, other)
            assert (back == other).all()
            assert call(quick, tasks.identity, other.tobytes()) == other.tobytes()
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert numpy.array_equal(call(quick, tasks.identity, sent), sent)


def test_a_task_that_exceeds_the_workers_memory_fails_alone(
    package: ModuleType, context: Any
) -> None:
    # The allocator of free-threaded builds reserves a GiB of addresses at a time.
    limit = 2_000_000_000 if IS_FREE else 400_000_000
    with package.ProcessPoolExecutor(1, mp_context=context, memory_limit=limit) as pool:
        assert call(pool, len, numbers(LONG)) == LONG
        future = pool.submit(len, numpy.zeros(limit + 100_000_000, dtype=numpy.uint8))
        with pytest.raises((MemoryError, package.BrokenProcessPool)):
            future.result(LIMIT)


def test_classes_may_offer_buffers_of_their_own(quick: Any) -> None:
    for content in (b"short", bytes(LONG), bytearray(b"1" * LONG)):
        back = call(quick, tasks.identity, Buffer(content)).content
        assert bytes(back) == bytes(content)


def test_a_buffer_that_is_not_contiguous_is_refused_as_by_pickle(quick: Any) -> None:
    strided = memoryview(bytearray(2 * LONG))[::2]
    error = quick.submit(tasks.identity, Buffer(strided)).exception(LIMIT)
    with pytest.raises(type(error)):
        pickle.dumps(Buffer(strided), 5)


def test_the_memory_of_a_result_is_there_as_long_as_the_result(quick: Any) -> None:
    result = call(quick, tasks.identity, numbers(LONG))
    kept = len(shared_memory())
    part = result[10:20]
    del result
    assert numpy.array_equal(part, numbers(10, 10))
    assert len(shared_memory()) == kept
    del part
    # A part of the pool may have had the last reference to the future.
    eventually(lambda: len(shared_memory()) < kept)
