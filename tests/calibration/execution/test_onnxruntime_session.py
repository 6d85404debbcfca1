"""What sessions keep of a model and give back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from calibration.execution.onnxruntime_session import Piece

WIDTH = 1024  # of the square weight: 4 MB


def product() -> onnx.ModelProto:
    """Return y = x W with one large weight."""
    weight = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32) * 2.0, "weight")
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", WIDTH]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "weight"], ["y"])], "product", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def test_a_piece_gives_the_models_outputs_after_its_bytes_are_gone() -> None:
    x = np.arange(3 * WIDTH, dtype=np.float32).reshape(3, WIDTH)
    expected = onnxruntime.InferenceSession(product().SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_array_equal(Piece(product()).run({"x": x})["y"], expected)


def test_a_run_that_gives_memory_back_changes_no_value() -> None:
    piece, x = Piece(product()), np.ones((2, WIDTH), np.float32)
    first = piece.run({"x": x})["y"]
    np.testing.assert_array_equal(piece.run({"x": x}, gives_back=True)["y"], first)
    np.testing.assert_array_equal(piece.run({"x": x})["y"], first)


def test_the_arena_is_returned_when_a_run_gives_it_back() -> None:
    piece, large = Piece(product()), np.ones((16384, WIDTH), np.float32)  # 64 MB in and out
    del_me = piece.run({"x": large})
    del del_me
    held = resident_bytes()
    piece.run({"x": large[:1]}, gives_back=True)
    assert resident_bytes() < held - 48 * 2**20


def test_an_open_piece_holds_its_constants_once() -> None:
    Piece(product())  # what the first session of a process loads is not counted
    before = resident_bytes()
    pieces = [Piece(product()) for _ in range(8)]
    grown = resident_bytes() - before
    assert len(pieces) == 8
    assert grown < 8 * 1.7 * 4 * WIDTH**2  # twice, with the serialized model
