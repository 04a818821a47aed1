"""Tests of patches of the standard library's classes before `install`, and of replaced locks."""

import sys
import textwrap

import concurrent_futures
from support import prints

PRELUDE = """
import concurrent.futures, functools, types
import concurrent_futures
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
Original = ThreadPoolExecutor
calls = []

def wrapping(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        calls.append(function.__name__)
        return function(*args, **kwargs)
    return wrapper

def use(expected):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert type(pool) is concurrent_futures.ThreadPoolExecutor
        assert pool.submit(abs, -1).result(60) == 1
        assert list(pool.map(abs, [-2, -3])) == [2, 3]
        is_standard = pool._is_standard()
        print(calls, "by the standard library's code" if is_standard else "on the engine")
    calls.clear()

"""

LIB = concurrent_futures


def printed(program: str) -> str:
    """Returns the output of a program with the prelude."""
    return prints(LIB, PRELUDE + textwrap.dedent(program))


def test_a_patched_submit_carries_over_and_is_restored() -> None:
    program = """
    original = Original.submit
    Original.submit = wrapping(original)
    concurrent_futures.install()
    use("patched")
    # As instrumentation undoes it: by the name that it patched, with what it found.
    concurrent.futures.ThreadPoolExecutor.submit = original
    use("restored")
    """
    where = "on the engine" if sys.version_info >= (3, 12) else "by the standard library's code"
    assert printed(program) == (f"['submit', 'submit', 'submit'] {where}\n[] {where}\n")


def test_uninstall_takes_patches_back() -> None:
    program = """
    original = Original.submit
    Original.submit = patched = wrapping(original)
    ours = concurrent_futures.ThreadPoolExecutor.submit
    concurrent_futures.install()
    print(concurrent_futures.ThreadPoolExecutor.submit is patched)
    concurrent_futures.uninstall()
    print(concurrent_futures.ThreadPoolExecutor.submit is ours, Original.submit is patched)
    """
    assert printed(program) == "True\nTrue True\n"


def test_later_patches_of_other_code_stay() -> None:
    program = """
    Original.submit = wrapping(Original.submit)
    concurrent_futures.install()
    concurrent_futures.ThreadPoolExecutor.submit = later = wrapping(Original.submit)
    concurrent_futures.uninstall()
    print(concurrent_futures.ThreadPoolExecutor.submit is later)
    """
    assert printed(program) == "True\n"


def test_a_submit_whose_code_was_replaced_carries_over() -> None:
    program = """
    function = Original.submit
    function.__globals__["_calls"] = calls
    function.__globals__["_inner"] = types.FunctionType(function.__code__, function.__globals__)

    def replacement(self, fn, /, *args, **kwargs):
        _calls.append("submit")
        return _inner(self, fn, *args, **kwargs)

    function.__code__ = replacement.__code__
    concurrent_futures.install()
    use("patched")
    """
    assert printed(program).startswith("['submit', 'submit', 'submit']")


def test_other_patched_methods_carry_over() -> None:
    program = """
    Original.shutdown = wrapping(Original.shutdown)
    concurrent.futures.Executor.map = wrapping(concurrent.futures.Executor.map)
    Future.result = wrapping(Future.result)
    concurrent_futures.install()
    use("patched")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pass
    print(calls)
    """
    out = printed(program).splitlines()
    assert out[0].startswith("['result', 'map'")
    assert out[1] == "['shutdown']"


def test_a_patched_constructor_carries_over() -> None:
    program = """
    Original.__init__ = wrapping(Original.__init__)
    concurrent_futures.install()
    use("patched")
    """
    assert printed(program) == "['__init__'] by the standard library's code\n"


def test_a_patched_private_method_is_called() -> None:
    program = """
    Original._adjust_thread_count = wrapping(Original._adjust_thread_count)
    concurrent_futures.install()
    use("patched")
    """
    expected = "['_adjust_thread_count', '_adjust_thread_count', '_adjust_thread_count']"
    assert printed(program) == f"{expected} by the standard library's code\n"


def test_without_patches_nothing_is_carried_over() -> None:
    program = """
    before = dict(vars(concurrent_futures.ThreadPoolExecutor))
    concurrent_futures.install()
    changed = {
        name for name, value in vars(concurrent_futures.ThreadPoolExecutor).items()
        if before.get(name) is not value
    }
    print(changed)
    use("as it is")
    concurrent_futures.uninstall()
    print(dict(vars(concurrent_futures.ThreadPoolExecutor)) == before)
    """
    assert printed(program) == "{'__class__'}\n[] on the engine\nTrue\n"


def test_objects_from_before_say_what_they_are() -> None:
    program = """
    class Derived(Future):
        tag = "derived"

    class Meta(type):
        pass

    class WithMeta(Original, metaclass=Meta):
        pass

    future, derived, pool = Future(), Derived(), WithMeta(1)
    concurrent_futures.install()
    assert isinstance(future, concurrent.futures.Future)
    assert isinstance(derived, concurrent.futures.Future) and isinstance(derived, Derived)
    assert isinstance(pool, concurrent.futures.ThreadPoolExecutor) and isinstance(pool, WithMeta)
    assert not isinstance(pool, concurrent.futures.ProcessPoolExecutor)
    assert derived.__class__.tag == "derived" and derived.__class__.__name__ == "Derived"
    assert type(derived) is Derived
    ours = concurrent.futures.Future()
    assert ours.__class__ is concurrent_futures.Future
    concurrent_futures.uninstall()
    assert future.__class__ is Future and derived.__class__ is Derived
    assert ours.__class__ is concurrent_futures.Future
    print("ok")
    """
    assert printed(program) == "ok\n"


def test_executors_and_futures_where_the_locks_of_threading_are_replaced() -> None:
    program = """
    import threading, _thread
    locks = []

    class Lock:
        def __init__(self):
            locks.append(self)
            self._lock = _thread.allocate_lock()
            self.acquire, self.release = self._lock.acquire, self._lock.release
            self.locked = self._lock.locked

        def __enter__(self):
            return self._lock.__enter__()

        def __exit__(self, *args):
            return self._lock.__exit__(*args)

    before = concurrent_futures.ThreadPoolExecutor(1)
    print(before.submit(abs, -1).result(), before._is_standard())
    threading._allocate_lock = lambda: Lock()
    with concurrent_futures.ThreadPoolExecutor(1) as pool:
        print(pool._is_standard(), pool.submit(abs, -1).result(60))
        futures = [pool.submit(abs, n) for n in (-2, -3)]
        print(sorted(future.result() for future in concurrent_futures.as_completed(futures)))
        print(concurrent_futures.wait(futures, 60).not_done)
    locks.clear()
    future = concurrent_futures.Future()
    threading.Timer(0.05, future.set_result, ["value"]).start()
    print(future.result(60), len(locks) > 0)
    try:
        concurrent_futures.Future().result(0.01)
    except TimeoutError:
        print("timeout")
    with __import__("pytest").raises(ValueError, match="max_pending is not available, as another"):
        concurrent_futures.ThreadPoolExecutor(1, max_pending=1)
    """
    assert printed(program) == ("1 False\nTrue 1\n[2, 3]\nset()\nvalue True\ntimeout\n")
