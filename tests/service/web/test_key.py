"""The page of a server with a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.access.caller import Role
from tests.fakes import fake_model
from tests.service.conftest import Server, running_server
from tests.service.web.test_new_job import address, choose

if TYPE_CHECKING:
    from playwright.sync_api import Page

KEY = "the right key"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server"), api_key=KEY) as running:
        running.client.headers["Authorization"] = f"Bearer {KEY}"
        yield running


def give(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()


def test_key_is_asked_for_kept_in_the_tab_and_sent_with_all(keyed: Server, page: Page) -> None:
    page.goto(address(keyed))
    give(page, "a wrong one")
    page.get_by_text("The server refused this key.").wait_for()
    give(page, KEY)
    choose(page, "model", "net.onnx", fake_model(trials=0))
    choose(page, "calibration", "samples.npz", b"numbers")
    page.get_by_role("button", name="Start the job").click()
    with page.expect_download() as engine:
        page.get_by_role("button", name="Download the engine").click()
    assert Path(engine.value.path()).read_bytes() == b"engine of " + fake_model(trials=0)
    assert engine.value.suggested_filename == "engine.onnx"
    page.get_by_role("link", name="Open the report").click()
    page.frame_locator("iframe").get_by_text("fake").wait_for()
    stored = page.evaluate(
        "[JSON.stringify(localStorage), document.cookie, sessionStorage.getItem('onnx-trt-optimizer-key'), location.href]"
    )
    assert stored[2] == KEY
    assert not any(KEY in text for text in (stored[0], stored[1], stored[3]))


def test_who_has_no_key_is_told_and_may_try_again(keyed: Server, page: Page) -> None:
    page.goto(address(keyed, "/#/jobs"))
    page.get_by_role("button", name="Cancel").click()
    assert "expected a key of this server" in page.get_by_role("alert").inner_text()
    page.goto(address(keyed, "/docs"))
    give(page, KEY)
    page.get_by_text("/v1/jobs/{job_id}/engine", exact=False).first.wait_for()


def test_a_key_that_may_only_read_is_offered_no_changes(keyed: Server, page: Page) -> None:
    job = keyed.wait(keyed.submit(trials=0)["id"])
    keyed.deps.store.tenants.change("default", {"jobs_at_once": 7})
    key, _ = keyed.deps.store.keys.create(Role.READ, "default")
    page.goto(address(keyed, f"/#/jobs/{job['id']}"))
    give(page, str(key))
    with page.expect_download() as engine:
        page.get_by_role("button", name="Download the engine").click()
    assert Path(engine.value.path()).read_bytes() == b"engine of " + fake_model(trials=0)
    assert page.get_by_role("button", name="Delete the job").count() == 0
    page.goto(address(keyed, "/#/jobs"))
    page.get_by_text("Tenant default: jobs at once: 0 of 7.").wait_for()
    page.goto(address(keyed, "/#/new"))
    page.get_by_text("To start one it needs the role submit.").wait_for()
    assert page.get_by_role("button", name="Start the job").count() == 0


def test_another_key_is_taken_without_closing_the_tab(keyed: Server, page: Page) -> None:
    keyed.deps.store.tenants.ensure("vision")
    reader, _ = keyed.deps.store.keys.create(Role.READ, "vision")
    page.goto(address(keyed, "/#/new"))
    give(page, str(reader))
    page.get_by_text("To start one it needs the role submit.").wait_for()
    assert "Tenant vision, role read" in page.get_by_role("banner").inner_text()
    page.get_by_role("button", name="Use another key").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Use another key").click()
    give(page, KEY)
    page.get_by_role("button", name="Start the job").wait_for()
    assert "Tenant default, role admin" in page.get_by_role("banner").inner_text()


def test_an_admin_sees_whose_jobs_they_are_and_others_their_own(keyed: Server, page: Page) -> None:
    keyed.deps.store.tenants.ensure("vision")
    key, _ = keyed.deps.store.keys.create(Role.SUBMIT, "vision")
    headers = {"Authorization": f"Bearer {key}"}
    answer = keyed.client.post("/v1/jobs", files={"model": fake_model(trials=0), "calibration": b"n"}, headers=headers)
    keyed.wait(answer.json()["id"])
    mine = keyed.wait(keyed.submit(trials=0)["id"])
    page.goto(address(keyed, "/#/jobs"))
    give(page, KEY)
    page.get_by_role("cell", name="vision", exact=True).wait_for()
    other = page.context.new_page()
    other.goto(address(keyed, "/#/jobs"))
    give(other, str(key))
    other.get_by_role("row").nth(1).wait_for()
    assert other.get_by_role("cell", name="default", exact=True).count() == 0
    other.goto(address(keyed, f"/#/jobs/{mine['id']}"))
    other.get_by_text("there is no such job").wait_for()
