"""The stage ``predict``: fits the time model to the trials so far and returns sequences of candidate assignments worth bisecting.

The first call, after the baseline and the one-format engine of each precision, profiles them. Without the losses of the layers only time
can be predicted: the assignment that is fastest is returned. With them, the frontier and the prefixes of each order are; where a
one-format engine is slower than the baseline, the frontier blames no layer for it yet. A refined call, with trials of candidates known,
returns the frontier of the refitted models: give-backs that did not pay and swaps at the boundary come out of it by themselves. A
precision whose one-format engine could not be timed has no known gain, and is left out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from calibration.data.dataset import load_saved
from calibration.graph.layers import Layer, concrete_shapes
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision, Scheme
from calibration.onnx_model.model_io import read_model
from engine_builder.engines.factory import building_backend
from engine_builder.evaluation.measurement import timing_feeds
from engine_builder.profiling.predictions import read_loss_model, said_of
from engine_builder.profiling.profiles import profiled
from engine_builder.qdq.rules.placement import MOVING_OPS
from engine_builder.records.assignment import fingerprint_of
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import FOLDED, Trial
from engine_builder.search.loss_model import LossModel, check
from engine_builder.search.predicted_front import Point, frontier
from engine_builder.search.rankings import prefixes
from engine_builder.search.search import FASTEST, FRONTIER, REFINED, CandidateSequence
from engine_builder.search.search_space import BASELINE, Groups
from engine_builder.search.time_model import TensorEdge, Timed, TimeModel, fit, unblamed
from engine_builder.stage_io.engines import FittedTimes, LossSaid, PredictedSequence, PredictRequest, PredictResult, TrialSaid
from engine_builder.workspace.workspace import StageContext, Workspace


def predict(request: PredictRequest, context: StageContext) -> PredictResult:
    """Return sequences of candidates worth bisecting, with the models of time and loss that they come from."""
    # The folded float model has the assignment of the baseline and another time: it says nothing of layers.
    trials = tuple(trial for trial in request.trials if trial.order != FOLDED)
    job, workspace = request.job, context.workspace
    inspection = workspace.read_value(Inspection, job.inspection)
    backend = building_backend(job.config, context)
    model = read_model(workspace.path(inspection.model.file))
    groups = backend.capabilities.dialect.groups(model, inspection.model.layers)
    kernels = request.kernels_ms or profiled(job, inspection, trials, backend, context, groups)
    gains = gains_from(kernels)
    edges = _edges(model, inspection, workspace)
    timed = [Timed(trial.precisions, trial.latency.ratio) for trial in trials if trial.latency is not None]
    # Of the trials' baselines the least disturbed one: kernels are profiled apart, and a load that inflates only one side feigns overhead.
    baseline_ms = min(trial.latency.baseline_median_ms for trial in trials if trial.latency is not None)
    times = fit(baseline_ms, gains, edges, timed)
    known = times if request.refined else unblamed(times, timed)
    ranked, losses = request.ranked, None if request.ranked is None else read_loss_model(request.ranked, workspace)
    if ranked is None or losses is None:
        sequences = [fastest_sequence(sorted(gains), known, groups)]
    else:
        sequences = [frontier_sequence(REFINED if request.refined else FRONTIER, losses, known, groups)]
    if ranked is not None and not request.refined:
        sequences += [prefix_sequence(name, order, times, groups) for name, order in ranked.rankings.items()]
    names, base = [layer.name for layer in inspection.model.layers], backend.capabilities.baseline
    context.progress(1.0, f"{_untried(sequences[0], trials)} new assignments predicted to be best")
    checked = None if losses is None else check(losses, trials)
    said = None if losses is None or checked is None else functools.partial(said_of, losses, checked)
    return PredictResult(
        tuple(
            PredictedSequence(
                sequence.name,
                sequence.rungs,
                sequence.ratios,
                tuple(fingerprint_of(names, candidate, base) for candidate in sequence.rungs),
            )
            for sequence in sequences
        ),
        kernels,
        FittedTimes(times.conversion_ms * 1e6, {precision.value: spent for precision, spent in times.overhead_ms.items()}, len(timed)),
        checked,
        {trial.fingerprint: _said(trial, times, None if said is None else said(trial.precisions)) for trial in trials},
    )


def _said(trial: Trial, times: TimeModel, said: LossSaid | None) -> TrialSaid:
    ratio = times.ratio(trial.precisions)
    if said is None:
        return TrialSaid(ratio, None, None, None, None)
    return TrialSaid(ratio, said.loss, said.loss_error, said.refitted, said.refitted_error)


def _untried(sequence: CandidateSequence, trials: Sequence[Trial]) -> int:
    tried = {frozenset(trial.precisions.items()) for trial in trials}
    return sum(frozenset(candidate.items()) not in tried for candidate in sequence.rungs)


def frontier_sequence(name: str, losses: LossModel, times: TimeModel, groups: Groups) -> CandidateSequence:
    """Return the assignments that are predicted to be best at each exchange rate between loss and latency.

    Args:
        name: The sequence's.
        losses: What the probes found; layer precisions of which no gain is known are left out.
        times: Predicts latency.
        groups: Names of layers that only pay together.
    """
    places = [place for place, layer_precision in enumerate(losses.layer_precisions) if layer_precision in times.gain_ms]
    chosen = [losses.layer_precisions[place] for place in places]
    bound = losses.upper_bound
    points = frontier(chosen, bound.loss[places], bound.interaction[np.ix_(places, places)], times, groups)
    return _sequence(name, points)


def fastest_sequence(layer_precisions: Sequence[LayerPrecision], times: TimeModel, groups: Groups) -> CandidateSequence:
    """Return the assignment that is predicted to be fastest as the only candidate, none where that is the baseline.

    Args:
        layer_precisions: What layers may choose, of all of which a gain is known.
        times: Predicts latency.
        groups: Names of layers that only pay together.
    """
    count = len(layer_precisions)
    points = frontier(layer_precisions, np.zeros(count), np.zeros((count, count)), times, groups)
    return _sequence(FASTEST, points[-1:])


def _sequence(name: str, points: Sequence[Point]) -> CandidateSequence:
    candidates = tuple(
        {layer_precision.layer: layer_precision.precision for layer_precision in sorted(point.quantized)} for point in points
    )
    return CandidateSequence(name, candidates, tuple(point.ratio for point in points))


def gains_from(kernels: Mapping[str, Mapping[str, float]]) -> dict[LayerPrecision, float]:
    """Return what each layer precision saves in the layer's own kernel, in milliseconds.

    Args:
        kernels: Milliseconds by layer and precision, those in the baseline engine under ``BASELINE``.
    """
    return {
        LayerPrecision(layer, Precision(name)): times[BASELINE] - spent
        for layer, times in kernels.items()
        for name, spent in times.items()
        if name != BASELINE
    }


def prefix_sequence(name: str, order: Sequence[LayerPrecision], times: TimeModel, groups: Groups) -> CandidateSequence:
    """Return the candidate sequence of an order; a layer precision replaces one of its layer, at a higher loss, only where it is faster.

    Args:
        name: The order's.
        order: Layer precisions, the cheapest first; those of which no gain is known are left out.
        times: Predicts latency.
        groups: Names of layers that only pay together.
    """
    timed = [layer_precision for layer_precision in order if layer_precision in times.gain_ms]
    candidates = prefixes(timed, groups, lambda new, former: times.cost_ms(new) < times.cost_ms(former))
    return CandidateSequence(name, candidates, tuple(times.ratio(candidate) for candidate in candidates))


def _edges(model: onnx.ModelProto, inspection: Inspection, workspace: Workspace) -> tuple[TensorEdge, ...]:
    feeds = timing_feeds(inspection, load_saved(workspace.path(inspection.samples.validation)))
    shapes = concrete_shapes(model, {name: array.shape for name, array in feeds.items()})
    sizes = {name: math.prod(size for size in shape if isinstance(size, int)) for name, shape in shapes.items()}
    return edges_between(model, inspection.model.layers, inspection.model.scheme, sizes)


def edges_between(model: onnx.ModelProto, layers: Sequence[Layer], scheme: Scheme, sizes: Mapping[str, int]) -> tuple[TensorEdge, ...]:
    """Return the tensors that layers write or read; what only moves a tensor (Reshape, MaxPool, ...) counts as the tensor itself.

    Where the types in the graph are those of the kernels, whatever computes a tensor writes it in the form its readers take, and a second
    time only where they take several; the model's inputs are what they are.

    Args:
        model: The prepared model.
        layers: Its layers.
        scheme: How the target quantizes.
        sizes: Elements of each tensor in one timed call.
    """
    moved = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in MOVING_OPS}

    def origin(name: str) -> str:
        while name in moved:
            name = moved[name]
        return name

    producer = {layer.output: layer.name for layer in layers if layer.op_type in scheme.quantized_outputs}
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for name in dict.fromkeys(origin(tensor) for tensor in layer.inputs):
            readers.setdefault(name, []).append(layer.name)
    inside = {node for layer in layers for node in layer.nodes}
    as_float = {origin(value.name) for value in model.graph.output}
    for node in model.graph.node:
        if node.name not in inside and node.op_type not in MOVING_OPS:
            as_float.update(origin(name) for name in node.input)
    given = {value.name for value in model.graph.input}
    return tuple(
        TensorEdge(
            producer.get(name),
            tuple(readers.get(name, ())),
            name in as_float,
            sizes.get(name, 0),
            is_fused=scheme.fuses_conversions and name not in given,
        )
        for name in dict.fromkeys((*readers, *producer))
    )
