"""Runs tests of the package under the address sanitizer, and with CPython's checks of its memory.

`PYTHON python/sanitize.py LIBRARY`: the library is the native module, built with
`-Zsanitizer=address`. PYTHON has the package and the test tools. `make sanitize-python` does both.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent

# The tests that touch the memory of the native module most. Left out are tests that limit memory,
# of which the sanitizer takes too much, and those of whole programs, which take too long.
TESTS = [
    "test_as_completed.py",
    "test_callbacks.py",
    "test_deadlock.py",
    "test_faults.py",
    "test_future.py",
    "test_garbage.py",
    "test_map.py",
    "test_max_pending.py",
    "test_process_buffers.py",
    "test_process_callbacks.py",
    "test_process_cancel.py",
    "test_process_map.py",
    "test_process_pickling.py",
    "test_process_pool.py",
    "test_thread_pool.py",
    "test_wait.py",
]

# The sanitizer makes frames several times as large, and keeps memory that was freed for a while.
SUITED = "not long_chain and not recursion and not deep and not leaks"


def runtime() -> str | None:
    """Return the library of the sanitizer, which must be loaded before the interpreter."""
    compiler = os.environ.get("CC", "cc")
    machine = os.uname().machine
    for name in ("libasan.so", f"libclang_rt.asan-{machine}.so", "libclang_rt.asan.so"):
        command = [compiler, f"-print-file-name={name}"]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if os.path.isabs(found) and os.path.exists(found):
            return found
    return None


def run(title: str, environment: dict[str, str], *options: str) -> None:
    """Run the tests."""
    print(title, flush=True)
    tests = [str(HERE / "tests" / name) for name in TESTS]
    subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", *options, *tests],
        env={**os.environ, **environment},
        check=True,
    )


def sanitized(library: Path) -> Path:
    """Return a folder with the package around the library."""
    folder = library.parent / "package"
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "concurrent_futures"
    ignored = shutil.ignore_patterns("_engine*.so", "__pycache__")
    shutil.copytree(HERE / "concurrent_futures", package, ignore=ignored)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    shutil.copy(library, package / f"_engine{suffix}")
    return folder


def main() -> None:
    """Run the tests under the sanitizer, and with CPython's checks."""
    preloaded = runtime()
    if preloaded is None:
        print("skipped the address sanitizer: the C compiler has no libasan (gcc has one)")
    else:
        environment = {
            "LD_PRELOAD": preloaded,
            # The interpreter frees little at its end.
            "ASAN_OPTIONS": "detect_leaks=0",
            # It sees what the system's allocator is asked for.
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": str(sanitized(Path(sys.argv[1]))),
        }
        run("under the address sanitizer", environment, "-k", SUITED)
    run("with checks of memory", {"PYTHONMALLOC": "debug", "PYTHONDEVMODE": "1"})


if __name__ == "__main__":
    main()
