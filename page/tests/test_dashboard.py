"""The live page of a real program, in a real browser."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from conftest import PATIENCE

#: The Python that has the package.
PYTHON = os.environ.get("PAGE_PYTHON", sys.executable)


@pytest.fixture(autouse=True)
def _package() -> None:
    found = subprocess.run([PYTHON, "-c", "import concurrent_futures"], capture_output=True)
    if found.returncode != 0:
        pytest.skip(f"{PYTHON} (or $PAGE_PYTHON) has no package concurrent_futures")


PROGRAM = """
    import sys
    from concurrent.futures import ThreadPoolExecutor

    def work(number):
        return number

    with ThreadPoolExecutor(2) as pool:
        for line in sys.stdin:
            list(pool.map(work, range(int(line))))
            print("done", flush=True)
"""


def test_a_program_is_shown_live_closed_opened_again_and_ended(
    browser: Any, tmp_path: Path
) -> None:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    program = subprocess.Popen(
        [PYTHON, "-m", "concurrent_futures", "--dashboard", str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdin and program.stdout and program.stderr
    address = program.stderr.readline().split()[-1]
    faults: list[str] = []
    addresses: list[str] = []

    def run(tasks: int) -> None:
        assert program.stdin and program.stdout
        print(tasks, file=program.stdin, flush=True)
        assert program.stdout.readline() == "done\n"

    def opened() -> Any:
        view = browser.new_page()
        view.set_default_timeout(PATIENCE)
        view.on("pageerror", lambda error: faults.append(str(error)))
        view.on("console", lambda message: faults.append(message.text))
        view.on("request", lambda request: addresses.append(request.url))
        view.goto(address)
        return view

    run(10)
    view = opened()
    view.wait_for_selector("html[data-tasks='10']")
    assert view.inner_text("#live") == "Live"
    assert view.title() == "program.py – timeline"
    run(5)
    view.wait_for_selector("html[data-tasks='15']")
    view.close()
    run(5)
    view = opened()
    view.wait_for_selector("html[data-tasks='20']")
    program.stdin.close()
    view.wait_for_selector("#live.ended")
    assert program.wait(PATIENCE / 1000) == 0
    assert faults == []
    host = address.partition("?")[0]
    assert all(url.startswith((host, "data:")) for url in addresses)
    view.close()
    program.stdout.close()
    program.stderr.close()
