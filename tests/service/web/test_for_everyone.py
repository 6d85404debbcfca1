"""The pages for everyone: axe-core's rules, keyboard alone, light and dark, and the width of a phone."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine_builder.reporting.body.report_body import ReportBody
from engine_builder.reporting.page import render
from engine_builder.stage_io.engines import FinalLatency
from service.jobs.records import JobState
from tests.engine_builder.report_body import BODY, layer
from tests.service.conftest import Server
from tests.service.web.shown_jobs import ID, let_server_tell, shown_job
from tests.service.web.test_new_job import address, choose

if TYPE_CHECKING:
    from playwright.sync_api import Page

RULES = """async () => (await axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}))
    .violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target).join(" | ")}`)"""
LONG = "a_layer_of_a_block_" * 12  # one word
PAPER = 688  # pixels of A4 between its margins
LARGE = replace(BODY, dependencies=(replace(BODY.dependencies[0], first=LONG, second=LONG),), layers=(layer(LONG), layer("b")))
PATHS = ("/#/new", "/#/jobs", f"/#/jobs/{ID}", f"/#/compare/{ID},{ID}")


@pytest.fixture(scope="module")
def axe() -> str:
    """Return axe-core's script; its Python package is not needed."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-playwright-python is not installed")
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def shown(page: Page, server: Server, path: str) -> None:
    """Show a part of the page with a job that has everything."""
    page.goto(address(server, path))
    page.locator("h1").wait_for()
    if path == "/#/new":
        page.get_by_text("Advanced").click()
        choose(page, "model", "net.onnx", b"no model")
        page.get_by_text("✓").wait_for()
    elif path != "/#/jobs":
        page.get_by_role("img").first.wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])  # contrast follows from the one, layout from the other
def test_axe_finds_nothing_and_nothing_is_cut(server: Server, page: Page, axe: str, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 850})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(address(server, "/web/icon.svg"))
    for state in (JobState.SUCCEEDED, JobState.RUNNING, JobState.FAILED):
        let_server_tell(page, shown_job(state, LONG if state is JobState.RUNNING else ""), log="a line")
        for path in PATHS if state is JobState.SUCCEEDED else PATHS[1:3]:
            shown(page, server, path)
            page.evaluate(axe)
            assert page.evaluate(RULES) == [], (state, path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (state, path)


def test_dialog_has_no_violations(server: Server, page: Page, axe: str) -> None:
    page.goto(address(server, "/web/icon.svg"))
    let_server_tell(page, shown_job())
    page.goto(address(server, f"/#/jobs/{ID}"))
    page.get_by_role("button", name="Delete the job").click()
    page.evaluate(axe)
    assert page.evaluate(RULES) == []


def test_job_is_started_with_the_keyboard_alone(server: Server, page: Page) -> None:
    page.goto(address(server))
    page.locator("h1").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if reached[-1] == "Start the job":
            break
    assert [name for name in reached if name.startswith("file-")] == [
        f"file-{role}{way}" for role in ("model", "calibration", "validation") for way in ("", "-folder")
    ]
    assert {"target", "batch-size", "budget-kind", "budget", "metric", "Advanced", "Start the job"} <= set(reached)


def test_focus_follows_to_the_new_part_and_the_title_names_it(server: Server, page: Page) -> None:
    page.goto(address(server))
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("heading", name="Jobs").wait_for()
    page.locator("h1:focus").wait_for()
    assert page.title().startswith("Jobs")
    assert page.get_by_role("link", name="Jobs", exact=True).get_attribute("aria-current") == "page"


def test_reference_of_the_api_is_drawn_and_tried_without_internet(server: Server, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address(server, "/docs"))
    page.get_by_role("button", name="GET /v1/targets", exact=False).first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.get_by_text("latency_source").first.wait_for()
    assert [url for url in asked if not url.startswith((address(server), "data:", "blob:"))] == []


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
def test_report_fits_on_paper(page: Page, body: ReportBody) -> None:
    page.set_viewport_size({"width": PAPER, "height": 980})
    page.emulate_media(media="print")
    page.set_content(render(body))
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER
    sizes = page.evaluate(
        "['.note', '.tile span', 'p', 'td'].map((one) => parseFloat(getComputedStyle(document.querySelector(one)).fontSize))"
    )
    assert max(sizes) <= 11  # notes are no larger than the text


def test_units_are_not_broken_on_a_phone(page: Page) -> None:
    slow = replace(BODY.result.baseline, latency_ms=FinalLatency(17.472, 20.0, 2.806, 100))
    page.set_viewport_size({"width": 390, "height": 850})
    page.set_content(render(replace(BODY, result=replace(BODY.result, baseline=slow))))
    tall = page.evaluate("""() => [...document.querySelectorAll(".tile b")].map((one) => {
        const range = document.createRange();
        const text = one.firstChild;
        const at = text.data.indexOf("ms");
        if (at < 0) return 1;
        range.setStart(text, at);
        range.setEnd(text, at + 2);
        return range.getClientRects().length;
    })""")
    assert set(tall) == {1}  # both letters on one line


def test_one_long_name_does_not_push_the_rest_of_the_list_out_of_sight(server: Server, page: Page) -> None:
    page.goto(address(server, "/web/icon.svg"))
    page.evaluate("([id, name]) => localStorage.setItem('onnx-trt-optimizer-names', JSON.stringify([[id, name]]))", [ID, "n" * 200])
    let_server_tell(page, shown_job())
    for path in ("/#/jobs", f"/#/compare/{ID},{ID}"):
        page.goto(address(server, path))
        page.get_by_role("table").first.wait_for()
        widths = page.locator(".scrolls").first.evaluate("one => [one.scrollWidth, one.clientWidth]")
        assert widths[0] <= widths[1], path
