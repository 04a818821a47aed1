"""Takes the pictures of the documentation: `.venv/page/bin/python page/tests/screenshots.py`.

A file of a recorded program may be given in place of the download program's made-up recording.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import recordings
from conftest import CHROMIUM, PATIENCE

DOCS = Path(__file__).parents[2] / "docs"
SIZE = {"width": 1320, "height": 780}


def main() -> None:
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, scheme, key in [("download", "light", ""), ("processes", "dark", "e")]:
            path = Path(folder, "run.html")
            path.write_text(recordings.page(recordings.NAMES[name]().document()), encoding="utf-8")
            if name == "download" and sys.argv[1:]:
                path = Path(sys.argv[1]).resolve()
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-from]", timeout=PATIENCE)
            if key:
                page.keyboard.press(key)
                page.keyboard.press("0")
            page.evaluate(
                "() => new Promise((f) => requestAnimationFrame(() => setTimeout(f, 200)))"
            )
            page.screenshot(path=DOCS / f"timeline-{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
