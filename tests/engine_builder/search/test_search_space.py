from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import Precision
from engine_builder.search.search_space import able_from, choices_of, is_uniform, products_engine, settled, uniform_engines, units

INT8, FP8, INT4 = Precision.INT8, Precision.FP8, Precision.INT4
TARGET = (INT8, FP8, INT4)


def test_the_decisions_of_a_layer_are_what_it_can_take() -> None:
    assert able_from([Decision("b", INT8), Decision("b", INT4), Decision("a", FP8)]) == {"b": (INT8, INT4), "a": (FP8,)}


def test_a_single_precision_has_one_uniform_engine() -> None:
    assert uniform_engines({"a": [INT8], "b": [INT8]}, TARGET) == {"all_low": {"a": INT8, "b": INT8}}


def test_every_precision_that_a_layer_can_take_has_a_uniform_engine() -> None:
    engines = uniform_engines({"conv": [INT8, FP8], "matmul": [INT8, FP8, INT4]}, TARGET)
    assert engines == {
        "all_low": {"conv": INT8, "matmul": INT8},
        "all_fp8": {"conv": FP8, "matmul": FP8},
        "all_int4": {"conv": INT8, "matmul": INT4},  # the convolution takes the first that it can take
    }
    assert all(is_uniform(name) for name in engines)
    assert not is_uniform("frontier")


def test_a_layer_that_can_take_nothing_is_in_no_uniform_engine() -> None:
    assert uniform_engines({"a": [], "b": [FP8]}, TARGET) == {"all_low": {"b": FP8}}
    assert uniform_engines({"a": []}, TARGET) == {}


def test_two_precisions_that_make_the_same_engine_have_one() -> None:
    assert uniform_engines({"a": [INT8], "b": [FP8]}, TARGET) == {"all_low": {"a": INT8, "b": FP8}}


def test_groups_that_share_a_layer_are_one_unit() -> None:
    assert units("abcde", [("a", "b"), ("d", "b")]) == (("d", "a", "b"), ("c",), ("e",))


def test_a_unit_takes_what_all_of_its_layers_can_take() -> None:
    able = {"a": (INT8, FP8), "b": (FP8,), "c": (INT8,)}
    assert choices_of(("a",), able) == (INT8, FP8)
    assert choices_of(("a", "b"), able) == (FP8,)
    assert choices_of(("b", "c"), able) == ()
    assert choices_of(("a", "missing"), able) == ()


@pytest.mark.parametrize(
    ("low", "expected"),
    [
        ({"s": INT8, "c": INT8, "x": FP8}, {"s": INT8, "c": INT8, "x": FP8}),
        ({"s": INT8, "x": FP8}, {"x": FP8}),
        ({"s": INT8, "c": FP8, "x": FP8}, {"x": FP8}),
    ],
)
def test_a_group_that_is_not_of_one_precision_stays_at_the_baseline(low: dict[str, Precision], expected: dict[str, Precision]) -> None:
    assert settled(low, [("s", "c")]) == expected


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(TARGET)),
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1), max_size=4),
)
def test_settling_twice_changes_nothing_more(low: dict[str, Precision], groups: list[list[str]]) -> None:
    once = settled(low, groups)
    assert settled(once, groups) == once


def test_the_engine_of_products_is_the_first_uniform_one_without_its_sums() -> None:
    uniform = {"all_low": {"a": INT8, "sum": INT8}, "all_fp8": {"a": FP8, "sum": FP8}}
    assert products_engine(uniform, ["sum", "other"]) == {"a": INT8}
    assert products_engine(uniform, []) == {}
    assert products_engine({"all_low": {"sum": INT8}}, ["sum"]) == {}
    assert products_engine({}, ["sum"]) == {}
