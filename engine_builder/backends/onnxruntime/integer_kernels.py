"""Finds out by running them whether ONNX Runtime's 8-bit kernels on this machine saturate.

``calibration.number_formats.pair_bound`` says how they do.
"""

from __future__ import annotations

import enum

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from engine_builder.errors import EngineError

_CHANNELS = 16
_MOST = (255, 127)  # the largest activation and weight: two such products, 64770, do not fit 16 bits
_PAIR = 32767  # what they add up to where kernels saturate
_SCALED = 200  # the exact answer of the convolution after its own rounding to 8 bits


class IntegerKernels(enum.StrEnum):
    """What the 8-bit kernels of a processor do to the sum of two large products."""

    EXACT = "exact"  # VNNI, AVX-VNNI, AMX and ARM's dot products add in 32 bits
    SATURATING = "saturating"  # AVX2, and AVX-512 without VNNI, add pairs in 16 bits


def measured_kernels() -> IntegerKernels:
    """Return what a matrix product and a convolution with known answers show on this machine.

    Raises:
        EngineError: A kernel gives neither the exact nor the saturated answer, so no engine of this machine can be trusted.
    """
    product, convolution = _product(), _convolution()
    terms = {"MatMulInteger": _CHANNELS, "QLinearConv": 9 * _CHANNELS}
    found = set()
    for name, model in (("MatMulInteger", product), ("QLinearConv", convolution)):
        exact = terms[name] * _MOST[0] * _MOST[1]
        saturated = terms[name] // 2 * _PAIR
        scale = exact / _SCALED if name == "QLinearConv" else 1.0
        answers = {round(exact / scale): IntegerKernels.EXACT, round(saturated / scale): IntegerKernels.SATURATING}
        for value in np.unique(_run(model)).tolist():
            if value not in answers:
                raise EngineError(
                    f"{name}: onnxruntime {onnxruntime.__version__} gives {value} on this processor, expected {round(exact / scale)}, or "
                    f"{round(saturated / scale)} where its kernels saturate",
                    fix="use another version of onnxruntime: its 8-bit kernels do not work here",
                )
            found.add(answers[value])
    return IntegerKernels.SATURATING if IntegerKernels.SATURATING in found else IntegerKernels.EXACT


def _run(model: onnx.ModelProto) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0]
    outputs = [session.run(None, {feed.name: np.full(shape, _MOST[0], dtype=np.uint8)})[0] for shape in _SHAPES[feed.name]]
    return np.concatenate([np.asarray(output).reshape(-1) for output in outputs])


# One row and many rows have kernels of their own.
_SHAPES = {"rows": ((1, _CHANNELS), (8, _CHANNELS)), "picture": ((1, _CHANNELS, 3, 3),)}


def _product() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.full((_CHANNELS, _CHANNELS), _MOST[1], dtype=np.int8), "weight")
    node = helper.make_node("MatMulInteger", ["rows", "weight"], ["sum"])
    return _model(node, ("rows", [None, _CHANNELS]), ("sum", TensorProto.INT32), [weight])


def _convolution() -> onnx.ModelProto:
    weight = np.full((_CHANNELS, _CHANNELS, 3, 3), _MOST[1], dtype=np.int8)
    scale = np.float32(weight[0].size * _MOST[0] * _MOST[1] / _SCALED)
    values = {
        "one": np.float32(1.0),
        "zero": np.uint8(0),
        "weight": weight,
        "weight_zero": np.int8(0),
        "scale": scale,
    }
    inputs = ["picture", "one", "zero", "weight", "one", "weight_zero", "scale", "zero"]
    node = helper.make_node("QLinearConv", inputs, ["sum"])
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    return _model(node, ("picture", [1, _CHANNELS, 3, 3]), ("sum", TensorProto.UINT8), constants)


def _model(
    node: onnx.NodeProto, given: tuple[str, list[int | None]], made: tuple[str, int], constants: list[TensorProto]
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(given[0], TensorProto.UINT8, given[1])]
    graph = helper.make_graph([node], "known_answers", inputs, [helper.make_tensor_value_info(made[0], made[1], None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
