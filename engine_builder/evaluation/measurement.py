"""What an engine is worth: its accuracy on the validation samples, whether that keeps the budget, and its latency by the baseline's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.drop_posterior import probabilities_over, slack_draws
from calibration.accuracy.margins.decision_margins import DecisionMargins
from calibration.accuracy.margins.metric_margins import margins_of
from calibration.accuracy.measures.classes import by_class
from calibration.accuracy.measures.tasks.regression import column_changes
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.accuracy.verdict import drop_evidence
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
from engine_builder.evaluation.run_samples import in_random_order, run_judged, run_workers
from engine_builder.evaluation.sameness import are_bitwise_equal
from engine_builder.evaluation.scoring import Scorer, scorer_of
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import SEARCH_SHARE, Accuracy, Latency
from engine_builder.search.confidence import keeps_some_apart
from engine_builder.stage_io.measuring import Decided
from engine_builder.timing import Timing, relative_latency
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace

LAYERS_NAME = "layers.json"  # of what the runtime says of the baseline engine's layers, beside that engine
TRIAL_SECONDS = 1.2  # of interleaved runs of engines that decide nothing by being near to others, at most
MIN_RUNS, MAX_RUNS = 18, 5000
MOST_COLUMNS = 256  # values of a sample, of each of which a report tells what changed
SEARCH_DRAWS = 500  # of each engine's posterior; the verdict draws more
ROUNDING = 1e-12  # a mean of float64 scores may miss the budget by this and still be on it


@dataclass(frozen=True, slots=True, eq=False)
class EngineScores:
    """What an engine does on validation samples."""

    scores: NDArray[np.float64]  # of each sample, (samples,)
    margins: DecisionMargins | None = None  # how clearly the float model and the engine decided, where scores are decisions by classes
    are_outputs_equal: bool = False  # to the float model's, bit for bit, on every sample
    largest_change: float | None = None  # of a value that is scored, over all samples, where the metric asks for it
    nearest_kept: float | None = None  # share of samples that keep their nearest neighbour, where an output may be an embedding
    columns: NDArray[np.float64] | None = None  # what changed in each value of a sample (``column_changes``), of numbers with labels or not

    def of(self, samples: NDArray[np.int64]) -> EngineScores:
        """Return those of these samples, by index."""
        margins = None if self.margins is None else self.margins.of(samples)
        return replace(self, scores=self.scores[samples], margins=margins)


def fits(reference: NDArray[np.float64], engine: EngineScores, metric: Metric, config: Config, *, whole: Accuracy | None = None) -> bool:
    """Return whether an engine meets the budget on the samples that the search may look at.

    Args:
        reference: The float model's scores, (samples,).
        engine: The engine's.
        metric: What the scores are.
        config: The job's settings.
        whole: What ``accuracy`` returns for these arguments, where it is known.
    """
    whole = accuracy(reference, engine, metric, config) if whole is None else whole
    if keeps_some_apart(len(reference), whole.flips, config.accuracy, metric, is_binary=whole.binary):
        return accuracy_on_search(reference, engine, metric, config).met
    return whole.met


def kept_engine(engine: Engine, backend: Backend, context: StageContext, name: str) -> FileRef | None:
    """Keep the engine where another build would give another one."""
    return None if backend.capabilities.is_repeatable else context.workspace.copy(engine.path, name)


def keep_layers(engine: Engine, context: StageContext, name: str) -> FileRef | None:
    """Keep what the runtime says of the engine's layers, as it is, in the file ``name``."""
    return None if engine.layers is None else context.workspace.copy(engine.layers, name)


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


def write_kernels(
    engine: Path, feeds: Mapping[str, NDArray[np.generic]], backend: Backend, context: StageContext, name: str, *, threads: int
) -> FileRef | None:
    """Profile an engine and write its kernels to the file ``name``, where the runtime names the conversions among them.

    Args:
        engine: Its file.
        feeds: Inputs of one run.
        backend: Of the target.
        context: Where files go.
        name: Of the file.
        threads: Of the engine.
    """
    if not backend.capabilities.names_conversions:
        return None
    kernels = backend.kernel_times(engine, feeds, threads=threads, scratch=context.scratch)
    return context.workspace.write_value(name, kernels)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredEngine:
    """An open engine and what it does on the validation set."""

    runner: Runner
    engine: EngineScores  # on every sample
    loss: float  # mean divergence from the float model's outputs


@contextmanager
def scored_engine(
    path: Path,
    inspection: Inspection,
    validation: CalibrationSet,
    backend: Backend,
    workspace: Workspace,
    *,
    threads: int,
    shuffled: np.random.Generator | None = None,
) -> Iterator[ScoredEngine]:
    """Run an engine on the validation set, score it, and keep it open for the body of the ``with``.

    Args:
        path: The engine's file.
        inspection: The job's inspection.
        validation: The validation set.
        backend: Of the target.
        workspace: Where the float model's outputs are.
        threads: Of the engine.
        shuffled: Draws the order in which the samples are run, so that other samples share a call; None: the user's. Scores are in the
            user's order in any case.

    Raises:
        BuildError: The metric does not take what the engine gives.
        EngineError: It fails when it runs.
    """
    with closing(backend.open(path, threads=threads)) as runner:
        model = inspection.model
        samples, loop, back = validation, inspection.loop, None
        if shuffled is not None:
            samples, loop, back = in_random_order(validation, inspection.loop, shuffled)
        outputs = run_judged(
            runner,
            samples,
            loop,
            compared=model.outputs.compared,
            axes=model.axes,
            batch=inspection.calls.scored_batch,
            is_batch_fixed=model.is_batch_fixed or not backend.capabilities.parallel_runs,
            workers=run_workers(backend),
        )
        outputs = outputs if back is None else tuple(output[back] for output in outputs)
        scores, loss = _compare(inspection, outputs, validation, workspace)
        del outputs
        yield ScoredEngine(runner, scores, loss)


def depends_on_order(precisions: Mapping[str, Precision], inspection: Inspection) -> bool:
    """Return whether an engine's answer for a sample depends on which others share its call, and these may be others than they are.

    Args:
        precisions: Of the engine's quantized layers.
        inspection: The job's inspection.
    """
    is_open = inspection.calls.scored_batch > 1 and not inspection.model.is_batch_fixed
    return is_open and any(precision.is_dynamic for precision in precisions.values())


def write_scores(engine: EngineScores, workspace: Workspace, name: str) -> FileRef:
    """Write what ``read_scores`` returns to the file ``name``.

    Margins are kept in float64: those of ties are next to nothing.
    """
    margins = engine.margins
    kept = {} if margins is None else {"margins": margins.engine, "reference_margins": margins.reference}
    if engine.largest_change is not None:
        kept["largest_change"] = np.asarray(engine.largest_change)
    if engine.nearest_kept is not None:
        kept["nearest_kept"] = np.asarray(engine.nearest_kept)
    if engine.columns is not None:
        kept["columns"] = engine.columns
    return workspace.write_arrays(name, scores=engine.scores, **kept)


def read_scores(file: FileRef, workspace: Workspace, metric: Metric, *, are_outputs_equal: bool = False) -> EngineScores:
    """Return what ``write_scores`` wrote.

    Args:
        file: Of an engine.
        workspace: Where it is.
        metric: What the scores are.
        are_outputs_equal: What is known of the engine's outputs.
    """
    kept = {key: np.asarray(array, dtype=np.float64) for key, array in workspace.read_arrays(file).items()}
    margins = None
    if "margins" in kept:
        margins = DecisionMargins(kept["reference_margins"], kept["margins"], can_gain=not metric.is_perfect_by_definition)
    change, nearest = (float(kept[key]) if key in kept else None for key in ("largest_change", "nearest_kept"))
    return EngineScores(kept["scores"], margins, are_outputs_equal, change, nearest, kept.get("columns"))


def _columns(
    scorer: Scorer, reference: Sequence[Array], outputs: Sequence[Array], validation: CalibrationSet
) -> NDArray[np.float64] | None:
    """Return what changed in each value of the only output that is scored as numbers; None of others, and of more than MOST_COLUMNS."""
    if scorer.metric not in (Metric.REGRESSION, Metric.R2) or len(scorer.scored) != 1:
        return None
    found, engine = reference[scorer.scored[0]], outputs[scorer.scored[0]]
    truth = found if validation.labels is None else validation.labels
    return column_changes(truth, found, engine) if found.size <= MOST_COLUMNS * len(found) and truth.size == found.size else None


def _compare(
    inspection: Inspection, outputs: tuple[Array, ...], validation: CalibrationSet, workspace: Workspace
) -> tuple[EngineScores, float]:
    """Return what the engine does on each sample, and the mean divergence of its outputs from the float model's."""
    arrays = workspace.read_arrays(inspection.reference.outputs)
    reference = tuple(arrays[str(index)] for index in range(len(outputs)))
    scorer = scorer_of(inspection, workspace)
    try:
        scores = scorer(outputs, reference, validation)
    except InvalidMetricError as error:  # it took the float model's outputs: what this engine gives is beyond it
        raise BuildError(f"the engine's outputs cannot be scored: {error.detail}", fix=error.fix) from error
    compared, judged, loop = inspection.model.outputs, inspection.reference, inspection.loop
    margins = None  # a run has no single decision
    if loop is None:
        margins = _margins(scorer, [compared.kinds[index] for index in compared.compared], reference, outputs, validation)
    scores = scores_of_runs(scores, loop, judged.metric, [reference[index] for index in judged.scored])
    nearest = scorer.nearest_kept(outputs, reference) if loop is None else None
    columns = None if loop is not None else _columns(scorer, reference, outputs, validation)
    engine = EngineScores(
        scores, margins, are_bitwise_equal(reference, outputs), scorer.largest_change(outputs, reference), nearest, columns
    )
    return engine, float(np.mean(losses(compared.compared_forms, reference, outputs, compared.compared_weights)))


def _margins(
    scorer: Scorer, kinds: Sequence[OutputKind], reference: Sequence[Array], outputs: Sequence[Array], validation: CalibrationSet
) -> DecisionMargins | None:
    """Return how clearly each sample was decided; None where a score is not that of one decision, or of several that are weighed."""
    if scorer.custom is not None or len({scorer.weights[index] for index in scorer.scored} if scorer.weights else ()) > 1:
        return None
    scored = scorer.scored
    return margins_of(
        scorer.metric,
        [kinds[index] for index in scored],
        [reference[index] for index in scored],
        [outputs[index] for index in scored],
        validation.labels,
        scorer.options.threshold,
    )


def decided(scorer: Scorer, kinds: Sequence[OutputKind], reference: Sequence[Array], validation: CalibrationSet) -> Decided | None:
    """Return how the validation samples decide on a budget, where a sample's score is right or wrong by one decision, else None.

    Args:
        scorer: Of the job.
        kinds: Of the compared outputs.
        reference: The float model's compared outputs, each (samples, ...).
        validation: The validation set.
    """
    if scorer.metric.is_real_valued or scorer.custom is not None:
        return None
    read = [reference[index] for index in scorer.scored]
    decisions = [array.size if array.dtype.kind in "iub" else by_class(array)[..., 0].size for array in read]
    if any(count != validation.samples for count in decisions):
        return None
    return Decided(validation.samples, _margins(scorer, kinds, reference, reference, validation) is not None)


def accuracy(reference: NDArray[np.float64], engine: EngineScores, metric: Metric, config: Config) -> Accuracy:
    """Return how an engine's scores stand against the float model's, (samples,), on the same samples, and what that says of all data."""
    budget, scores = config.accuracy.budget, engine.scores
    slack = float(np.mean(budget.margins(reference, scores)))
    evidence = drop_evidence(metric, reference, scores, budget, margins=engine.margins, are_outputs_equal=engine.are_outputs_equal)
    rng = np.random.default_rng([config.search.seed, len(scores)])  # the same for all engines: what differs is theirs
    likely = slack_draws([evidence], rng, are_chosen_from=False, draws=SEARCH_DRAWS)
    return Accuracy(
        score=float(np.mean(scores)),
        baseline=float(np.mean(reference)),
        excess=0.0 if abs(slack) < ROUNDING else slack,
        flips=float(np.mean(scores != reference)),
        binary=bool(np.isin(scores, (0.0, 1.0)).all() and np.isin(reference, (0.0, 1.0)).all()),
        samples=len(scores),
        probability_over=probabilities_over(likely)[0],
        likely_slack=float(np.median(likely)),
        has_margins=evidence.margins is not None,
    )


def accuracy_on_search(reference: NDArray[np.float64], engine: EngineScores, metric: Metric, config: Config) -> Accuracy:
    """Return the accuracy on the samples that the search looks at where the others are kept for the verdict."""
    half = search_half(len(reference), config.search.seed)
    return accuracy(reference[half], engine.of(half), metric, config)


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
    relative = relative_latency(engine, reference)
    return Latency(
        engine.median_ms,
        engine.p95_ms,
        engine.mad_ms,
        engine.runs,
        reference.median_ms,
        reference.mad_ms,
        relative.ratio,
        relative.mad,
        relative.error,
    )
