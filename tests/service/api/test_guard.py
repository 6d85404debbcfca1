"""Every route but health and documentation asks for the key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.api.app import create_app
from service.jobs.resources import open_deps
from service.settings import Settings
from tests.service.jobs.test_uploads import assert_problem


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    settings = Settings(data_dir=tmp_path / "data", api_key="secret")
    deps = open_deps(settings)
    yield create_app(settings, deps)
    deps.close()


def ask(app: FastAPI, method: str, path: str, **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://example.org") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def test_every_route_of_the_contract_asks_for_the_key(app: FastAPI) -> None:
    asked = 0
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            if path.startswith("/v1/"):
                answer = ask(app, method.upper(), path)
                assert_problem(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
                asked += 1
    assert asked >= 9


def test_key_opens_the_routes(app: FastAPI) -> None:
    assert ask(app, "GET", "/v1/jobs", authorization="Bearer secret").json() == {"jobs": [], "next_cursor": None}


def test_health_needs_no_key(app: FastAPI) -> None:
    assert ask(app, "GET", "/healthz").status_code == 200
