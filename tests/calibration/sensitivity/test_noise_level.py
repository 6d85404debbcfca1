"""The noise level: precise where the mean loss is that of a few decisions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.accuracy.kinds.part import Part
from calibration.accuracy.metrics import OutputKind
from calibration.execution.onnxruntime_session import Array
from calibration.sensitivity.noise_level import FLOOR, have_noise_levels, noise_levels
from calibration.sensitivity.task_losses import losses

Floats = NDArray[np.float32]


def frames(samples: int, seed: int = 0) -> Floats:
    """Return logits of 40 frames a sample, most of them certain; every fiftieth or so is nearly tied, far above all else."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(samples, 40, 12)) + 6.0 * np.eye(12)[rng.integers(0, 12, (samples, 40))]
    tied = rng.random((samples, 40)) < 0.02
    logits[tied] = rng.normal(size=(int(tied.sum()), 12)) * 0.1 + 60.0 * (np.arange(12) < 2)
    return logits.astype(np.float32)


def noisy(logits: Floats, size: float, seed: int) -> Floats:
    """Return logits with noise as rounding makes it: more where values are large."""
    noise = np.random.default_rng(seed).normal(size=logits.shape) * size
    return (logits * (1.0 + noise)).astype(np.float32)


def test_noise_of_twice_the_power_is_ln_2_higher() -> None:
    logits = frames(64)
    one, two = (noise_levels([OutputKind.LOGITS], [logits], [noisy(logits, size, 1)]) for size in (0.02, 0.02 * 2**0.5))
    assert np.mean(two - one) == pytest.approx(np.log(2.0), abs=0.05)


def test_few_samples_tell_levels_apart_where_mean_losses_do_not() -> None:
    logits = frames(12)
    quiet, loud = noisy(logits, 0.05, 2), noisy(logits, 0.06, 3)

    def errors_apart(measure: Callable[..., NDArray[np.float64]]) -> float:
        difference = measure([OutputKind.LOGITS], [logits], [loud]) - measure([OutputKind.LOGITS], [logits], [quiet])
        return float(difference.mean() / (difference.std(ddof=1) / len(difference) ** 0.5))

    assert errors_apart(noise_levels) > 4.0
    assert abs(errors_apart(losses)) < 3.0


def test_probabilities_have_the_level_of_their_logits() -> None:
    logits = frames(8)

    def softmax(values: Floats) -> Floats:
        grown = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(grown / grown.sum(axis=-1, keepdims=True), dtype=np.float32)

    other = noisy(logits, 0.1, 1)
    of_logits = noise_levels([OutputKind.LOGITS], [logits], [other])
    of_probabilities = noise_levels([OutputKind.PROBABILITIES], [softmax(logits)], [softmax(other)])
    assert of_probabilities == pytest.approx(of_logits, abs=0.05)


def test_equal_outputs_have_the_floor() -> None:
    logits = frames(3)
    assert noise_levels([OutputKind.LOGITS], [logits], [logits]) == pytest.approx(np.log(FLOOR))


def test_outputs_count_by_their_weights_and_ignored_ones_not_at_all() -> None:
    logits, few = frames(5), frames(5, seed=1)[:, 0]
    kinds = [OutputKind.LOGITS, OutputKind.IGNORE, OutputKind.LOGITS]
    outputs: list[Array] = [logits, np.zeros((1, 2)), few]
    others: list[Array] = [noisy(logits, 0.1, 1), np.ones((3,)), noisy(few, 0.2, 1)]
    alone = [noise_levels([kinds[index]], [outputs[index]], [others[index]]) for index in (0, 2)]
    assert noise_levels(kinds, outputs, others, [3.0, 5.0, 1.0]) == pytest.approx((3.0 * alone[0] + alone[1]) / 4.0)


def test_values_have_no_noise_level() -> None:
    parts = (Part(OutputKind.REGRESSION, axis=2, places=(0, 1, 2), units=(1.0, 1.0, 1.0)),)
    assert have_noise_levels([OutputKind.LOGITS, OutputKind.IGNORE, OutputKind.PROBABILITIES])
    assert not have_noise_levels([OutputKind.LOGITS, OutputKind.VALUES])
    assert not have_noise_levels([parts])
    assert not have_noise_levels([OutputKind.IGNORE])
