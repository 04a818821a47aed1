"""The browser of the tests, or a printed reason why there is none."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recordings import page as page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)

# A machine with much else to do is slow, and no test is about time.
PATIENCE = 120_000


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE
        )
        yield browser
        browser.close()


class Opened:
    """A page that is open, with all that went wrong in it."""

    def __init__(self, page: "Page", folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.faults: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, document: Any, is_fine: bool = True) -> "Page":
        """Opens a file with a document in it, and waits until the document is drawn."""
        path = self.folder / "run.html"
        path.write_text(page_of(document), encoding="utf-8")
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-from]" if is_fine else "html[data-state=failed]")
        return self.page

    def view(self) -> tuple[float, float]:
        """Returns the visible span, once it is drawn."""
        self.page.evaluate(
            "() => new Promise((f) => requestAnimationFrame(() => requestAnimationFrame(f)))"
        )
        data = self.page.evaluate("() => ({...document.documentElement.dataset})")
        return float(data["from"]), float(data["to"])


@pytest.fixture
def opened(browser: "Browser", tmp_path: Path) -> Iterator[Opened]:
    """A page; the test fails if anything went wrong in it, or if it asked for anything."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    opened = Opened(page, tmp_path)
    yield opened
    page.close()
    assert opened.faults == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
