"""The stage ``predict``: fits the time model to the trials so far and returns sequences of candidate assignments worth bisecting.

The first call, after the baseline and the one-format engine of each precision, profiles them. Without the losses of the layers only time
can be predicted: the assignment that is fastest is returned. With them, the frontier and the prefixes of each order are; where a
one-format engine is slower than the baseline, the frontier blames no layer for it yet. A refined call, with trials of candidates known,
returns the frontier of the refitted models: give-backs that did not pay and swaps at the boundary come out of it by themselves. A
precision whose one-format engine could not be timed has no known gain, and is left out.

Where the runtime names its kernels (``profiling.trial_profiles``), the model of latency learns from every trial: each call then gives the
orders too, with what is near each prefix, loses no more and has fewer borders in its place. Where the request says ``around``, what lies
one step from some measured engines is returned instead.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.data.dataset import load_saved
from calibration.graph.layers import Layer, concrete_shapes
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision, Scheme
from calibration.onnx_model.model_io import read_model
from engine_builder.backends.base import Backend
from engine_builder.engines.factory import building_backend
from engine_builder.evaluation.measurement import timing_feeds
from engine_builder.profiling.layer_times import Groups as LayerGroups
from engine_builder.profiling.predictions import read_loss_model, said_of
from engine_builder.profiling.profiles import profiled
from engine_builder.profiling.trial_profiles import costs_of, kernels_of, probed, profiles_of
from engine_builder.qdq.rules.placement import MOVING_OPS
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import FOLDED, Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.loss_model import LossCheck, LossModel, check
from engine_builder.search.moves.around import Start, steps_around
from engine_builder.search.moves.blocks import layer_sets
from engine_builder.search.moves.steps_from import StepsFrom
from engine_builder.search.predicted_front import Point, descent_over, frontier, smoothed
from engine_builder.search.rankings import prefixes
from engine_builder.search.search import FASTEST, FRONTIER, MOVES, REFINED
from engine_builder.search.search_space import BASELINE, Groups, QuantizedLayers, eligible_from
from engine_builder.search.time_model import FIRST_GUESS_MS, TensorEdge, Timed, TimeModel, fit, unblamed
from engine_builder.search.times.learned_times import fit_learned
from engine_builder.stage_io.engines import (
    FittedTimes,
    KernelTimes,
    LossSaid,
    PredictedSequence,
    PredictRequest,
    PredictResult,
    ProfiledEngine,
    TrialSaid,
)
from engine_builder.stage_io.measuring import RankResult
from engine_builder.workspace.workspace import StageContext, Workspace


def predict(request: PredictRequest, context: StageContext) -> PredictResult:
    """Return sequences of candidates worth bisecting, with the models of time and loss that they come from."""
    # The folded float model has the assignment of the baseline and another time: it says nothing of layers.
    trials = tuple(trial for trial in request.trials if trial.order != FOLDED)
    request, workspace = replace(request, trials=trials), context.workspace
    inspection = workspace.read_value(Inspection, request.job.inspection)
    backend = building_backend(request.job.config, context)
    model = read_model(workspace.path(inspection.model.file))
    groups = backend.capabilities.dialect.groups(model, inspection.model.layers)
    fitted = _fitted(request, inspection, model, groups, backend, context)
    times, losses = fitted.times, None if request.ranked is None else read_loss_model(request.ranked, workspace)
    checked = None if losses is None else check(losses, trials)
    if request.ranked is None or losses is None or checked is None:
        sequences = [fastest_sequence(sorted(times.gain_ms), fitted.cautious, groups)]
    elif request.around is not None:
        sequences = [_moves(request.around, _space(losses, times, groups), trials, checked, times)]
    else:
        sequences = _whole(_space(losses, times, groups), request.ranked, fitted, refined=request.refined)
    said = None if losses is None or checked is None else functools.partial(said_of, losses, checked)
    names = [layer.name for layer in inspection.model.layers]
    context.progress(1.0, f"{_untried(sequences[0], trials)} new assignments predicted to be best")
    base = backend.capabilities.baseline
    return PredictResult(
        tuple(
            PredictedSequence(
                sequence.name,
                sequence.rungs,
                sequence.ratios,
                tuple(request.job.fingerprint(names, candidate, base) for candidate in sequence.rungs),
                sequence.errors,
            )
            for sequence in sequences
        ),
        fitted.kernels,
        fitted.said,
        checked,
        {trial.fingerprint: _said(trial, times, None if said is None else said(trial.precisions)) for trial in trials},
        fitted.probe,
    )


@dataclass(frozen=True, slots=True)
class _Fitted:
    """The model of latency, and where it comes from."""

    times: TimeModel
    cautious: TimeModel  # the one that blames no layer that may be innocent
    kernels: KernelTimes
    said: FittedTimes
    probe: ProfiledEngine | None


@dataclass(frozen=True, slots=True, eq=False)
class _Space:
    """What layers may choose, of which gains are known: n of them, with the loss of each alone, (n,), and of pairs, (n, n)."""

    layer_precisions: tuple[LayerPrecision, ...]
    loss: NDArray[np.float64]
    interaction: NDArray[np.float64]
    groups: Groups


def _fitted(
    request: PredictRequest, inspection: Inspection, model: onnx.ModelProto, groups: LayerGroups, backend: Backend, context: StageContext
) -> _Fitted:
    job, trials, workspace = request.job, request.trials, context.workspace
    sizes = _sizes(model, inspection, workspace)
    edges = edges_between(model, inspection.model.layers, inspection.model.scheme, sizes)
    timed = [Timed(trial.precisions, trial.latency.ratio, trial.latency.ratio_error) for trial in trials if trial.latency is not None]
    # Borders are worth a build of their own only where the budget binds.
    is_first = request.ranked is not None and not request.refined and request.probe is None
    are_profiled = backend.capabilities.names_conversions and any(trial.kernels is not None for trial in trials)
    probe = probed(job, inspection, trials, backend, context) if is_first and are_profiled else request.probe
    profiles = profiles_of(trials, probe, workspace)
    if len(profiles) > 1:
        kernels = request.kernels_ms or kernels_of(profiles, trials, model, inspection)
        learned = fit_learned(costs_of(profiles, model, inspection, edges, sizes), timed)
        times = learned.model()
        return _Fitted(times, times, kernels, _read(times, len(timed), learned.name, learned.left_out), probe)
    kernels = request.kernels_ms or profiled(job, inspection, trials, backend, context, groups, seconds_left=request.seconds_left)
    # Of the trials' baselines the least disturbed one: kernels are profiled apart, and a load on one side alone feigns overhead.
    baseline_ms = min(trial.latency.baseline_median_ms for trial in trials if trial.latency is not None)
    prior = backend.capabilities.conversion_ms or FIRST_GUESS_MS
    times = fit(baseline_ms, gains_from(kernels), edges, timed, first_guess_ms=prior)
    return _Fitted(times, times if request.refined else unblamed(times, timed), kernels, _read(times, len(timed)), probe)


def _space(losses: LossModel, times: TimeModel, groups: Groups) -> _Space:
    places = [place for place, layer_precision in enumerate(losses.layer_precisions) if layer_precision in times.gain_ms]
    chosen = tuple(losses.layer_precisions[place] for place in places)
    bound = losses.upper_bound
    return _Space(chosen, bound.loss[places], bound.interaction[np.ix_(places, places)], groups)


def _whole(space: _Space, ranked: RankResult, fitted: _Fitted, *, refined: bool) -> list[CandidateSequence]:
    """Return the frontier and, the first time or where the model of latency learns, the prefixes of each order."""
    times, learns = fitted.times, fitted.times.certainty is not None
    points = frontier(space.layer_precisions, space.loss, space.interaction, fitted.cautious, space.groups, is_filled=learns)
    sequences = [_sequence(REFINED if refined else FRONTIER, _candidates(points), fitted.cautious)]
    if learns:
        # By the losses of single layers: the least sums of pairs are where their errors are largest.
        loss, alone = np.maximum(space.loss, 0.0), np.zeros_like(space.interaction)
        descent = descent_over(space.layer_precisions, loss, alone, times, space.groups)
        for name, order in ranked.rankings.items():
            sequences.append(_sequence(name, _candidates(smoothed(_prefixes(order, times, space.groups), descent)), times))
    elif not refined:
        sequences += [prefix_sequence(name, order, times, space.groups) for name, order in ranked.rankings.items()]
    return sequences


def fastest_sequence(layer_precisions: Sequence[LayerPrecision], times: TimeModel, groups: Groups) -> CandidateSequence:
    """Return the assignment that is predicted to be fastest as the only candidate, none where that is the baseline.

    Args:
        layer_precisions: What layers may choose, of all of which a gain is known.
        times: Predicts latency.
        groups: Names of layers that only pay together.
    """
    count = len(layer_precisions)
    points = frontier(layer_precisions, np.zeros(count), np.zeros((count, count)), times, groups)
    return _sequence(FASTEST, _candidates(points[-1:]), times)


def _moves(around: StepsFrom, space: _Space, trials: Sequence[Trial], checked: LossCheck, times: TimeModel) -> CandidateSequence:
    """Return what lies one step from the measured engines that are asked for."""
    eligible = eligible_from(space.layer_precisions)
    alone = dict(zip(space.layer_precisions, np.maximum(space.loss, 0.0).tolist(), strict=True))
    starts = [
        Start(trial.precisions, trial.latency.ratio, trial.loss)
        for trial in trials
        if trial.fingerprint in around.starts and trial.latency is not None and trial.loss is not None
    ]
    found = steps_around(
        starts,
        layer_sets(tuple(eligible), times.edges, space.groups),
        eligible,
        times,
        lambda quantized: checked.factor * sum(alone.get(LayerPrecision(*item), 0.0) for item in quantized.items()),
        most_loss=around.most_loss,
        below=around.below,
    )
    sequence = _sequence(MOVES, [step.quantized for step in found], times)
    return replace(sequence, ratios=tuple(step.ratio for step in found))


def _untried(sequence: CandidateSequence, trials: Sequence[Trial]) -> int:
    tried = {frozenset(trial.precisions.items()) for trial in trials}
    return sum(frozenset(candidate.items()) not in tried for candidate in sequence.rungs)


def _candidates(points: Sequence[Point]) -> list[QuantizedLayers]:
    return [{layer_precision.layer: layer_precision.precision for layer_precision in sorted(point.quantized)} for point in points]


def _said(trial: Trial, times: TimeModel, said: LossSaid | None) -> TrialSaid:
    ratio, error = times.ratio(trial.precisions), times.error(trial.precisions) if times.certainty is not None else None
    if said is None:
        return TrialSaid(ratio, None, None, None, None, error)
    return TrialSaid(ratio, said.loss, said.loss_error, said.refitted, said.refitted_error, error)


def _read(times: TimeModel, trials: int, name: str | None = None, left_out: float | None = None) -> FittedTimes:
    overheads = {precision.value: spent for precision, spent in times.overhead_ms.items()}
    return FittedTimes(times.conversion_ms * 1e6, overheads, trials, name, left_out)


def _sequence(name: str, candidates: Sequence[QuantizedLayers], times: TimeModel) -> CandidateSequence:
    errors = tuple(times.error(candidate) for candidate in candidates) if times.certainty is not None else ()
    return CandidateSequence(name, tuple(candidates), tuple(times.ratio(candidate) for candidate in candidates), errors)


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
    return _sequence(name, _prefixes(order, times, groups), times)


def _prefixes(order: Sequence[LayerPrecision], times: TimeModel, groups: Groups) -> tuple[dict[str, Precision], ...]:
    timed = [layer_precision for layer_precision in order if layer_precision in times.gain_ms]
    return prefixes(timed, groups, lambda new, former: times.cost_ms(new) < times.cost_ms(former))


def _sizes(model: onnx.ModelProto, inspection: Inspection, workspace: Workspace) -> dict[str, int]:
    """Return the elements of each tensor in one timed call."""
    feeds = timing_feeds(inspection, load_saved(workspace.path(inspection.samples.validation)))
    shapes = concrete_shapes(model, {name: array.shape for name, array in feeds.items()})
    return {name: math.prod(size for size in shape if isinstance(size, int)) for name, shape in shapes.items()}


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
