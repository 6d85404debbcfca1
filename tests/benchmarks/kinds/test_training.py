from __future__ import annotations

import numpy as np
import pytest

from benchmarks.kinds.training import logistic, patch_filters, perceptron, ridge


def test_ridge_finds_a_linear_function() -> None:
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((200, 3)) * [1, 100, 0.01] + [0, 50, 1]).astype(np.float32)
    weight, bias = ridge(features, features @ np.asarray([[1], [0.02], [30]], dtype=np.float32) + 4, strength=1e-8)
    assert weight.ravel() == pytest.approx([1, 0.02, 30], rel=1e-3)  # float32 sums of 200 rows
    assert bias[0] == pytest.approx(4, abs=0.05)


def test_logistic_layer_tells_two_heaps_apart() -> None:
    rng = np.random.default_rng(0)
    there = np.repeat([[0.0], [1.0]], 100, axis=0).astype(np.float32)
    features = (6 * there + rng.standard_normal((200, 2))).astype(np.float32)
    weight, bias = logistic(features, there)
    assert np.mean((features @ weight + bias > 0) == (there > 0.5)) > 0.98


def test_softmax_layer_finds_the_class() -> None:
    labels = np.arange(90) % 3
    features = (np.eye(3)[labels] + 0.1 * np.random.default_rng(0).standard_normal((90, 3))).astype(np.float32)
    weight, bias = logistic(features, np.eye(3, dtype=np.float32)[labels], is_exclusive=True)
    assert ((features @ weight + bias).argmax(axis=1) == labels).all()


def test_perceptron_fits_what_no_line_can() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(-1.5, 1.5, (2000, 1)).astype(np.float32)
    targets = np.abs(features)
    layers = perceptron(features, targets, (16,), steps=400, rng=rng)
    hidden = np.maximum(features @ layers[0][0] + layers[0][1], 0)
    error = np.mean((hidden @ layers[1][0] + layers[1][1] - targets) ** 2)
    assert error < 0.1 * targets.var()  # the best line leaves all of the variance


def test_filters_have_mean_zero_and_norm_one() -> None:
    rng = np.random.default_rng(0)
    filters = patch_filters(rng.standard_normal((4, 1, 9, 9)).astype(np.float32), 5, 3, rng)
    assert filters.shape == (5, 1, 3, 3)
    assert filters.mean(axis=(1, 2, 3)) == pytest.approx(np.zeros(5), abs=1e-6)
    assert np.linalg.norm(filters.reshape(5, -1), axis=1) == pytest.approx(np.ones(5), abs=1e-6)
