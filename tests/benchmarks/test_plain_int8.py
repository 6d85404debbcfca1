from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
from onnx import numpy_helper

from benchmarks.plain_int8 import quantize_plainly


def test_everything_is_quantized_on_the_given_samples(tmp_path: Path) -> None:
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 3] y) { y = MatMul(x, w) }')
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save_model(model, tmp_path / "m.onnx")
    samples = np.linspace(-2, 3, 70 * 4, dtype=np.float32).reshape(70, 4)  # more than a batch, so the last one is filled up
    np.savez(tmp_path / "c.npz", x=samples)
    quantize_plainly(tmp_path / "m.onnx", tmp_path / "c.npz", tmp_path / "plain.onnx")
    written = onnx.load(tmp_path / "plain.onnx")
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    assert "QuantizeLinear" in {node.op_type for node in written.graph.node}
    np.testing.assert_allclose(values["x_scale"], (3 + 2) / 255, rtol=1e-6)  # the samples' own range, in float32
