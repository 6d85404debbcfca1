"""A Slice of the first axes only says so in a TensorRT model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from calibration.graph.free_names import Names, names_in
from engine_builder.qdq.adapt.slice_axes import WriteSliceAxes
from tests.model_text import model_from_text, run


def cut(call: str, starts: list[int]) -> onnx.ModelProto:
    model = model_from_text(f"g (float[4,5,6] x) => (float[a,b,c] y) {{ y = Slice({call}) }}", {})
    constants = {"starts": starts, "ends": [3] * len(starts), "axes": [1] * len(starts), "steps": [1] * len(starts)}
    used = model.graph.node[0].input
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), name) for name, v in constants.items() if name in used)
    return model


@pytest.mark.parametrize(
    ("call", "starts", "is_written"),
    [
        ("x, starts, ends", [1], True),
        ("x, starts, ends", [1, 2], True),
        ('x, starts, ends, "", steps', [1], True),
        ("x, starts, ends", [1, 2, 0], False),
        ("x, starts, ends, axes", [1], False),
    ],
)
def test_a_slice_with_fewer_starts_than_axes_names_its_axes(call: str, starts: list[int], *, is_written: bool) -> None:
    model = cut(call, starts)
    work = ir.from_proto(model)
    assert WriteSliceAxes(Names(names_in(work)))(work).modified is is_written
    result: onnx.ModelProto = ir.to_proto(work)
    if is_written:
        axes = next(tensor for tensor in result.graph.initializer if tensor.name == result.graph.node[0].input[3])
        np.testing.assert_array_equal(numpy_helper.to_array(axes), np.arange(len(starts)))
    feeds = {"x": np.arange(120, dtype=np.float32).reshape(4, 5, 6)}
    np.testing.assert_array_equal(run(result, feeds)[0], run(model, feeds)[0])
