from __future__ import annotations

import onnx_ir as ir

from calibration.graph.free_names import Names, free_name, names_in, names_of_values

MODEL = """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[2] x, bool flag) => (float[2] y) {
    y = If (flag) <
        then_branch = then_graph () => (float[2] kept) { [copy] kept = Identity (x) },
        else_branch = else_graph () => (float[2] less) { [negate] less = Neg (x) }
    >
}
"""


def test_a_free_name_is_numbered_only_where_it_is_taken() -> None:
    assert free_name("x", {"y"}) == "x"
    assert free_name("x", {"x", "x_1"}) == "x_2"


def test_names_never_come_twice_and_are_the_same_for_the_same_calls() -> None:
    one, other = Names(["x_scale"]), Names(["x_scale"])
    found = [one.new("x", "scale"), one.new("x", "scale"), one.new("y", "scale")]
    assert found == ["x_scale_1", "x_scale_2", "y_scale"]
    assert [other.new("x", "scale"), other.new("x", "scale"), other.new("y", "scale")] == found


def test_names_of_subgraphs_count_too() -> None:
    model = ir.from_onnx_text(MODEL)
    assert {"x", "flag", "y", "kept", "less"} <= names_of_values(model)
    assert names_in(model) - names_of_values(model) >= {"copy", "negate"}
