"""Fixtures of whole jobs with the stand-in: a module of tests that imports them has a server of its own, which knows of no layer yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.tensorrt_stand_in.install import install
from tests.tensorrt_stand_in.server import StandInServer, stand_in_server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of orders and notes."""
    return tmp_path_factory.mktemp("tensorrt")


@pytest.fixture(scope="module")
def environment(place: Path) -> Mapping[str, str]:
    """That of processes that find the stand-in."""
    return install(place)


@pytest.fixture(scope="module")
def server(place: Path, environment: Mapping[str, str]) -> Iterator[StandInServer]:
    """A server that finds it."""
    with stand_in_server(place, environment) as running:
        yield running
