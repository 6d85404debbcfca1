"""Layers that stay float for what they read or write, in words."""

from __future__ import annotations

from calibration.graph.layers import Layer, LayerKind
from calibration.nonfinite import Special
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeMethod, RangeTable
from engine_builder.reporting.float_only import float_only, float_only_note, slower_note


def layer(name: str, reads: str, writes: str) -> Layer:
    return Layer(name, "MatMul", LayerKind.WEIGHTED, (reads,), "w", 1, None, writes, (name,), 1, 1)


TABLE = RangeTable({"x": (0.0, 1.0), "p": (0.0, 1.0)}, RangeMethod.MINMAX, 8, {"p": (Special.MINUS_INFINITY, Special.NAN)}, empty=("none",))


def test_the_tensor_and_what_it_holds_are_named() -> None:
    found = float_only([layer("a", "x", "q"), layer("b", "p", "c"), layer("c", "x", "p"), layer("d", "x", "none")], TABLE)
    assert found == {
        "b": "reads 'p', which holds -inf and NaN",
        "c": "writes 'p', which holds -inf and NaN",
        "d": "writes 'none', which is empty on every calibration sample",
    }
    assert float_only_note({"b": found["b"]}) == (f"1 layer stays float because of what it reads or writes: 'b' {found['b']}",)


def test_a_weight_that_is_infinite_is_named_as_what_is_read() -> None:
    table = RangeTable({"x": (0.0, 1.0), "y": (0.0, 1.0)}, RangeMethod.MINMAX, 8, {"w": (Special.PLUS_INFINITY,)})
    assert float_only([layer("a", "x", "y")], table) == {"a": "reads 'w', which holds +inf"}


def test_many_layers_are_counted_and_none_need_no_note() -> None:
    assert float_only_note({}) == ()
    (note,) = float_only_note(float_only([layer(f"l{index}", "p", "y") for index in range(11)], TABLE))
    assert note.startswith("11 layers stay float because of what they read or write: 'l0' reads 'p', which holds -inf and NaN; 'l1'")
    assert note.endswith("'l7' reads 'p', which holds -inf and NaN; and 3 more")


def test_layers_that_were_left_out_as_slower_are_counted_by_precision() -> None:
    assert slower_note({}) == ()
    (note,) = slower_note({"a": (Precision.INT8, Precision.FP8), "b": (Precision.INT8,)})
    assert "predicted to be slower than at the baseline's precision: 1 in fp8 and 2 in int8; name `precisions`" in note
