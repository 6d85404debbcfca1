"""A regressor of three quantities in their own units, trained by steps of Adam on a noisy function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.kinds.case import Case, Outputs, Quality, of_one_input
from benchmarks.kinds.measures import regression_quality
from benchmarks.kinds.network_builder import NetworkBuilder
from benchmarks.kinds.training import perceptron

Floats = NDArray[np.float32]

INPUTS = 12
UNITS = ((300.0, 15.0), (0.5, 0.15), (101_325.0, 800.0))  # mean and deviation: kelvin, a share, pascal

_WIDTHS = (256, 256)
_COUNTS = (8000, 256, 512, 4000)  # samples to train on, to calibrate on, to validate on, and unseen


def regressor(seed: int = 10) -> Case:
    """Return the network with the output (samples, 3)."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((INPUTS, 3)) / np.sqrt(INPUTS)
    (inputs, targets), (calibration, _), (validation, _), (unseen, truth) = (_samples(rng, count, mixing) for count in _COUNTS)
    means, deviations = (np.asarray(one, dtype=np.float32) for one in zip(*UNITS, strict=True))
    layers = perceptron(inputs, (targets - means) / deviations, _WIDTHS, steps=1500, rng=rng)
    builder = NetworkBuilder()
    last = "sensors"
    for index, layer in enumerate(layers):
        last = builder.dense(last, *layer)
        last = builder.node("Relu", last) if index < len(layers) - 1 else last
    builder.node("Add", builder.node("Mul", last, builder.constant(deviations)), builder.constant(means), to="quantities")
    model = builder.model({"sensors": ["N", INPUTS]}, {"quantities": ["N", len(UNITS)]})

    def measure(outputs: Outputs, reference: Outputs) -> Quality:
        found, sure = (one["quantities"].astype(np.float32) for one in (outputs, reference))
        return Quality(regression_quality(found, sure), regression_quality(found, truth))

    return Case("regressor", model, of_one_input("sensors", calibration, validation, unseen), measure, "1 - NRMSE, worst column", 32)


def _samples(rng: np.random.Generator, count: int, mixing: NDArray[np.float64]) -> tuple[Floats, Floats]:
    inputs = rng.standard_normal((count, INPUTS))
    mixed = inputs @ mixing
    shapes = np.stack(
        [np.tanh(1.5 * mixed[:, 0]) + 0.3 * mixed[:, 1], np.sin(2 * mixed[:, 1]), mixed[:, 2] + 0.4 * inputs[:, 0] * inputs[:, 1]], axis=1
    )
    noisy = shapes + 0.1 * rng.standard_normal(shapes.shape)
    means, deviations = (np.asarray(one) for one in zip(*UNITS, strict=True))
    return inputs.astype(np.float32), (means + deviations * noisy).astype(np.float32)
