"""What an engine is worth: its accuracy on the validation samples, whether that keeps the budget, and its latency by the baseline's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import DEFAULT_CONFIDENCE, Budget, can_decide
from calibration.codec import json_from_value
from calibration.data.dataset import CalibrationSet
from calibration.errors import InvalidMetricError
from calibration.execution.onnxruntime_session import Array
from calibration.graph.layers import LayerKind
from calibration.number_formats.precision import Precision
from calibration.sensitivity.task_losses import losses
from engine_builder.backends.achieved_precision import achieved_precisions
from engine_builder.backends.base import Backend, Engine, Runner
from engine_builder.closed_loop.run_scores import scores_of_runs
from engine_builder.config.config import Config
from engine_builder.errors import BuildError
from engine_builder.evaluation.batch_sizes import timed_call
from engine_builder.evaluation.run_samples import run_judged, run_workers
from engine_builder.evaluation.scoring import scorer_of
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import SEARCH_SHARE, Accuracy, Latency
from engine_builder.timing import Timing, relative_latency
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace

TRIAL_SECONDS = 1.2  # of interleaved runs of both engines, at most
MIN_RUNS, MAX_RUNS = 18, 5000
ROUNDING = 1e-12  # a mean of float64 scores may miss the budget by this and still be on it


def fits(reference: NDArray[np.float64], scores: NDArray[np.float64], metric: Metric, config: Config) -> bool:
    """Return whether an engine meets the budget on the samples that the search may look at.

    Args:
        reference: The float model's scores, (samples,).
        scores: The engine's, (samples,).
        metric: What the scores are.
        config: The job's settings.
    """
    budget, whole = config.accuracy.budget, accuracy(reference, scores, config.accuracy.budget)
    half = search_half(len(scores), config.search.seed)
    confidence = config.accuracy.confidence or DEFAULT_CONFIDENCE
    left = len(scores) - len(half)
    if can_decide(left, whole.flips, budget, confidence, metric=metric, is_binary=whole.binary):
        return accuracy(reference[half], scores[half], budget).met
    return whole.met


def kept_engine(engine: Engine, backend: Backend, context: StageContext, name: str) -> FileRef | None:
    """Keep the engine where another build would give another one."""
    return None if backend.capabilities.is_repeatable else context.workspace.copy(engine.path, name)


def write_achieved(
    inspection: Inspection, quantized: Mapping[str, Precision], engine: Engine, context: StageContext, name: str
) -> FileRef | None:
    """Write what each layer asked for and got to the file ``name``, where the builder lists kernels."""
    if not engine.kernels:
        return None
    # a sum has no kernel of its own
    multiplying = [layer.name for layer in inspection.model.layers if layer.kind is not LayerKind.RESIDUAL_ADD]
    asked = {layer: quantized.get(layer, inspection.baseline_precisions[layer]) for layer in multiplying}
    return context.workspace.write_json(name, json_from_value(achieved_precisions(engine.kernels, asked)))


@dataclass(frozen=True, slots=True, eq=False)
class ScoredEngine:
    """An open engine and what it does on the validation set."""

    runner: Runner
    scores: NDArray[np.float64]  # of each sample, (samples,)
    loss: float  # mean divergence from the float model's outputs


@contextmanager
def scored_engine(
    path: Path, inspection: Inspection, validation: CalibrationSet, backend: Backend, workspace: Workspace, *, threads: int
) -> Iterator[ScoredEngine]:
    """Run an engine on the validation set, score it, and keep it open for the body of the ``with``.

    Args:
        path: The engine's file.
        inspection: The job's inspection.
        validation: The validation set.
        backend: Of the target.
        workspace: Where the float model's outputs are.
        threads: Of the engine.

    Raises:
        BuildError: The metric does not take what the engine gives.
        EngineError: It fails when it runs.
    """
    with closing(backend.open(path, threads=threads)) as runner:
        model = inspection.model
        outputs = run_judged(
            runner,
            validation,
            inspection.loop,
            compared=model.outputs.compared,
            axes=model.axes,
            batch=inspection.calls.scored_batch,
            is_batch_fixed=model.is_batch_fixed or not backend.capabilities.parallel_runs,
            workers=run_workers(backend),
        )
        scores, loss = _compare(inspection, outputs, validation, workspace)
        del outputs
        yield ScoredEngine(runner, scores, loss)


def _compare(
    inspection: Inspection, outputs: tuple[Array, ...], validation: CalibrationSet, workspace: Workspace
) -> tuple[NDArray[np.float64], float]:
    """Return the score of each sample, (samples,), and the mean divergence from the float model's outputs."""
    arrays = workspace.read_arrays(inspection.reference.outputs)
    reference = tuple(arrays[str(index)] for index in range(len(outputs)))
    try:
        scores = scorer_of(inspection, workspace)(outputs, reference, validation)
    except InvalidMetricError as error:  # it took the float model's outputs: what this engine gives is beyond it
        raise BuildError(f"the engine's outputs cannot be scored: {error.detail}", fix=error.fix) from error
    compared, judged = inspection.model.outputs, inspection.reference
    scores = scores_of_runs(scores, inspection.loop, judged.metric, [reference[index] for index in judged.scored])
    return scores, float(np.mean(losses(compared.compared_forms, reference, outputs, compared.compared_weights)))


def accuracy(reference: NDArray[np.float64], scores: NDArray[np.float64], budget: Budget) -> Accuracy:
    """Return how an engine's scores, (samples,), stand against the float model's on the same samples."""
    slack = float(np.mean(budget.margins(reference, scores)))
    return Accuracy(
        score=float(np.mean(scores)),
        baseline=float(np.mean(reference)),
        excess=0.0 if abs(slack) < ROUNDING else slack,
        flips=float(np.mean(scores != reference)),
        binary=bool(np.isin(scores, (0.0, 1.0)).all() and np.isin(reference, (0.0, 1.0)).all()),
        samples=len(scores),
    )


def search_half(samples: int, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of the validation samples that the search looks at where the others are kept for the verdict."""
    rng = np.random.default_rng([seed, samples])
    return np.sort(rng.permutation(samples)[: max(1, round(samples * SEARCH_SHARE))]).astype(np.int64)


def timing_feeds(inspection: Inspection, validation: CalibrationSet) -> dict[str, Array]:
    """Return the inputs of one timed call: real samples, cut or repeated to the sizes that the inspection found."""
    return timed_call(validation, inspection.calls.timed_shapes)


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
