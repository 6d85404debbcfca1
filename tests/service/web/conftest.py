"""A headless Chromium for each module of tests that asks for it, with a fresh tab for each test."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_MS = 60_000  # until something that a test waits for must be there, on a busy machine


@pytest.fixture(scope="module")  # not longer: while it is open, this thread has a running event loop, and other tests start their own
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("Chromium is not installed")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # continuous integration runs as root
        yield browser
        browser.close()


@pytest.fixture
def refused() -> list[str]:
    """Return what policies of pages refused so far; a test that expects it empties the list."""
    return []


@pytest.fixture
def page(browser: Browser, refused: list[str]) -> Iterator[Page]:
    """Return a fresh tab; an error in the page's scripts, or something that a policy refused, fails the test."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1200, "height": 850})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: refused.append(message.text) if "Content Security Policy" in message.text else None)
    yield page
    context.close()
    assert wrong == []
    assert refused == []
