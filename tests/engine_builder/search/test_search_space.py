from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.search_space import (
    choices_of,
    eligible_from,
    engine_without_residual_adds,
    is_one_format,
    legalized,
    one_format_engines,
    units,
)

INT8, FP8, INT4 = Precision.INT8, Precision.FP8, Precision.INT4
TARGET = (INT8, FP8, INT4)


def test_the_layer_precisions_of_a_layer_are_what_it_can_take() -> None:
    assert eligible_from([LayerPrecision("b", INT8), LayerPrecision("b", INT4), LayerPrecision("a", FP8)]) == {
        "b": (INT8, INT4),
        "a": (FP8,),
    }


def test_a_single_precision_has_one_one_format_engine() -> None:
    assert one_format_engines({"a": [INT8], "b": [INT8]}, TARGET) == {"all_low": {"a": INT8, "b": INT8}}


def test_every_precision_that_a_layer_can_take_has_a_one_format_engine() -> None:
    engines = one_format_engines({"conv": [INT8, FP8], "matmul": [INT8, FP8, INT4]}, TARGET)
    assert engines == {
        "all_low": {"conv": INT8, "matmul": INT8},
        "all_fp8": {"conv": FP8, "matmul": FP8},
        "all_int4": {"conv": INT8, "matmul": INT4},  # the convolution takes the first that it can take
    }
    assert all(is_one_format(name) for name in engines)
    assert not is_one_format("frontier")


def test_a_dynamic_one_format_engine_leaves_all_other_layers_in_floats() -> None:
    dynamic = Precision.INT8_DYNAMIC
    assert one_format_engines({"conv": [INT8], "matmul": [INT8, dynamic]}, (INT8, dynamic)) == {
        "all_low": {"conv": INT8, "matmul": INT8},
        "all_int8_dynamic": {"matmul": dynamic},
    }
    assert one_format_engines({"matmul": [dynamic]}, (dynamic,)) == {"all_low": {"matmul": dynamic}}


def test_a_layer_that_can_take_nothing_is_in_no_one_format_engine() -> None:
    assert one_format_engines({"a": [], "b": [FP8]}, TARGET) == {"all_low": {"b": FP8}}
    assert one_format_engines({"a": []}, TARGET) == {}


def test_two_precisions_that_make_the_same_engine_have_one() -> None:
    assert one_format_engines({"a": [INT8], "b": [FP8]}, TARGET) == {"all_low": {"a": INT8, "b": FP8}}


def test_groups_that_share_a_layer_are_one_unit() -> None:
    assert units("abcde", [("a", "b"), ("d", "b")]) == (("d", "a", "b"), ("c",), ("e",))


def test_a_unit_takes_what_all_of_its_layers_can_take() -> None:
    eligible = {"a": (INT8, FP8), "b": (FP8,), "c": (INT8,)}
    assert choices_of(("a",), eligible) == (INT8, FP8)
    assert choices_of(("a", "b"), eligible) == (FP8,)
    assert choices_of(("b", "c"), eligible) == ()
    assert choices_of(("a", "missing"), eligible) == ()


@pytest.mark.parametrize(
    ("quantized", "expected"),
    [
        ({"s": INT8, "c": INT8, "x": FP8}, {"s": INT8, "c": INT8, "x": FP8}),
        ({"s": INT8, "x": FP8}, {"x": FP8}),
        ({"s": INT8, "c": FP8, "x": FP8}, {"x": FP8}),
    ],
)
def test_a_group_that_is_not_of_one_precision_stays_at_the_baseline(
    quantized: dict[str, Precision], expected: dict[str, Precision]
) -> None:
    assert legalized(quantized, [("s", "c")]) == expected


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(TARGET)),
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1), max_size=4),
)
def test_legalizing_twice_changes_nothing_more(quantized: dict[str, Precision], groups: list[list[str]]) -> None:
    once = legalized(quantized, groups)
    assert legalized(once, groups) == once


def test_the_engine_without_residual_adds_is_the_first_one_format_engine_without_them() -> None:
    one_format = {"all_low": {"a": INT8, "sum": INT8}, "all_fp8": {"a": FP8, "sum": FP8}}
    assert engine_without_residual_adds(one_format, ["sum", "other"]) == {"a": INT8}
    assert engine_without_residual_adds(one_format, []) == {}
    assert engine_without_residual_adds({"all_low": {"sum": INT8}}, ["sum"]) == {}
    assert engine_without_residual_adds({}, ["sum"]) == {}
