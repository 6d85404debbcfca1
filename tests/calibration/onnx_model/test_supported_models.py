from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from calibration.onnx_model.model_io import read_model
from tests.calibration.onnx_model.test_model_io import refusal_of_model
from tests.model_text import cnn


def with_functions(depth: int, *, last: str = "Relu") -> onnx.ModelProto:
    """The small network behind functions of which each calls the next one twice, and the last one the operator ``last``."""
    model = cnn()
    own, standard = onnx.helper.make_opsetid("own", 1), onnx.helper.make_opsetid("", 17)
    node, domain = onnx.helper.make_node, "own"
    output = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(node("F0", ["before"], [output], domain=domain))
    model.opset_import.append(own)
    for index in range(depth):
        calls = [node(f"F{index + 1}", ["a"], ["c"], domain=domain), node(f"F{index + 1}", ["c"], ["b"], domain=domain)]
        model.functions.append(onnx.helper.make_function(domain, f"F{index}", ["a"], ["b"], calls, [own, standard]))
    end = node(last, ["a"], ["b"], domain="" if last == "Relu" else domain)
    model.functions.append(onnx.helper.make_function(domain, f"F{depth}", ["a"], ["b"], [end], [own, standard]))
    return model


def test_functions_that_make_nodes_without_end_are_refused_at_once(tmp_path: Path) -> None:
    assert "has more than 1000000 nodes" in refusal_of_model(with_functions(40), tmp_path).detail
    onnx.save(with_functions(4), tmp_path / "small.onnx")
    assert len(read_model(tmp_path / "small.onnx").functions) == 5


@pytest.mark.parametrize("last", ["F0", "F2"])
def test_functions_that_call_themselves_are_refused(last: str, tmp_path: Path) -> None:
    assert "calls itself, by itself or by others" in refusal_of_model(with_functions(2, last=last), tmp_path).detail
