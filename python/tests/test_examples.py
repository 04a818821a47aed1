"""The tutorials' programs print the same under `python` and under `python -m concurrent_futures`.

Each program is run both ways, and both must show the facts that it is there to show. What is left
to chance is taken out of the output before the two are compared: times, process ids, and for most
programs the order of the lines. The programs are quick here, see `quick/sitecustomize.py`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import loopback

TESTS = Path(__file__).resolve().parent
EXAMPLES = TESTS.parents[1] / "examples"

WAYS = {"python": [], "package": ["-m", "concurrent_futures"]}

# How long a program may take. Long, for the machine may be busy: then it hangs.
LIMIT = 60


@dataclass(frozen=True)
class Ended:
    """What a program has left."""

    pid: int
    code: int
    lines: list[str]
    errors: str
    folder: Path
    server: str


@dataclass(frozen=True)
class Program:
    """A program, and what is known of its output."""

    file: str
    facts: Callable[[Ended], None]
    arguments: tuple[str, ...] = ()
    second: float = 0.05
    ordered: bool = False
    free: tuple[tuple[str, str], ...] = ()

    def comparable(self, ended: Ended) -> list[str]:
        """The lines without what is left to chance."""
        lines = ended.lines
        for pattern, replacement in self.free:
            lines = [re.sub(pattern, replacement, line) for line in lines]
        return lines if self.ordered else sorted(lines)


def run(
    program: Program, way: str, folder: Path, server: str, start_method: str | None = None
) -> Ended:
    """Runs a program in a new folder, and waits for its end and that of its processes."""
    folder.mkdir()
    environment = os.environ | {
        "EXAMPLES_SERVER": server,
        "EXAMPLES_SECOND": str(program.second),
        "PYTHONPATH": str(TESTS / "quick"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "no_proxy": "127.0.0.1",
    }
    if start_method is not None:
        environment["EXAMPLES_START_METHOD"] = start_method
    process = subprocess.Popen(
        [sys.executable, *WAYS[way], str(EXAMPLES / program.file), *program.arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        # The signal makes them tell where their threads are.
        os.killpg(process.pid, signal.SIGABRT)
        output, errors = process.communicate()
        pytest.fail(f"{program.file} hangs under {way}:\n{output}\n{errors}")
    return Ended(process.pid, process.returncode, output.splitlines(), errors, folder, server)


def position(lines: list[str], line: str) -> int:
    """Where a line is; it must be there once."""
    assert lines.count(line) == 1, (line, lines)
    return lines.index(line)


def sum_is_the_same_three_times(ended: Ended) -> None:
    results = [f"number {number}, result {number * 5050}" for number in range(1, 11)]
    assert len(ended.lines) == 33
    ends = [at for at, line in enumerate(ended.lines) if line.endswith(" s")]
    assert ends == [10, 21, 32]
    assert ended.lines[:10] == results
    for end in ends:
        assert sorted(ended.lines[end - 10 : end]) == sorted(results)


def submit_urls_prints_each_twice(ended: Ended) -> None:
    urls = sorted(f"{ended.server}/board/4?offset={page}" for page in range(2000))
    lines = ended.lines
    assert sorted(lines[:2000]) == urls
    assert lines[2000].startswith("pool of 5 threads: ")
    assert sorted(lines[2001:4001]) == urls
    assert lines[4001].startswith("pool of 5 processes: ")
    assert len(lines) == 4002


def hello_prints_both_results_in_order(ended: Ended) -> None:
    # Usually False and True, but a busy machine may sleep longer.
    assert set(ended.lines[:2]) <= {"False", "True"}
    assert ended.lines[2:] == ["hello", "world"]


def load_url_prints_sizes_and_the_error(ended: Ended) -> None:
    missing = f"'{ended.server}/missing' generated an exception: HTTP Error 404: Not Found"
    pages = [page_line(ended, number) for number in (1, 3)]
    assert sorted(ended.lines) == sorted([missing, *pages])


def page_line(ended: Ended, number: int) -> str:
    size = len(loopback.page(number))
    return f"'{ended.server}/page/{number}' page is {size} bytes"


def map_lists_adds_the_numbers(ended: Ended) -> None:
    assert ended.lines == ["1 + 5 = 6", "2 + 6 = 8", "3 + 7 = 10"]


def map_urls_prints_sizes_in_order(ended: Ended) -> None:
    assert ended.lines == [page_line(ended, number) for number in (1, 2, 3)]


def map_order_is_that_of_the_items(ended: Ended) -> None:
    middle = position(ended.lines, "as_completed")
    first, second = ended.lines[1:middle], ended.lines[middle + 1 :]
    assert ended.lines[0] == "map"
    done = [line for line in first if line.startswith("Done")]
    assert done == ["Done-- 3", "Done-- 1", "Done-- 2"]
    for section in first, second:
        assert len(section) == 6
        for times in 1, 2, 3:
            get = position(section, f"Get-- {times}")
            assert get < position(section, f"Done-- {times}")


# Before a line there can be time stamps of other threads: the program prints them by themselves.
STAMPS = r"^(\d\d:\d\d:\d\d )*"
ITERATOR = r"<.* at 0x[0-9a-f]+>"


def map_times_prints_results_in_the_order_of_the_tasks(ended: Ended) -> None:
    assert len(ended.lines) == 3 + 6 * 3
    assert len(re.findall(r"\d\d:\d\d:\d\d ", "\n".join(ended.lines))) == len(ended.lines)
    lines = [re.sub(STAMPS, "", line).strip() for line in ended.lines]
    lines = [re.sub(ITERATOR, "iterator", line) for line in lines]
    assert lines[0] == "********** Starting **********"
    position(lines, "Results: iterator")
    before = position(lines, "Waiting for individual results:")
    for n in range(6):
        start = position(lines, f"wait({n}): doing nothing for {n}s...")
        done = position(lines, f"wait({n}) done.")
        result = position(lines, f"result {n}:iterator")
        assert start < done < result
        assert before < result
        before = result


def primes_tells_the_primes(ended: Ended) -> None:
    assert ended.lines == [
        "112272535095293 is prime: True",
        "112582705942171 is prime: True",
        "112272535095293 is prime: True",
        "115280095190773 is prime: True",
        "115797848077099 is prime: True",
        "1099726899285419 is prime: False",
    ]


def shutdown_finishes_the_tasks_with_and_without_waiting(ended: Ended) -> None:
    names = [f"name task-{number}" for number in range(5)]
    middle = position(ended.lines, "shutdown, wait: False")
    waited, after = ended.lines[:middle], ended.lines[middle + 1 :]
    assert waited[0] == "shutdown, wait: True"
    assert sorted(waited[1:6]) == names
    # Three rounds, for there are two workers.
    assert cost(waited[6]) >= 3 * 0.05
    assert len(waited) == 7
    assert sorted(line for line in after if line.startswith("name ")) == names
    assert len([cost(line) for line in after if not line.startswith("name ")]) == 1


def cost(line: str) -> float:
    return float(line.removeprefix("cost: "))


def first_completed_divides_done_and_not_done(ended: Ended) -> None:
    (divided,) = (line for line in ended.lines if line.startswith("DoneAndNotDoneFutures("))
    match = re.fullmatch(
        r"DoneAndNotDoneFutures\(done=\{(.*)\}, not_done=(?:\{(.*)\}|set\(\))\)", divided
    )
    assert match is not None, divided
    done, not_done = (states(futures) for futures in match.groups(default=""))
    assert set(done) == {"finished returned int"}
    assert set(not_done) <= {"pending", "running", "finished returned int"}
    assert len(done) + len(not_done) == 3
    gets = [line for line in ended.lines if line.startswith("Get-- ")]
    assert sorted(gets) == ["Get-- 1", "Get-- 2", "Get-- 3"]
    assert ended.lines.index(gets[0]) < ended.lines.index(divided) < position(ended.lines, "main")
    assert len(ended.lines) == 5


def states(futures: str) -> list[str]:
    return re.findall(r"<Future at 0x[0-9a-f]+ state=([A-Za-z ]+)>", futures)


def squares_of_processes(ended: Ended) -> None:
    pids = squares(ended)
    assert ended.pid not in pids
    assert len(pids) <= 3


def squares_of_threads(ended: Ended) -> None:
    assert squares(ended) == {ended.pid}


def squares(ended: Ended) -> set[int]:
    """Checks the order of the results; returns the processes that have computed them."""
    assert ended.lines[11:] == ["+++>", *(str(n**2) for n in range(11))]
    return runners(ended.lines[:11])


def runners(lines: list[str]) -> set[int]:
    return {int(line.removesuffix(" is running")) for line in lines}


def every_task_runs_though_nobody_takes_the_results(ended: Ended) -> None:
    assert runners(ended.lines) == {ended.pid}
    assert len(ended.lines) == 11


def callbacks_run_where_they_were_added(ended: Ended) -> None:
    assert len(ended.lines) == 10
    db = []
    for number in range(1, 6):
        url = f"{ended.server}/page/{number}"
        db.append(f"url:<{url}> size:[{len(loopback.page(number))}]")
        (get,) = (line for line in ended.lines if line.endswith(f"> get {url}"))
        assert not get.startswith(f"<process {ended.pid}>")
        parse = position(ended.lines, f"<process {ended.pid}> parse {url}")
        assert ended.lines.index(get) < parse
    assert sorted((ended.folder / "db.txt").read_text().splitlines()) == db


def download_prints_and_saves_each_picture(ended: Ended) -> None:
    pictures = {loopback.picture_name(n): loopback.picture(n) for n in loopback.PICTURES}
    assert sorted(ended.lines[:30]) == sorted(map(str, pictures.values()))
    assert ended.lines[30] == ""
    assert ended.lines[31].startswith(" download 30 images in ")
    assert len(ended.lines) == 32
    files = {file.name: file.read_bytes() for file in (ended.folder / "pictures").iterdir()}
    assert files == pictures


NUMBER = r"\d+\.\d+(e-\d+)?"
SECONDS = ((NUMBER + r" ?s$", "N s"),)
PID = r"^\d+ is"
FUTURES = r"^(DoneAndNotDoneFutures)\(.*\)$"

PROGRAMS = [
    Program("sum/main.py", sum_is_the_same_three_times, ("100",), free=SECONDS),
    Program("submit_urls/main.py", submit_urls_prints_each_twice, ("2000",), 0, free=SECONDS),
    Program(
        "hello/main.py",
        hello_prints_both_results_in_order,
        ordered=True,
        free=(("^(True|False)$", "done or not"),),
    ),
    Program("load_url/main.py", load_url_prints_sizes_and_the_error),
    Program("map_lists/main.py", map_lists_adds_the_numbers, ordered=True),
    Program("map_urls/main.py", map_urls_prints_sizes_in_order, ordered=True),
    Program("map_order/main.py", map_order_is_that_of_the_items),
    Program(
        "map_times/main.py",
        map_times_prints_results_in_the_order_of_the_tasks,
        free=((STAMPS, ""), (ITERATOR, "iterator")),
    ),
    Program("primes/main.py", primes_tells_the_primes, ordered=True),
    Program(
        "shutdown/main.py",
        shutdown_finishes_the_tasks_with_and_without_waiting,
        free=(("cost: " + NUMBER, "cost: N"),),
    ),
    Program(
        "first_completed/main.py",
        first_completed_divides_done_and_not_done,
        free=((FUTURES, r"\1"),),
    ),
    Program("squares/main.py", squares_of_processes, ordered=True, free=((PID, "N is"),)),
    Program("squares/threads.py", squares_of_threads, ordered=True, free=((PID, "N is"),)),
    Program(
        "squares/mapped.py",
        every_task_runs_though_nobody_takes_the_results,
        ordered=True,
        free=((PID, "N is"),),
    ),
    Program("callbacks/main.py", callbacks_run_where_they_were_added, free=((r"\d+>", "N>"),)),
    Program(
        "download/one_after_another.py",
        download_prints_and_saves_each_picture,
        ordered=True,
        free=SECONDS,
    ),
    Program("download/main.py", download_prints_and_saves_each_picture, free=SECONDS),
    Program("download/processes.py", download_prints_and_saves_each_picture, free=SECONDS),
]
WITH_PROCESSES = [
    program for program in PROGRAMS if "ProcessPool" in (EXAMPLES / program.file).read_text()
]


def name(program: Program) -> str:
    return program.file.removesuffix(".py")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with loopback.serve() as address:
        yield address


def assert_same_both_ways(
    program: Program, folder: Path, server: str, start_method: str | None = None
) -> None:
    ended = {way: run(program, way, folder / way, server, start_method) for way in WAYS}
    for one in ended.values():
        assert (one.code, one.errors) == (0, "")
        program.facts(one)
    assert program.comparable(ended["python"]) == program.comparable(ended["package"])


@pytest.mark.parametrize("program", PROGRAMS, ids=name)
def test_a_program_prints_the_same_both_ways(program: Program, tmp_path: Path, server: str) -> None:
    assert_same_both_ways(program, tmp_path, server)


# Such workers read the program anew, and have to find it.
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
@pytest.mark.parametrize("program", WITH_PROCESSES, ids=name)
def test_workers_that_read_the_program_anew_find_it(
    program: Program, start_method: str, tmp_path: Path, server: str
) -> None:
    assert_same_both_ways(program, tmp_path, server, start_method)


def test_every_program_is_tested() -> None:
    files = {str(file.relative_to(EXAMPLES)) for file in EXAMPLES.glob("*/*.py")}
    assert files == {program.file for program in PROGRAMS}


def test_a_page_that_is_missing_ends_map_the_same_both_ways(tmp_path: Path, server: str) -> None:
    program = Program("map_urls/main.py", map_urls_prints_sizes_in_order)
    for way in WAYS:
        ended = run(program, way, tmp_path / way, server + "/missing")
        assert (ended.code, ended.lines) == (1, [])
        assert ended.errors.startswith("Traceback (most recent call last):\n")
        assert ended.errors.endswith("urllib.error.HTTPError: HTTP Error 404: Not Found\n")
        # Of the program itself: the loop that asks, and the task that failed.
        frames = re.findall(r'main.py", line \d+, in (.*)', ended.errors)
        assert frames == ["<module>", "load_url"]


def test_a_callback_that_fails_is_told_the_same_both_ways(tmp_path: Path, server: str) -> None:
    program = Program("callbacks/main.py", callbacks_run_where_they_were_added)
    for way in WAYS:
        ended = run(program, way, tmp_path / way, server + "/missing")
        assert (ended.code, len(ended.lines)) == (0, 5)
        told = re.findall(r"^exception calling callback for (.*)$", ended.errors, re.MULTILINE)
        assert [states(future) for future in told] == [["finished returned NoneType"]] * 5
        assert ended.errors.count("TypeError: 'NoneType' object is not subscriptable") == 5
        assert not (ended.folder / "db.txt").exists()
