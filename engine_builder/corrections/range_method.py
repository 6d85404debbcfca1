"""Chooses how ranges are found by measurement, for all tensors together, where ``calibration.method`` is ``auto``.

Min-max keeps every value, so that one rare large value makes the steps of a tensor coarse for all others; the other methods leave such
values out. Which is better a network decides as a whole: tensor by tensor the gains are too small to be told from noise. So with the ranges
of each method the explicit graph of the network with every layer in integers is run on the calibration samples. The method whose outputs
hold least noise (``calibration.sensitivity.noise_level``) takes the place of min-max if that is so by two standard errors, and the mean
loss, which a few samples decide, does not clearly rise.

Scores of classes alone: what is left out is large, and of values the large ones may be what counts. Of a detector the other methods halved
the mean loss, and moved its surest boxes as far as before. Integers alone: a floating-point format reaches far enough, and shares ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.ranges.collection import collect_histograms
from calibration.ranges.estimators import clipped_range, is_beyond_fp16
from calibration.ranges.histograms import Histogram
from calibration.ranges.range_table import CLIPPING, RangeMethod
from calibration.sensitivity.noise_level import have_noise_levels
from engine_builder.corrections.acceptance import Gain, gain_of
from engine_builder.corrections.method import Bench, InUse, Noise, Progress
from engine_builder.corrections.range_choice import TensorGroup, tensor_groups
from engine_builder.records.corrections import Correction, CorrectionKind

HISTOGRAM_SAMPLES = 32  # whose values fill the histograms
JUDGING_SAMPLES = 32  # that the methods are compared on, those among them: a method chooses two numbers of many thousands of values
LONE = 2.0  # how much farther than all values of the histograms a value is for it to be left out like a rare one of theirs
FEWEST_SAMPLES = 8  # that are enough to tell methods apart
_KINDS = {
    RangeMethod.PERCENTILE: CorrectionKind.PERCENTILE,
    RangeMethod.ENTROPY: CorrectionKind.ENTROPY,
    RangeMethod.MSE: CorrectionKind.MSE,
}
Ranges = Mapping[str, tuple[float, float]]


def choose_range_method(bench: Bench, in_use: InUse, progress: Progress) -> tuple[InUse, tuple[Correction, ...]]:
    """Replace min-max ranges by those of another method where a whole network fares better; a ``CorrectionMethod``.

    Only where the job asks for ``auto``, the outputs hold scores of classes, and engines round activations to integers alone.
    """
    rounding = [item for item in bench.layer_precisions if item.precision.rounds_inputs]
    judging = bench.shared(JUDGING_SAMPLES)
    is_of_integers = bool(rounding) and all(item.precision.is_integer for item in rounding)
    can_tell = len(judging) >= FEWEST_SAMPLES and have_noise_levels(bench.prepared.outputs.compared_forms)
    if bench.method is not RangeMethod.AUTO or bench.network is None or not is_of_integers or not can_tell:
        return in_use, ()
    groups = tensor_groups(bench.model, bench.prepared, rounding, bench.prepared.scheme)
    ranges_by_method = _ranges_by_method(bench, in_use, groups, rounding)
    noise: dict[RangeMethod, Noise] = {}
    for done, (method, ranges) in enumerate(ranges_by_method.items()):
        noise[method] = bench.network.noise(rounding, ranges, judging)
        progress((done + 1) / len(ranges_by_method), f"noise with {method} ranges measured")
    plain = noise.pop(RangeMethod.MINMAX)
    where = tuple(dict.fromkeys(item.layer for item in rounding))
    gains = {method: gain_of(plain.levels, other.levels) for method, other in noise.items()}
    best = max(gains, key=lambda method: gains[method].before - gains[method].after, default=None)
    tried = []
    chosen: Ranges = {}
    for method, gain in gains.items():
        is_kept = method is best and gain.beyond_noise and not gain_of(plain.losses, noise[method].losses).loss_beyond_noise
        tried.append(_as_losses(method, where, gain, kept=is_kept))
        if is_kept:
            chosen = {name: span for name, span in ranges_by_method[method].items() if span != in_use.ranges.get(name)}
    return replace(in_use, ranges={**in_use.ranges, **chosen}, chosen_ranges={**in_use.chosen_ranges, **chosen}), tuple(tried)


def _ranges_by_method(
    bench: Bench, in_use: InUse, groups: Mapping[str, TensorGroup], rounding: Sequence[LayerPrecision]
) -> dict[RangeMethod, Ranges]:
    """Return the ranges of each method, min-max first; a method that gives what another one does is left out."""
    names = {item.layer for item in rounding}
    layers = [layer for layer in bench.prepared.layers if layer.name in names]
    seen = bench.fitted_share(HISTOGRAM_SAMPLES)
    histograms = collect_histograms(bench.model, layers, groups, seen.batches(min(bench.prepared.batch, seen.samples)))
    found: dict[RangeMethod, Ranges] = {RangeMethod.MINMAX: in_use.ranges}
    for method in CLIPPING:
        ranges = dict(in_use.ranges)
        for name, group in groups.items():
            if histograms[name].total:
                ranges |= dict.fromkeys(group.tensors, _clipped(histograms[name], method, bench, in_use.ranges[name]))
        if ranges not in found.values():
            found[method] = ranges
    return found


def _clipped(histogram: Histogram, method: RangeMethod, bench: Bench, minmax: tuple[float, float]) -> tuple[float, float]:
    """Return the range of a method.

    An end that it leaves where the samples of the histogram end is that of all samples, unless the others reach ``LONE`` times as far.
    What reaches beyond FP16 stays.
    """
    if is_beyond_fp16(minmax):
        return minmax
    low, high = clipped_range(histogram, method, symmetric=bench.prepared.scheme.symmetric_activations)
    is_low_kept = low <= histogram.lowest and minmax[0] >= LONE * min(low, 0.0)
    is_high_kept = high >= histogram.highest and minmax[1] <= LONE * max(high, 0.0)
    return minmax[0] if is_low_kept else low, minmax[1] if is_high_kept else high


def _as_losses(method: RangeMethod, where: tuple[str, ...], gain: Gain, *, kept: bool) -> Correction:
    """Return the record of a method, its levels as geometric means."""
    before, after = float(np.exp(gain.before)), float(np.exp(gain.after))
    return Correction(_KINDS[method], where, before, after, after * gain.error, gain.samples, kept)
