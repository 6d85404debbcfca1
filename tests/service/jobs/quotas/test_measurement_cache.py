from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_builder.workspace.workspace import Workspace
from service.jobs.quotas.measurement_cache import MeasurementCache
from service.jobs.store import JobStore
from service.worker.stage_cache import StageCache
from tests.fakes import FakeClock
from tests.service.jobs.test_store import new_job


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    for tenant in ("red", "blue", "apart", "aloof"):
        store.tenants.ensure(tenant)
        store.create(new_job(f"of {tenant}", tenant=tenant))
        store.create(new_job(f"another of {tenant}", tenant=tenant))
    for tenant in ("apart", "aloof"):
        store.tenants.change(tenant, {}, shares_measurements=False)
    yield store
    store.close()


@pytest.fixture
def cache(store: JobStore, tmp_path: Path) -> MeasurementCache:
    return MeasurementCache(lambda tenant: StageCache(tmp_path / "cache", f"1 {tenant}", ["ranges"]), store.tenant_apart)


def is_measured(cache: MeasurementCache, folder: Path, job_id: str) -> bool:
    """Whether a job had to measure by itself."""
    measured: list[str] = []

    def compute() -> dict[str, object]:
        measured.append(job_id)
        return {"value": 1}

    workspace = folder / "jobs" / job_id
    workspace.mkdir(parents=True, exist_ok=True)
    assert cache.run("ranges", {"of": "the same model"}, Workspace(workspace), compute) == {"value": 1}
    return bool(measured)


def test_tenants_share_measurements(cache: MeasurementCache, tmp_path: Path) -> None:
    assert is_measured(cache, tmp_path, "of red")
    assert not is_measured(cache, tmp_path, "of blue")


def test_a_tenant_apart_finds_only_its_own_and_nobody_finds_those(cache: MeasurementCache, tmp_path: Path) -> None:
    assert is_measured(cache, tmp_path, "of apart")
    assert not is_measured(cache, tmp_path, "another of apart")
    assert is_measured(cache, tmp_path, "of red")
    assert is_measured(cache, tmp_path, "of aloof")
    assert not is_measured(cache, tmp_path, "another of aloof")


def test_a_change_of_mind_holds_for_the_next_stage(cache: MeasurementCache, store: JobStore, tmp_path: Path) -> None:
    assert is_measured(cache, tmp_path, "of red")
    assert not is_measured(cache, tmp_path, "of blue")
    store.tenants.change("blue", {}, shares_measurements=False)
    assert is_measured(cache, tmp_path, "of blue")
