"""Runs some test cases of CPython in the interpreter under test, for `run.py`.

    python cases.py SETTINGS.json EVENTS.jsonl

The events tell when each case starts and what becomes of it. Each event is one line, written at
once, so that a case that hangs or crashes is known by name. CPython's own runner is not used, as
its options, its sense of success and its output differ from version to version.
"""

import faulthandler
import fnmatch
import functools
import importlib
import json
import sys
import traceback
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

#: The cases that can run in several threads at once, with the standard library as well. Cases of
#: processes reap each other's children, and those of asyncio share a context.
PARALLEL = ["*.ThreadPool*", "*.FutureTests.*"]
#: Of these, the cases that set something global: a handler, a variable, the standard error. The
#: process of the last one is reaped by the others.
ALONE = [
    "*.test_hang_gh94440",
    "*InitializerTest.test_*",
    "*.test_done_callback_raises*",
    "*.test_process_fork_from_a_threadpool",
]

Error = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Recorder(unittest.TestResult):
    """Writes the result of each case."""

    def __init__(self, events: IO[str]) -> None:
        super().__init__()
        self._events = events

    def write(self, **event: object) -> None:
        """Write one event."""
        print(json.dumps(event), file=self._events, flush=True)

    def _write_outcome(self, test: Any, outcome: str, detail: str = "") -> None:
        case = getattr(test, "test_case", test)  # Of a subtest or of a case in threads, the case.
        self.write(case=case.id(), outcome=outcome, detail=detail)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        if hasattr(test, "num_threads"):
            # CPython's class for such cases puts what came of them into these lists itself.
            for _, detail in [*self.errors, *self.failures]:
                self._write_outcome(test, "failed", detail)
            for _, reason in self.skipped:
                self._write_outcome(test, "skipped", reason)
        for each in (self.errors, self.failures, self.skipped):
            each.clear()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._write_outcome(test, "started")

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self._write_outcome(test, "passed")

    def addError(self, test: unittest.TestCase, err: Error) -> None:
        super().addError(test, err)
        self._write_outcome(test, "failed", _format(err))

    def addFailure(self, test: unittest.TestCase, err: Error) -> None:
        super().addFailure(test, err)
        self._write_outcome(test, "failed", _format(err))

    def addSubTest(
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: Error | None
    ) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._write_outcome(test, "failed", f"{subtest}\n{_format(err)}")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._write_outcome(test, "skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Error) -> None:
        super().addExpectedFailure(test, err)
        self._write_outcome(test, "passed")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self._write_outcome(test, "failed", "it was expected to fail")


def _format(err: Error) -> str:
    return "".join(traceback.format_exception(err[1]))


def flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield the cases of a suite and of the suites in it."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


@functools.cache
def class_for_threads(own: Any) -> Any:
    """Return CPython's class for cases in several threads, with the set-up of a class of cases."""
    base: Any = importlib.import_module("test.libregrtest.parallel_case").ParallelTestCase

    def clean_up(made: Any) -> None:
        own.doClassCleanups()
        made.tearDown_exceptions = own.tearDown_exceptions

    found = {
        "__module__": own.__module__,
        "__qualname__": own.__qualname__,
        "setUpClass": own.setUpClass,
        "tearDownClass": own.tearDownClass,
        "doClassCleanups": classmethod(clean_up),
    }
    return type(own.__name__, (base,), found)


def in_threads(case: unittest.TestCase, threads: int) -> unittest.TestCase:
    """Return a case that runs in several threads at once, as by CPython's `--parallel-threads`."""
    method = getattr(case, case._testMethodName)
    if any(getattr(each, "__unittest_thread_unsafe__", False) for each in (method, case)):
        return case
    own: Any = type(case)
    made: unittest.TestCase = class_for_threads(own)(case, threads)
    return made


def is_like(case: unittest.TestCase, patterns: list[str]) -> bool:
    """Return whether the id of a case matches a pattern."""
    return any(fnmatch.fnmatchcase(case.id(), pattern) for pattern in patterns)


def choose(settings: dict[str, Any], recorder: Recorder) -> Iterator[unittest.TestCase]:
    """Yield the cases of this part; note those that are left out."""
    cases = list(flatten(unittest.defaultTestLoader.loadTestsFromName(settings["suite"])))
    classes = sorted({(type(case).__module__, type(case).__qualname__) for case in cases})
    mine = classes[settings["part"] :: settings["parts"]]
    for each in mine:
        for case in cases:
            if (type(case).__module__, type(case).__qualname__) != each:
                continue
            left_out = [p for p in settings["left_out"] if fnmatch.fnmatchcase(case.id(), p)]
            if bool(left_out) != settings["run_left_out"]:
                for pattern in left_out:
                    recorder.write(case=case.id(), outcome="left out", detail=pattern)
            elif fnmatch.fnmatchcase(case.id(), settings["only"]):
                threads = settings["threads"]
                if not threads:
                    yield case
                elif is_like(case, PARALLEL) and not is_like(case, ALONE):
                    yield in_threads(case, threads)


def main(settings_file: str, events_file: str) -> None:
    """Run the cases that the settings ask for."""
    faulthandler.enable()
    settings = json.loads(Path(settings_file).read_text())
    # In the environment of the tests, so not known to a type checker.
    support: Any = importlib.import_module("test.support")
    support.use_resources = ["cpu", "subprocess", "walltime"]
    support.verbose = False
    future = importlib.import_module("concurrent.futures").Future
    with open(events_file, "w") as events:
        recorder = Recorder(events)
        recorder.write(under_test=future.__module__)
        unittest.TestSuite(choose(settings, recorder)).run(recorder)
        # Threads or processes were left behind, for example.
        # (Cases in several threads count the threads of the others.)
        altered = support.environment_altered and not settings["threads"]
        recorder.write(end=True, altered=altered)


if __name__ == "__main__":
    main(*sys.argv[1:])
