"""Runs `tests/thread_stress.py` under the thread sanitizer, and finds the reports that are ours.

`PYTHON python/sanitize_threads.py LIBRARY [OPTION …]`: PYTHON is a free-threaded CPython that was
configured with `--with-thread-sanitizer`. LIBRARY is the native module, built with
`-Zsanitizer=thread`. The options are those of `thread_stress.py`. `make sanitize-threads` builds
the module and runs this.

A report is ours if one of the two accesses, the lock or the thread that it is about is in the
native module. A report about CPython's functions that the native module called may be, too: such a
call may be a wrong one. Both fail. All other reports are counted by their functions: CPython has
races of its own.

All reports are in the folder `reports` beside the library. `sanitize_threads.supp` names known
reports, with the reason why each is harmless or not ours. The sanitizer suppresses these.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

from sanitize import sanitized

HERE = Path(__file__).parent
MODULE = "_engine"
SUPPRESSIONS = HERE / "sanitize_threads.supp"
SECONDS = 600

#: Frames that the sanitizer puts between an access and its code
#: say nothing about the place.
WITHIN = re.compile(
    r"#\d+ (?:mem(?:cpy|move|set|cmp)|free|malloc|calloc|realloc|str\w+|__tsan\w*|pthread_\w+|"
    r"(?:<?core|<?std|<?alloc|<?pyo3)\b)"
)


class Report:
    """A report of the sanitizer: the frames of its stacks."""

    def __init__(self, text: str) -> None:
        self.text = text
        #: The stacks of the accesses come first; those of threads and allocations follow.
        self.stacks = [
            [line.strip() for line in stack.splitlines() if re.match(r"\s+#\d+ ", line)]
            for stack in re.split(r"\n\s*\n", text)
        ]
        self.stacks = [stack for stack in self.stacks if stack]

    @property
    def innermost(self) -> list[str]:
        """Return the frames of the two accesses, without those that are below all code."""
        frames = []
        for stack in self.stacks[:2]:
            inner = [frame for frame in stack if not WITHIN.match(frame)]
            frames.append((inner or stack)[0])
        return frames

    @property
    def is_ours(self) -> bool:
        """Return whether an access is in the native module."""
        return any(MODULE in frame for frame in self.innermost)

    @property
    def has_ours(self) -> bool:
        """Return whether the native module called what a report is about."""
        return any(MODULE in frame for stack in self.stacks[:2] for frame in stack)

    @property
    def names(self) -> str:
        """Return the functions of the two accesses."""
        return " / ".join(sorted(frame.split()[1] for frame in self.innermost))


def read(folder: Path) -> list[Report]:
    """Read the reports of all processes."""
    reports = []
    for path in sorted(folder.iterdir()):
        parts = path.read_text(errors="replace").split("==================\n")
        reports += [Report(part) for part in parts if "WARNING: ThreadSanitizer" in part]
        if any("FATAL: ThreadSanitizer" in part for part in parts):
            sys.exit(f"the sanitizer did not start:\n{parts[0]}")
    return reports


def fails(reports: list[Report]) -> bool:
    """Print the reports, and return whether one of them has a frame of the native module."""
    ours = [report for report in reports if report.is_ours]
    called = [report for report in reports if report.has_ours and not report.is_ours]
    others = [report for report in reports if not report.has_ours and not report.is_ours]
    for report in ours + called:
        print(report.text)
    for title, chosen in [
        ("in the native module", ours),
        ("in CPython, called by the native module", called),
        ("in CPython", others),
    ]:
        print(f"{len(chosen)} reports {title}")
        for names, count in Counter(report.names for report in chosen).most_common():
            print(f"  {count:5} {names}")
    return bool(ours or called)


def main() -> int:
    """Run the stress test, and print the reports."""
    if "thread" not in str(sysconfig.get_config_var("CONFIG_ARGS")):
        sys.exit("this CPython was not configured with --with-thread-sanitizer")
    library, *options = sys.argv[1:]
    if b"__tsan_func_entry" not in Path(library).read_bytes():
        sys.exit(f"{library} was not built with -Zsanitizer=thread")
    if not any(option.startswith("--seconds") for option in options):
        options += ["--seconds", str(SECONDS)]
    if not any(option.startswith("--kinds") for option in options):
        options += ["--kinds", "process,interpreter"]
    folder = Path(library).parent.resolve() / "reports"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    settings = f"log_path={folder}/report history_size=4 exitcode=0 die_after_fork=0"
    settings += f" suppressions={SUPPRESSIONS}"
    done = subprocess.run(
        [sys.executable, HERE / "tests" / "thread_stress.py", *options],
        env={
            **os.environ,
            "PYTHONPATH": str(sanitized(Path(library))),
            "TSAN_OPTIONS": f"{settings} {os.environ.get('TSAN_OPTIONS', '')}",
        },
        check=False,
    )
    failed = fails(read(folder))
    return 1 if failed or done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
