"""Tests of the package imported more than once, reloaded, and in a second interpreter."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

import concurrent_futures
from support import LIMIT, environment, prints

USE = """
    def use(ThreadPoolExecutor, Future, wait, as_completed):
        with ThreadPoolExecutor(2) as pool:
            future = pool.submit(int, "3")
            assert isinstance(future, Future)
            assert next(as_completed([future])) is future
            assert wait([future]).done == {future}
            assert list(pool.map(int, "12")) == [1, 2]
            try:
                pool.submit(int, "x").result()
            except ValueError:
                return future.result()

    def use_all():
        return use(futures.ThreadPoolExecutor, futures.Future, futures.wait, futures.as_completed)
"""

PURGE = """
    def purge():
        root = futures.__name__
        for name in list(sys.modules):
            if name == root or name.startswith(root + "."):
                del sys.modules[name]
        return importlib.import_module(root)
"""


def test_modules_that_are_imported_again(lib: ModuleType) -> None:
    code = f"""
    import importlib, sys
    {USE.strip()}
    {PURGE.strip()}
    first = futures
    assert use_all() == 3
    for _ in range(3):
        futures = purge()
        assert futures is not first
        assert use_all() == 3
    futures = first
    print(use_all())
    """
    assert prints(lib, code) == "3\n"


def test_modules_that_are_reloaded(lib: ModuleType) -> None:
    code = f"""
    import importlib, sys
    {USE.strip()}
    assert use_all() == 3
    with futures.ThreadPoolExecutor(1) as pool:
        before = pool.submit(int, "5")
    for name in "_base", "thread", "process":
        importlib.reload(importlib.import_module(futures.__name__ + "." + name))
    importlib.reload(futures)
    assert use_all() == 3
    assert before.result() == 5
    print(futures.wait([before, futures.ThreadPoolExecutor(1).submit(int)]).not_done)
    """
    assert prints(lib, code) == "set()\n"


def test_a_process_pool_after_an_import_again(lib: ModuleType) -> None:
    code = f"""
    import importlib, multiprocessing, sys
    {PURGE.strip()}
    def use():
        context = multiprocessing.get_context("fork")
        with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            assert pool.submit(int, "3").result() == 3
            assert list(pool.map(int, "12")) == [1, 2]
            try:
                pool.submit(sys.exit).result()
            except SystemExit:
                pass
            try:
                importlib.import_module("os")
                pool.submit(importlib.import_module("os")._exit, 1).result()
            except futures.process.BrokenProcessPool:
                return "broken"
    import_process = importlib.import_module(futures.__name__ + ".process")
    assert use() == "broken"
    futures = purge()
    importlib.import_module(futures.__name__ + ".process")
    assert use() == "broken"
    print("both")
    """
    assert prints(lib, code, forks=True) == "both\n"


def test_modules_that_are_there_for_a_while(lib: ModuleType) -> None:
    code = f"""
    import sys
    from unittest import mock
    {USE.strip()}
    name = futures.__name__
    for module in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
        del sys.modules[module]
    with mock.patch.dict(sys.modules):
        from {lib.__name__} import ThreadPoolExecutor, Future, wait, as_completed
        assert use(ThreadPoolExecutor, Future, wait, as_completed) == 3
    from {lib.__name__} import ThreadPoolExecutor, Future, wait, as_completed
    print(use(ThreadPoolExecutor, Future, wait, as_completed))
    """
    assert prints(lib, code) == "3\n"


def test_an_import_again_while_it_is_installed(package: ModuleType) -> None:
    code = f"""
    import importlib, sys
    import concurrent.futures
    {USE.strip()}
    {PURGE.strip()}
    original = [concurrent.futures.ThreadPoolExecutor]
    futures.install()
    first = concurrent.futures.ThreadPoolExecutor
    futures = purge()
    assert use_all() == 3
    futures.install()
    assert original[0] in futures.ThreadPoolExecutor.__mro__
    assert first not in futures.ThreadPoolExecutor.__mro__
    with first(1) as pool:
        assert pool.submit(int, "5").result() == 5
    print(use_all())
    """
    assert prints(package, code) == "3\n"


def test_forks_and_the_end_after_reloads(package: ModuleType) -> None:
    code = """
    import importlib, os, warnings
    import concurrent_futures.thread, concurrent_futures._base
    warnings.simplefilter("ignore")
    pool = futures.ThreadPoolExecutor(1)
    assert pool.submit(int, "1").result() == 1
    for _ in range(3):
        importlib.reload(concurrent_futures._base)
        importlib.reload(concurrent_futures.thread)
    child = os.fork()
    if child == 0:
        os._exit(pool.submit(int, "7").result())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    pool.submit(print, "at the end", flush=True)
    """
    assert prints(package, code, forks=True) == "at the end\n"


INTERPRETERS = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"


def in_another(code: str, kind: str) -> str:
    """Returns statements that run `code` in another interpreter."""
    if sys.version_info >= (3, 13):
        return f"""
    number = interpreters.create({kind!r})
    failure = interpreters.exec(number, {code!r})
    assert failure is None, failure
    interpreters.destroy(number)
"""
    return f"""
    number = interpreters.create(isolated={kind == "isolated"})
    interpreters.run_string(number, {code!r})
    interpreters.destroy(number)
"""


def test_a_legacy_interpreter_beside_the_first(lib: ModuleType) -> None:
    inside = (
        f"import {lib.__name__} as futures, {lib.__name__}.thread as thread\n"
        f"from {lib.__name__} import ThreadPoolExecutor, Future, as_completed, wait\n"
        f"from {lib.__name__}.process import BrokenProcessPool\n"
        "with thread.ThreadPoolExecutor(1) as pool:\n"
        "    future = pool.submit(int, '5')\n"
        "    assert isinstance(future, Future)\n"
        "    assert list(as_completed([future])) == [future]\n"
        "    print(future.result(), flush=True)\n"
    )
    code = f"""
    import {INTERPRETERS} as interpreters
    pool = futures.ThreadPoolExecutor(1)
    assert pool.submit(int, "3").result() == 3
    {in_another(inside, "legacy").strip()}
    {in_another(inside, "legacy").strip()}
    assert isinstance(pool.submit(int), futures.Future)
    print(pool.submit(int, "4").result())
    """
    assert prints(lib, code) == "5\n5\n4\n"


def test_the_names_of_the_package_in_another_interpreter(package: ModuleType) -> None:
    inside = (
        "import concurrent_futures, sys\n"
        "for name in concurrent_futures.__all__:\n"
        "    getattr(concurrent_futures, name)\n"
        "concurrent_futures.install()\n"
        "import concurrent.futures\n"
        "assert concurrent_futures.Future is concurrent.futures.Future\n"
        "for function in ('recording', 'dashboard', 'dump'):\n"
        "    try:\n"
        "        getattr(concurrent_futures, function)()\n"
        "    except RuntimeError as error:\n"
        "        assert 'first interpreter' in str(error)\n"
        "    else:\n"
        "        raise AssertionError(function)\n"
        "try:\n"
        "    raise concurrent_futures.DeadlockError\n"
        "except RuntimeError:\n"
        "    print(concurrent_futures.process._chain_from_iterable_of_lists.__name__, flush=True)\n"
    )
    code = f"""
    import {INTERPRETERS} as interpreters
    futures.Future
    {in_another(inside, "legacy").strip()}
    """
    assert prints(package, code) == "_chain_from_iterable_of_lists\n"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="it has no interpreters of this kind")
def test_an_isolated_interpreter(package: ModuleType) -> None:
    inside = (
        "import concurrent_futures\n"
        "with concurrent_futures.ThreadPoolExecutor(1) as pool:\n"
        "    print(pool.submit(int, '5').result(), flush=True)\n"
    )
    code = f"""
    import {INTERPRETERS} as interpreters
    futures.Future
    {in_another(inside, "isolated").strip()}
    """
    assert prints(package, code) == "5\n"


#: A program that embeds Python, and begins and ends it three times.
EMBEDS = """
#include <Python.h>
int main(int count, char **arguments) {
    for (int round = 0; round < 3; round++) {
        Py_Initialize();
        if (PyRun_SimpleString(arguments[1]) != 0 || Py_FinalizeEx() != 0)
            return 1;
    }
    return 0;
}
"""


def test_interpreters_that_begin_when_another_has_ended(lib: ModuleType, tmp_path: Path) -> None:
    include, folder = Path(sysconfig.get_path("include")), sysconfig.get_config_var("LIBDIR")
    library = f"python{sysconfig.get_config_var('LDVERSION')}"
    if not (include / "Python.h").exists() or shutil.which("cc") is None:
        pytest.skip("there is no C compiler, or no header of CPython")
    if not (Path(folder) / f"lib{library}.so").exists():
        pytest.skip("this CPython has no shared library")
    source, built = tmp_path / "embeds.c", tmp_path / "embeds"
    source.write_text(EMBEDS)
    link = [f"-L{folder}", f"-Wl,-rpath,{folder}", f"-l{library}"]
    subprocess.run(["cc", f"-I{include}", "-o", built, source, *link], check=True)
    code = f"""
import {lib.__name__} as futures
with futures.ThreadPoolExecutor(2) as pool:
    print(pool.submit(abs, -1).result(), list(pool.map(abs, [-2, 3])))
"""
    paths = os.pathsep.join([*sys.path, sysconfig.get_path("purelib")])
    done = subprocess.run(
        [built, code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONHOME": sys.base_prefix, "PYTHONPATH": paths},
        timeout=2 * LIMIT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 [2, 3]\n" * 3


def test_a_thread_may_use_the_package_while_another_one_imports_a_part_of_it() -> None:
    code = """
        import sys, threading

        begun, go = threading.Event(), threading.Event()

        class Slow:
            def find_spec(self, name, path=None, target=None):
                if name == "concurrent_futures._private" and not begun.is_set():
                    begun.set()
                    go.wait()

        sys.meta_path.insert(0, Slow())
        first = threading.Thread(target=lambda: futures.Future)
        first.start()
        begun.wait()
        found = []
        second = threading.Thread(target=lambda: found.append(futures.dump))
        second.start()
        # It waits for the first one.
        second.join(0.5)
        go.set()
        first.join()
        second.join()
        print(found[0] is futures.dump, futures.Future.__name__)
    """
    assert prints(concurrent_futures, code).split() == ["True", "Future"]
