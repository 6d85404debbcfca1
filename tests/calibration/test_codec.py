from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.codec import json_from_value, object_once, value_from_json
from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import Precision


@dataclass(frozen=True, slots=True)
class Inner:
    precision: Precision
    share: float


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    count: int
    flag: bool
    maybe: int | None
    inner: Inner
    items: tuple[Inner, ...]
    pair: tuple[int, str]
    table: Mapping[str, Precision]


finite = st.floats(allow_nan=False, allow_infinity=False)
inners = st.builds(Inner, precision=st.sampled_from(Precision), share=finite)
outers = st.builds(
    Outer,
    name=st.text(),
    count=st.integers(),
    flag=st.booleans(),
    maybe=st.none() | st.integers(),
    inner=inners,
    items=st.lists(inners, max_size=3).map(tuple),
    pair=st.tuples(st.integers(), st.text()),
    table=st.dictionaries(st.text(), st.sampled_from(Precision), max_size=3),
)
layers = st.builds(
    Layer,
    name=st.text(),
    op_type=st.text(),
    kind=st.sampled_from(LayerKind),
    inputs=st.lists(st.text(), max_size=2).map(tuple),
    weight=st.none() | st.text(),
    weight_axis=st.none() | st.integers(0, 4),
    bias=st.none() | st.text(),
    output=st.text(),
    nodes=st.lists(st.text(), max_size=2).map(tuple),
    macs=st.integers(0),
    weight_count=st.integers(0),
)


@given(outers)
def test_value_survives_the_round_trip_through_json_text(value: Outer) -> None:
    assert value_from_json(Outer, json.loads(json.dumps(json_from_value(value)))) == value


@given(layers)
def test_layer_survives_the_round_trip_through_json_text(layer: Layer) -> None:
    assert value_from_json(Layer, json.loads(json.dumps(json_from_value(layer)))) == layer


def test_whole_number_is_a_float_where_a_float_is_wanted() -> None:
    share = value_from_json(Inner, {"precision": "int8", "share": 1}).share

    assert isinstance(share, float)


@pytest.mark.parametrize("share", [float("inf"), float("-inf")])
def test_an_infinite_float_survives_json_which_has_none(share: float) -> None:
    value = Inner(Precision.INT8, share)
    text = json.dumps(json_from_value(value), allow_nan=False)
    assert value_from_json(Inner, json.loads(text)) == value


def test_what_is_no_number_survives_json_too() -> None:
    text = json.dumps(json_from_value(Inner(Precision.INT8, float("nan"))), allow_nan=False)
    assert math.isnan(value_from_json(Inner, json.loads(text)).share)


def test_missing_optional_field_takes_its_default() -> None:
    @dataclass(frozen=True, slots=True)
    class WithDefault:
        count: int = 3

    assert value_from_json(WithDefault, {}) == WithDefault()


@pytest.mark.parametrize(
    "data",
    [
        {"precision": "int8", "share": "much"},
        {"precision": "int8", "share": True},
        {"precision": 8},
        ["int8", 1.0],
        None,
    ],
)
def test_data_of_another_form_are_refused(data: object) -> None:
    with pytest.raises(TypeError):
        value_from_json(Inner, data)


@dataclass(frozen=True, slots=True)
class Shorthand:
    what: Precision | Inner | tuple[int, ...] | None


@pytest.mark.parametrize("what", [Precision.INT8, Inner(Precision.FP16, 0.5), (1, 2), None])
def test_member_of_a_union_is_known_by_its_form_in_json(what: Precision | Inner | tuple[int, ...] | None) -> None:
    assert value_from_json(Shorthand, json.loads(json.dumps(json_from_value(Shorthand(what))))) == Shorthand(what)


@pytest.mark.parametrize(
    ("cls", "data", "message"),
    [
        (
            Outer,
            {"inner": {"precision": "int9", "share": 1.0}},
            r"Outer: found no name, count, flag, maybe, items, pair, table, which Outer",
        ),
        (Inner, {"precision": "int9", "share": 1.0}, r"Inner.precision: expected a Precision, found 'int9'"),
        (Inner, {"precision": "int8", "share": 1.0, "shares": 2}, r"Inner: found shares, which Inner does not have"),
        (tuple[Inner, ...], [{"precision": "int8", "share": "much"}], r"\[0\].share: expected float, found str"),
        (dict[str, int], {"a": True}, r"\['a'\]: expected int, found bool"),
        (tuple[int, str], [1], r"expected a list of 2, found 1 items"),
        (int | str, 0.5, r"expected one of int and str, found float"),
        (Inner | Outer, {}, r"Inner and Outer look the same in JSON"),
    ],
)
def test_error_names_the_place_what_was_found_and_what_was_expected(cls: type, data: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        value_from_json(cls, data)


def test_value_without_a_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="no JSON form for complex"):
        json_from_value(1j)


def test_a_key_that_stands_twice_in_one_object_is_found() -> None:
    assert json.loads('{"a": {"b": 1}, "b": 2}', object_pairs_hook=object_once) == {"a": {"b": 1}, "b": 2}
    with pytest.raises(ValueError, match="the key 'b' stands twice"):
        json.loads('{"a": [{"b": 1, "b": 1}]}', object_pairs_hook=object_once)
