"""A job in the browser: live, finished, cancelled, deleted, compared, and full of hostile names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.jobs.records import JobState
from tests.service.conftest import Server
from tests.service.web.shown_jobs import HOSTILE, ID, let_server_tell, result, shown_job

if TYPE_CHECKING:
    from playwright.sync_api import Page


def address(server: Server, path: str) -> str:
    return str(server.client.base_url).rstrip("/") + path


def test_running_job_is_followed_until_it_is_finished(server: Server, page: Page) -> None:
    job_id = server.submit(trials=3, seconds=0.4)["id"]
    page.goto(address(server, f"/#/jobs/{job_id}"))
    page.get_by_role("progressbar", name="Progress of the job").wait_for()
    page.get_by_role("table", name="Engines tried").get_by_text("★ best").wait_for()
    page.get_by_role("button", name="Download the engine").wait_for()
    assert page.get_by_role("table", name="Engines tried").get_by_role("row").count() == 4
    assert page.get_by_role("progressbar").count() == 0
    assert "succeeded" in page.get_by_role("status").inner_text()


def test_events_tell_sooner_than_the_page_asks(server: Server, page: Page) -> None:
    page.clock.install()  # it stands still but for what the test lets pass: the page asks for nothing by itself
    job_id = server.submit(trials=1, seconds=0.3)["id"]
    page.goto(address(server, f"/#/jobs/{job_id}"))
    page.get_by_role("heading", name="running").or_(page.get_by_role("heading", name="waiting")).wait_for()
    server.wait(job_id, seconds=60)
    for _ in range(400):  # four seconds in all by the page's clock, of the five after which it would ask
        page.clock.run_for(10)
        page.wait_for_timeout(100)
        if page.get_by_role("heading", name="succeeded").count():
            return
    raise AssertionError(page.locator("h1").inner_text())


def test_job_is_cancelled_and_deleted_by_clicks_with_a_question_before(server: Server, page: Page) -> None:
    job_id = server.submit(trials=1, seconds=30)["id"]
    server.wait(job_id, "running")
    page.goto(address(server, f"/#/jobs/{job_id}"))
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("button", name="No, go back").click()
    assert server.client.get(f"/v1/jobs/{job_id}").json()["state"] == "running"
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("button", name="Yes, cancel it").click()
    page.get_by_role("heading", name="cancelled").wait_for()
    server.wait(server.submit(trials=0)["id"])  # the stage of the cancelled one has ended

    page.get_by_role("button", name="Delete the job").click()
    page.get_by_role("button", name="Yes, delete it").click()
    page.get_by_role("heading", name="Jobs").wait_for()
    assert server.client.get(f"/v1/jobs/{job_id}").status_code == 410


def test_failed_job_shows_the_problem_and_its_fix(server: Server, page: Page) -> None:
    job_id = server.wait(server.submit(fail="input")["id"])["id"]
    page.goto(address(server, f"/#/jobs/{job_id}"))
    problem = page.get_by_role("alert")
    assert "model: it is only a fake" in problem.inner_text()
    assert "Send a real one." in problem.inner_text()


def test_job_that_is_not_there_is_told_in_the_words_of_the_server(server: Server, page: Page) -> None:
    page.goto(address(server, "/#/jobs/nothing"))
    page.get_by_role("alert").wait_for()
    assert server.client.get("/v1/jobs/nothing").json()["detail"] in page.get_by_role("alert").inner_text()


def test_result_has_words_and_numbers_for_what_was_found(server: Server, page: Page) -> None:
    page.goto(address(server, "/web/icon.svg"))
    let_server_tell(page, shown_job(), log="first line\nlast line")
    page.goto(address(server, f"/#/jobs/{ID}"))
    page.get_by_role("region", name="Log").wait_for()
    shown = page.locator("main").inner_text()
    for words in (
        "2.00 times as fast",
        "The accuracy budget is likely met, although these samples are too few to be certain.",
        "inside the budget with probability 0.67",
        "Against the float model the drop of top1 is +0.00200, between \N{MINUS SIGN}0.00100 and +0.00400",
        "About 160,000 samples with the same rates would settle it.",
        "The search did not see these samples.",
        "last line",
    ):
        assert words in shown


def test_points_of_the_plot_differ_by_shape_and_lie_where_their_numbers_say(server: Server, page: Page) -> None:
    page.goto(address(server, "/web/icon.svg"))
    let_server_tell(page, shown_job(JobState.RUNNING))
    page.goto(address(server, f"/#/jobs/{ID}"))
    plot = page.get_by_role("img", name="Engines tried")
    plot.wait_for()
    points = plot.locator("g.point")
    looks = points.evaluate_all(
        "list => list.map((g) => [g.getAttribute('class').split(' ')[1], g.lastChild.tagName, g.lastChild.getBBox().x])"
    )
    left = {look: x for look, _, x in looks}
    assert len(looks) == 4  # the one that crashed has no place
    assert left["outside"] < left["best"] < left["inside"] < left["baseline"]
    assert len({(tag, look) for look, tag, _ in looks}) == 4
    assert {look: tag for look, tag, _ in looks} == {"baseline": "rect", "outside": "path", "best": "path", "inside": "circle"}
    assert "Engine 2 (by measured loss): 0.500 of the baseline's latency, score lost +0.00200" in (
        plot.locator("desc").text_content() or ""
    )


@pytest.mark.long
@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_hostile_names_are_text(server: Server, page: Page, state: JobState) -> None:
    page.goto(address(server, "/web/icon.svg"))
    let_server_tell(page, shown_job(state, HOSTILE, stage=HOSTILE, target=HOSTILE), log=HOSTILE)
    page.evaluate("([id, name]) => localStorage.setItem('onnx-trt-optimizer-names', JSON.stringify([[id, name]]))", [ID, HOSTILE])
    for path in (f"/#/jobs/{ID}", "/#/jobs", f"/#/compare/{ID},{ID}"):
        page.goto(address(server, path))
        page.get_by_text("<img src=x").first.wait_for()
    assert page.evaluate("window.hacked ?? null") is None
    assert page.locator("main img, main script").count() == 0


def test_report_is_drawn_where_its_scripts_reach_neither_the_page_nor_the_server(server: Server, page: Page, refused: list[str]) -> None:
    job_id = server.wait(server.submit(trials=0)["id"])["id"]
    attack = """<h1>A report</h1><p id=did>nothing</p><script>
        const did = [];
        try { parent.document.title; did.push("page"); } catch {}
        try { sessionStorage.length; did.push("storage"); } catch {}
        const told = () => (document.getElementById("did").textContent = "tried: " + did.join());
        fetch("/v1/jobs").then(() => did.push("server"), () => {}).then(told);
    </script>"""
    page.route("**/artifacts/report.html", lambda route: route.fulfill(body=attack, content_type="text/html"))
    page.goto(address(server, f"/#/jobs/{job_id}/report"))
    frame = page.frame_locator("iframe")
    frame.get_by_text("tried:").wait_for()
    assert frame.locator("#did").inner_text() == "tried:"
    assert any("/v1/jobs" in text for text in refused)
    refused.clear()


@pytest.mark.long
def test_finished_jobs_are_compared_side_by_side(server: Server, page: Page) -> None:
    ids = [server.wait(server.submit(trials=count)["id"])["id"] for count in (1, 2)]
    page.goto(address(server, "/#/jobs"))
    for job_id in ids:
        page.get_by_role("checkbox", name=str(job_id)[:8]).check()
    page.get_by_role("button", name="Compare 2 jobs").click()
    row = page.get_by_role("row", name="Engines tried")
    row.wait_for()
    assert row.get_by_role("cell").all_inner_texts() == ["1", "2"]


def test_list_of_jobs_can_be_narrowed_to_a_state(server: Server, page: Page) -> None:
    failed = server.wait(server.submit(fail="input")["id"])["id"]
    page.goto(address(server, "/#/jobs"))
    page.get_by_label("Show").select_option("failed")
    job = page.get_by_role("link", name=str(failed)[:8])
    job.wait_for()
    page.locator("tbody .badge:not(.failed)").first.wait_for(state="detached")
    assert job.count() == 1


def test_list_of_a_state_that_no_job_is_in_says_so(server: Server, page: Page) -> None:
    page.route("**/v1/jobs?*", lambda route: route.fulfill(json={"jobs": [], "next_cursor": None}))
    page.goto(address(server, "/#/jobs"))
    page.get_by_text("No jobs yet.").wait_for()
    page.get_by_label("Show").select_option("failed")
    page.get_by_text("No job is failed.").wait_for()
    assert page.get_by_text("No jobs yet.").count() == 0


def test_engine_that_ships_is_marked_though_the_search_had_another_best(server: Server, page: Page) -> None:
    job = shown_job()
    offers = {"in_words": "at 99%: 1.35x", "engines": [{"fingerprint": f"{3:016x}", "ratio": 0.74, "file": {"name": "engine.onnx"}}]}
    found = {**result(), "offers": offers}
    page.goto(address(server, "/web/icon.svg"))
    let_server_tell(page, {**job, "result": found})
    page.goto(address(server, f"/#/jobs/{ID}"))
    marked = page.get_by_role("table", name="Engines tried").locator("tr.marked")
    marked.wait_for()
    assert marked.get_by_role("rowheader").inner_text().split() == ["3", "★", "chosen"]
    assert "Engine 3" in (page.get_by_role("img", name="Engines tried").locator("g.point.best title").text_content() or "")
    assert page.locator(".legend").get_by_text("chosen").count() == 1
    let_server_tell(page, {**job, "result": {**found, "outcome": "baseline_kept"}})
    page.reload()
    marked.get_by_text("chosen").wait_for()
    assert marked.get_by_role("rowheader").inner_text().split() == ["0", "★", "chosen"]


def test_job_on_hold_waits_and_claims_no_progress(server: Server, page: Page) -> None:
    hold = {"reason": "the disk is full", "fix": "Free some of it.", "since": "2026-11-29T10:00:31Z"}
    page.goto(address(server, "/web/icon.svg"))
    let_server_tell(page, {**shown_job(JobState.RUNNING, hold=hold, eta_seconds=None), "state": "on_hold"})
    page.goto(address(server, f"/#/jobs/{ID}"))
    waiting = page.get_by_role("alert")
    waiting.wait_for()
    assert "On hold: the job goes on by itself" in waiting.inner_text()
    assert "Free some of it." in waiting.inner_text()
    assert page.locator(".problem").count() == 0
    assert page.get_by_label("Progress", exact=True).inner_text().startswith("53%. Waiting for the server; 5 engines so far.")


def test_job_is_named_in_the_title_and_has_its_whole_id(server: Server, page: Page) -> None:
    page.goto(address(server, "/web/icon.svg"))
    let_server_tell(page, shown_job(JobState.RUNNING))
    page.goto(address(server, f"/#/jobs/{ID}"))
    page.locator("main").get_by_text(ID, exact=True).wait_for()
    assert page.title() == "running · Job 0d6f1b1e · ONNX-TRT Optimizer"


def test_as_many_jobs_are_compared_as_have_a_look_of_their_own(server: Server, page: Page) -> None:
    ids = [f"{digit}d6f1b1e-6f0b-4a55-9f0c-0f6a3f0c2c55" for digit in range(7)]
    jobs = [shown_job(id=job_id) for job_id in ids]
    page.goto(address(server, "/web/icon.svg"))
    for job in jobs:
        page.route(f"**/v1/jobs/{job['id']}", lambda route, _, job=job: route.fulfill(json=job))
    page.route("**/v1/jobs?*", lambda route: route.fulfill(json={"jobs": jobs, "next_cursor": None}))
    page.goto(address(server, "/#/jobs"))
    for job_id in ids:
        page.get_by_role("checkbox", name=job_id[:8]).check()
    assert page.get_by_role("button", name="Compare (choose two to 6)").is_disabled()
    page.get_by_role("checkbox", name=ids[-1][:8]).uncheck()
    page.get_by_role("button", name="Compare 6 jobs").click()
    page.locator(".legend svg").nth(5).wait_for()
    looks = page.locator(".legend svg").evaluate_all("list => list.map((one) => one.innerHTML)")
    assert len(set(looks)) == len(looks) == 6


def test_page_of_a_server_that_is_away_asks_again_by_itself(server: Server, page: Page) -> None:
    page.goto(address(server, "/web/icon.svg"))
    let_server_tell(page, shown_job(JobState.RUNNING))
    page.goto(address(server, f"/#/jobs/{ID}"))
    page.locator("h1").get_by_text("running").wait_for()
    page.unroute_all()
    page.route("**/v1/jobs/**", lambda route: route.abort())
    page.get_by_text("This page asks again by itself.").wait_for()
    let_server_tell(page, shown_job())
    page.locator("h1").get_by_text("succeeded").wait_for()
    assert page.get_by_text("This page asks again by itself.").count() == 0
