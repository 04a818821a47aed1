"""Tests that the tutorials' own programs print the same under `python` and `python -m
concurrent_futures`.

The tutorials lie beside the project, in `../shared/seeds`, or in the folder that `TUTORIALS`
names. Their programs are not ours, so the tests take the code blocks out of the documents. Each
program runs as it is written there, but with addresses of the loopback server.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import loopback
from programs import Ended, Program, assert_same_both_ways, position

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("TUTORIALS", ROOT.parent / "shared/seeds"))

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        not any(FOLDER.glob("*.txt")), reason=f"the tutorials are not there: {FOLDER}"
    ),
]

FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
# A line that a web page puts between its code blocks.
SEPARATOR = re.compile(r"^复制代码$", re.MULTILINE)
ADDRESS = re.compile(r"https?://([\w.-]+)(/[^\s'\"]*)?")


def blocks(document: int) -> list[str]:
    """Returns the code blocks of a document."""
    (path,) = FOLDER.glob(f"{document:03}_*.txt")
    fenced = FENCE.findall(path.read_text(encoding="utf-8"))
    return [block.strip("\n") for text in fenced for block in SEPARATOR.split(text)]


def block(document: int, *marks: str) -> str:
    """Returns the first code block of a document that has all marks."""
    for text in blocks(document):
        if all(mark in text for mark in marks):
            return text + "\n"
    raise AssertionError(f"document {document} has no code block with {marks}")


def on_loopback(text: str, server: str) -> str:
    """Returns the text with all addresses replaced by the server's."""

    def turned(match: re.Match[str]) -> str:
        host, path = match.groups()
        return server + (path if path not in (None, "/") else f"/host/{host}")

    return ADDRESS.sub(turned, text)


@dataclass(frozen=True)
class Tutorial:
    """A program of a tutorial: its files by name, and the known parts of its output."""

    name: str
    files: Callable[[], dict[str, str]]
    facts: Callable[[Ended], None]
    second: float = 0.05
    free: tuple[tuple[str, str], ...] = field(default=())
    folders: tuple[str, ...] = ()


def single(
    document: int, *marks: str, change: tuple[str, str] | None = None
) -> Callable[..., dict[str, str]]:
    """Returns a function that takes a program of one block, changed as the tutorial suggests."""

    def files() -> dict[str, str]:
        text = block(document, *marks)
        if change is not None:
            assert change[0] in text
            text = text.replace(*change)
        return {"program.py": text}

    return files


def submit_urls(executor: str) -> dict[str, str]:
    # A hundredth of the addresses, which all cost a task each. Tabs and spaces are mixed.
    urls = block(0, "urls = [").replace("100000", "1000")
    return {"program.py": urls + block(0, f"futures.{executor}").expandtabs(4)}


def wait_for_first() -> dict[str, str]:
    imports = "import time\nfrom concurrent.futures import *\n"
    return {"program.py": imports + block(2, "FIRST_COMPLETED)", "def worker").expandtabs(4)}


MODULE = "a5_4_downloadimage.py"  # the name under which the next program imports the first


def downloads_with_threads() -> dict[str, str]:
    return {MODULE: block(4, "DOWNNLOAD_DIR ="), "program.py": block(4, "a5_4_downloadimage")}


def downloads_with_processes() -> dict[str, str]:
    files = downloads_with_threads()
    fragments = [text for text in blocks(4) if text.startswith("def download_multiple")]
    old, new = (text.expandtabs(2) for text in fragments)
    assert old in files["program.py"]
    return files | {"program.py": files["program.py"].replace(old, new)}


def prints_all_urls(ended: Ended) -> None:
    urls = [f"{ended.server}/board/4?offset={page}" for page in range(1000)]
    assert sorted(ended.lines[:-1]) == sorted(urls)


def prints_both_results(ended: Ended) -> None:
    assert set(ended.lines[:2]) <= {"False", "True"}
    assert ended.lines[2:] == ["hello", "world"]


def prints_three_sizes(ended: Ended) -> None:
    lines = [re.fullmatch(r"'(.*)' page is \d+ bytes", line) for line in ended.lines]
    assert len({line[1] for line in lines if line}) == 3
    assert len(lines) == 3


def adds_the_lists(ended: Ended) -> None:
    assert ended.lines == ["1 + 5 = 6", "2 + 6 = 8", "3 + 7 = 10"]


def yields_in_the_order_of_the_items(ended: Ended) -> None:
    yields_each(ended)
    done = [line for line in ended.lines if line.startswith("Done")]
    assert done == ["Done-- 3", "Done-- 1", "Done-- 2"]


def yields_each(ended: Ended) -> None:
    for seconds in 1, 2, 3:
        get = position(ended.lines, f"Get-- {seconds}")
        assert get < position(ended.lines, f"Done-- {seconds}")
    assert len(ended.lines) == 6


def tells_five_primes(ended: Ended) -> None:
    answers = [line.rsplit(": ", 1)[1] for line in ended.lines]
    assert answers == ["True"] * 5 + ["False"]


def runs_five_tasks(ended: Ended) -> None:
    assert len([line for line in ended.lines if line.startswith("cost: ")]) == 1
    for number in range(5):
        position(ended.lines, f"name task-{number}")


def divides_the_futures(ended: Ended) -> None:
    (groups,) = (line for line in ended.lines if line.startswith("DoneAndNotDoneFutures("))
    assert groups.count("<Future at 0x") == 3
    assert "state=finished returned int" in groups.split("not_done")[0]
    assert ended.lines.index(groups) < position(ended.lines, "main")


def squares_in_processes(ended: Ended) -> None:
    assert ended.lines[11:] == ["+++>", *(str(number**2) for number in range(11))]
    assert ended.pid not in runners(ended)


def squares_in_threads(ended: Ended) -> None:
    assert ended.lines[11:] == ["+++>", *(str(number**2) for number in range(11))]
    assert set(runners(ended)) == {ended.pid}


def runs_eleven_tasks(ended: Ended) -> None:
    assert runners(ended) == Counter({ended.pid: 11})


def runners(ended: Ended) -> Counter[int]:
    pids = (re.fullmatch(r"(\d+) is run+ing", line) for line in ended.lines)
    return Counter(int(pid[1]) for pid in pids if pid)


def parses_five_pages(ended: Ended) -> None:
    written = (ended.folder / "db.txt").read_text().splitlines()
    assert len(set(written)) == 5
    for line in written:
        url = line.removeprefix("url:<").split(">")[0]
        (get,) = (line for line in ended.lines if line.endswith(f"> get {url}"))
        (parse,) = (line for line in ended.lines if line.endswith(f"> parse {url}"))
        assert str(ended.pid) not in get.split(">")[0]
        assert str(ended.pid) in parse.split(">")[0]
    assert len(ended.lines) == 10


def saves_thirty_pictures(ended: Ended) -> None:
    pictures = {loopback.tutorial_name(n): loopback.picture(n) for n in loopback.PICTURES}
    (folder,) = ended.folder.iterdir()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == pictures
    assert ended.lines[-1].startswith(" download 30 images in ")


def stamps_all_results(ended: Ended) -> None:
    # A stamp and its text are printed apart, so stamps of several threads can come first.
    lines = [re.sub(STAMPS[0], "", line) for line in ended.lines]
    places = [next(i for i, line in enumerate(lines) if f"result {n}:<" in line) for n in range(6)]
    assert places == sorted(places)
    assert len(lines) == 3 + 6 * 3


NUMBER = r"\d+\.\d+(e-\d+)?"
STAMPS = (r"^(\d\d:\d\d:\d\d )*", "")
PID = (r"\d+(?= is run|>)", "N")
PICTURE_FOLDER = (r"D:\downloadimage",)

TUTORIALS = [
    Tutorial(
        "submit_urls_to_threads",
        lambda: submit_urls("ThreadPoolExecutor"),
        prints_all_urls,
        0,
        ((NUMBER, "N"),),
    ),
    Tutorial(
        "submit_urls_to_processes",
        lambda: submit_urls("ProcessPoolExecutor"),
        prints_all_urls,
        0,
        ((NUMBER, "N"),),
    ),
    Tutorial(
        "hello",
        single(1, "return_future_result"),
        prints_both_results,
        free=(("True|False", "or not"),),
    ),
    Tutorial("load_url", single(1, "future_to_url"), prints_three_sizes),
    Tutorial("map_lists", single(1, "test_function"), adds_the_lists),
    Tutorial("map_urls", single(1, "future_dic"), prints_three_sizes),
    Tutorial("map_order", single(2, "executor.map(worker"), yields_in_the_order_of_the_items),
    Tutorial("as_completed", single(2, "in as_completed("), yields_each),
    Tutorial("primes", single(2, "PRIMES"), tells_five_primes),
    Tutorial("shutdown", single(2, "wait=True", "task-"), runs_five_tasks, free=((NUMBER, "N"),)),
    Tutorial(
        "shutdown_without_waiting",
        single(2, "wait=True", "task-", change=("wait=True", "wait=False")),
        runs_five_tasks,
        free=((NUMBER, "N"),),
    ),
    Tutorial("first_completed", wait_for_first, divides_the_futures, free=((r"Futures\(.*", ""),)),
    Tutorial("squares", single(3, "+++>"), squares_in_processes, free=(PID,)),
    Tutorial(
        "squares_of_threads",
        single(3, "+++>", change=("=ProcessPoolExecutor", "=ThreadPoolExecutor")),
        squares_in_threads,
        free=(PID,),
    ),
    Tutorial("squares_by_map", single(3, "executor.map("), runs_eleven_tasks, free=(PID,)),
    Tutorial("callbacks", single(3, "get_page", "parse_page"), parses_five_pages, free=(PID,)),
    Tutorial(
        "download_in_a_loop",
        single(4, "DOWNNLOAD_DIR ="),
        saves_thirty_pictures,
        free=((NUMBER, "N"),),
        folders=PICTURE_FOLDER,
    ),
    Tutorial(
        "download_with_threads",
        downloads_with_threads,
        saves_thirty_pictures,
        free=((NUMBER, "N"),),
        folders=PICTURE_FOLDER,
    ),
    Tutorial(
        "download_with_processes",
        downloads_with_processes,
        saves_thirty_pictures,
        free=((NUMBER, "N"),),
        folders=PICTURE_FOLDER,
    ),
    Tutorial(
        "map_times",
        single(4, "strftime"),
        stamps_all_results,
        free=(STAMPS, (r"<.* at 0x[0-9a-fA-F]+>", "iterator")),
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with loopback.serve() as address:
        yield address


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda tutorial: tutorial.name)
def test_a_program_of_the_tutorials_prints_the_same_both_ways(
    tutorial: Tutorial, tmp_path: Path, server: str
) -> None:
    place = tmp_path / "tutorial"
    place.mkdir()
    for name, text in tutorial.files().items():
        (place / name).write_text(on_loopback(text, server), encoding="utf-8")
    program = Program(
        place / "program.py",
        tutorial.facts,
        second=tutorial.second,
        free=tutorial.free,
        folders=tutorial.folders,
    )
    assert_same_both_ways(program, tmp_path, server)


def test_every_complete_program_of_the_tutorials_is_tested() -> None:
    """Checks that blocks which import an executor and use it are programs; the other blocks are
    parts or outputs."""
    tested = {text for tutorial in TUTORIALS for text in tutorial.files().values()}
    for document in range(5):
        for text in blocks(document):
            if re.search(r"^(from|import) .*\n(.*\n)*.*PoolExecutor\(", text, re.MULTILINE):
                assert text + "\n" in tested, text
