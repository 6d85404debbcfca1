"""Small filters are rounded in the best of all ways."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.enumerated_rounding import Enumeration
from calibration.algorithms.gptq import DAMPING, InverseFactor, Rounder
from calibration.number_formats.pair_bound import PAIR_LIMIT

Doubles = NDArray[np.float64]
TAPS = 9


def second_moments(taps: int = TAPS, seed: int = 0) -> Doubles:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, 3)) @ rng.normal(size=(3, taps)) + 0.1 * rng.normal(size=(400, taps))
    return np.asarray(x.T @ x / len(x))


def filters(outputs: int, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    weight = np.random.default_rng(seed).normal(size=(TAPS, outputs)).astype(np.float32)
    return weight, np.abs(weight).max(axis=0, keepdims=True) / 127


def cost(hessian: Doubles, weight: NDArray[np.float32], levels: NDArray[np.generic], step: NDArray[np.float32]) -> Doubles:
    d = weight.astype(np.float64) - levels.astype(np.float64) * step.astype(np.float64)
    return np.asarray(np.einsum("io,ij,jo->o", d, hessian, d))


class RounderContract:
    """What every way of rounding keeps to."""

    def rounder(self, hessian: Doubles) -> Rounder:
        raise NotImplementedError

    def test_it_errs_less_than_the_nearest_levels(self) -> None:
        hessian, (weight, step) = second_moments(), filters(12)
        found = self.rounder(hessian).levels(weight, step, (-127, 127))
        nearest = np.round(weight / step)
        assert found.dtype == np.int8
        assert cost(hessian, weight, found, step).sum() < 0.5 * cost(hessian, weight, nearest, step).sum()

    def test_no_level_leaves_the_grid(self) -> None:
        weight, step = filters(6)
        found = self.rounder(second_moments()).levels(weight, np.asarray(step / 3, dtype=np.float32), (-127, 127))
        assert np.abs(found.astype(int)).max() == 127

    def test_independent_inputs_are_rounded_to_nearest(self) -> None:
        weight, step = filters(5)
        for hessian in (np.diag(np.linspace(1, 4, TAPS)), np.zeros((TAPS, TAPS))):
            np.testing.assert_array_equal(self.rounder(hessian).levels(weight, step, (-127, 127)), np.round(weight / step))

    def test_partners_keep_the_pair_bound(self) -> None:
        rng = np.random.default_rng(3)
        weight = (0.5 + 0.01 * rng.normal(size=(TAPS, 40))).astype(np.float32)
        partners = np.array([1, 0, 3, 2, 5, 4, 7, 6, -1])
        step = (np.abs(weight[:8].reshape(4, 2, -1).sum(axis=1)).max(axis=0, keepdims=True) / PAIR_LIMIT).astype(np.float32)
        found = self.rounder(second_moments(seed=2)).levels(weight, step, (-127, 127), partners).astype(int)
        assert np.abs(found[:8].reshape(4, 2, -1).sum(axis=1)).max() <= PAIR_LIMIT


class TestGptq(RounderContract):
    def rounder(self, hessian: Doubles) -> Rounder:
        return InverseFactor(hessian)


class TestEnumeration(RounderContract):
    def rounder(self, hessian: Doubles) -> Rounder:
        return Enumeration(hessian)

    def test_no_other_rounding_up_or_down_errs_less(self) -> None:
        hessian, (weight, step) = second_moments(), filters(4)
        damped = hessian + DAMPING * np.diag(hessian).mean() * np.eye(TAPS)
        found = cost(damped, weight, Enumeration(hessian).levels(weight, step, (-127, 127)), step)
        floor = np.floor(weight.astype(np.float64) / step.astype(np.float64))
        best = np.min([cost(damped, weight, floor + np.array(up)[:, None], step) for up in itertools.product((0, 1), repeat=TAPS)], axis=0)
        np.testing.assert_allclose(found, best, rtol=1e-9)

    def test_it_is_no_worse_than_gptq(self) -> None:
        hessian, (weight, step) = second_moments(), filters(30)
        costs = [cost(hessian, weight, one(hessian).levels(weight, step, (-127, 127)), step).sum() for one in (Enumeration, InverseFactor)]
        assert costs[0] <= costs[1]
