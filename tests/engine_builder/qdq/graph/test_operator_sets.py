from __future__ import annotations

from pathlib import Path

import onnx

from engine_builder.qdq.graph.operator_sets import operator_sets

IN_A_BRANCH = """
<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "unused" : 3]>
g (bool c, float[4] x) => (float[4] y)
{
    y = If (c) <then_branch = a () => (float[4] p) { p = com.microsoft.Gelu(x) }, else_branch = b () => (float[4] q) { q = Relu(x) }>
}
"""


def test_the_sets_that_nodes_are_of_are_needed_also_inside_of_branches(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(IN_A_BRANCH), tmp_path / "engine.onnx")
    assert operator_sets(tmp_path / "engine.onnx") == {"ai.onnx": 17, "com.microsoft": 1}


def test_a_plan_needs_none(tmp_path: Path) -> None:
    assert operator_sets(tmp_path / "engine.plan") == {}
