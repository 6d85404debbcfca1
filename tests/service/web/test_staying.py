"""Where a person is on a page stays while the page draws itself anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.jobs.records import JobState
from tests.service.conftest import Server
from tests.service.web.shown_jobs import shown_job
from tests.service.web.test_new_job import address

if TYPE_CHECKING:
    from playwright.sync_api import Page

IDS = [f"{digit}d6f1b1e-6f0b-4a55-9f0c-0f6a3f0c2c55" for digit in range(3)]


def let_server_list(page: Page, *jobs: dict[str, object]) -> None:
    page.unroute_all()
    page.route("**/v1/jobs?*", lambda route: route.fulfill(json={"jobs": jobs, "next_cursor": None}))


def test_focus_stays_on_its_job_where_the_list_changes(server: Server, page: Page) -> None:
    page.goto(address(server, "/web/icon.svg"))
    names = [[job_id, "net.onnx"] for job_id in IDS]
    page.evaluate("(names) => localStorage.setItem('onnx-trt-optimizer-names', JSON.stringify(names))", names)
    first, second = shown_job(id=IDS[0]), shown_job(id=IDS[1])
    let_server_list(page, first, second)
    page.goto(address(server, "/#/jobs"))
    page.get_by_role("checkbox", name="net.onnx (1d6f1b1e)").focus()
    let_server_list(page, shown_job(JobState.RUNNING, id=IDS[2]), first, second)
    page.get_by_role("link", name="net.onnx (2d6f1b1e)").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Compare net.onnx (1d6f1b1e)"
    page.get_by_role("link", name="net.onnx (0d6f1b1e)").focus()
    let_server_list(page, first, second)
    page.get_by_role("link", name="net.onnx (2d6f1b1e)").wait_for(state="detached")
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"#/jobs/{IDS[0]}"


def test_log_goes_on_at_its_end_but_not_below_who_reads_it(server: Server, page: Page) -> None:
    page.goto(address(server))
    at_end, goes_on, stays = page.evaluate("""async () => {
        const { h, part } = await import("/web/dom.js");
        const lines = (count) => Array.from({ length: count }, (_, line) => `line ${line}`).join("\\n");
        const log = part((count) => h("pre", { "data-tail": true }, lines(count)));
        document.getElementById("main").replaceChildren(log.element);
        const left = () => {
            const { scrollHeight, scrollTop, clientHeight } = log.element.firstChild;
            return scrollHeight - scrollTop - clientHeight;
        };
        log.show(100);
        const atEnd = left();
        log.show(200);
        const goesOn = left();
        log.element.firstChild.scrollTop = 50;
        log.show(300);
        return [atEnd, goesOn, log.element.firstChild.scrollTop];
    }""")
    assert max(at_end, goes_on) < 2  # pixels, of rounding
    assert stays == 50
