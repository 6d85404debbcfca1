"""Chooses the range of each tensor by measurement, where ``calibration.method`` is ``best``.

Candidates are fitted to some of the calibration samples. The one with which the layers that read or write the tensor, each alone in low
precision, lose least on a few of the same samples goes on, if it gains enough to matter. It is kept only if, on samples that it was not
fitted to, they lose less than with the min-max range by two standard errors. Everything else of the layer keeps its own range meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.data.dataset import SampleShare
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Scheme
from calibration.process.worker_threads import processors
from calibration.ranges.collection import collect_histograms
from calibration.ranges.estimators import clipped_range, is_beyond_fp16
from calibration.ranges.histograms import Histogram
from calibration.ranges.range_table import CLIPPING, RangeMethod
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.range_losses import RangeTrial, measure_trials
from calibration.sensitivity.simulated_layers import rounded_tensors
from engine_builder.corrections.acceptance import gain_of
from engine_builder.corrections.method import Bench, InUse, Progress
from engine_builder.qdq.rules.placement import tensors_of_one_range
from engine_builder.records.corrections import Correction, CorrectionKind
from engine_builder.records.inspection import PreparedModel

HISTOGRAM_SAMPLES = 64  # whose values fill the histograms
CHOOSING_SAMPLES = 8  # of those, which the candidates of one tensor are compared on
JUDGING_SAMPLES = 24  # others, which the best candidate is compared with min-max on
LEAST_SHARE = 0.005  # of the gains of all tensors together: smaller ones are not worth being judged
SAME = 0.04  # ranges that differ by less than this share of their span count as one
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors of one range, and the layer precisions that round one of them."""

    tensors: tuple[str, ...]
    layer_precisions: tuple[LayerPrecision, ...]

    def plain_trials(self) -> list[RangeTrial]:
        """Return the trials of these layers with the ranges that are in use."""
        return [RangeTrial(layer_precision) for layer_precision in self.layer_precisions]

    def trials(self, span: Span) -> list[RangeTrial]:
        """Return their trials with another range for the tensors."""
        spans = tuple((name, *span) for name in self.tensors)
        return [RangeTrial(layer_precision, spans) for layer_precision in self.layer_precisions]


def choose_ranges(bench: Bench, in_use: InUse, progress: Progress) -> tuple[InUse, tuple[Correction, ...]]:
    """Replace min-max ranges where others are better; a ``CorrectionMethod``.

    Only where the job asks for ``best``, and for precisions that round activations.
    """
    prepared, layer_precisions = (
        bench.prepared,
        [layer_precision for layer_precision in bench.layer_precisions if layer_precision.precision.rounds_inputs],
    )
    if bench.method is not RangeMethod.BEST or not layer_precisions:
        return in_use, ()
    ranges, scheme = in_use.ranges, prepared.scheme
    groups = tensor_groups(bench.model, prepared, layer_precisions, scheme)
    seen = bench.fitted_share(HISTOGRAM_SAMPLES)
    layers = [layer for layer in prepared.layers if any(layer_precision.layer == layer.name for layer_precision in layer_precisions)]
    histograms = collect_histograms(bench.model, layers, groups, seen.batches(min(prepared.batch, seen.samples)))
    candidates = {name: _candidates(histograms[name], ranges[name], scheme) for name in groups}
    reference = ReferenceModel(bench.model, prepared.layers, ranges, scheme, axes=prepared.probed.axes, outputs=prepared.probed.names)

    def measured(share: SampleShare, tried: Mapping[str, Sequence[Span]]) -> _Losses:
        trials = [item for name, spans in tried.items() for span in spans for item in groups[name].trials(span)]
        plain = dict.fromkeys(RangeTrial(item.layer_precision) for item in trials)
        every = (*plain, *trials)
        batches = share.batches(min(prepared.batch, share.samples))
        loss = measure_trials(reference, prepared.probed.forms, every, batches, weights=prepared.outputs.weights, workers=processors())
        return _Losses({item: loss[:, index] for index, item in enumerate(every)})

    tried = {name: spans for name, spans in candidates.items() if spans}
    best = _promising(measured(bench.fitted_share(CHOOSING_SAMPLES), tried), groups, tried) if tried else {}
    if not best:
        return in_use, ()
    judged = measured(bench.held_out_share(JUDGING_SAMPLES), {name: (span,) for name, span in best.items()})
    chosen: dict[str, Span] = {}
    corrections = []
    for name, span in best.items():
        group = groups[name]
        gain = gain_of(judged.of(group.plain_trials()), judged.of(group.trials(span)))
        where = tuple(dict.fromkeys(layer_precision.layer for layer_precision in group.layer_precisions))
        corrections.append(Correction(CorrectionKind.RANGE, where, gain.before, gain.after, gain.error, gain.samples, gain.beyond_noise))
        if gain.beyond_noise:
            chosen |= dict.fromkeys(group.tensors, span)
    progress(1.0, f"{len(corrections)} ranges tried")
    return replace(in_use, ranges={**ranges, **chosen}, chosen_ranges=chosen), tuple(corrections)


def _promising(compared: _Losses, groups: Mapping[str, TensorGroup], tried: Mapping[str, Sequence[Span]]) -> dict[str, Span]:
    """Return the best candidate of each tensor where it gains a share of all gains that is worth a second measurement."""
    best: dict[str, Span] = {}
    gains: dict[str, float] = {}
    for name, spans in tried.items():
        means = [float(compared.of(groups[name].trials(span)).mean()) for span in spans]
        best[name] = spans[means.index(min(means))]
        gains[name] = float(compared.of(groups[name].plain_trials()).mean()) - min(means)
    least = LEAST_SHARE * sum(gain for gain in gains.values() if gain > 0.0)
    return {name: span for name, span in best.items() if gains[name] > least}


@dataclass(frozen=True, slots=True)
class _Losses:
    """The loss of each sample in each trial, (samples,)."""

    by_trial: Mapping[RangeTrial, NDArray[np.float64]]

    def of(self, trials: Sequence[RangeTrial]) -> NDArray[np.float64]:
        """Return the sum over trials, (samples,)."""
        return np.asarray(np.sum([self.by_trial[item] for item in trials], axis=0))


def tensor_groups(
    model: onnx.ModelProto, prepared: PreparedModel, layer_precisions: Sequence[LayerPrecision], scheme: Scheme
) -> dict[str, TensorGroup]:
    """Return each range that can be chosen, by the tensor whose values decide it."""
    rounded: dict[str, list[LayerPrecision]] = {}
    layers = {layer.name: layer for layer in prepared.layers}
    for layer_precision in layer_precisions:
        for name in rounded_tensors(layers[layer_precision.layer], scheme):
            rounded.setdefault(name, []).append(layer_precision)
    groups = {}
    for origin, tensors in tensors_of_one_range(model, rounded.keys()).items():
        readers = dict.fromkeys(layer_precision for name in tensors for layer_precision in rounded[name])
        groups[origin] = TensorGroup(tensors, tuple(readers))
    return groups


def _candidates(histogram: Histogram, minmax: Span, scheme: Scheme) -> tuple[Span, ...]:
    """Return ranges worth a measurement: each differs from min-max and from the others. None without values, or with some beyond FP16."""
    kept = [minmax]
    for method in CLIPPING if histogram.total and not is_beyond_fp16(minmax) else ():
        span = clipped_range(histogram, method, symmetric=scheme.symmetric_activations)
        if all(max(abs(span[0] - other[0]), abs(span[1] - other[1])) > SAME * (minmax[1] - minmax[0]) for other in kept):
            kept.append(span)
    return tuple(kept[1:])
