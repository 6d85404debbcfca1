"""What the integer kernels of this machine do is measured, and agrees with what a product of the largest numbers gives."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from engine_builder.backends.onnxruntime import integer_kernels
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.backends.onnxruntime.integer_kernels import IntegerKernels, measured_kernels
from engine_builder.errors import EngineError

FOUR_TERMS = """
<ir_version: 8, opset_import: ["" : 13]>
four (uint8[1,4] x) => (int32[1,1] y) <int8[4,1] w = {127, 127, 127, 127}> { y = MatMulInteger(x, w) }
"""


def test_the_measurement_agrees_with_four_products_of_the_largest_numbers() -> None:
    session = onnxruntime.InferenceSession(onnx.parser.parse_model(FOUR_TERMS).SerializeToString(), providers=["CPUExecutionProvider"])
    found = int(session.run(None, {"x": np.full((1, 4), 255, np.uint8)})[0][0, 0])
    expected = {IntegerKernels.EXACT: 4 * 255 * 127, IntegerKernels.SATURATING: 2 * 32767}
    assert found == expected[measured_kernels()]


def test_an_answer_that_is_neither_exact_nor_saturated_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integer_kernels, "_run", lambda model: np.array([1]))
    with pytest.raises(EngineError, match=r"MatMulInteger: onnxruntime .* gives 1 on this processor"):
        measured_kernels()


def test_every_report_says_what_the_kernels_do() -> None:
    assert OrtCpuBackend().environment()["integer_kernels"] == measured_kernels().value
