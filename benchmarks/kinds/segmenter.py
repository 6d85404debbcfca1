"""A segmenter of scenes: logits of every pixel, from features of two sizes of the example ResNet."""

from __future__ import annotations

import numpy as np
import onnx

from benchmarks.kinds.case import Case, Outputs, Quality, of_one_input
from benchmarks.kinds.detectors import CLASSES, RESNET_FEATURES
from benchmarks.kinds.measures import mean_iou
from benchmarks.kinds.network_builder import Network, NetworkBuilder
from benchmarks.kinds.pictures import SIDE, items, scenes
from benchmarks.kinds.training import logistic, random_weights
from examples.fashion_mnist.prepare import MODELS

CHANNELS = 96
FINE_FEATURES = "/4/Relu_1_output_0"  # 16 channels, a value for 2 x 2 pixels

_COUNTS = (300, 96, 192, 600)  # scenes to train on, to calibrate on, to validate on, and unseen
_ROWS = 60_000  # pixels that the head is fitted to


def segmenter(seed: int = 2) -> Case:
    """Return the network with the output (samples, classes, height, width)."""
    rng = np.random.default_rng(seed)
    train, test = items("train"), items("test")
    sources = (train, train, test.of(0, 5000), test.of(5000, 10000))
    training, calibration, validation, unseen = (scenes(one, CLASSES, n, rng) for one, n in zip(sources, _COUNTS, strict=True))
    builder = NetworkBuilder()
    decoded = _decoder(builder, np.random.default_rng((seed, 1)))
    trunk = builder.model({"image": ["N", 1, SIDE, SIDE]}, {decoded: ["N", CHANNELS, SIDE // 2, SIDE // 2]})
    features = Network(trunk.SerializeToString()).run({"image": training.inputs})[decoded]
    rows = np.moveaxis(features, 1, 3).reshape(-1, CHANNELS).astype(np.float32)
    labels = training.masks[:, ::2, ::2].reshape(-1)
    chosen = rng.choice(len(rows), size=_ROWS, replace=False)
    targets = np.eye(len(CLASSES) + 1, dtype=np.float32)[labels[chosen]]
    weight, bias = logistic(rows[chosen], targets, is_exclusive=True)
    coarse = builder.convolution(decoded, np.ascontiguousarray(weight.T[:, :, np.newaxis, np.newaxis]), bias)
    scales = builder.constant(np.asarray([1, 1, 2, 2], dtype=np.float32))
    builder.node("Resize", coarse, "", scales, to="logits", mode="linear")
    model = builder.model({"image": ["N", 1, SIDE, SIDE]}, {"logits": ["N", len(CLASSES) + 1, SIDE, SIDE]})

    def measure(outputs: Outputs, reference: Outputs) -> Quality:
        found, sure = (one["logits"].argmax(axis=1) for one in (outputs, reference))
        return Quality(mean_iou(found, sure, len(CLASSES) + 1), mean_iou(found, unseen.masks, len(CLASSES) + 1))

    data = of_one_input("image", calibration.inputs, validation.inputs, unseen.inputs)
    return Case("segmenter", model, data, measure, "mean IoU", 8)


def _decoder(builder: NetworkBuilder, rng: np.random.Generator) -> str:
    resnet = onnx.load(MODELS["resnet20"])
    builder.begin_with(resnet, RESNET_FEATURES, "image")  # the fine features are among those that it needs
    reduced = builder.node("Relu", builder.convolution(RESNET_FEATURES, random_weights(rng, CHANNELS, 64, 3, 3, fan_in=9 * 64)))
    scales = builder.constant(np.asarray([1, 1, 4, 4], dtype=np.float32))
    upsampled = builder.node("Resize", reduced, "", scales, mode="linear")
    both = builder.node("Concat", upsampled, FINE_FEATURES, axis=1)
    kernel = random_weights(rng, CHANNELS, CHANNELS + 16, 3, 3, fan_in=9 * (CHANNELS + 16))
    return builder.node("Relu", builder.convolution(both, kernel))
