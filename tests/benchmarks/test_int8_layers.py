from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from benchmarks.int8_layers import layer_counts

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) '
SCALES = "<float s = {0.1}, uint8 z = {128}, float t = {0.02}, int8 u = {0}>"


def saved(tmp_path: Path, body: str) -> Path:
    model = onnx.parser.parse_model(HEAD + SCALES + body)
    weight = np.eye(4)
    model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.int8), "w"))
    model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), "f"))
    onnx.save_model(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_layer_that_reads_integers_on_both_sides_counts_and_has_a_kernel(tmp_path: Path) -> None:
    body = "q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) b = DequantizeLinear(w, t, u) c = MatMul(a, b)"
    counts = layer_counts(saved(tmp_path, "{ " + body + " d = QuantizeLinear(c, s, z) y = DequantizeLinear(d, s, z) }"))
    assert (counts.int8, counts.weighted, counts.kernels) == (1, 1, 1)


def test_layer_with_integers_for_its_weight_alone_does_not_count(tmp_path: Path) -> None:
    counts = layer_counts(saved(tmp_path, "{ b = DequantizeLinear(w, t, u) y = MatMul(x, b) }"))
    assert (counts.int8, counts.weighted, counts.kernels) == (0, 1, 0)


def test_what_only_moves_values_between_does_not_hide_integers(tmp_path: Path) -> None:
    body = "{ q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) r = Flatten(a) b = DequantizeLinear(w, t, u) y = MatMul(r, b) }"
    assert layer_counts(saved(tmp_path, body)).int8 == 1


def test_sum_with_a_constant_is_no_sum_of_activations(tmp_path: Path) -> None:
    counts = layer_counts(saved(tmp_path, "{ a = Add(x, s) y = Add(a, x) }"))
    assert (counts.adds, counts.int8_adds) == (1, 0)
