"""Tests that the examples print the same under `python` and under `python -m concurrent_futures`.

Each program runs both ways, and both outputs must show the facts that the program is there to
show. Times, process ids and mostly the order of lines depend on chance: they are taken out of the
output before the two are compared. The programs are quick here, see `quick/sitecustomize.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import loopback
from programs import WAYS, Ended, Program, assert_same_both_ways, position, run

pytestmark = pytest.mark.once

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def sum_is_the_same_three_times(ended: Ended) -> None:
    results = [f"{factor} times the sum: {factor * 5050}" for factor in range(1, 11)]
    assert len(ended.lines) == 33
    ends = [at for at, line in enumerate(ended.lines) if line.endswith(" s")]
    assert ends == [10, 21, 32]
    assert ended.lines[:10] == results
    for end in ends:
        assert sorted(ended.lines[end - 10 : end]) == sorted(results)


def submit_many_prints_each_twice(ended: Ended) -> None:
    addresses = sorted(f"http://127.0.0.1/list?from={number}" for number in range(2000))
    lines = ended.lines
    assert sorted(lines[:2000]) == addresses
    assert lines[2000].startswith("ThreadPoolExecutor: ")
    assert sorted(lines[2001:4001]) == addresses
    assert lines[4001].startswith("ProcessPoolExecutor: ")
    assert len(lines) == 4002


def hello_prints_both_results_in_order(ended: Ended) -> None:
    # Usually False and True, but a busy machine may sleep longer.
    assert ended.lines[0] in ("hello is done: False", "hello is done: True")
    assert ended.lines[1] in ("world is done: False", "world is done: True")
    assert ended.lines[2:] == ["hello", "world"]


def load_url_prints_sizes_and_the_error(ended: Ended) -> None:
    missing = "/missing failed: HTTP Error 404: Not Found"
    pages = [page_line(number) for number in (1, 3)]
    assert sorted(ended.lines) == sorted([missing, *pages])


def page_line(number: int) -> str:
    return f"/page/{number} has {len(loopback.page(number))} bytes"


def map_lists_adds_the_numbers(ended: Ended) -> None:
    assert ended.lines == ["1 + 5 = 6", "2 + 6 = 8", "3 + 7 = 10"]


def map_urls_prints_sizes_in_order(ended: Ended) -> None:
    assert ended.lines == [page_line(number) for number in (1, 2, 3)]


def map_order_is_that_of_the_items(ended: Ended) -> None:
    middle = position(ended.lines, "as_completed:")
    first, second = ended.lines[1:middle], ended.lines[middle + 1 :]
    assert ended.lines[0] == "map:"
    arrivals = [line for line in first if line.startswith("arrival")]
    assert arrivals == ["arrival of 3 s", "arrival of 1 s", "arrival of 2 s"]
    for section in first, second:
        assert len(section) == 6
        for seconds in 1, 2, 3:
            end = position(section, f"end of {seconds} s")
            assert end < position(section, f"arrival of {seconds} s")


STAMP = r"^\d\d:\d\d:\d\d +"


def map_times_prints_results_in_the_order_of_the_tasks(ended: Ended) -> None:
    assert all(re.match(STAMP, line) for line in ended.lines)
    lines = [re.sub(STAMP, "", line) for line in ended.lines]
    assert len(lines) == 2 + 6 * 3
    assert lines[0] == "submit"
    before = position(lines, "all submitted")
    for number in range(6):
        start = position(lines, f"task {number} sleeps")
        end = position(lines, f"task {number} ends")
        result = position(lines, f"result {number} is {number * 10}")
        assert start < end < result
        assert before < result
        before = result


def primes_tells_the_primes(ended: Ended) -> None:
    assert ended.lines == [
        "112272535095293 is prime",
        "112582705942171 is prime",
        "112272535095293 is prime",
        "115280095190773 is prime",
        "115797848077099 is prime",
        "1099726899285419 is a multiple of 3306091",
    ]


def shutdown_finishes_the_tasks_with_and_without_waiting(ended: Ended) -> None:
    runs = [f"task {number} runs" for number in range(5)]
    middle = position(ended.lines, "without waiting:")
    waited, after = ended.lines[:middle], ended.lines[middle + 1 :]
    assert waited[0] == "with waiting:"
    assert sorted(waited[1:6]) == runs
    # Three rounds, for there are two workers.
    assert duration(waited[6]) >= 3 * 0.05
    assert len(waited) == 7
    assert sorted(line for line in after if line.startswith("task ")) == runs
    assert len([duration(line) for line in after if not line.startswith("task ")]) == 1


def duration(line: str) -> float:
    return float(line.removeprefix("shutdown took ").removesuffix(" s"))


def first_completed_divides_done_and_not_done(ended: Ended) -> None:
    done = states([line for line in ended.lines if line.startswith("done: ")])
    not_done = states([line for line in ended.lines if line.startswith("not done: ")])
    assert set(done) == {"finished returned int"}
    assert set(not_done) <= {"pending", "running", "finished returned int"}
    assert len(done) + len(not_done) == 3
    ends = [line for line in ended.lines if line.startswith("end of ")]
    assert sorted(ends) == ["end of 1 s", "end of 2 s", "end of 3 s"]
    assert len(ended.lines) == 6
    assert ended.lines[0] in ends


def states(lines: list[str]) -> list[str]:
    text = "\n".join(lines)
    return re.findall(r"<Future at 0x[0-9a-f]+ state=([A-Za-z ]+)>", text)


def squares_of_processes(ended: Ended) -> None:
    pids = squares(ended)
    assert ended.pid not in pids
    assert len(pids) <= 3


def squares_of_threads(ended: Ended) -> None:
    assert squares(ended) == {ended.pid}


def squares(ended: Ended) -> set[int]:
    """Checks the results and their order; returns the processes that computed them."""
    assert ended.lines[11:] == ["the pool is shut down", *(str(n**2) for n in range(11))]
    tasks = [re.fullmatch(r"process (\d+) squares (\d+)", line) for line in ended.lines[:11]]
    assert sorted(int(task[2]) for task in tasks if task) == list(range(11))
    return {int(task[1]) for task in tasks if task}


def callbacks_run_where_they_were_added(ended: Ended) -> None:
    assert len(ended.lines) == 10
    written = []
    for number in range(1, 6):
        url = f"{ended.server}/page/{number}"
        written.append(f"{url} has {len(loopback.page(number))} characters")
        (load,) = (line for line in ended.lines if line.endswith(f" loads {url}"))
        assert load != f"process {ended.pid} loads {url}"
        record = position(ended.lines, f"process {ended.pid} records {url}")
        assert ended.lines.index(load) < record
    assert sorted((ended.folder / "pages.txt").read_text().splitlines()) == written


def download_prints_and_saves_each_picture(ended: Ended) -> None:
    pictures = {f"{n}.jpg": loopback.picture(n) for n in loopback.PICTURES}
    assert ended.lines[:-1] == [
        f"{name} has {len(picture)} bytes" for name, picture in pictures.items()
    ]
    assert ended.lines[-1].startswith("30 pictures in ")
    files = {file.name: file.read_bytes() for file in (ended.folder / "pictures").iterdir()}
    assert files == pictures


SECONDS = ((r"\d+\.\d+ s$", "N s"),)
PID = (r"^process \d+", "process N")
FUTURE = (r"^(not )?done: .*", "a future")


def program(
    file: str,
    facts: Callable[[Ended], None],
    *arguments: str,
    second: float = 0.05,
    ordered: bool = False,
    free: tuple[tuple[str, str], ...] = (),
) -> Program:
    return Program(EXAMPLES / file / "main.py", facts, arguments, second, ordered, free)


PROGRAMS = [
    program("sum", sum_is_the_same_three_times, "100", ordered=True, free=SECONDS),
    program("submit_many", submit_many_prints_each_twice, "2000", second=0, free=SECONDS),
    program(
        "hello",
        hello_prints_both_results_in_order,
        ordered=True,
        free=(("(True|False)$", "or not"),),
    ),
    program("load_url", load_url_prints_sizes_and_the_error),
    program("map_lists", map_lists_adds_the_numbers, ordered=True),
    program("map_urls", map_urls_prints_sizes_in_order, ordered=True),
    program("map_order", map_order_is_that_of_the_items),
    program("map_times", map_times_prints_results_in_the_order_of_the_tasks, free=((STAMP, ""),)),
    program("primes", primes_tells_the_primes, ordered=True),
    program("shutdown", shutdown_finishes_the_tasks_with_and_without_waiting, free=SECONDS),
    program("first_completed", first_completed_divides_done_and_not_done, free=(FUTURE,)),
    program("squares", squares_of_processes, free=(PID,)),
    program("squares", squares_of_processes, "map", free=(PID,)),
    program("squares", squares_of_threads, "threads", free=(PID,)),
    program("squares", squares_of_threads, "threads", "map", free=(PID,)),
    program("callbacks", callbacks_run_where_they_were_added, free=(PID,)),
    program("download", download_prints_and_saves_each_picture, "loop", free=SECONDS),
    program("download", download_prints_and_saves_each_picture, "threads", free=SECONDS),
    program("download", download_prints_and_saves_each_picture, "processes", free=SECONDS),
]
WITH_PROCESSES = [
    program
    for program in PROGRAMS
    if "ProcessPool" in program.file.read_text() and "threads" not in program.arguments
]


def name(program: Program) -> str:
    return "-".join([program.file.parent.name, *program.arguments])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with loopback.serve() as address:
        yield address


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
    files = set(EXAMPLES.glob("*/*.py"))
    assert files == {program.file for program in PROGRAMS} | {EXAMPLES / "processes/main.py"}


def test_every_program_exists_in_both_languages() -> None:
    def folders(file: str) -> set[str]:
        return {path.parent.name for path in EXAMPLES.glob(f"*/{file}")}

    assert folders("main.py") == folders("main.rs")


def test_processes_counts_the_same_primes_and_survives_crashes(tmp_path: Path, server: str) -> None:
    program = Program(EXAMPLES / "processes/main.py", processes_counts_primes, ("10000",))
    ended = run(program, "python", tmp_path / "folder", server)
    assert (ended.code, re.sub(r"^Fatal Python error.*", "", ended.errors, flags=re.S)) == (0, "")
    program.facts(ended)


def processes_counts_primes(ended: Ended) -> None:
    ways = ["one after another", "threads", "processes"]
    for line, way in zip(ended.lines, ways, strict=False):
        assert line.startswith(f"{way}:")
        assert "1229 primes" in line
    assert ended.lines[3] == "200 tasks: 195 results, 5 crashes:"
    assert len(ended.lines) == 9
    for crash in ended.lines[4:]:
        assert re.fullmatch(r"  worker process \d+ was killed by signal 6 \(SIGABRT\) .*", crash)


def test_a_page_that_is_missing_ends_map_the_same_both_ways(tmp_path: Path, server: str) -> None:
    program = Program(EXAMPLES / "map_urls/main.py", map_urls_prints_sizes_in_order)
    for way in WAYS:
        ended = run(program, way, tmp_path / way, server + "/missing")
        assert (ended.code, ended.lines) == (1, [])
        assert ended.errors.startswith("Traceback (most recent call last):\n")
        assert ended.errors.endswith("urllib.error.HTTPError: HTTP Error 404: Not Found\n")
        # Of the program itself: the loop that asks, and the task that failed.
        frames = re.findall(r'main.py", line \d+, in (.*)', ended.errors)
        assert frames == ["<module>", "load"]


def test_a_failing_callback_is_logged_the_same_both_ways(tmp_path: Path, server: str) -> None:
    program = Program(EXAMPLES / "callbacks/main.py", callbacks_run_where_they_were_added)
    for way in WAYS:
        ended = run(program, way, tmp_path / way, server + "/missing")
        assert (ended.code, len(ended.lines)) == (0, 5)
        logged = re.findall(r"^exception calling callback for .*$", ended.errors, re.MULTILINE)
        assert states(logged) == ["finished raised TypeError"] * 5
        # The error of urllib has an open connection, which cannot be pickled.
        assert "\nTypeError: cannot pickle" in ended.errors
        assert not (ended.folder / "pages.txt").exists()
