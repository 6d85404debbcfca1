from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from service.jobs.execution import engine_records
from service.jobs.execution.engine_records import EngineRecords


@dataclass(frozen=True)
class Part:
    workflow_id: str


@dataclass
class Engine:
    """The clients that were made, and what they were asked to delete."""

    opened: list[str] = field(default_factory=list)
    closed: int = 0
    deleted: list[tuple[str, bool]] = field(default_factory=list)

    def client(self, *, system_database_url: str, serializer: object) -> Engine:
        self.opened.append(system_database_url)
        return self

    def delete_workflow(self, workflow_id: str, *, delete_children: bool = False) -> None:
        self.deleted.append((workflow_id, delete_children))

    def list_workflows(self, *, workflow_id_prefix: str, **_options: object) -> list[Part]:
        return [Part(f"{workflow_id_prefix}probe:0of2")]

    def destroy(self) -> None:
        self.closed += 1


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setattr(engine_records, "DBOSClient", engine.client)
    return engine


def test_all_jobs_are_forgotten_over_one_client(engine: Engine) -> None:
    records = EngineRecords("postgresql+psycopg://somewhere")
    assert engine.opened == []
    for name in ("one", "two", "three"):
        records.forget(name)
    assert engine.opened == ["postgresql+psycopg://somewhere"]
    assert engine.deleted[:2] == [("one", True), ("one:probe:0of2", False)]
    records.close()
    records.close()
    assert engine.closed == 1


def test_one_that_was_never_used_opens_nothing_when_it_is_closed(engine: Engine) -> None:
    EngineRecords("postgresql+psycopg://somewhere").close()
    assert (engine.opened, engine.closed) == ([], 0)
