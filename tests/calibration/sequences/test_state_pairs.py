from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from calibration.errors import InvalidConfigError
from calibration.onnx_model.model_io import TensorSpec
from calibration.sequences.state_pairs import given_states, named_states, states_left_out

STATE = (2, "batch", 128)
FRAME = ("batch", 512)


def specs(shapes: Mapping[str, tuple[int | str | None, ...]], dtype: str = "float32") -> list[TensorSpec]:
    return [TensorSpec(name, dtype, shape) for name, shape in shapes.items()]


@pytest.mark.parametrize(
    ("taken", "output"),
    [
        ("state", "stateN"),
        ("h0", "hn"),
        ("h_0", "h_n"),
        ("c", "cn"),
        ("h", "h_out"),
        ("hidden", "hidden_out"),
        ("cell_in", "cell_out"),
        ("cache_in_3", "cache_out_3"),
        ("cached_len_0", "new_cached_len_0"),
        ("cache_last_channel", "cache_last_channel_next"),
        ("att_cache", "r_att_cache"),
        ("past_key_values.0.key", "present.0.key"),
        ("prevState", "nextState"),
        ("gru_state", "output_gru_state"),
    ],
)
def test_the_two_ends_of_a_state_are_found_by_their_names(taken: str, output: str) -> None:
    inputs = specs({"frames": FRAME, taken: STATE, "other_state": STATE})
    outputs = specs({"score": ("batch", 1), output: STATE, "other_new_state_7": STATE})

    assert named_states(inputs, outputs) == {output: taken}


@pytest.mark.parametrize(
    ("taken", "output"),
    [("input", "output"), ("image_in", "image_out"), ("x", "z"), ("sample", "out_sample"), ("cache_in_3", "cache_out_4"), ("h", "c_out")],
)
def test_what_only_looks_alike_is_no_state(taken: str, output: str) -> None:
    assert named_states(specs({taken: STATE}), specs({output: STATE})) == {}


def test_a_pair_of_another_shape_or_type_is_none() -> None:
    assert named_states(specs({"state": STATE}), specs({"stateN": (2, "batch", 64)})) == {}
    assert named_states(specs({"state": STATE}), specs({"stateN": STATE}, "float16")) == {}


def test_sizes_that_are_open_may_be_the_same() -> None:
    assert named_states(specs({"state": STATE}), specs({"stateN": (None, "any", 128)})) == {"stateN": "state"}


def test_an_input_that_is_left_out_is_found_by_its_shape_alone() -> None:
    inputs, outputs = specs({"x": FRAME, "onnx::LSTM_3": STATE}), specs({"y": FRAME, "162": STATE})

    assert states_left_out(inputs, outputs, ["onnx::LSTM_3"]) == {"162": "onnx::LSTM_3"}
    assert named_states(inputs, outputs) == {}


def test_shapes_that_fit_twice_tell_nothing() -> None:
    inputs, outputs = specs({"x": FRAME, "3": STATE, "4": STATE}), specs({"y": FRAME, "162": STATE, "163": STATE})

    assert states_left_out(inputs, outputs, ["3", "4"]) == {}


def test_an_input_that_is_left_out_need_not_be_called_a_state() -> None:
    inputs, outputs = specs({"src": FRAME, "r1i": STATE, "r2i": STATE}), specs({"fgr": FRAME, "r1o": STATE, "r2o": STATE})

    assert states_left_out(inputs, outputs, ["r1i", "r2i"]) == {"r1o": "r1i", "r2o": "r2i"}


def test_the_users_pairs_are_taken() -> None:
    assert given_states({"b": "a"}, specs({"a": STATE}), specs({"b": STATE})) == {"b": "a"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stateM": "state"}, "Did you mean 'stateN'"),
        ({"stateN": "stat"}, "Did you mean 'state'"),
        ({"score": "state"}, r"'score' of float32 \(batch, 1\) for input 'state' of float32 \(2, batch, 128\)"),
        ({"stateN": "state", "copy": "state"}, "input 'state' for several outputs"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(given: Mapping[str, str], words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        given_states(given, specs({"x": FRAME, "state": STATE}), specs({"score": ("batch", 1), "stateN": STATE, "copy": STATE}))

    assert re.search(words, f"{caught.value.detail} {caught.value.fix}")
