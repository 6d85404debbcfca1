from __future__ import annotations

import numpy as np
import pytest

from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.records import PairTest, Sensitivity, SensitivityTable
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.reporting.body.layer_facts import (
    MAX_MAPPED,
    DependencyMap,
    MeasuredPair,
    ReportedLayer,
    dependency_map,
    measured_pairs,
    reported_layers,
)

INT8, INT4, FP32 = Precision.INT8, Precision.INT4, Precision.FP32


def table_of(*layer_precisions: tuple[str, Precision, float]) -> SensitivityTable:
    rows = tuple(Sensitivity(layer, precision, loss, 0.5 * loss, None, None) for layer, precision, loss in layer_precisions)
    return SensitivityTable(rows, 8, 8, 1.0, ())


TABLE = table_of(("a", INT8, 0.1), ("b", INT8, 0.2), ("b", INT4, 0.7))
PAIRS = np.array([[0.0, 0.03, 0.05], [0.03, 0.0, 0.0], [0.05, 0.0, 0.0]])


def test_a_layer_is_reported_with_its_precision_and_what_it_loses_alone() -> None:
    layers = [Layer(name, "Gemm", LayerKind.WEIGHTED, ("x",), "w", 0, None, f"{name}.out", (name,), 12, 3) for name in ("a", "c")]
    assignment = PrecisionAssignment((("a", INT8), ("c", FP32)))
    assert reported_layers(layers, TABLE, assignment, {"c": "reads 'x', which holds NaN"}) == (
        ReportedLayer("a", "Gemm", LayerKind.WEIGHTED, INT8, 12, 3, 0.1, 0.05, None, None),
        ReportedLayer("c", "Gemm", LayerKind.WEIGHTED, FP32, 12, 3, None, None, None, None, "reads 'x', which holds NaN"),
    )


def test_pairs_come_with_the_strongest_first() -> None:
    a, b, c = (LayerPrecision(name, INT8) for name in "abc")
    pairs = measured_pairs([PairTest(a, b, 0.01, 0.001, 60), PairTest(a, c, -0.5, 0.1, 60)])
    assert pairs == (MeasuredPair("a", "c", -0.5, 0.1, 60), MeasuredPair("a", "b", 0.01, 0.001, 60))


def test_a_map_whose_rows_are_no_triangle_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows of \[0, 2\] values"):
        DependencyMap(("a", "b"), ((), (0.1, 0.2)))


def test_a_layer_stands_in_the_map_in_the_precision_that_it_got() -> None:
    quantized = dependency_map(TABLE, PAIRS, PrecisionAssignment((("a", INT8), ("b", INT4))))
    assert quantized == DependencyMap(("a", "b"), ((), (0.05,)))
    kept = dependency_map(TABLE, PAIRS, PrecisionAssignment((("a", INT8), ("b", FP32))))
    assert kept.lower == ((), (0.03,))


def test_the_map_of_a_large_model_keeps_the_strongest_layers_in_their_order() -> None:
    names = [f"layer{index:03d}" for index in range(MAX_MAPPED + 40)]
    strength = np.arange(len(names), dtype=float)
    pairs = np.outer(strength, strength) * (1.0 - np.eye(len(names)))
    assignment = PrecisionAssignment(tuple((name, INT8) for name in names))
    found = dependency_map(table_of(*((name, INT8, 0.1) for name in names)), pairs, assignment)
    assert list(found.layers) == names[40:]
    assert list(found.left_out) == names[:40]


def test_a_model_without_layer_precisions_has_an_empty_map() -> None:
    assert dependency_map(table_of(), np.zeros((0, 0)), PrecisionAssignment(())) == DependencyMap((), ())
