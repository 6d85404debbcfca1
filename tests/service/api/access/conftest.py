"""A server with a key of its operator, and clients of two tenants."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.service.api.access.tenants import client_of, key_of
from tests.service.conftest import Server, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server"), api_key="operator") as running:
        running.client.headers["Authorization"] = "Bearer operator"
        yield running


@pytest.fixture
def red(server: Server) -> Iterator[httpx.Client]:
    with client_of(server, key_of(server, "red")) as client:
        yield client


@pytest.fixture
def blue(server: Server) -> Iterator[httpx.Client]:
    with client_of(server, key_of(server, "blue")) as client:
        yield client
