"""GPTQ against brute force and against rounding to nearest."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.gptq import InverseFactor
from tests.traced_memory import peak_bytes

Doubles = NDArray[np.float64]


def correlated(rows: int, channels: int, seed: int = 0) -> Doubles:
    """Return inputs of which a few directions make up most."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, channels // 4)) @ rng.normal(size=(channels // 4, channels)) + 0.1 * rng.normal(size=(rows, channels))


def output_error(x: Doubles, weight: NDArray[np.float32], levels: NDArray[np.int8], step: NDArray[np.float32]) -> float:
    return float(np.mean((x @ (weight - levels * step)) ** 2))


def nearest(weight: NDArray[np.float32], step: NDArray[np.float32], top: int) -> NDArray[np.int8]:
    return np.clip(np.round(weight / step), -top, top).astype(np.int8)


def test_four_bit_outputs_err_less_than_half_as_much_as_with_the_nearest_levels() -> None:
    x = correlated(2000, 96)
    weight = np.random.default_rng(1).normal(size=(96, 40)).astype(np.float32)
    step = np.abs(weight).max(axis=0, keepdims=True) / 7
    levels = InverseFactor(x.T @ x / len(x)).levels(weight, step, (-7, 7))
    assert output_error(x, weight, levels, step) < 0.5 * output_error(x, weight, nearest(weight, step, 7), step)


def test_the_result_is_close_to_the_best_of_all_combinations() -> None:
    x = correlated(500, 8, seed=2)
    rng = np.random.default_rng(3)
    gaps = []
    for _ in range(12):
        weight = rng.normal(size=(8, 1)).astype(np.float32)
        step = np.full((8, 1), 0.4, np.float32)
        floor = np.floor(weight / step)
        best = min(output_error(x, weight, floor + np.array(up)[:, None], step) for up in itertools.product((0, 1), repeat=8))
        found = output_error(x, weight, InverseFactor(x.T @ x / len(x)).levels(weight, step, (-7, 7)), step)
        gaps.append(found / output_error(x, weight, nearest(weight, step, 7), step))
        assert found >= 0.2 * best  # it may leave the two neighbours of a weight, so it can win
    assert np.median(gaps) < 0.7


def test_independent_channels_are_rounded_to_nearest() -> None:
    weight = np.random.default_rng(4).normal(size=(20, 5)).astype(np.float32)
    step = np.full((1, 5), 0.3, np.float32)
    np.testing.assert_array_equal(InverseFactor(np.diag(np.linspace(1, 4, 20))).levels(weight, step, (-7, 7)), nearest(weight, step, 7))


def test_channels_that_are_always_zero_are_rounded_to_nearest_and_disturb_no_other() -> None:
    x = correlated(400, 16)
    x[:, 5] = 0.0
    weight = np.random.default_rng(5).normal(size=(16, 4)).astype(np.float32)
    step = np.full((16, 1), 0.25, np.float32)
    found = InverseFactor(x.T @ x / len(x)).levels(weight, step, (-127, 127))
    np.testing.assert_array_equal(found[5], nearest(weight, step, 127)[5])
    for hessian in (np.zeros((16, 16)), np.zeros((1, 1))):
        some = weight[: len(hessian)]
        np.testing.assert_array_equal(
            InverseFactor(hessian).levels(some, step[: len(hessian)], (-7, 7)), nearest(some, step[: len(hessian)], 7)
        )


def test_levels_stay_on_the_grid_of_each_block() -> None:
    x = correlated(600, 64)
    weight = np.random.default_rng(6).normal(size=(64, 8)).astype(np.float32)
    step = np.repeat(np.abs(weight).reshape(2, 32, 8).max(axis=1) / 7, 32, axis=0)
    levels = InverseFactor(x.T @ x / len(x)).levels(weight, step, (-7, 7))
    assert levels.dtype == np.int8
    assert np.abs(levels).max() <= 7
    assert output_error(x, weight, levels, step) < output_error(x, weight, nearest(weight, step, 7), step)


def test_a_sum_over_rows_is_rounded_like_their_mean() -> None:
    x = correlated(64, 24)
    weight = np.random.default_rng(6).normal(size=(24, 5)).astype(np.float32)
    step = np.full((1, 5), 0.3, np.float32)
    mean, total = InverseFactor(x.T @ x / 64), InverseFactor(x.T @ x, 64)
    np.testing.assert_array_equal(mean.levels(weight, step, (-7, 7)), total.levels(weight, step, (-7, 7)))


def test_few_matrices_of_the_size_of_the_weight_are_there_at_once() -> None:
    size = 512  # far above the blocks that errors are gathered in
    weight = np.random.default_rng(7).normal(size=(size, size)).astype(np.float32)
    step = np.full((1, size), 0.3, np.float32)
    hessian = np.diag(np.linspace(1, 4, size))
    factor = InverseFactor(hessian)
    assert peak_bytes(lambda: InverseFactor(hessian)) < 3.2 * hessian.nbytes
    # What is left to round, and a change of it, in float64.
    assert peak_bytes(lambda: factor.levels(weight, step, (-7, 7))) < 4.6 * weight.nbytes
