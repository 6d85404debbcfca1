"""The stage ``trial``: one assignment becomes an engine, which is scored on every validation sample and timed against the baseline."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from calibration.codec import json_from_value, value_from_json
from calibration.dataset import CalibrationSet, load_saved
from calibration.errors import InvalidMetricError
from calibration.layers import LayerKind
from calibration.losses import losses
from calibration.precision import Precision
from calibration.session import Array
from calibration.verdict import DEFAULT_CONFIDENCE, Budget, can_settle
from engine_builder.assignment import fingerprint_of
from engine_builder.backends.base import Backend, Engine, Runner
from engine_builder.backends.reached import reached
from engine_builder.building import building_backend
from engine_builder.config import Config, config_from_json
from engine_builder.corrected import Corrected, build_corrected, settled
from engine_builder.errors import BuildError, EngineError
from engine_builder.evaluate import run_all, run_workers
from engine_builder.inspection import Inspection, read_inspection
from engine_builder.model_files import model_size_bytes
from engine_builder.outputs import ComparedOutputs
from engine_builder.scoring import scorer_of
from engine_builder.search.trial import SEARCH_SHARE, Accuracy, Latency, Trial
from engine_builder.sizes import timed_call
from engine_builder.timing import Timer, Timing, TimingPlan, relative_latency, time_interleaved
from engine_builder.workspace import FileRef, StageContext

TRIAL_SECONDS = 1.2  # of interleaved runs of both engines, at most
ROUGH_TIMER = functools.partial(time_interleaved, enough=0.03)  # the finalists are timed again
MIN_RUNS, MAX_RUNS = 18, 5000
ROUNDING = 1e-12  # a mean of float64 scores may miss the budget by this and still be on it


def trial(request: Mapping[str, object], context: StageContext, *, timer: Timer = ROUGH_TIMER) -> dict[str, object]:
    """Build, score and time one assignment.

    Where the engine with corrected biases misses the budget and the one without meets it, the latter is the trial's: the correction
    lowers the loss on calibration samples, which need not be what the metric sees.

    Args:
        request: ``inspection``, ``ranges``, ``config``, ``model`` (the baseline), ``low`` (layer -> precision), ``index``, ``order``.
        context: Where files go.
        timer: Times the engine and the baseline.

    Raises:
        BuildError: The engine cannot be built, or fails when it runs.
    """
    start = time.perf_counter()
    found = read_inspection(request, context)
    config = config_from_json(request["config"])
    asked = {name: Precision(value) for name, value in cast(Mapping[str, str], request["low"]).items()}
    backend = building_backend(config, context)
    fingerprint = fingerprint_of((layer.name for layer in found.layers), asked, backend.capabilities.baseline)
    low = settled(found, asked, backend, context)
    validation = load_saved(context.workspace.path(found.validation))
    baseline_path = context.workspace.path(value_from_json(FileRef, request["model"]))
    if low:
        built = build_corrected(found, request, low, backend, context.part(0.0, 0.3), f"trials/{fingerprint}-biases.npz")
    else:
        built = Corrected(Engine(baseline_path, (), model_size_bytes(baseline_path)))
    context.progress(0.3, "engine built")
    reference = cast("NDArray[np.float64]", context.workspace.read_arrays(found.scores)["scores"])

    def scored(engine: Engine) -> tuple[Runner, NDArray[np.float64], float]:
        runner = backend.open(engine.path, threads=config.threads)
        outputs = run_all(
            ComparedOutputs(runner, found.compared, found.axes), validation, batch=found.scoring_batch, workers=run_workers(backend)
        )
        return runner, *compare(found, outputs, validation, context)

    try:
        if not low and backend.capabilities.is_own_baseline and found.baseline_type is Precision.FP32:
            # The float model itself, which the stage ``inspect`` has run on every sample.
            runner, scores, loss = backend.open(baseline_path, threads=config.threads), reference, 0.0
        else:
            runner, scores, loss = scored(built.engine)
        if built.plain is not None and not fits(reference, scores, found, config):
            plain = scored(built.plain)
            if fits(reference, plain[1], found, config):
                runner.close()
                runner, scores, loss = plain
                assert built.repair is not None
                built = Corrected(built.plain, replace(built.repair, kept=False))
            else:
                plain[0].close()
        context.progress(0.7, "accuracy measured")
        runners: dict[str, Runner] = {"engine": runner}
        if low:
            runners["baseline"] = backend.open(baseline_path, threads=config.threads)
        feeds = timing_feeds(found, validation)
        timings = backend.timings(runners, feeds, TimingPlan(TRIAL_SECONDS, MIN_RUNS, MAX_RUNS, timer))
    except BuildError:
        raise
    except EngineError as error:
        raise BuildError(f"the engine was built but does not run: {error.detail}", fix=error.fix) from error
    half = search_half(len(scores), config.search.seed)
    result = Trial(
        index=cast(int, request["index"]),
        fingerprint=fingerprint,
        precisions=low,
        order=str(request["order"]),
        low_layers=len(low),
        on_all=accuracy(reference, scores, config.accuracy.budget),
        on_search=accuracy(reference[half], scores[half], config.accuracy.budget),
        loss=loss,
        latency=latency_of(timings),
        size_bytes=built.engine.size_bytes,
        scores=context.workspace.write_arrays(f"trials/{fingerprint}.npz", scores=scores),
        seconds=time.perf_counter() - start,
        failure=None,
        bias=built.repair,
        corrections=built.corrections,
        engine=kept_engine(built.engine, backend, context, f"trials/{fingerprint}.plan") if low else None,
        reached=write_reached(found, low, built.engine, context, f"trials/{fingerprint}-reached.json"),
    )
    return {"trial": json_from_value(result)}


def fits(reference: NDArray[np.float64], scores: NDArray[np.float64], found: Inspection, config: Config) -> bool:
    """Return whether an engine meets the budget on the samples that the search may look at.

    Args:
        reference: The float model's scores, (samples,).
        scores: The engine's, (samples,).
        found: The job's inspection.
        config: The job's settings.
    """
    budget, whole = config.accuracy.budget, accuracy(reference, scores, config.accuracy.budget)
    half = search_half(len(scores), config.search.seed)
    confidence = config.accuracy.confidence or DEFAULT_CONFIDENCE
    left = len(scores) - len(half)
    if can_settle(left, whole.flips, budget, confidence, metric=found.metric, is_binary=whole.binary):
        return accuracy(reference[half], scores[half], budget).met
    return whole.met


def kept_engine(engine: Engine, backend: Backend, context: StageContext, name: str) -> FileRef | None:
    """Keep the engine where another build would give another one."""
    return None if backend.capabilities.is_repeatable else context.workspace.copy(engine.path, name)


def write_reached(found: Inspection, low: Mapping[str, Precision], engine: Engine, context: StageContext, name: str) -> FileRef | None:
    """Write what each layer asked for and got to the file ``name``, where the builder lists kernels."""
    if not engine.kernels:
        return None
    multiplying = [layer.name for layer in found.layers if layer.kind is not LayerKind.RESIDUAL_ADD]  # a sum has no kernel of its own
    asked = {layer: low.get(layer, found.baseline_precisions[layer]) for layer in multiplying}
    return context.workspace.write_json(name, json_from_value(reached(engine.kernels, asked)))


def compare(
    found: Inspection, outputs: tuple[Array, ...], validation: CalibrationSet, context: StageContext
) -> tuple[NDArray[np.float64], float]:
    """Return the score of each sample, (samples,), and the mean divergence from the float model's outputs.

    Args:
        found: The job's inspection.
        outputs: The compared outputs of the engine on the validation set, each (samples, ...).
        validation: The validation set.
        context: Where the float model's outputs are.

    Raises:
        BuildError: The metric does not take what the engine gives.
    """
    arrays = context.workspace.read_arrays(found.reference)
    reference = tuple(arrays[str(index)] for index in range(len(outputs)))
    try:
        scores = scorer_of(found, context.workspace)(outputs, reference, validation)
    except InvalidMetricError as error:  # it took the float model's outputs: what this engine gives is beyond it
        raise BuildError(f"the engine's outputs cannot be scored: {error.detail}", fix=error.fix) from error
    return scores, float(np.mean(losses(found.compared_kinds, reference, outputs, found.compared_weights)))


def accuracy(reference: NDArray[np.float64], scores: NDArray[np.float64], budget: Budget) -> Accuracy:
    """Return how an engine's scores, (samples,), stand against the float model's on the same samples."""
    excess = float(np.mean(budget.margins(reference, scores)))
    return Accuracy(
        score=float(np.mean(scores)),
        baseline=float(np.mean(reference)),
        excess=0.0 if abs(excess) < ROUNDING else excess,
        flips=float(np.mean(scores != reference)),
        binary=bool(np.isin(scores, (0.0, 1.0)).all() and np.isin(reference, (0.0, 1.0)).all()),
        samples=len(scores),
    )


def search_half(samples: int, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of the validation samples that the search looks at where the others are kept for the verdict."""
    rng = np.random.default_rng([seed, samples])
    return np.sort(rng.permutation(samples)[: max(1, round(samples * SEARCH_SHARE))]).astype(np.int64)


def timing_feeds(found: Inspection, validation: CalibrationSet) -> dict[str, Array]:
    """Return the inputs of one timed call: real samples, cut or repeated to the sizes that the inspection found."""
    return timed_call(validation, found.timing_shapes)


def latency_of(timings: Mapping[str, Timing]) -> Latency:
    """Return the latency of ``engine`` beside that of ``baseline``; the engine's own where there is no baseline."""
    engine, reference = timings["engine"], timings.get("baseline", timings["engine"])
    return Latency(
        engine.median_ms,
        engine.p95_ms,
        engine.mad_ms,
        engine.runs,
        reference.median_ms,
        reference.mad_ms,
        relative_latency(engine, reference).ratio,
    )
