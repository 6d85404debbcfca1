"""Which float format a model computes in, whatever its weights are stored in."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibration.graph_passes.to_float32 import float_type
from calibration.number_formats.precision import Precision
from tests.model_text import model_from_text

COMPUTED = {
    "stored as fp16": (np.float16, "v = Cast<to=1>(w) y = MatMul(x, v)", Precision.FP32),
    "stored as fp32": (np.float32, "h = Cast<to=10>(x) v = Cast<to=10>(w) m = MatMul(h, v) y = Cast<to=1>(m)", Precision.FP16),
    "read as it is too": (np.float16, "v = Cast<to=1>(w) h = Cast<to=10>(x) m = MatMul(h, w) y = MatMul(m, v)", Precision.FP16),
    "unchanged": (np.float16, "h = Cast<to=10>(x) m = MatMul(h, w) y = Cast<to=1>(m)", Precision.FP16),
}


@pytest.mark.parametrize("case", COMPUTED)
def test_a_weight_counts_as_what_it_is_computed_with(case: str) -> None:
    stored, nodes, expected = COMPUTED[case]
    model = model_from_text(f"g (float[N,6] x) => (float[N,6] y) {{ {nodes} }}", {"w": (6, 6)})
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).astype(stored)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    assert float_type(ir.from_proto(model)) is expected
