"""The live page of a real program in a real browser, which joins the updates.

`page/test` runs it, in whose environment Playwright is.
"""

from __future__ import annotations

import shutil
from typing import Any

import pytest

import concurrent_futures as cf
from support import LIMIT, held

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed; page/test runs this"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_pages_that_are_closed_opened_again_and_two_at_once_show_all_tasks() -> None:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with cf.dashboard() as dashboard, cf.ThreadPoolExecutor(2) as pool:
            faults: list[str] = []

            def opened() -> Any:
                page = browser.new_page()
                page.set_default_timeout(LIMIT * 1000)
                page.on("pageerror", lambda error: faults.append(str(error)))
                page.on("console", lambda message: faults.append(message.text))
                page.goto(dashboard.address)
                return page

            def shows(page: Any, count: int) -> None:
                page.wait_for_selector(f"html[data-tasks='{count}']")

            for n in range(20):
                pool.submit(pow, 2, n).result(LIMIT)
            first = opened()
            shows(first, 20)
            with held(pool):
                for n in range(10):
                    pool.submit(pow, 2, n)
                shows(first, 31)
            shows(first, 31)
            first.close()
            second, third = opened(), opened()
            for page in (second, third):
                shows(page, 31)
            list(pool.map(abs, range(100)))
            for page in (second, third):
                shows(page, 131)
            dashboard.close()
            for page in (second, third):
                page.wait_for_selector("#live.ended")
                shows(page, 131)
            assert faults == []
        browser.close()
