"""Two embedding networks of items: one ends in a linear layer, the other brings that to length 1."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.kinds.case import Case, Outputs, Quality, of_one_input
from benchmarks.kinds.measures import nearest_neighbours
from benchmarks.kinds.network_builder import Network, NetworkBuilder
from benchmarks.kinds.pictures import Items, items
from examples.fashion_mnist.prepare import MODELS

Floats = NDArray[np.float32]

SIZE = 64
POOLED = "/18/Flatten_output_0"  # 192 features of the example MobileNetV2-like network

_CALIBRATION = 256
_QUERIES = 1500  # of the unseen pictures; the others are the gallery


def linear(seed: int = 5) -> Case:
    """Return the network with the output (samples, 64) of a linear layer."""
    builder = NetworkBuilder()
    _projected(builder, to="embedding")
    return _case("embedding, linear", builder, seed)


def unit_length(seed: int = 6) -> Case:
    """Return the network whose output is divided by its norm."""
    builder = NetworkBuilder()
    projected = _projected(builder, to="projected")
    builder.node("Div", projected, builder.node("ReduceL2", projected, axes=[1], keepdims=1), to="embedding")
    return _case("embedding, unit length", builder, seed)


def _case(name: str, builder: NetworkBuilder, seed: int) -> Case:
    model = builder.model({"input": ["N", 1, 28, 28]}, {"embedding": ["N", SIZE]})
    chosen = np.random.default_rng(seed).permutation(len(items("train").labels))[:_CALIBRATION]
    test = items("test")
    validation, unseen = test.of(0, 1000), test.of(5000, 10000)

    def measure(outputs: Outputs, reference: Outputs) -> Quality:
        found, sure = (_neighbours(one) for one in (outputs, reference))
        labels = unseen.labels
        return Quality(float(np.mean(found == sure)), float(np.mean(labels[_QUERIES:][found] == labels[:_QUERIES])))

    data = of_one_input("input", items("train").inputs[chosen], validation.inputs, unseen.inputs)
    return Case(name, model, data, measure, "neighbours kept; class of the neighbour", 32)


def _neighbours(outputs: Outputs) -> NDArray[np.int64]:
    vectors = outputs["embedding"].astype(np.float32)
    return nearest_neighbours(vectors[:_QUERIES], vectors[_QUERIES:])


def _projected(builder: NetworkBuilder, *, to: str) -> str:
    pooled = builder.begin_with(onnx.load(MODELS["mobilenetv2"]), POOLED, "input")
    return builder.dense(pooled, *_whitening(items("train")), to=to)


def _whitening(training: Items) -> tuple[Floats, Floats]:
    """Return the layer that brings the spread within a class to 1 along the directions in which classes differ most."""
    builder = NetworkBuilder()
    builder.begin_with(onnx.load(MODELS["mobilenetv2"]), POOLED, "input")
    trunk = builder.model({"input": ["N", 1, 28, 28]}, {POOLED: ["N", 192]})
    features = Network(trunk.SerializeToString()).run({"input": training.inputs})[POOLED].astype(np.float64)
    means = np.stack([features[training.labels == one].mean(axis=0) for one in range(10)])
    within = np.cov((features - means[training.labels]).T) + 1e-2 * np.cov(features.T)
    values, vectors = np.linalg.eigh(within + 1e-6 * np.eye(len(within)))
    white = vectors / np.sqrt(values)
    spread = np.linalg.eigh(np.cov(((features - features.mean(axis=0)) @ white).T))[1][:, ::-1]
    weight = white @ spread[:, :SIZE]
    return weight.astype(np.float32), (-features.mean(axis=0) @ weight).astype(np.float32)
