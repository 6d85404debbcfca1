"""Loops that only count get a condition, and give what they gave."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.graph.free_names import Names, names_in
from engine_builder.qdq.adapt.loops import WriteConditions
from tests.model_text import run


def counting_loop(*condition: str) -> onnx.ModelProto:
    """Add 1 to x three times, in a loop with or without a condition of its own."""
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "one"], ["t"], name="add"), helper.make_node("Identity", ["c"], ["d"], name="same")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []), helper.make_tensor_value_info("t", TensorProto.FLOAT, [2])],
    )
    loop = helper.make_node("Loop", ["three", *condition, "x"], ["y"], name="loop", body=body)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    constants = {"three": np.array(3), "one": np.array(1, dtype=np.float32), "never": np.array(False)}
    graph = helper.make_graph([loop], "g", ends[:1], ends[1:], [numpy_helper.from_array(array, name) for name, array in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("condition", "added"), [("", 3.0), ("never", 0.0)])
def test_a_loop_without_a_condition_gets_one_that_is_true(condition: str, added: float) -> None:
    work = ir.from_proto(counting_loop(condition))
    modified = WriteConditions(Names(names_in(work)))(work).modified
    result: onnx.ModelProto = ir.to_proto(work)
    assert modified is (condition == "")
    assert result.graph.node[0].input[1] == (condition or "loop_goes_on")
    feeds = {"x": np.array([1.0, 2.0], dtype=np.float32)}
    np.testing.assert_array_equal(run(result, feeds)[0], feeds["x"] + np.float32(added))
    np.testing.assert_array_equal(run(counting_loop(condition), feeds)[0], feeds["x"] + np.float32(added))
