"""Runs CPython's tests of `concurrent.futures`, and asyncio's that use executors, on this package.

    python run.py                   with the package that this Python has installed
    python run.py --unmodified      without it: what the standard library itself does here
    python run.py --recording       with a recording of all pools in each interpreter
    python run.py --parallel-threads 4   each case in four threads at once (CPython 3.14 and newer)

Each suite runs in a new virtual environment in which a `.pth` file installs the package. So the
package is in place in every interpreter that a test starts, also in isolated ones. `left_out.toml`
names the cases that are not run, and why.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
import tomllib
import venv
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "concurrent_futures"
OUTCOMES = ("passed", "failed", "skipped", "left out")


@dataclass(frozen=True)
class Suite:
    """A test module or package, and in how many parts it runs side by side."""

    name: str
    parts: int = 1


SUITES = [
    Suite("test.test_concurrent_futures", parts=12),
    Suite("test.test_asyncio.test_events", parts=4),
    Suite("test.test_asyncio.test_tasks"),
    Suite("test.test_asyncio.test_futures"),
    Suite("test.test_asyncio.test_threads"),
]


@dataclass
class Report:
    """The results of the cases of a suite, or of a part of a suite."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    patterns: set[str] = field(default_factory=set)

    def add(self, other: "Report") -> None:
        """Add the results of another part."""
        self.counts += other.counts
        self.failures += other.failures
        self.patterns |= other.patterns

    def fail(self, name: str, detail: str) -> None:
        """Note a failure of a case."""
        self.counts["failed"] += 1
        self.failures.append((name, detail))


class Runner:
    """Runs suites in new environments below a folder, until the time is over."""

    def __init__(
        self, folder: Path, options: argparse.Namespace, left_out: dict[str, set[str]]
    ) -> None:
        self._folder = folder
        self._options = options
        self._left_out = left_out
        self._end = time.monotonic() + options.time_limit

    def start(self, suite: Suite, tests: Path, pool: ThreadPoolExecutor) -> list[Future[Report]]:
        """Run all parts of a suite in the pool."""
        folder = self._folder / suite.name
        python = self._make_environment(folder / "venv", tests)
        return [
            pool.submit(self._run_part, suite, part, python, folder / str(part))
            for part in range(suite.parts)
        ]

    def _make_environment(self, folder: Path, tests: Path) -> Path:
        venv.create(folder)
        (site,) = folder.glob("lib/python*/site-packages")
        lines = []
        if tests != own_tests():
            (folder / "tests").mkdir()
            (folder / "tests" / "test").symlink_to(tests)
            lines.append(f"import sys; sys.path.insert(0, {str(folder / 'tests')!r})")
        if not self._options.unmodified:
            shutil.copytree(installed_package(), site / PACKAGE)
            lines.append(f"import {PACKAGE}; {PACKAGE}.install()")
            if self._options.recording:
                # Kept for as long as the interpreter runs.
                lines.append(f"import sys, {PACKAGE}; sys._recording = {PACKAGE}.recording()")
        (site / "in_place.pth").write_text("\n".join(lines))
        return folder / "bin" / "python"

    def _run_part(self, suite: Suite, part: int, python: Path, folder: Path) -> Report:
        work = folder / "work"
        work.mkdir(parents=True)
        settings, events, log = folder / "settings", folder / "events", folder / "log"
        settings.write_text(
            json.dumps(
                {
                    "suite": suite.name,
                    "part": part,
                    "parts": suite.parts,
                    "left_out": sorted(self._left_out.get(suite.name, ())),
                    "run_left_out": self._options.run_left_out,
                    "only": self._options.only,
                    "threads": self._options.parallel_threads,
                }
            )
        )
        with log.open("w") as output:
            process = subprocess.Popen(
                [python, HERE / "cases.py", settings, events],
                cwd=work,
                env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._wait(process)
        lines = events.read_text().splitlines() if events.exists() else []
        return self._read(f"{suite.name}, part {part}", lines, log.read_text(errors="replace"))

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(max(0, self._end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # Writes the stacks of all threads to the log.
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # Its children may be left.

    def _read(self, name: str, lines: list[str], log: str) -> Report:
        report = Report()
        outcomes: dict[str, str] = {}
        ended = False
        for event in map(json.loads, lines):
            if "under_test" in event:
                in_place = event["under_test"].startswith(PACKAGE)
                if in_place == self._options.unmodified:
                    report.fail(name, f"it ran on the futures of {event['under_test']}")
            elif "end" in event:
                ended = True
                if event["altered"]:
                    report.fail(name, f"a case left something behind:\n{log}")
            else:
                case, outcome = event["case"], event["outcome"]
                if outcome == "failed":
                    report.failures.append((case, event["detail"]))
                elif outcome == "left out":
                    report.patterns.add(event["detail"])
                if outcomes.get(case) != "failed":
                    outcomes[case] = outcome
        for case, outcome in outcomes.items():
            if outcome == "started":
                report.fail(case, f"it did not end; the process printed:\n{log}")
            else:
                report.counts[outcome] += 1
        if not ended and "started" not in outcomes.values():
            report.fail(name, f"the process ended early; it printed:\n{log}")
        return report


def own_tests() -> Path:
    """Return the place of this Python's `test` package, if there is one."""
    return Path(sysconfig.get_path("stdlib")) / "test"


def find_tests(suite: Suite) -> Path | None:
    """Find a `test` package of this version that has a suite: this Python's or the system's."""
    system = Path(f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}/test")
    path = Path(*suite.name.split(".")[1:])
    for tests in (own_tests(), system):
        if (tests / path).is_dir() or (tests / path).with_suffix(".py").exists():
            return tests
    return None


def installed_package() -> Path:
    """Return the folder of the installed package."""
    return Path(sysconfig.get_path("platlib")) / PACKAGE


def read_left_out() -> dict[str, set[str]]:
    """Return the patterns of the cases that are left out on this Python, by suite."""
    version = f"{platform.python_version()}."
    patterns: dict[str, set[str]] = {}
    for entry in tomllib.loads((HERE / "left_out.toml").read_text())["left_out"]:
        if any(version.startswith(f"{each}.") for each in entry["pythons"]):
            patterns.setdefault(entry["suite"], set()).update(entry["cases"])
    return patterns


def unmatched(left_out: dict[str, set[str]], suites: list[Suite], matched: set[str]) -> set[str]:
    """Return the patterns that match no case, although their suite is installed."""
    expected = [left_out.get(suite.name, set()) for suite in suites]
    return set().union(*expected) - matched


def how_to_install(version: str, missing: list[Suite]) -> str:
    """Return one line about the suites that this Python does not have."""
    names = ", ".join(suite.name for suite in missing)
    package = f"libpython{sys.version_info.major}.{sys.version_info.minor}-testsuite"
    return (
        f"{version}: not run, as its package `test` is not installed: {names}. "
        f"Install it with `apt-get install {package}` (Debian, Ubuntu) or "
        "`dnf install python3-test` (Fedora), or use a CPython built with its tests."
    )


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--unmodified", action="store_true", help="run on the standard library instead")
    add("--recording", action="store_true", help="record all pools meanwhile")
    add("--run-left-out", action="store_true", help="run what is left out, and only that")
    add("--only", default="*", help="a pattern of case ids")
    add("--time-limit", type=float, default=400, help="in seconds, for all together")
    add("--parallel-threads", type=int, default=0, metavar="N", help="run each case in N threads")
    add("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="processes at a time")
    options = parser.parse_args()
    if options.parallel_threads and sys.version_info < (3, 14):
        parser.error("CPython has cases in parallel threads from 3.14 on")
    return options


def main() -> int:
    """Run the suites that this Python has; print counts and failures."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background by a shell; what the tests start would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    options = parse_options()
    version = f"CPython {platform.python_version()}"
    left_out = read_left_out()
    start = time.monotonic()
    total = Report()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        runner = Runner(Path(folder), options, left_out)
        running = []
        missing = []
        # Those of asyncio have no case that can run in several threads.
        for suite in SUITES[:1] if options.parallel_threads else SUITES:
            tests = find_tests(suite)
            if tests is None:
                missing.append(suite)
            else:
                running.append((suite, runner.start(suite, tests, pool)))
        for suite, parts in running:
            report = Report()
            for part in parts:
                report.add(part.result())
            for name, detail in report.failures:
                print(f"FAILED {name}\n{textwrap.indent(detail, '    ')}")
            counts = ", ".join(f"{report.counts[each]} {each}" for each in OUTCOMES)
            print(f"{version}: {suite.name}: {counts}", flush=True)
            total.add(report)
    # In several threads, only some cases run.
    is_whole = options.only == "*" and not options.run_left_out and not options.parallel_threads
    if is_whole and total.counts:
        suites = [suite for suite, _ in running]
        for pattern in sorted(unmatched(left_out, suites, total.patterns)):
            total.fail(pattern, "")
            print(f"FAILED left_out.toml: {pattern} matches no case")
    if running and not total.counts:
        total.fail(options.only, "")
        print(f"FAILED no case is like {options.only}")
    counts = ", ".join(f"{total.counts[each]} {each}" for each in OUTCOMES[:3])
    print(f"{counts}\nin {time.monotonic() - start:.0f} s")
    if missing:
        print(how_to_install(version, missing))
    return 1 if total.counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
