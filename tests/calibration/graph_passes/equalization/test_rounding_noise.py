"""The noise that is predicted is the noise that rounding makes, and the factors that are chosen lower it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.graph_passes.equalization.channel_statistics import ChannelStatistics, SeenChannels
from calibration.graph_passes.equalization.rounding_noise import Float, Reader, best_factors

CHANNELS, OUTPUTS, SAMPLES = 16, 8, 4000


def statistics(values: Float, few: int | None = None) -> SeenChannels:
    """Return what is seen of values, (samples, channels), of which factors are chosen from the first ``few``."""
    return SeenChannels(_statistics(values[:few]), _statistics(values))


def _statistics(values: Float) -> ChannelStatistics:
    return ChannelStatistics(np.abs(values).max(axis=0), np.square(values).mean(axis=0), bool((values < 0).any()))


def rounded(values: Float, weight: Float) -> Float:
    """Return the product of both rounded to 8 bits: one scale for the values, one for each row of the weight."""
    step = np.abs(values).max() / (127 if (values < 0).any() else 255)
    steps = np.abs(weight).max(axis=1, keepdims=True) / 127
    return np.asarray((np.round(values / step) * step) @ (np.round(weight / steps) * steps).T)


def relative_noise(values: Float, weight: Float) -> float:
    exact = values @ weight.T
    return float((np.square(rounded(values, weight) - exact).mean(axis=0) / np.square(exact).mean(axis=0)).sum())


@pytest.mark.parametrize("is_signed", [False, True])
@given(seed=st.integers(0, 1000), spread=st.floats(1.0, 6.0))
def test_the_share_of_noise_that_is_left_is_the_one_that_rounding_leaves(is_signed: bool, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.exp2(rng.uniform(-spread, spread, CHANNELS))
    values = rng.normal(size=(SAMPLES, CHANNELS)) * sizes
    values = values if is_signed else np.abs(values)
    weight = rng.normal(size=(OUTPUTS, CHANNELS)) / sizes
    factors, left = best_factors([Reader(weight[:, :, None].astype(np.float32), 1, statistics(values))])
    measured = relative_noise(values / factors, weight * factors) / relative_noise(values, weight)
    assert left <= 1.0
    assert 0.25 < measured / left < 4.0
    assert np.all(np.exp2(np.round(np.log2(factors))) == factors)
    assert np.abs(values / factors).max() <= np.abs(values).max()


def test_even_channels_get_ones() -> None:
    rng = np.random.default_rng(0)
    seen = statistics(rng.uniform(0, 1, (SAMPLES, CHANNELS)))
    factors, left = best_factors([Reader(rng.normal(size=(OUTPUTS, CHANNELS, 9)).astype(np.float32), 1, seen)])
    assert left > 0.9
    assert factors.max() / factors.min() <= 2


def test_a_channel_that_is_never_used_asks_for_nothing() -> None:
    rng = np.random.default_rng(0)
    sizes = np.exp2(rng.uniform(-5, 5, CHANNELS))
    sizes[3] = 0.0
    values = np.abs(rng.normal(size=(SAMPLES, CHANNELS))) * sizes
    weight = (rng.normal(size=(OUTPUTS, CHANNELS)) / np.where(sizes > 0, sizes, 1.0)).astype(np.float32)
    weight[:, 5] = 0.0
    factors, left = best_factors([Reader(weight[:, :, None], 1, statistics(values))])
    assert left < 0.5
    assert np.all(np.isfinite(factors))
    assert np.all(factors > 0)


def test_channels_that_are_never_used_do_not_keep_the_others_uneven() -> None:
    rng = np.random.default_rng(0)
    sizes = np.exp2(rng.uniform(-5, 5, CHANNELS))
    values = np.abs(rng.normal(size=(SAMPLES, CHANNELS))) * sizes
    values[:, :4] = 0.0
    weight = (rng.normal(size=(OUTPUTS, CHANNELS)) / sizes).astype(np.float32)[:, :, None]
    _, left = best_factors([Reader(weight, 1, statistics(values))])
    _, without = best_factors([Reader(weight[:, 4:], 1, statistics(values[:, 4:]))])
    assert left < 4 * without < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_rarely_used_channels_are_not_blown_up_from_few_samples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels, looked_at = 128, 256
    shares, sizes = np.exp(rng.uniform(np.log(0.005), np.log(0.1), channels)), np.exp2(rng.uniform(-2, 2, channels))
    values = np.abs(rng.normal(size=(2 * SAMPLES, channels))) * (rng.random((2 * SAMPLES, channels)) < shares) * sizes
    weight = rng.normal(size=(64, channels)) / sizes
    factors, left = best_factors([Reader(weight[:, :, None].astype(np.float32), 1, statistics(values[:looked_at], few=looked_at // 2))])
    assert left < 0.5
    assert relative_noise(values / factors, weight * factors) < relative_noise(values, weight)


def test_nothing_is_ever_used() -> None:
    factors, left = best_factors([Reader(np.zeros((2, 4, 1), np.float32), 1, statistics(np.zeros((2, 4))))])
    assert left == 1.0
    np.testing.assert_array_equal(factors, 1.0)


def test_each_output_of_a_group_sees_its_own_channels() -> None:
    rng = np.random.default_rng(0)
    sizes = np.exp2(np.linspace(-6, 6, CHANNELS))
    values = np.abs(rng.normal(size=(SAMPLES, CHANNELS))) * sizes
    depthwise = Reader((1 / sizes)[:, None, None].astype(np.float32), CHANNELS, statistics(values))
    factors, left = best_factors([depthwise])
    assert left < 0.01
    even = np.abs(values / factors).max(axis=0)
    assert even.max() / even.min() < 4


def test_all_readers_count() -> None:
    rng = np.random.default_rng(0)
    sizes = np.exp2(rng.uniform(-5, 5, CHANNELS))
    values = np.abs(rng.normal(size=(SAMPLES, CHANNELS))) * sizes
    seen = statistics(values)
    helped = Reader((rng.normal(size=(OUTPUTS, CHANNELS)) / sizes)[:, :, None].astype(np.float32), 1, seen)
    hurt = Reader(rng.normal(size=(OUTPUTS, CHANNELS))[:, :, None].astype(np.float32), 1, seen)
    assert best_factors([helped])[1] < best_factors([helped, hurt])[1] <= 1.0
