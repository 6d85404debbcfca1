"""The page of a server with a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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
