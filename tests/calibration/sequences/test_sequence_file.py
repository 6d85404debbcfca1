from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.data.dataset import CalibrationSet, is_repeated
from calibration.data.formats.wanted import Wanted
from calibration.data.readers import read_arrays
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import input_specs, output_specs
from calibration.sequences.sequence_file import samples_or_sequences
from calibration.sequences.step_sequences import StepSequences
from engine_builder.workspace.workspace import Workspace
from tests.model_text import Array, model_from_text
from tests.state_models import HIDDEN, conv_stream, gru_detector, lstm_step, walks

X = walks(4, 6, 16)
LENGTHS = np.array([6, 2, 5, 1])


def read(
    folder: Path, model: onnx.ModelProto, arrays: Mapping[str, Array], state: Mapping[str, str] | None = None
) -> CalibrationSet | StepSequences:
    path = Workspace(folder).path(Workspace(folder).write_arrays("samples.npz", **arrays))
    inputs = tuple(input_specs(model))
    return samples_or_sequences(read_arrays(path, Wanted(inputs)).arrays, inputs, output_specs(model), state or {})


def sequences(folder: Path, model: onnx.ModelProto, arrays: Mapping[str, Array], state: Mapping[str, str] | None = None) -> StepSequences:
    found = read(folder, model, arrays, state)
    assert isinstance(found, StepSequences)
    return found


def test_a_file_without_the_state_holds_sequences_that_start_at_zero(tmp_path: Path) -> None:
    found = sequences(tmp_path, gru_detector(), {"x": X})

    assert found.samples == 4
    assert found.lengths.tolist() == [6] * 4
    assert found.states == {"stateN": "state"}
    assert np.array_equal(found.steps.inputs["x"], X.reshape(24, 16))
    assert found.steps.inputs["state"].shape == (24, HIDDEN)
    assert is_repeated(found.steps.inputs["state"])
    assert not found.steps.starts["state"].any()


def test_steps_past_the_length_of_a_sequence_are_filling(tmp_path: Path) -> None:
    found = sequences(tmp_path, gru_detector(), {"x": X, "lengths": LENGTHS})

    assert found.lengths.tolist() == LENGTHS.tolist()
    assert np.array_equal(found.steps.inputs["x"], np.concatenate([X[i, :length] for i, length in enumerate(LENGTHS)]))


def test_a_state_that_is_given_is_what_each_sequence_starts_with(tmp_path: Path) -> None:
    start = np.random.default_rng(0).normal(size=(4, HIDDEN)).astype(np.float32)
    found = sequences(tmp_path, gru_detector(), {"x": X, "state": start, "lengths": LENGTHS})

    assert np.array_equal(found.steps.starts["state"], start)


def test_a_starting_state_gets_the_type_of_the_models_input(tmp_path: Path) -> None:
    found = sequences(tmp_path, gru_detector(), {"x": X, "state": np.ones((4, HIDDEN))})

    assert found.steps.starts["state"].dtype == np.float32


def test_one_state_may_be_given_and_another_left_out(tmp_path: Path) -> None:
    start = np.ones((4, 1, 1, HIDDEN), dtype=np.float32)
    found = sequences(tmp_path, lstm_step(), {"x": X, "c0": start})

    assert found.states == {"hn": "h0", "cn": "c0"}
    assert found.steps.axes == {"h0": 1, "c0": 1}
    assert np.array_equal(found.steps.starts["c0"], start[:, 0])
    assert found.steps.starts["h0"].shape == (4, 1, HIDDEN)


def test_a_state_of_a_fixed_batch_has_the_axis_that_counts_samples_left_out(tmp_path: Path) -> None:
    found = sequences(tmp_path, conv_stream(), {"frames": walks(4, 6, 8, 4)})

    assert found.steps.inputs["frames"].shape == (24, 8, 4)
    assert found.steps.inputs["cache_in"].shape == (24, 8, 2)


def test_an_array_without_steps_holds_for_all_steps_of_a_sequence(tmp_path: Path) -> None:
    model = model_from_text(
        "g (float[N,3] x, float[N,2] speaker, float[N,3] h) => (float[N,3] y, float[N,3] hn) { y = Add(x, h) hn = Add(x, h) }"
    )
    speaker = np.arange(8, dtype=np.float32).reshape(4, 2)
    found = sequences(tmp_path, model, {"x": X[..., :3], "speaker": speaker, "lengths": LENGTHS})

    assert np.array_equal(found.steps.inputs["speaker"], np.repeat(speaker, LENGTHS, axis=0))


def test_a_setting_of_the_whole_job_stays_one(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,3] x, int64 rate, float[N,3] h) => (float[N,3] y, float[N,3] hn) { y = Add(x, h) hn = Add(x, h) }")
    found = sequences(tmp_path, model, {"x": X[..., :3], "rate": np.array(16000)})

    assert found.settings["rate"] == 16000


def test_labels_of_sequences_are_of_their_last_step(tmp_path: Path) -> None:
    found = sequences(tmp_path, lstm_step(), {"x": X, "labels": np.array([1, 2, 3, 4]), "lengths": LENGTHS})

    assert found.is_judged_last
    assert found.steps.labels is not None
    assert found.steps.labels.tolist() == np.repeat([1, 2, 3, 4], LENGTHS).tolist()


def test_labels_of_steps_are_of_each_step(tmp_path: Path) -> None:
    labels = np.arange(24).reshape(4, 6) % 5
    found = sequences(tmp_path, lstm_step(), {"x": X, "labels": labels, "lengths": LENGTHS})

    assert not found.is_judged_last
    assert found.steps.labels is not None
    assert found.steps.labels.tolist() == [*labels[0], *labels[1, :2], *labels[2, :5], *labels[3, :1]]


def test_single_steps_with_their_states_are_samples_as_ever(tmp_path: Path) -> None:
    found = read(tmp_path, gru_detector(), {"x": X[:, 0], "state": np.zeros((4, HIDDEN), dtype=np.float32)})

    assert isinstance(found, CalibrationSet)
    assert found.samples == 4
    assert not found.settings


def test_a_state_that_is_zero_in_all_single_steps_is_no_setting(tmp_path: Path) -> None:
    found = read(tmp_path, conv_stream(), {"frames": walks(4, 6, 8, 4)[:, 0], "cache_in": np.zeros((4, 8, 2), dtype=np.float32)})

    assert not found.settings


def test_names_of_the_model_itself_are_written_with_underscores(tmp_path: Path) -> None:
    model = model_from_text(
        "g (float[N,3] x, float[N,1] lengths, float[N,3] h) => (float[N,3] y, float[N,3] hn)"
        "{ s = Mul(x, lengths) y = Add(s, h) hn = Add(s, h) }"
    )
    found = sequences(tmp_path, model, {"x": X[..., :3], "lengths": X[..., :1], "__lengths__": LENGTHS})

    assert found.lengths.tolist() == LENGTHS.tolist()


@pytest.mark.parametrize(
    ("arrays", "state", "words"),
    [
        ({"x": X[:, 0]}, {}, r"shape \(4, 16\) found; the state 'h0', 'c0' is left out.*\(sequences, steps"),
        (
            {"x": X, "lengths": np.array([1, 2])},
            {},
            r"array 'lengths': int64 of shape \(2,\), from 1 to 2 found, whole numbers of shape \(4,\)",
        ),
        ({"x": X, "lengths": np.array([1, 2, 3, 7])}, {}, "from 1 to 7 found, .* from 1 to 6 expected"),
        ({"x": X, "lengths": np.array([1.0, 2.0, 3.0, 4.0])}, {}, "float64"),
        ({"x": X, "h0": np.zeros((3, 1, HIDDEN), dtype=np.float32)}, {}, r"expected \(4, ...\): the state that each sequence starts with"),
        ({"x": X}, {"hn": "h0"}, "array 'c0': missing; 'h0' may be left out"),
        ({"frames": X}, {}, "array 'x': missing; arrays found: 'frames'"),
    ],
)
def test_what_does_not_fit_is_refused(arrays: Mapping[str, Array], state: Mapping[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=words):
        read(tmp_path, lstm_step(), arrays, state)


def test_different_numbers_of_steps_are_refused(tmp_path: Path) -> None:
    model = model_from_text(
        "g (float[N,3] x, float[N,2] z, float[N,3] h) => (float[N,3] y, float[N,3] hn) { y = Add(x, h) hn = Add(x, h) }"
    )

    with pytest.raises(InvalidCalibrationSetError, match="'x' 4 sequences of 6 steps, 'z' 4 sequences of 5 steps"):
        read(tmp_path, model, {"x": X[..., :3], "z": X[:, :5, :2]})


def test_a_state_of_open_shape_must_be_given(tmp_path: Path) -> None:
    model = model_from_text(
        "g (float[N,3] x, float[N,past,3] cache) => (float[N,M,3] y, float[N,past,3] cache_out)"
        "{ y = Add(x, cache) cache_out = Add(x, cache) }"
    )

    with pytest.raises(InvalidCalibrationSetError, match=r"leaves its shape open: \(N, past, 3\)"):
        read(tmp_path, model, {"x": X[..., :3]})


def test_a_size_of_a_state_is_that_of_the_same_name_in_the_samples(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,W] x, float[N,W] h) => (float[N,W] y, float[N,W] hn) { y = Add(x, h) hn = Add(x, h) }")

    assert sequences(tmp_path, model, {"x": X}).steps.inputs["h"].shape == (24, 16)
