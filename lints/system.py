"""Checks that calls of the operating system, and differences between systems, stand in one place.

    python3 lints/system.py

Each crate has one folder or file for them. All other code is the same on all systems. Tests are
left out, and so is the condition by which process pools are compiled at all.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: The sources of each crate, and the place for the system in it.
PLACES = {
    "crates/concurrent-futures/src": "runtime/os",
    "crates/concurrent-futures-cluster/src": "os",
    "python/src": "interp/os",
    "python/cluster/src": "os",
}

SYSTEM = re.compile(r"\b(libc|rustix|memmap2)::|\btarget_os\b|\bstd::os::(?!fd\b)")

#: The condition by which process pools are compiled.
PROCESSES = 'feature = "process", unix'

TESTS = re.compile(r"^#\[cfg\((test|all\(test\b|all\(any\(test\b)", re.MULTILINE)


def lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that use the system, with their numbers; none of the tests at the end."""
    tests = TESTS.search(source)
    if tests:
        source = source[: tests.start()]
    for number, line in enumerate(source.split("\n"), 1):
        code = line.split("//")[0].replace(PROCESSES, "")
        if SYSTEM.search(code):
            yield number, line.strip()


def problems(root: Path = ROOT) -> Iterator[str]:
    """Yield each use of the system outside of its place."""
    for sources, place in PLACES.items():
        for file in sorted((root / sources).rglob("*.rs")):
            name = file.relative_to(root / sources).as_posix()
            if name.startswith((place + "/", place + ".rs")):
                continue
            for number, line in lines(file.read_text(encoding="utf-8")):
                yield f"{sources}/{name}:{number}: belongs in {place}: {line}"


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))
