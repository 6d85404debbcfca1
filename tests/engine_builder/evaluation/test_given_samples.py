"""What is judged on: each different validation sample once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.data.dataset import MAPPED_BYTES, CalibrationSet
from calibration.errors import InvalidCalibrationSetError
from calibration.sequences.step_sequences import StepSequences
from engine_builder.evaluation.given_samples import kept_in_file
from engine_builder.records.inspection import Inspection
from tests.driver import Samples, inspected, run_job, submitted
from tests.model_text import cnn, samples_for


def inspection(folder: Path, calibration: Samples, validation: Samples) -> Inspection:
    driver, job = submitted(folder, cnn(), calibration, validation)
    return driver.workspace.read_value(Inspection, inspected(driver, job).inspection)


@pytest.mark.parametrize("part", ["calibration", "validation"])
def test_what_is_wrong_with_one_of_two_files_names_it(tmp_path: Path, part: str) -> None:
    sound = samples_for(cnn(), 20)
    odd = {f"another_{name}": array for name, array in sound.items()}
    with pytest.raises(InvalidCalibrationSetError, match=f"^{part} file: array '.*': missing"):
        inspection(tmp_path, odd if part == "calibration" else sound, odd if part == "validation" else sound)


def test_copies_of_a_validation_sample_are_no_further_evidence(tmp_path: Path) -> None:
    few = samples_for(cnn(), 12, seed=2)
    many = {name: np.concatenate([array, array[:1].repeat(52, axis=0)]) for name, array in few.items()}
    found = run_job(tmp_path, cnn(), samples_for(cnn(), 20), many)
    assert found.verdict["n"] == 12
    assert "52 of 64 validation samples are copies of others: each counts once" in found.notes


def test_one_sample_with_two_labels_is_two_samples(tmp_path: Path) -> None:
    samples = samples_for(cnn(), 16, seed=2)
    twice = {name: np.concatenate([array, array]) for name, array in samples.items()}
    labels = np.concatenate([np.zeros(16, dtype=np.int64), np.ones(16, dtype=np.int64)])
    calibration = {**samples_for(cnn(), 20), "labels": np.arange(20) % 3}
    driver, job = submitted(tmp_path, cnn(), calibration, {**twice, "labels": labels}, {"accuracy": {"allow_chance": True}})
    found = driver.workspace.read_value(Inspection, inspected(driver, job).inspection)
    assert found.samples.validation_samples == 32


def test_two_samples_copied_many_times_are_refused(tmp_path: Path) -> None:
    one, other = ({name: array.repeat(64, axis=0) for name, array in samples_for(cnn(), 1, seed).items()} for seed in (1, 2))
    with pytest.raises(
        InvalidCalibrationSetError, match="2 different samples found among 64 calibration and 64 validation samples"
    ) as error:
        inspection(tmp_path, one, other)
    assert error.value.fix.startswith("Upload different samples")


def test_calibration_samples_that_are_copies_are_kept(tmp_path: Path) -> None:
    calibration = {name: np.concatenate([array, array]) for name, array in samples_for(cnn(), 20).items()}
    assert inspection(tmp_path, calibration, samples_for(cnn(), 16, seed=2)).samples.calibration_samples == 40


def test_samples_of_many_bytes_stay_in_a_file(tmp_path: Path) -> None:
    rows = np.arange(MAPPED_BYTES // 4, dtype=np.float32).reshape(16, -1)
    given = CalibrationSet({"x": rows}, np.arange(16), {"x": 0})

    kept = kept_in_file(given, tmp_path / "kept.npz")

    assert isinstance(kept, CalibrationSet)
    assert kept.source is not None
    np.testing.assert_array_equal(kept.inputs["x"], rows)


def test_sequences_of_many_bytes_stay_in_a_file_with_their_lengths(tmp_path: Path) -> None:
    steps = CalibrationSet({"x": np.zeros((16, MAPPED_BYTES // 16), dtype=np.int8)}, None, {"x": 0})
    given = StepSequences(steps, np.array([10, 6]), {"state": "x"})

    kept = kept_in_file(given, tmp_path / "kept.npz")

    assert isinstance(kept, StepSequences)
    assert kept.steps.source is not None
    assert kept.lengths.tolist() == [10, 6]


def test_samples_of_few_bytes_are_as_they_were(tmp_path: Path) -> None:
    given = CalibrationSet({"x": np.zeros((16, 4))}, None)

    assert kept_in_file(given, tmp_path / "kept.npz") is given
    assert not (tmp_path / "kept.npz").exists()
