"""The networks whose latencies are predicted: the examples, some of ``benchmarks.kinds``, and three of random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from benchmarks.kinds.cases import CASES
from benchmarks.kinds.network_builder import Array, NetworkBuilder
from benchmarks.kinds.training import random_weights
from calibration.onnx_model.model_io import input_specs, read_model
from examples.fashion_mnist.prepare import MODELS, PICTURES, network_input

SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Timed:
    """A network and what one call of it takes."""

    model: onnx.ModelProto
    samples: Mapping[str, Array]  # for ranges
    batch: int


def example(name: str, batch: int) -> Timed:
    """Return an example network with training pictures."""
    model = read_model(MODELS[name])
    with np.load(PICTURES, allow_pickle=False) as arrays:
        pictures = network_input(arrays["train_images"][:SAMPLES])
    return Timed(model, {input_specs(model)[0].name: pictures}, batch)


def kind(name: str) -> Timed:
    """Return a network of ``benchmarks.kinds`` with its calibration samples."""
    case = CASES[name]()
    return Timed(case.model, {key: array[:SAMPLES] for key, array in case.data.calibration.items()}, case.batch)


def depthwise(side: int = 96, seed: int = 0) -> Timed:
    """Return inverted bottlenecks with Clip activations on pictures, of random weights."""
    rng = np.random.default_rng(seed)
    builder = NetworkBuilder()
    low, high = (builder.constant(np.asarray(bound, dtype=np.float32)) for bound in (0.0, 6.0))

    def clipped(source: str, weights: Array, stride: int = 1, group: int = 1) -> str:
        weight, bias = builder.constant(weights), builder.constant(np.zeros(len(weights), np.float32))
        pads = [weights.shape[2] // 2] * 4
        made = builder.node("Conv", source, weight, bias, pads=pads, strides=[stride, stride], group=group)
        return builder.node("Clip", made, low, high)

    last, channels = clipped("picture", random_weights(rng, 16, 3, 3, 3, fan_in=27), stride=2), 16
    for wide, out, stride in ((48, 24, 2), (96, 24, 1), (96, 32, 2), (128, 32, 1), (128, 32, 1), (192, 64, 2), (256, 64, 1)):
        inside = clipped(last, random_weights(rng, wide, channels, 1, 1, fan_in=channels))
        inside = clipped(inside, random_weights(rng, wide, 1, 3, 3, fan_in=9), stride, group=wide)
        narrow = builder.convolution(inside, random_weights(rng, out, wide, 1, 1, fan_in=2 * wide), np.zeros(out, np.float32))
        last = builder.node("Add", last, narrow) if stride == 1 and out == channels else narrow
        channels = out
    pooled = builder.node("Flatten", builder.node("GlobalAveragePool", last))
    builder.dense(pooled, random_weights(rng, channels, 10, fan_in=channels), np.zeros(10, np.float32), to="logits")
    model = builder.model({"picture": ["N", 3, side, side]}, {"logits": ["N", 10]})
    return Timed(model, {"picture": rng.standard_normal((8, 3, side, side)).astype(np.float32)}, 2)


def gated(side: int = 48, seed: int = 0) -> Timed:
    """Return a plain chain of convolutions whose activation is a Sigmoid times its input, with pools between, of random weights."""
    rng = np.random.default_rng(seed)
    builder = NetworkBuilder()
    last, channels = "picture", 3
    for index, out in enumerate((32, 32, 64, 64, 96, 96, 128, 128)):
        made = builder.convolution(last, random_weights(rng, out, channels, 3, 3, fan_in=9 * channels), np.zeros(out, np.float32))
        last = builder.node("Mul", made, builder.node("Sigmoid", made))
        if index % 2:
            last = builder.node("MaxPool", last, kernel_shape=[2, 2], strides=[2, 2])
        channels = out
    pooled = builder.node("Flatten", builder.node("GlobalAveragePool", last))
    builder.dense(pooled, random_weights(rng, channels, 10, fan_in=channels), np.zeros(10, np.float32), to="logits")
    model = builder.model({"picture": ["N", 3, side, side]}, {"logits": ["N", 10]})
    return Timed(model, {"picture": rng.standard_normal((8, 3, side, side)).astype(np.float32)}, 2)


def transformer(blocks: int = 3, width: int = 128, tokens: int = 32, heads: int = 4, seed: int = 0) -> Timed:
    """Return an encoder of texts, of random weights: attention, GELU, normalization behind each sum."""
    rng = np.random.default_rng(seed)
    builder = NetworkBuilder()

    def number(value: float) -> str:
        return builder.constant(np.asarray(value, dtype=np.float32))

    def linear(source: str, inputs: int, outputs: int) -> str:
        weight = builder.constant((rng.standard_normal((inputs, outputs)) / np.sqrt(inputs)).astype(np.float32))
        return builder.node("Add", builder.node("MatMul", source, weight), builder.constant(np.zeros(outputs, np.float32)))

    def normalized(source: str) -> str:
        scale, shift = (builder.constant(np.full(width, value, np.float32)) for value in (1.0, 0.0))
        return builder.node("LayerNormalization", source, scale, shift, axis=-1)

    def by_head(source: str, order: list[int]) -> str:
        return builder.node("Transpose", builder.node("Reshape", source, builder.shape(0, tokens, heads, width // heads)), perm=order)

    last = "tokens"
    for _ in range(blocks):
        queries, keys, values = (by_head(linear(last, width, width), order) for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        scores = builder.node("Mul", builder.node("MatMul", queries, keys), number((width // heads) ** -0.5))
        mixed = builder.node("MatMul", builder.node("Softmax", scores, axis=-1), values)
        joined = builder.node("Reshape", builder.node("Transpose", mixed, perm=[0, 2, 1, 3]), builder.shape(0, tokens, width))
        last = normalized(builder.node("Add", last, linear(joined, width, width)))
        wide = linear(last, width, 4 * width)
        error = builder.node("Add", builder.node("Erf", builder.node("Div", wide, number(2**0.5))), number(1.0))
        gelu = builder.node("Mul", builder.node("Mul", wide, error), number(0.5))
        last = normalized(builder.node("Add", last, linear(gelu, 4 * width, width)))
    mean = builder.node("ReduceMean", last, axes=[1], keepdims=0)
    builder.dense(mean, random_weights(rng, width, 10, fan_in=width), np.zeros(10, np.float32), to="logits")
    model = builder.model({"tokens": ["N", tokens, width]}, {"logits": ["N", 10]})
    return Timed(model, {"tokens": rng.standard_normal((16, tokens, width)).astype(np.float32)}, 8)


NETWORKS: Mapping[str, Callable[[], Timed]] = {
    "mobilenetv2, 64 pictures": partial(example, "mobilenetv2", 64),
    "mobilenetv2, 8 pictures": partial(example, "mobilenetv2", 8),
    "resnet20, 64 pictures": partial(example, "resnet20", 64),
    "resnet20, 8 pictures": partial(example, "resnet20", 8),
    "detector": partial(kind, "detector-yolo"),
    "segmenter": partial(kind, "segmenter"),
    "depthwise, random weights": depthwise,
    "gated chain, random weights": gated,
    "transformer, random weights": transformer,
}
