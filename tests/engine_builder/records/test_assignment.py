"""Assignments are values: equal content, equal fingerprint, equal JSON."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.codec import json_from_value, value_from_json
from calibration.number_formats.precision import Precision
from engine_builder.records.assignment import PrecisionAssignment

choices = st.dictionaries(st.text(max_size=8), st.sampled_from(Precision), max_size=12)


def assignment_of(**precisions: Precision) -> PrecisionAssignment:
    return PrecisionAssignment(tuple(precisions.items()))


@given(choices, st.randoms())
def test_order_of_making_does_not_matter(mapping: dict[str, Precision], random: object) -> None:
    items = list(mapping.items())
    random.shuffle(items)  # type: ignore[attr-defined]  # hypothesis' randoms() is a random.Random
    first, second = PrecisionAssignment(tuple(mapping.items())), PrecisionAssignment(tuple(items))
    assert (first, hash(first), first.fingerprint) == (second, hash(second), second.fingerprint)
    assert list(first) == sorted(mapping)
    assert dict(first) == mapping


@given(choices)
def test_json_and_pickle_round_trips(mapping: dict[str, Precision]) -> None:
    assignment = PrecisionAssignment(tuple(mapping.items()))
    assert PrecisionAssignment.from_json(json.loads(json.dumps(assignment.as_json()))) == assignment
    assert value_from_json(PrecisionAssignment, json.loads(json.dumps(json_from_value(assignment)))) == assignment
    assert pickle.loads(pickle.dumps(assignment)) == assignment


def test_fingerprint_is_the_sha256_of_the_canonical_json() -> None:
    assert assignment_of(b=Precision.FP32, a=Precision.INT8).fingerprint == "2675911c9b0a734b"


def test_fingerprint_tells_assignments_apart() -> None:
    base = PrecisionAssignment.uniform(["a", "b"], Precision.FP32)
    assert (
        len(
            {
                base.fingerprint,
                base.with_quantized(["a"], Precision.INT8).fingerprint,
                base.with_quantized(["b"], Precision.INT8).fingerprint,
            }
        )
        == 3
    )


def test_with_quantized_changes_the_named_layers_of_a_new_value() -> None:
    base = PrecisionAssignment.uniform(["a", "b", "c"], Precision.FP32)
    changed = base.with_quantized(["c", "a"], Precision.INT8)
    assert changed.as_json() == {"a": "int8", "b": "fp32", "c": "int8"}
    assert set(base.values()) == {Precision.FP32}


def test_counts_name_only_what_occurs_most_bits_first() -> None:
    base = PrecisionAssignment.uniform(["a", "b", "c"], Precision.FP32).with_quantized(["b"], Precision.INT8)
    assert list(base.counts().items()) == [(Precision.FP32, 2), (Precision.INT8, 1)]


def test_unknown_layers_doubles_and_wrong_json_are_refused() -> None:
    with pytest.raises(KeyError, match="'z'"):
        assignment_of(a=Precision.FP32).with_quantized(["z"], Precision.INT8)
    with pytest.raises(KeyError):
        assignment_of(a=Precision.FP32)["z"]
    with pytest.raises(ValueError, match="two precisions"):
        PrecisionAssignment((("a", Precision.FP32), ("a", Precision.INT8)))
    with pytest.raises(TypeError, match="expected an object"):
        PrecisionAssignment.from_json(["a"])
    with pytest.raises(ValueError, match="int7"):
        PrecisionAssignment.from_json({"a": "int7"})
