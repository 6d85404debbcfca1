"""Fits the layers of small networks: linear layers in closed form or by a few hundred steps, and small multilayer perceptrons.

Ridge regression: weights W = (X'X + n s I)^-1 X'Y for features X of n rows that were brought to mean 0 and deviation 1; the scaling is then
folded into the layer. Logistic layers minimise the cross-entropy of a sigmoid or a softmax by Adam (Kingma and Ba, arXiv 1412.6980).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Layer = tuple[Floats, Floats]  # weight (inputs, outputs), bias (outputs,)

_LEARNING_RATE = 0.02
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8  # Adam's own defaults
_SMALLEST_DEVIATION = 1e-6


def ridge(features: Floats, targets: Floats, *, strength: float = 1e-3) -> Layer:
    """Return the linear layer that predicts the targets with the least squared error.

    Args:
        features: (rows, inputs).
        targets: (rows, outputs).
        strength: Of the penalty on the weights of the scaled features.
    """
    mean, deviation = _scaling(features)
    scaled, centre = (features - mean) / deviation, targets.mean(axis=0)
    gram = (scaled.T @ scaled / len(scaled)).astype(np.float64) + strength * np.eye(features.shape[1])
    weight: Floats = np.linalg.solve(gram, (scaled.T @ (targets - centre) / len(scaled)).astype(np.float64)).astype(np.float32)
    return _unscaled(weight, centre, mean, deviation)


def logistic(features: Floats, targets: Floats, *, steps: int = 200, is_exclusive: bool = False, decay: float = 1e-4) -> Layer:
    """Return the linear layer whose sigmoids, or whose softmax if classes exclude each other, fit the targets.

    Args:
        features: (rows, inputs).
        targets: (rows, outputs), 0 to 1.
        steps: Steps of Adam, each over all rows.
        is_exclusive: Whether each row of targets is one class.
        decay: Penalty on the weights.
    """
    mean, deviation = _scaling(features)
    scaled = (features - mean) / deviation
    parameters = [np.zeros((features.shape[1], targets.shape[1]), np.float32), np.zeros(targets.shape[1], np.float32)]
    activation = softmax if is_exclusive else sigmoid

    def gradients() -> list[Floats]:
        error = (activation(np.asarray(scaled @ parameters[0] + parameters[1], dtype=np.float32)) - targets) / np.float32(len(scaled))
        return [scaled.T @ error + np.float32(decay) * parameters[0], error.sum(axis=0)]

    _adam(parameters, gradients, steps)
    return _unscaled(parameters[0], parameters[1], mean, deviation)


def perceptron(features: Floats, targets: Floats, widths: Sequence[int], *, steps: int, rng: np.random.Generator) -> list[Layer]:
    """Return the layers of a perceptron, ReLU between them, that fits the targets with the least squared error.

    Args:
        features: (rows, inputs), of mean about 0 and deviation about 1.
        targets: (rows, outputs), alike.
        widths: Of the hidden layers.
        steps: Steps of Adam, each over a part of the rows.
        rng: Of the first weights and the parts.
    """
    sizes = [features.shape[1], *widths, targets.shape[1]]
    parameters: list[Floats] = []
    for inputs, outputs in itertools.pairwise(sizes):
        parameters += [random_weights(rng, inputs, outputs, fan_in=inputs), np.zeros(outputs, np.float32)]

    def gradients() -> list[Floats]:
        rows = rng.integers(len(features), size=512)
        values = [features[rows]]
        for index in range(0, len(parameters), 2):
            made = values[-1] @ parameters[index] + parameters[index + 1]
            values.append(np.maximum(made, 0) if index < len(parameters) - 2 else made)
        error = (values[-1] - targets[rows]) / np.float32(len(rows))
        found: list[Floats] = []
        for index in range(len(parameters) - 2, -1, -2):
            below = values[index // 2]
            found = [below.T @ error, error.sum(axis=0), *found]
            error = (error @ parameters[index].T) * (below > 0)
        return found

    _adam(parameters, gradients, steps, rate=2e-3)
    return [(parameters[index], parameters[index + 1]) for index in range(0, len(parameters), 2)]


def random_weights(rng: np.random.Generator, *shape: int, fan_in: int) -> Floats:
    """Return weights that keep the size of values through a ReLU: normal, of variance 2 / fan_in (He et al., arXiv 1502.01852)."""
    return np.asarray(rng.standard_normal(shape) * np.sqrt(2.0 / fan_in), dtype=np.float32)


def patch_filters(pictures: Floats, count: int, size: int, rng: np.random.Generator) -> Floats:
    """Return convolution filters from random patches: mean 0, norm 1, so that each answers to what real pictures hold.

    Args:
        pictures: (samples, channels, height, width).
        count: Filters.
        size: Of a filter's sides.
        rng: Of the patches.
    """
    found: list[Floats] = []
    while len(found) < count:
        sample, top, left = (int(rng.integers(high)) for high in (len(pictures), *(side - size + 1 for side in pictures.shape[2:])))
        patch = pictures[sample, :, top : top + size, left : left + size]
        patch = patch - patch.mean()
        norm = float(np.linalg.norm(patch))
        if norm > 1e-3:
            found.append(patch / norm)
    return np.stack(found).astype(np.float32)


def sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-values))."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), dtype=np.float32)


def softmax(values: Floats) -> Floats:
    """Return the softmax over the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)


def _adam(parameters: list[Floats], gradients: Callable[[], list[Floats]], steps: int, *, rate: float = _LEARNING_RATE) -> None:
    first, second = ([np.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    for step in range(1, steps + 1):
        for index, gradient in enumerate(gradients()):
            first[index] = _FIRST * first[index] + (1 - _FIRST) * gradient
            second[index] = _SECOND * second[index] + (1 - _SECOND) * gradient**2
            mean, square = first[index] / (1 - _FIRST**step), second[index] / (1 - _SECOND**step)
            parameters[index] -= (rate * (1 - step / (steps + 1)) * mean / (np.sqrt(square) + _TINY)).astype(np.float32)


def _scaling(features: Floats) -> tuple[Floats, Floats]:
    return features.mean(axis=0), np.maximum(features.std(axis=0), np.float32(_SMALLEST_DEVIATION))


def _unscaled(weight: Floats, bias: Floats, mean: Floats, deviation: Floats) -> Layer:
    raw = weight / deviation[:, np.newaxis]
    return raw.astype(np.float32), (bias - mean @ raw).astype(np.float32)
