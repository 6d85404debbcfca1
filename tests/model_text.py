"""Models from ONNX text, samples that fit a model, and one run of it; the plain network that most tests start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from numpy.typing import NDArray

from calibration.onnx_model.model_io import input_specs

Array = NDArray[Any]  # of the number type that the model gives or takes
ModelMaker = Callable[[], onnx.ModelProto]


def samples_for(model: onnx.ModelProto, count: int, seed: int = 0) -> dict[str, Array]:
    """Return ``count`` random samples for each input: normal floats, integers 0..3, one size (8) for every dynamic axis."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for spec in input_specs(model):
        shape = (count, *(dim if isinstance(dim, int) else 8 for dim in spec.shape[1:]))
        dtype = np.dtype(spec.dtype)
        arrays[spec.name] = rng.normal(size=shape).astype(dtype) if dtype.kind == "f" else rng.integers(0, 4, shape).astype(dtype)
    return arrays


def one_batch(model: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    """Return a feed for one run: the fixed batch of the model, else 3."""
    first = input_specs(model)[0].shape[0]
    return samples_for(model, first if isinstance(first, int) else 3, seed)


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Return the outputs of ``model`` in onnxruntime, not optimized."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def model_from_text(
    text: str, weights: Mapping[str, tuple[int, ...]] | None = None, *, opset: int = 17, ir_version: int = 8
) -> onnx.ModelProto:
    """Return the model of the graph ``text``, with random float32 initializers (He scale, seeded) of the shapes given."""
    model = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n{text}')
    rng = np.random.default_rng(7)
    for name, shape in (weights or {}).items():
        fan_in = max(int(np.prod(shape[1:])), 1)
        array = (rng.normal(size=shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


CNN_WEIGHTS = {"w1": (4, 1, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "w3": (3, 4), "b3": (3,)}


def cnn(image: str = "N,1,8,8") -> onnx.ModelProto:
    """Conv, Relu, residual Conv, pooling, Gemm: the plain case."""
    return model_from_text(
        f"""cnn (float[{image}] input) => (float[{image.split(",", maxsplit=1)[0]},3] logits) {{
            c1 = Conv<pads=[1,1,1,1]>(input, w1, b1)
            r1 = Relu(c1)
            c2 = Conv<pads=[1,1,1,1]>(r1, w2)
            sum = Add(c2, r1)
            r2 = Relu(sum)
            pooled = GlobalAveragePool(r2)
            flat = Flatten(pooled)
            logits = Gemm<transB=1>(flat, w3, b3)
        }}""",
        CNN_WEIGHTS,
    )


def fixed_batch() -> onnx.ModelProto:
    return cnn("1,1,8,8")


def dynamic_axes() -> onnx.ModelProto:
    return cnn("N,1,H,W")


def halved(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """Turn each float32 initializer into the half type ``kind``."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, kind, array.shape, array.ravel()))
    return model
