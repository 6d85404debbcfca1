from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import InvalidConfigError
from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import Precision
from engine_builder.interchange.trtexec_settings import (
    assignment_from_layer_precisions,
    assignment_from_ranges,
    entries_without_layer,
    layers_without_range,
    ranges_from_calibration_cache,
)


def layer(name: str, *inputs: str) -> Layer:
    return Layer(name, "Conv", LayerKind.WEIGHTED, inputs or (f"{name}.in",), "w", 0, None, f"{name}.out", (name,), 1, 1)


LAYERS = tuple(layer(name) for name in ("conv1", "conv2", "block/conv1", "fc"))


def precisions(spec: str, *, default: Precision = Precision.FP16) -> dict[str, str]:
    return assignment_from_layer_precisions(spec, LAYERS, nodes={"softmax"}, default=default).as_json()


@pytest.mark.parametrize("spec", ["conv1:int8,*:fp32", "*:fp32,conv1:int8"])
def test_an_exact_name_wins_over_the_star_in_either_order(spec: str) -> None:
    assert precisions(spec) == {"conv1": "int8", "conv2": "fp32", "block/conv1": "fp32", "fc": "fp32"}


def test_a_layer_that_no_entry_fits_takes_the_default() -> None:
    assert precisions("conv1:int8", default=Precision.BF16) == {"conv1": "int8", "conv2": "bf16", "block/conv1": "bf16", "fc": "bf16"}


@pytest.mark.parametrize(
    ("pattern", "fitting"),
    [
        ("conv*", {"conv1", "conv2"}),
        ("*conv1", {"conv1", "block/conv1"}),
        ("conv1*", {"conv1"}),
        ("block*1", {"block/conv1"}),
        ("*", {"conv1", "conv2", "block/conv1", "fc"}),
    ],
)
def test_a_star_stands_for_any_text_also_none(pattern: str, fitting: set[str]) -> None:
    assert {name for name, value in precisions(f"{pattern}:int8").items() if value == "int8"} == fitting


def test_only_the_first_star_stands_for_other_text() -> None:
    odd = (*LAYERS, layer("a-x*b"))
    found = assignment_from_layer_precisions("a*x*b:int8", odd)
    assert [name for name, value in found.items() if value is Precision.INT8] == ["a-x*b"]
    with pytest.raises(InvalidConfigError, match="is called"):
        assignment_from_layer_precisions("c*n*1:int8", odd)


def test_text_before_and_after_a_star_may_not_overlap() -> None:
    with pytest.raises(InvalidConfigError, match="no layer or node is called 'conv\\*nv1'"):
        precisions("conv*nv1:int8")


@pytest.mark.parametrize(
    ("spec", "expected"), [("*:fp32,conv*:int8", "int8"), ("conv*:int8,*:fp32", "int8"), ("conv*:int8,*onv1:fp32", "fp32")]
)
def test_of_several_fitting_patterns_the_longest_counts_then_the_later(spec: str, expected: str) -> None:
    assert precisions(spec)["conv1"] == expected


def test_of_two_entries_with_one_name_the_later_counts() -> None:
    assert precisions("conv1:int8,conv1:fp32")["conv1"] == "fp32"


def test_the_last_colon_ends_the_name_and_quotes_are_taken_off() -> None:
    odd = (layer("a:b"), layer("c d"))
    assert assignment_from_layer_precisions("a:b:int8, 'c d':fp8", odd).as_json() == {"a:b": "int8", "c d": "fp8"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "expected NAME:PRECISION"),
        ("conv1", "expected NAME:PRECISION"),
        (":int8", "expected NAME:PRECISION"),
        ("conv1:int8,", "expected NAME:PRECISION"),
        ("conv1:int8_dynamic", "'int8_dynamic', expected one of fp32, fp16, bf16, int8, fp8, int4"),
        ("conv1:int32", "'conv1' has the precision 'int32', expected one of fp32"),
        ("conv9:int8", "no layer or node is called 'conv9'; the layers are 'conv1'"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused(spec: str, words: str) -> None:
    with pytest.raises(InvalidConfigError, match=words):
        precisions(spec)


@pytest.mark.parametrize(
    ("word", "fix"),
    [("int32", "Leave out layers that compute with integers"), ("int9", "Write 'int8'"), ("FP16", "Write 'fp16'"), ("x", "Write one of")],
)
def test_the_fix_for_a_word_that_is_no_precision_fits_the_word(word: str, fix: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        precisions(f"conv1:{word}")
    assert caught.value.fix is not None
    assert caught.value.fix.startswith(fix)


def test_an_entry_for_a_node_that_is_no_layer_is_passed_over_and_named() -> None:
    spec = "softmax:fp32,conv1:int8"
    assert precisions(spec)["conv1"] == "int8"
    assert entries_without_layer(spec, LAYERS) == ("softmax",)


CACHE = """TRT-8601-EntropyCalibration2
input: 3caa54fc
a:b: 3cbe52af
(Unnamed Layer* 64) [Shuffle]_output: 0
tiny: 800000
"""


def test_ranges_are_127_scales_to_either_side() -> None:
    ranges = ranges_from_calibration_cache(CACHE)
    scale = struct.unpack("!f", bytes.fromhex("3caa54fc"))[0]
    assert ranges["input"] == (-127 * scale, 127 * scale)
    assert ranges["input"][1] == pytest.approx(2.64, abs=0.01)  # a picture normalized with the usual mean and deviation
    assert ranges["tiny"][1] == 127 * 2.0**-126  # 00800000, the smallest normal float32
    assert set(ranges) == {"input", "a:b", "tiny"}


@given(
    st.dictionaries(st.text("abc/:. _-()[]0", min_size=1).map(str.strip).filter(bool), st.floats(0.0, 2.0**99, width=32, exclude_min=True))
)
def test_a_cache_comes_back_as_it_was_written(scales: dict[str, float]) -> None:
    lines = [f"{name}: {struct.pack('!f', scale).hex().lstrip('0')}" for name, scale in scales.items()]
    ranges = ranges_from_calibration_cache("\n".join(["TRT-101401-MinMaxCalibration", *lines, ""]))
    assert {name: high / 127 for name, (_, high) in ranges.items()} == pytest.approx(scales)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found an empty file"),
        ("input: 3caa54fc\n", "found 'input: 3caa54fc' as the first line"),
        ("TRT-8601-EntropyCalibration2\ninput 3caa54fc\n", "line 2: found 'input 3caa54fc'"),
        ("TRT-8601-EntropyCalibration2\ninput: 3caa54fc\nx: 3caa54fc0\n", "line 3"),
        ("TRT-8601-EntropyCalibration2\ninput: 7fc00000\n", "line 2"),
        ("TRT-8601-EntropyCalibration2\ninput: bcaa54fc\n", "line 2"),
        ("TRT-8601-EntropyCalibration2\n: 3caa54fc\n", "line 2"),
    ],
    ids=["empty", "no header", "no colon", "too long", "not a number", "negative", "no name"],
)
def test_what_is_no_calibration_cache_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidConfigError, match=words):
        ranges_from_calibration_cache(text)


def test_with_ranges_alone_layers_whose_inputs_all_have_one_are_int8() -> None:
    layers = (layer("conv", "x"), layer("add", "x", "y"), layer("fc", "z"))
    ranges = {"x": (-1.0, 1.0), "z": (-math.pi, math.pi)}
    assert assignment_from_ranges(layers, ranges).as_json() == {"conv": "int8", "add": "fp16", "fc": "int8"}
    assert layers_without_range(("add", "fc"), layers, ranges) == ("add",)
