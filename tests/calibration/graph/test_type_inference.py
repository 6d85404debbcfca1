"""Types and shapes where onnx's own inference has no rule."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from calibration.graph.type_inference import inferred, note_missing_types, standing_in
from tests.model_text import model_from_text

GROUPS = """g (float[N,8,6,6] x) => (float[N,8,6,6] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w) b = GroupNormalization <num_groups = 4> (a, scale, bias) c = Relu(b)
    y = Conv <pads = [1, 1, 1, 1]> (c, v) }"""
WEIGHTS = {"w": (8, 8, 3, 3), "v": (8, 8, 3, 3), "scale": (8,), "bias": (8,)}


def noted(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Return the element type and the number of axes of every tensor that is noted."""
    values = (*model.graph.value_info, *model.graph.output)
    return {value.name: (value.type.tensor_type.elem_type, len(value.type.tensor_type.shape.dim)) for value in values}


def test_what_comes_after_a_normalization_by_groups_has_types_and_shapes() -> None:
    model = model_from_text(GROUPS, WEIGHTS, opset=21, ir_version=10)
    result = inferred(model)
    assert noted(result) == dict.fromkeys(("a", "b", "c", "y"), (TensorProto.FLOAT, 4))
    assert [node.op_type for node in result.graph.node] == ["Conv", "GroupNormalization", "Relu", "Conv"]
    assert [node.op_type for node in model.graph.node] == ["Conv", "GroupNormalization", "Relu", "Conv"]


def test_operators_have_their_names_again_after_an_error() -> None:
    model = model_from_text(GROUPS, WEIGHTS, opset=21, ir_version=10)
    try:
        with standing_in(model.graph.node):
            assert model.graph.node[1].op_type == "InstanceNormalization"
            raise KeyError
    except KeyError:
        assert model.graph.node[1].op_type == "GroupNormalization"


def test_a_type_that_inference_left_out_is_what_the_schema_says() -> None:
    model = model_from_text("""g (float16[N,4] x) => (float[N,4] y) {
        r = Relu(x) s = Shape(r) o = Less(r, r) k = Cast<to = 1>(r) t, i = TopK(r, two) y = Abs(k) }""")
    model.graph.initializer.append(onnx.helper.make_tensor("two", TensorProto.INT64, [1], [2]))
    note_missing_types(model)
    kinds = {name: kind for name, (kind, _) in noted(model).items()}
    half, number = TensorProto.FLOAT16, TensorProto.INT64
    assert kinds == {
        **{"r": half, "s": number, "o": TensorProto.BOOL, "k": TensorProto.FLOAT},
        **{"t": half, "i": number, "y": TensorProto.FLOAT},
    }


def test_what_is_noted_is_kept() -> None:
    model = model_from_text("g (float[N,4] x) => (float[N,4] y) { r = Relu(x) y = Abs(r) }")
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 4]))
    note_missing_types(model)
    assert noted(model)["r"] == (TensorProto.FLOAT, 2)
