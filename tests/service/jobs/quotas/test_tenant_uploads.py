from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs.resources import Deps
from service.settings import Settings
from tests.service.launch_server import fake_deps

DATA = b"the same model"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def deps(tmp_path: Path) -> Iterator[Deps]:
    deps = fake_deps(Settings(data_dir=tmp_path / "data"), tmp_path / "record")
    for tenant in ("red", "blue"):
        deps.store.tenants.ensure(tenant)
    yield deps
    deps.close()


@pytest.mark.parametrize("other", ["red", "blue"])
def test_what_a_refused_request_takes_back_stays_where_another_request_uses_it(deps: Deps, other: str) -> None:
    with deps.uploads_of("red") as refused, deps.uploads_of(other) as going_on:
        for uploads in (refused, going_on):
            with uploads.writer(len(DATA)) as writer:
                writer.write(DATA)
                writer.commit()
        refused.take_back(deps.filing)
        assert going_on.find(SHA256) is not None
    assert deps.store.owners.has(other, SHA256)


def test_what_nobody_else_uses_goes(deps: Deps) -> None:
    with deps.uploads_of("red") as uploads:
        with uploads.writer(len(DATA)) as writer:
            writer.write(DATA)
            writer.commit()
        assert uploads.find(SHA256) is not None
        uploads.take_back(deps.filing)
    assert deps.artifacts.find(SHA256) is None
    assert not deps.store.owners.has("red", SHA256)


def test_a_request_that_ended_holds_nothing(deps: Deps) -> None:
    with deps.uploads_of("red") as earlier, earlier.writer(len(DATA)) as writer:
        writer.write(DATA)
        writer.commit()
    with deps.uploads_of("red") as later:
        later.remove([SHA256], deps.filing)
    assert deps.artifacts.find(SHA256) is None
