"""Networks of independent scores: one score a picture, and one for each kind of item in a scene."""

from __future__ import annotations

import numpy as np
import onnx

from benchmarks.kinds.case import Case, Outputs, Quality, of_one_input
from benchmarks.kinds.detectors import RESNET_FEATURES
from benchmarks.kinds.measures import decisions_kept
from benchmarks.kinds.network_builder import Network, NetworkBuilder, Shapes
from benchmarks.kinds.pictures import SIDE, items, scenes
from benchmarks.kinds.training import logistic, patch_filters, random_weights
from examples.fashion_mnist.prepare import MODELS

UPPER = (2, 4, 6)  # pullovers, coats and shirts: three of ten items
KINDS = (1, 5, 8, 9)

_CHANNELS = 128
_CALIBRATION = 256
_COUNTS = (1000, 160, 320, 1500)  # scenes to train on, to calibrate on, to validate on, and unseen


def classifier(seed: int = 8) -> Case:
    """Return the network with the output (samples, 1): is it a pullover, a coat or a shirt?"""
    rng = np.random.default_rng(seed)
    train, test = items("train"), items("test")
    builder = NetworkBuilder()
    first = builder.node("Relu", builder.convolution("picture", patch_filters(train.inputs, 64, 5, rng), stride=2))
    second = builder.convolution(first, random_weights(rng, _CHANNELS, 64, 3, 3, fan_in=9 * 64))
    pooled = builder.node("AveragePool", builder.node("Relu", second), kernel_shape=[4, 4], strides=[4, 4])
    flat = builder.node("Flatten", pooled)
    shapes: Shapes = {"picture": ["N", 1, 28, 28]}
    trunk = builder.model(shapes, {flat: ["N", 9 * _CHANNELS]})
    features = Network(trunk.SerializeToString()).run({"picture": train.inputs})[flat].astype(np.float32)
    head = logistic(features, np.isin(train.labels, UPPER)[:, np.newaxis].astype(np.float32), steps=100, decay=1e-2)
    builder.node("Sigmoid", builder.dense(flat, *head), to="score")
    model = builder.model(shapes, {"score": ["N", 1]})
    unseen = test.of(5000, 10000)

    def measure(outputs: Outputs, reference: Outputs) -> Quality:
        found, sure = (one["score"].astype(np.float32) for one in (outputs, reference))
        return Quality(decisions_kept(found, sure), decisions_kept(found, np.isin(unseen.labels, UPPER)[:, np.newaxis].astype(np.float32)))

    chosen = rng.permutation(len(train.labels))[:_CALIBRATION]
    data = of_one_input("picture", train.inputs[chosen], test.of(0, 1000).inputs, unseen.inputs)
    return Case("sigmoid classifier, one score", model, data, measure, "decisions kept at 0.5", 32)


def several_labels(seed: int = 9) -> Case:
    """Return the network with the output (samples, kinds): which kinds of items are in the scene?"""
    rng = np.random.default_rng(seed)
    train, test = items("train"), items("test")
    sources = (train, train, test.of(0, 5000), test.of(5000, 10000))
    training, calibration, validation, unseen = (scenes(one, KINDS, n, rng) for one, n in zip(sources, _COUNTS, strict=True))
    builder = NetworkBuilder()
    last = builder.begin_with(onnx.load(MODELS["resnet20"]), RESNET_FEATURES, "scene")
    wide = builder.node("Relu", builder.convolution(last, random_weights(rng, _CHANNELS, 64, 3, 3, fan_in=9 * 64)))
    pooled = [builder.node("Flatten", builder.node(operator, wide)) for operator in ("GlobalMaxPool", "GlobalAveragePool")]
    both = builder.node("Concat", *pooled, axis=1)
    shapes: Shapes = {"scene": ["N", 1, SIDE, SIDE]}
    trunk = builder.model(shapes, {both: ["N", 2 * _CHANNELS]})
    features = Network(trunk.SerializeToString()).run({"scene": training.inputs})[both].astype(np.float32)
    there, truth = (np.stack([np.isin(range(len(KINDS)), one) for one in found.classes]).astype(np.float32) for found in (training, unseen))
    builder.node("Sigmoid", builder.dense(both, *logistic(features, there, decay=1e-3)), to="scores")
    model = builder.model(shapes, {"scores": ["N", len(KINDS)]})

    def measure(outputs: Outputs, reference: Outputs) -> Quality:
        found, sure = (one["scores"].astype(np.float32) for one in (outputs, reference))
        return Quality(decisions_kept(found, sure), decisions_kept(found, truth))

    data = of_one_input("scene", calibration.inputs, validation.inputs, unseen.inputs)
    return Case("sigmoid classifier, several labels", model, data, measure, "sets of labels kept at 0.5", 16)
