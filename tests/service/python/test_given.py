from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.errors import InvalidCalibrationSetError, InvalidConfigError, InvalidMetricError, InvalidModelError
from service.python.given import metric_file, model_file, output_folder, samples_file
from tests.model_text import cnn

SAMPLES = np.zeros((4, 1, 8, 8), np.float32)
INPUT = cnn().graph.input[0].name


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(cnn(), tmp_path / "own.onnx")
    return tmp_path / "own.onnx"


def test_a_path_stays_as_it_is(model: Path, tmp_path: Path) -> None:
    assert model_file(str(model), tmp_path) == model_file(model, tmp_path) == model


@pytest.mark.parametrize("is_bytes", [True, False])
def test_a_model_in_memory_becomes_a_file(is_bytes: bool, model: Path, tmp_path: Path) -> None:
    found = model_file(model.read_bytes() if is_bytes else onnx.load(model), tmp_path)
    assert found == tmp_path / "model.onnx"
    assert onnx.load(found) == onnx.load(model)


def test_bytes_of_a_zip_become_a_zip(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model.onnx", b"")
    assert model_file(packed.getvalue(), tmp_path).name == "model.zip"


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="int found"):
        model_file(3, tmp_path)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(InvalidMetricError, match="no such file"):
        metric_file(tmp_path / "none.onnx", tmp_path)


def test_samples_in_a_file_stay_there_and_one_that_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=SAMPLES)
    assert samples_file(str(tmp_path / "mine.npz"), model, tmp_path, "calibration") == tmp_path / "mine.npz"
    with pytest.raises(InvalidCalibrationSetError, match=r"validation set .*none\.npz: no such file"):
        samples_file("none.npz", model, tmp_path, "validation")


@pytest.mark.parametrize("samples", [SAMPLES, {INPUT: SAMPLES}, list(SAMPLES), [SAMPLES[:2], SAMPLES[2:]], [{INPUT: SAMPLES}]])
def test_samples_in_memory_become_a_file_under_the_names_of_the_models_inputs(samples: object, model: Path, tmp_path: Path) -> None:
    found = samples_file(samples, model, tmp_path, "calibration")  # type: ignore[arg-type]  # each is one of those that may be given
    assert found == tmp_path / "calibration.npz"
    with np.load(found) as arrays:
        assert {name: arrays[name].shape for name in arrays.files} == {INPUT: (4, 1, 8, 8)}


def test_what_gives_no_samples_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidCalibrationSetError, match="int found"):
        samples_file(3, model, tmp_path, "calibration")  # type: ignore[arg-type]  # what is tested


def test_samples_of_a_model_that_is_none_must_have_names(tmp_path: Path) -> None:
    (tmp_path / "wrong.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(InvalidCalibrationSetError, match="without names"):
        samples_file(list(SAMPLES), tmp_path / "wrong.onnx", tmp_path, "calibration")


def test_an_output_that_is_no_path_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="int found"):
        output_folder(3)  # type: ignore[arg-type]  # what is tested
