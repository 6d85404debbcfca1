"""Whole jobs on pictures as people have them: a folder on the command line, a .zip over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import onnx
import pytest

from examples.server import running_server
from service.__main__ import main
from service.client.client import Client
from tests.picture_sets import PREPROCESS, labelled_folder, picture_model, zip_of

CONFIG = {"preprocess": PREPROCESS, "accuracy": {"min_relative": 0.5}, "search": {"max_trials": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model and labelled pictures that it knows."""
    folder = tmp_path_factory.mktemp("pictures")
    model = picture_model()
    onnx.save(model, folder / "model.onnx")
    labelled_folder(folder / "pictures", model, 48)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_a_folder_of_pictures_is_a_calibration_set(folder: Path, tmp_path: Path) -> None:
    arguments = ["optimize", folder / "model.onnx", "--calibration", folder / "pictures", "--config", folder / "config.json", "--no-cache"]
    assert main([*map(str, arguments), "--output", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["verdict"]["metric"] == "top1"  # the labels came from the folders
    assert result["baseline"]["accuracy"] == 1.0  # and the pictures as the model that named them sees them
    report = json.loads((tmp_path / "report.json").read_text())
    assert "labels are names of 3 classes, numbered in sorted order: 'class0' is 0, 'class1' is 1, 'class2' is 2" in json.dumps(report)


def test_a_folder_without_a_statement_ends_with_what_to_state(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["optimize", folder / "model.onnx", "--calibration", folder / "pictures", "--no-cache", "--output", tmp_path / "out"]
    assert main([*map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert "error: preprocess: it is not stated how the pixels of calibration file 'pictures', 0 to 255, become the float32 values" in said
    assert 'fix: Add to the configuration "preprocess": {"scale": 0.00392156862745098}' in said


def test_a_zip_of_pictures_is_one_over_http(folder: Path, tmp_path: Path) -> None:
    packed = zip_of(folder / "pictures", tmp_path / "pictures.zip")
    (tmp_path / "server").mkdir()
    with running_server(tmp_path / "server") as address:
        answer = httpx.post(
            f"{address}/v1/jobs",
            files={"model": (folder / "model.onnx").read_bytes(), "calibration": packed.read_bytes()},
            data={"config": json.dumps(CONFIG)},
            trust_env=False,
        )
        assert answer.status_code == 202
        with Client(address) as client:
            done = client.watch(answer.json()["id"], lambda job: None)
    assert done.error is None
    assert done.result is not None
    baseline = done.result["baseline"]
    assert isinstance(baseline, dict)
    assert baseline["accuracy"] == 1.0
