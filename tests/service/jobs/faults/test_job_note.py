from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from engine_builder.workspace.workspace import FileRef
from service.jobs.faults.job_note import NOTE_NAME, damaged_inputs, find_note, write_note
from service.jobs.records import Job, NewJob
from service.jobs.store import JobStore
from tests.fakes import FakeClock


@pytest.fixture
def job(tmp_path: Path) -> Job:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"model")
    inputs = {"model": FileRef("model.onnx", hashlib.sha256(b"model").hexdigest())}
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    made, _ = store.create(NewJob("one", "onnxruntime-cpu", {"batch_size": 4}, inputs, idempotency_key="k", request_sha256="5"))
    store.close()
    return made


def test_a_note_tells_all_that_the_row_began_with(tmp_path: Path, job: Job) -> None:
    write_note(tmp_path / "one", job)
    note = find_note(tmp_path / "one")
    assert note is not None
    assert (note.new, note.created_at) == (job.new, job.created_at)
    assert damaged_inputs(note, tmp_path / "one") == ()


def test_inputs_that_are_not_what_was_sent_are_named(tmp_path: Path, job: Job) -> None:
    write_note(tmp_path / "one", job)
    (tmp_path / "one" / "model.onnx").write_bytes(b"other")
    note = find_note(tmp_path / "one")
    assert note is not None
    assert damaged_inputs(note, tmp_path / "one") == ("model",)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"new": {}}', '{"new": 5, "created_at": 1}'])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / NOTE_NAME).write_text(text)
    assert find_note(tmp_path) is None


def test_a_note_of_another_folder_is_none(tmp_path: Path, job: Job) -> None:
    write_note(tmp_path / "one", dataclasses.replace(job, new=dataclasses.replace(job.new, id="two")))
    assert find_note(tmp_path / "one") is None
