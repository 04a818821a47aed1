"""The page in a real browser."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

import recordings
from conftest import Opened
from recordings import MS, Recording, page, table


def cells(opened: Opened, column: int) -> list[str]:
    rows = opened.page.locator("#functions tbody tr")
    return [row.locator("th, td").nth(column).inner_text() for row in rows.all()]


def test_the_page_opens_with_head_findings_table_and_lanes(opened: Opened) -> None:
    view = opened.open(recordings.download().document())
    assert view.title() == "download.py – timeline"
    assert "80 tasks" in view.inner_text("#facts") and "4 failed" in view.inner_text("#facts")
    findings = view.inner_text("#findings")
    assert "4 of 80 calls of download_one failed" in findings
    assert "while 19 workers waited" in findings
    assert cells(opened, 0) == ["download_one"] and cells(opened, 1) == ["71"]
    assert view.locator(".chart").count() == 3


def test_a_search_finds_a_task_and_goes_there(opened: Opened) -> None:
    view = opened.open(recordings.download().document())
    view.keyboard.press("/")
    view.keyboard.type("picture 61")
    assert view.inner_text("#found") == "1"
    view.keyboard.press("Enter")
    assert "picture 61.gif" in view.inner_text("#task-body")
    view.keyboard.press("Escape")
    assert view.input_value("#search") == ""


def test_keys_and_wheel_zoom_about_the_pointer_and_pan(opened: Opened) -> None:
    view = opened.open(recordings.download().document())
    whole = opened.view()
    view.keyboard.press("+")
    zoomed = opened.view()
    assert zoomed[1] - zoomed[0] < whole[1] - whole[0]
    view.keyboard.press("ArrowRight")
    panned = opened.view()
    assert panned[0] > zoomed[0] and panned[1] - panned[0] == pytest.approx(zoomed[1] - zoomed[0])
    view.keyboard.press("0")
    assert opened.view() == pytest.approx(whole)
    box = view.locator("#lanes canvas").bounding_box()
    assert box
    x = 150 + (box["width"] - 150) / 2
    view.mouse.move(box["x"] + x, box["y"] + 100)
    view.mouse.wheel(0, -300)
    wheeled = opened.view()
    assert wheeled[1] - wheeled[0] < whole[1] - whole[0]
    assert sum(wheeled) / 2 == pytest.approx(sum(whole) / 2, rel=0.02)


def test_a_drag_moves_and_a_drag_with_shift_chooses_a_span(opened: Opened) -> None:
    view = opened.open(recordings.download().document())
    view.keyboard.press("+")
    before = opened.view()
    view.mouse.move(600, 500)
    view.mouse.down()
    view.mouse.move(500, 500, steps=4)
    view.mouse.up()
    after = opened.view()
    assert after[0] > before[0]
    view.keyboard.down("Shift")
    view.mouse.move(400, 500)
    view.mouse.down()
    view.mouse.move(500, 500, steps=4)
    view.mouse.up()
    view.keyboard.up("Shift")
    chosen = opened.view()
    assert chosen[1] - chosen[0] < (after[1] - after[0]) / 4


def test_the_card_and_the_panel_tell_the_error_of_a_task(opened: Opened) -> None:
    view = opened.open(recordings.processes().document())
    view.keyboard.press("e")
    assert "its worker process died" in view.inner_text("#task-body")
    assert "killed by signal 11" in view.inner_text("#task-body")
    view.keyboard.press("e")
    view.keyboard.press("Enter")
    assert "TaskTimeoutError" in view.inner_text("#task-body")
    box = view.locator("#lanes canvas").bounding_box()
    assert box
    # The chosen task is in the middle of the picture, in the fifth lane.
    view.mouse.move(box["x"] + 150 + (box["width"] - 150) / 2, box["y"] + 20 + 24 + 4 * 24 + 8)
    view.wait_for_selector("#card:not([hidden])")
    card = view.inner_text("#card")
    assert "killed: its time limit passed" in card and "ForkProcess-5 (process 4900)" in card
    view.keyboard.press("Escape")
    assert view.locator("#task").is_hidden()


def test_the_table_sorts_and_filters_and_shows_a_function_alone(opened: Opened) -> None:
    view = opened.open(recordings.waiting().document())
    counts = [int(cell) for cell in cells(opened, 1)]
    assert counts == [12, 6, 12, 6, 30]
    view.get_by_role("button", name="Calls").click()
    assert [int(cell) for cell in cells(opened, 1)] == sorted(counts, reverse=True)
    view.get_by_role("button", name="Calls").click()
    assert [int(cell) for cell in cells(opened, 1)] == sorted(counts)
    assert view.locator("th[aria-sort=ascending]").inner_text().startswith("Calls")
    view.fill("#filter", "UNIT")
    assert len(cells(opened, 0)) == 3
    view.locator("#functions tbody button").first.click()
    assert int(view.inner_text("#found")) == int(cells(opened, 1)[0])
    view.locator("#functions tbody button").first.click()
    assert view.inner_text("#found") == ""


def test_the_table_can_follow_the_view(opened: Opened) -> None:
    view = opened.open(recordings.waiting().document())
    view.check("#in-view")
    for _ in range(16):
        view.keyboard.press("+")
    view.wait_for_function("() => document.querySelectorAll('#functions tbody tr').length < 5")


def test_a_finding_leads_to_its_task(opened: Opened) -> None:
    view = opened.open(recordings.download().document())
    view.locator("#findings button", has_text="One task").click()
    assert "picture 61.gif" in view.inner_text("#task-body")


def test_links_lead_from_a_task_to_the_task_that_awaits_it(opened: Opened) -> None:
    view = opened.open(recordings.waiting().document())
    view.fill("#search", "#2")
    view.keyboard.press("Enter")
    assert "compile" in view.inner_text("#task-body .card-title")
    view.locator("#task-body .link", has_text="#1 build").first.click()
    assert view.inner_text("#task-body .card-name") == "build"


def test_texts_of_programs_stay_texts(opened: Opened) -> None:
    view = opened.open(recordings.nasty().document())
    assert "broken" not in view.title() or view.title().startswith("</script>")
    assert view.locator("img").count() == 0
    assert "</script><img src=x onerror=alert(1)>" in cells(opened, 0)
    for _ in range(8):
        view.keyboard.press("e")
    view.mouse.move(500, 500)
    assert view.locator("img").count() == 0


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"format": "concurrent-futures recording", "version": 2}, "has version 2 of the format"),
        ('{"format": "concurrent', "not complete or not JSON"),
        ({"version": 1, "tasks": {"count": -3}}, "no usable count of rows"),
        ("", "no recording in this page"),
    ],
)
def test_a_document_that_cannot_be_shown_gives_a_message(
    opened: Opened, document: Any, message: str
) -> None:
    view = opened.open(document, is_fine=False)
    assert message in view.inner_text("#message")


def test_a_recording_that_the_engine_has_made_is_shown(opened: Opened) -> None:
    # Threads with errors, tasks that wait for tasks, a map on processes, and a worker that exits.
    text = Path(__file__).with_name("real.json").read_text(encoding="utf-8")
    view = opened.open(text)
    assert "2,112 tasks" in view.inner_text("#facts")
    findings = view.inner_text("#findings")
    assert "ended by exit code 3" in findings
    assert "6 of 80 calls of load failed, all with KeyError" in findings
    assert cells(opened, 0) == ["tree", "load", "crunch", "posix._exit"]
    assert cells(opened, 1) == ["31", "79", "2,000", "1"]
    view.fill("#search", "=tree")
    view.keyboard.press("Enter")
    assert "Waited for other tasks" in view.inner_text("#task-body")


def test_an_empty_recording_is_shown(opened: Opened) -> None:
    view = opened.open(recordings.empty().document())
    assert "No task was submitted" in view.inner_text("#findings")
    for key in ["e", "ArrowDown", "+", "Enter", "n"]:
        view.keyboard.press(key)
    assert view.inner_text("#functions-note") == "No tasks."


def test_the_page_is_readable_on_a_narrow_window_and_dark(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 400, "height": 800})
    opened.page.emulate_media(color_scheme="dark")
    view = opened.open(recordings.processes().document())
    assert view.evaluate("() => document.documentElement.scrollWidth") <= 400
    assert (
        view.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(18, 20, 23)"
    )
    view.keyboard.press("t")
    assert (
        view.evaluate("() => getComputedStyle(document.body).backgroundColor")
        == "rgb(244, 245, 246)"
    )


def test_every_control_has_a_name_and_the_lanes_take_the_keyboard(opened: Opened) -> None:
    view = opened.open(recordings.download().document())
    nameless = view.evaluate(
        """() => [...document.querySelectorAll('button, input, canvas, [role]')]
            .filter((it) => it.checkVisibility() && it.getAttribute('role') !== 'status')
            .filter((it) => !it.getAttribute('aria-label') && !it.textContent.trim())
            .filter((it) => !it.labels?.length && !it.parentElement.closest('[role=img]'))
            .map((it) => it.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    view.locator("#lanes canvas").focus()
    view.keyboard.press("ArrowDown")
    assert "Task " in view.inner_text("#said")
    view.keyboard.press("?")
    assert view.locator("#help").is_visible()
    view.keyboard.press("Escape")
    assert view.locator("#help").is_hidden()


FRAMES = """async ([key, count]) => {
    const times = [];
    for (let i = 0; i < count; i++) {
        document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
        const began = await new Promise(requestAnimationFrame);
        await new Promise((done) => {
            const channel = new MessageChannel();
            channel.port1.onmessage = done;
            channel.port2.postMessage(0);
        });
        times.push(performance.now() - began);
    }
    times.sort((a, b) => a - b);
    return [times[Math.floor(count / 2)], times[count - 1]];
}"""


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.large)])
def test_many_tasks_open_zoom_and_pan(
    opened: Opened, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    view = opened.open(recordings.many(count).document())
    assert f"{count:,} tasks" in view.inner_text("#facts")
    before = opened.view()
    times = {}
    for name, key in {"zoom in": "+", "pan": "ArrowRight", "zoom out": "-"}.items():
        times[name] = view.evaluate(FRAMES, [key, 25])
    after = opened.view()
    assert after[1] - after[0] == pytest.approx(before[1] - before[0], rel=0.2)
    view.fill("#search", "tokenize")
    assert int(view.inner_text("#found").replace(",", "")) > count / 10
    with capsys.disabled():
        frames = ", ".join(
            f"{name} {median:.1f} ({worst:.1f})" for name, (median, worst) in times.items()
        )
        print(f"\n{count:,} tasks: milliseconds of a frame, median (worst): {frames}")


@contextmanager
def served(text: str, events: "Queue[str | None]") -> Iterator[str]:
    """Serves a page and its events at a loopback address, as the dashboard does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if "token=secret" in self.path else 403)
            if not self.path.startswith("/events"):
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(text.encode())
                return
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            while (event := events.get()) is not None:
                self.wfile.write(event.encode())
                self.wfile.flush()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        events.put(None)
        server.shutdown()
        thread.join()
        server.server_close()


def data(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


def growing(rows: int) -> Recording:
    made = Recording("live.py")
    pool, workers = made.pool(2)
    for n in range(rows):
        made.task(
            submit=n * MS,
            start=n * MS,
            end=(n + 0.9) * MS,
            name=f"f{n % 2}",
            pool=pool,
            worker=workers[n % 2],
        )
    return made


def test_live_updates_arrive_until_the_program_ends(browser: Any) -> None:
    events: Queue[str | None] = Queue()
    view = browser.new_page()
    faults: list[str] = []
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on("console", lambda message: faults.append(message.text))
    addresses: list[str] = []
    view.on("request", lambda request: addresses.append(request.url))
    with served(page("", events="events?token=secret"), events) as address:
        view.goto(f"{address}/?token=secret")
        view.wait_for_function(
            "() => document.querySelector('#message').textContent.includes('Waiting for')"
        )

        made = growing(10)
        open_rows = growing(11)
        running = {"tasks": table(open_rows.tasks, recordings.COLUMNS, first=10)}
        events.put(data(made.document(finished=False, open=running)))
        view.wait_for_selector("html[data-tasks='11']")
        assert view.inner_text("#live") == "Live"
        whole = view.evaluate("() => Number(document.documentElement.dataset.to)")

        later = growing(30)
        update = later.document(finished=False, duration=60 * MS, strings=[])
        update["tasks"] = table(later.tasks, recordings.COLUMNS, first=10)
        update["update"] = {"tasks": 10, "waits": 0, "strings": len(made.strings)}
        events.put(data(update))
        view.wait_for_selector("html[data-tasks='30']")
        view.wait_for_function(
            "(before) => Number(document.documentElement.dataset.to) > before", arg=whole
        )

        # The reader's choice, search and place survive an update.
        view.fill("#search", "f1")
        view.keyboard.press("Enter")
        chosen = view.inner_text("#task-body .card-number")
        events.put(data(growing(40).document(finished=False)))
        view.wait_for_selector("html[data-tasks='40']")
        assert view.inner_text("#task-body .card-number") == chosen
        assert view.inner_text("#found") == "20"

        events.put(data(growing(50).document()))
        view.wait_for_selector("#live.ended")
        view.wait_for_selector("html[data-tasks='50']")
    assert faults == []
    assert all(address in url or url.startswith("data:") for url in addresses)
    view.close()


def test_an_update_out_of_step_makes_the_page_ask_for_everything(browser: Any) -> None:
    events: Queue[str | None] = Queue()
    view = browser.new_page()
    addresses: list[str] = []
    view.on("request", lambda request: addresses.append(request.url))
    with served(
        page(growing(5).document(finished=False), events="events?token=secret"), events
    ) as address:
        view.goto(f"{address}/?token=secret")
        view.wait_for_selector("html[data-tasks='5']")
        update = growing(3).document(finished=False, update={"tasks": 99, "waits": 0, "strings": 1})
        with view.expect_request(re.compile("/events")):
            events.put(data(update))
        # The first connection's thread may take an event before it notices that it is closed.
        while view.get_attribute("html", "data-tasks") != "8":
            events.put(data(growing(8).document(finished=False)))
            view.wait_for_timeout(50)
        assert sum("/events" in url for url in addresses) >= 2
    view.close()
