"""The network that self-check builds engines of: made on the spot from a seed, so that it is the same everywhere and nothing is downloaded.

A residual network for 10 classes of synthetic pictures: 21 convolutions (a stem, nine blocks of two, two projections), nine sums and a
Gemm, of seeded random weights scaled so that activations keep their size. Only the Gemm is fitted: it compares the features of a picture
with the mean features of each class, so that predictions depend on the picture and most of them are right. An engine whose arithmetic is
wrong somewhere therefore changes predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration.execution.onnxruntime_session import Piece

BATCH = 64
CLASSES = 10
PICTURE = (3, 32, 32)
INPUT, OUTPUT = "input", "logits"
WIDTHS = (32, 64, 128)  # of the three groups of three blocks; each group after the first halves the picture
BLOCKS = 3
NOISE = 0.6  # of a picture's pixels, where those of its class have a deviation of 1
_FEATURES = "features"
_OPSET = 17

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class CheckedNetwork:
    """The network with pictures for it."""

    model: onnx.ModelProto  # input (N, 3, 32, 32), output (N, 10), float32
    calibration: Floats  # (n, 3, 32, 32)
    validation: Floats  # (n, 3, 32, 32), others
    labels: NDArray[np.int64]  # (n,) classes of the validation pictures


def checked_network(*, seed: int = 0, samples: int = 2 * BATCH) -> CheckedNetwork:
    """Return the network; the same seed gives the same network and pictures, but for the last bits of the fitted layer.

    Args:
        seed: Of weights and pictures.
        samples: Validation pictures, at least 1.
    """
    rng = np.random.default_rng(seed)
    prototypes = _smooth(rng.standard_normal((CLASSES, *PICTURE)))
    fitting, classes = _pictures(prototypes, 2 * BATCH, rng)
    validation, labels = _pictures(prototypes, samples, rng)
    body, initializers = _body(rng)
    features = np.concatenate([_run(body, initializers, fitting[start : start + BATCH]) for start in range(0, len(fitting), BATCH)])
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-3
    means = np.stack([(features[classes == label].mean(axis=0) - centre) / spread for label in range(CLASSES)])
    weight = means / spread / np.sqrt(means.shape[1])
    bias = -(weight @ centre) - (means**2).sum(axis=1) / 2 / np.sqrt(means.shape[1])
    head = helper.make_node("Gemm", [_FEATURES, "head_weight", "head_bias"], [OUTPUT], name="head", transB=1)
    initializers += [_constant("head_weight", weight), _constant("head_bias", bias)]
    return CheckedNetwork(_model([*body, head], initializers, OUTPUT, CLASSES), fitting, validation, labels)


def _body(rng: np.random.Generator) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return everything up to the features."""
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []

    def convolution(name: str, source: str, channels: tuple[int, int], *, kernel: int = 3, stride: int = 1, gain: float = 2.0) -> str:
        outputs, inputs = channels
        weight = rng.standard_normal((outputs, inputs, kernel, kernel)) * np.sqrt(gain / (inputs * kernel * kernel))
        initializers.extend((_constant(f"{name}_weight", weight), _constant(f"{name}_bias", rng.standard_normal(outputs) * 0.1)))
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv",
                [source, f"{name}_weight", f"{name}_bias"],
                [name],
                name=name,
                kernel_shape=[kernel] * 2,
                strides=[stride] * 2,
                pads=pads,
            )
        )
        return name

    def one(kind: str, name: str, *inputs: str) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name))
        return name

    at = one("Relu", "stem_relu", convolution("stem", INPUT, (WIDTHS[0], PICTURE[0])))
    width = WIDTHS[0]
    for name, wanted, stride in _blocks():
        inner = one("Relu", f"{name}_relu1", convolution(f"{name}_conv1", at, (wanted, width), stride=stride))
        outer = convolution(f"{name}_conv2", inner, (wanted, wanted), gain=0.5)
        if wanted != width:
            at = convolution(f"{name}_skip", at, (wanted, width), kernel=1, stride=stride, gain=1.0)
        at, width = one("Relu", f"{name}_relu2", one("Add", f"{name}_sum", outer, at)), wanted
    one("Flatten", _FEATURES, one("GlobalAveragePool", "average", at))
    return nodes, initializers


def _blocks() -> Iterator[tuple[str, int, int]]:
    """Yield name, width and stride of each block."""
    for group, width in enumerate(WIDTHS):
        for block in range(BLOCKS):
            yield f"block{group * BLOCKS + block + 1}", width, 2 if group and not block else 1


def _pictures(prototypes: NDArray[np.float64], count: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    labels = np.arange(count, dtype=np.int64) % CLASSES
    noise = _smooth(rng.standard_normal((count, *PICTURE))) * NOISE
    return np.asarray(prototypes[labels] + noise, dtype=np.float32), labels


def _smooth(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return noise, (n, channels, height, width), whose neighbouring pixels are alike, with deviation 1."""
    for axis in (2, 3):
        for _ in range(2):
            noise = (noise + np.roll(noise, 1, axis=axis) + np.roll(noise, 2, axis=axis)) / 3
    return np.asarray(noise / noise.std())


def _run(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto], pictures: Floats) -> Floats:
    found = Piece(_model(nodes, initializers, _FEATURES, WIDTHS[-1]), threads=2).run({INPUT: pictures})
    return np.asarray(found[_FEATURES], dtype=np.float32)


def _model(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto], output: str, size: int) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *PICTURE])]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", size])]
    graph = helper.make_graph(nodes, "self_check", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


def _constant(name: str, value: NDArray[np.floating]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)
