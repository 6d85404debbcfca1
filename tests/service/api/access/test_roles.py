"""Every route states a role, and every one but health and pages asks for the key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute

from service.access.caller import Role
from service.access.key_text import new_key
from service.access.keys import Keys
from service.api.access.audited import ACTIONS
from service.api.access.gate import Gate
from service.api.access.roles import ROLES, role_check
from service.api.app import create_app
from service.jobs.resources import Deps, open_deps
from service.settings import Settings
from tests.service.jobs.test_uploads import assert_problem


@pytest.fixture
def deps(tmp_path: Path) -> Iterator[Deps]:
    deps = open_deps(Settings(data_dir=tmp_path / "data", api_key="secret"))
    yield deps
    deps.close()


@pytest.fixture
def keys(deps: Deps) -> Keys:
    return deps.store.keys


@pytest.fixture
def app(deps: Deps) -> FastAPI:
    return create_app(deps.settings, deps)


def ask(app: FastAPI, method: str, path: str, **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://example.org") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """Return the methods and the paths of all routes, those included from routers too."""
    found: set[tuple[str, str]] = set()
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if inner:
            waiting += inner
        else:
            assert isinstance(route, APIRoute), f"{route!r} is no route that the table of roles can name"
            found |= {(method, route.path) for method in route.methods or ()}
    return found


def test_every_route_has_a_role_in_the_table_and_every_row_a_route(app: FastAPI) -> None:
    assert routes(app) == set(ROLES)
    assert set(ACTIONS) <= set(ROLES)


def test_a_route_without_a_role_is_refused_to_everybody(app: FastAPI, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "other", api_key="secret")
    deps = open_deps(settings)
    router = APIRouter()
    router.add_api_route("/v1/new", lambda: {}, methods=["GET"])
    app.include_router(router, dependencies=[Depends(role_check(Gate(settings, deps.store.keys)))])
    assert_problem(ask(app, "GET", "/v1/new", authorization="Bearer secret"), 403, "forbidden")
    deps.close()


def test_every_route_with_a_role_asks_for_the_key(app: FastAPI) -> None:
    for (method, path), role in ROLES.items():
        if role is None:
            assert ask(app, method, path).status_code != 401
            continue
        for headers in ({}, {"authorization": "Bearer other"}, {"authorization": f"Bearer {new_key()}"}):
            answer = ask(app, method, path, **headers)
            assert_problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", list(Role))
def test_every_route_refuses_lesser_roles_and_says_which_it_needs(app: FastAPI, keys: Keys, role: Role) -> None:
    key, _ = keys.create(role, "default")
    for (method, path), needed in ROLES.items():
        if needed is None:
            continue
        answer = ask(app, method, path, authorization=f"Bearer {key}")
        if role.includes(needed):
            assert answer.status_code not in (401, 403), (method, path)
        else:
            problem = assert_problem(answer, 403, "forbidden")
            assert problem["detail"] == f"key {key.id}: its role is {role}, and this needs {needed}"


def test_key_opens_the_routes(app: FastAPI) -> None:
    assert ask(app, "GET", "/v1/jobs", authorization="Bearer secret").json() == {"jobs": [], "next_cursor": None}


def test_health_needs_no_key(app: FastAPI) -> None:
    assert ask(app, "GET", "/healthz").status_code == 200
