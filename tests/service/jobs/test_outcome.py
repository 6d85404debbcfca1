from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

from calibration.onnx_model.model_io import read_model, save_model
from engine_builder.stage_io.outcome import JobOutcome
from engine_builder.workspace.workspace import FileRef
from service.jobs.artifacts import LocalArtifactStore
from service.jobs.outcome import collect, offered_engines
from tests.models import AWKWARD

OUTCOME = JobOutcome(
    result={"outcome": "improved", "engine": {"name": "engine.onnx", "sha256": "0" * 64, "size_bytes": 1}},
    engine_name="engine.onnx",
    engine=FileRef("engine.onnx", "0" * 64),
    artifacts={"report.json": FileRef("report.json", "1" * 64)},
)


def workspace(folder: Path, *, limit_bytes: int) -> Path:
    folder.mkdir()
    save_model(AWKWARD["cnn"](), folder / "engine.onnx", limit_bytes=limit_bytes)
    (folder / "report.json").write_text("{}")
    (folder / "log.txt").write_text("--- inspect")
    return folder


def test_files_are_stored_under_their_names_with_the_log(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path / "store")
    folder = workspace(tmp_path / "work", limit_bytes=2**31)
    result, name, artifacts = collect(OUTCOME, folder, store)
    assert (result, name) == (OUTCOME.result, "engine.onnx")
    assert set(artifacts) == {"engine.onnx", "report.json", "log.txt"}
    with store.open(artifacts["engine.onnx"].sha256) as stored:
        assert stored.read() == (folder / "engine.onnx").read_bytes()


def test_offered_engines_with_external_data_are_archives_that_the_result_names(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path / "store")
    folder = workspace(tmp_path / "work", limit_bytes=1)
    engines: list[dict[str, object]] = []
    for name in ("aa", "bb"):  # external data of one name, in a folder each
        (folder / "front" / name).mkdir(parents=True)
        save_model(AWKWARD["cnn"](), folder / "front" / name / "engine.onnx", limit_bytes=1)
        engines.append({"fingerprint": name, "file": {"name": f"front/{name}/engine.onnx", "sha256": "2" * 64}})
    engines.append({"fingerprint": "cc", "file": None})
    offered = {file["name"]: FileRef(file["name"], file["sha256"]) for engine in engines if isinstance(file := engine["file"], dict)}
    outcome = dataclasses.replace(
        OUTCOME, result={**OUTCOME.result, "offers": {"engines": engines}}, artifacts={**OUTCOME.artifacts, **offered}
    )
    result, _, artifacts = collect(outcome, folder, store)
    assert {"front/aa/engine.zip", "front/bb/engine.zip"} < set(artifacts)
    assert [engine["file"] for engine in offered_engines(result)] == [
        *({"name": name, "sha256": artifacts[name].sha256} for name in ("front/aa/engine.zip", "front/bb/engine.zip")),
        None,
    ]


def test_an_engine_with_external_data_is_stored_as_one_archive_that_opens_again(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path / "store")
    folder = workspace(tmp_path / "work", limit_bytes=1)
    result, name, artifacts = collect(OUTCOME, folder, store)
    assert name == "engine.zip"
    assert "engine.onnx" not in artifacts
    stored = artifacts["engine.zip"]
    assert result["engine"] == {"name": "engine.zip", "sha256": stored.sha256, "size_bytes": stored.size_bytes}
    with store.open(stored.sha256) as stream, zipfile.ZipFile(stream) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert read_model(tmp_path / "unpacked" / "engine.onnx").graph.node
