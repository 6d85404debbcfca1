from __future__ import annotations

import pytest

from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import Precision
from engine_builder.records.given_assignment import differences, layers_of, quantized_of

FP16, FP32, INT8, INT4 = Precision.FP16, Precision.FP32, Precision.INT8, Precision.INT4
LAYERS = ("conv1", "conv2", "fc")
ELIGIBLE = {"conv1": (INT8,), "fc": (INT8, INT4)}


def test_every_layer_has_its_own_or_that_of_all_others() -> None:
    assert layers_of({"conv1": INT8, "*": FP16}, LAYERS) == {"conv1": INT8, "conv2": FP16, "fc": FP16}


@pytest.mark.parametrize(
    ("given", "words", "fix"),
    [
        ({"Conv1": INT8, "*": FP16}, "no layer 'Conv1'; its layers are conv1, conv2, fc", "'conv1'"),
        ({"zzzzzz": INT8, "*": FP16}, "no layer 'zzzzzz'", "assignment.json"),
        ({"conv1": INT8}, "no precision for conv2, fc, of 3 layers", '"*"'),
        ({}, "no precision for conv1, conv2, fc", '"*"'),
    ],
)
def test_unknown_and_missing_layers_are_named(given: dict[str, Precision], words: str, fix: str) -> None:
    with pytest.raises(InvalidConfigError, match="assignment") as caught:
        layers_of(given, LAYERS)
    assert words in caught.value.detail
    assert fix in caught.value.fix


def test_of_many_layers_the_first_are_named() -> None:
    with pytest.raises(InvalidConfigError, match="layer0, layer1, layer2, layer3, layer4 and 95 more"):
        layers_of({}, [f"layer{index}" for index in range(100)])


def test_floats_are_not_quantized_whatever_their_type() -> None:
    assert quantized_of({"conv1": INT8, "conv2": FP16, "fc": FP32}, LAYERS, ELIGIBLE) == {"conv1": INT8}


@pytest.mark.parametrize(
    ("layer", "precision", "words"),
    [("conv2", INT8, "it stays in floats"), ("conv1", INT4, "only int8"), ("fc", Precision.FP8, "only int8, int4")],
)
def test_a_layer_that_cannot_take_its_precision_is_named(layer: str, precision: Precision, words: str) -> None:
    with pytest.raises(InvalidConfigError, match=f"layer '{layer}' asks for {precision}") as caught:
        quantized_of({layer: precision, "*": FP16}, LAYERS, ELIGIBLE)
    assert words in caught.value.detail


def test_under_the_star_what_cannot_take_it_stays_in_floats() -> None:
    assert quantized_of({"*": INT8}, LAYERS, ELIGIBLE) == {"conv1": INT8, "fc": INT8}


def test_what_an_engine_has_otherwise_is_told() -> None:
    engine = {"conv1": INT8, "conv2": FP16, "fc": INT8}
    assert differences({"conv1": INT8, "*": FP16, "fc": INT8}, engine) == ()
    (note,) = differences({"*": INT8}, engine)
    assert "1 of 3 layers" in note
    assert "conv2 (fp16, not int8)" in note
