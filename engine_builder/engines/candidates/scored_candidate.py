"""A candidate up to its timing: its engine is built, scored on every validation sample, and open.

The stage ``trial`` times it next. The stage ``prepare`` writes it down instead, and the trial that is asked for later opens it again: then
it times the engine that it would have built.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace

from calibration.data.dataset import CalibrationSet
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Backend, Engine, Runner
from engine_builder.backends.gpu.state import driver_version
from engine_builder.engines.quantized_engine import CorrectedEngine, EngineRecipe, build_with_bias_correction
from engine_builder.errors import BuildError, EngineError
from engine_builder.evaluation.measurement import (
    EngineScores,
    ScoredEngine,
    accuracy,
    accuracy_on_search,
    fits,
    keep_layers,
    scored_engine,
    write_achieved,
    write_scores,
)
from engine_builder.records.corrections import Correction
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Accuracy
from engine_builder.stage_io.engines import EngineJob, Prepared
from engine_builder.workspace.model_files import model_size_bytes
from engine_builder.workspace.workspace import FileRef, StageContext

logger = logging.getLogger(__name__)

# Given the seconds of the first build and those so far, whether there is time for one more build.
HasTime = Callable[[float, float], bool]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is built."""

    job: EngineJob
    inspection: Inspection
    precisions: dict[str, Precision]  # of the quantized layers, as the target's engines can have them
    is_baseline: bool = False  # whether it is the job's baseline, which is built


@dataclass(frozen=True, slots=True, eq=False)
class ScoredCandidate:
    """An open engine and all that is known of it but its latency."""

    precisions: dict[str, Precision]  # of the quantized layers, as the engine has them
    engine: Engine
    runner: Runner
    on_all: Accuracy
    on_search: Accuracy
    is_inside: bool  # whether it keeps the budget on what the search sees
    loss: float
    are_outputs_equal: bool
    bias: Correction | None
    corrections: FileRef | None
    scores: FileRef
    reached: FileRef | None
    layers: FileRef | None
    built_twice_in: float | None = (
        None  # seconds from the start until then and of a build, where one without corrected biases was built too
    )


def scored_candidate(
    candidate: Candidate,
    backend: Backend,
    validation: CalibrationSet,
    context: StageContext,
    opened: ExitStack,
    prefix: str,
    *,
    start: float,
    has_time: HasTime,
) -> ScoredCandidate:
    """Build a candidate and score it.

    Where the engine with corrected biases misses the budget and the one without meets it, the latter is the candidate's: the correction
    lowers the loss on calibration samples, which need not be what the metric sees.

    Args:
        candidate: What to build.
        backend: Of the target.
        validation: The validation set.
        context: Where files go.
        opened: Closes the engine.
        prefix: Of the names of its files.
        start: When the stage began, by ``time.perf_counter``.
        has_time: Whether the engine without corrected biases may be built too.

    Raises:
        BuildError: The engine cannot be built, or fails when it runs.
        EngineError: It cannot be built now.
    """
    job, inspection, workspace = candidate.job, candidate.inspection, context.workspace
    config, metric = job.config, inspection.reference.metric
    reference = workspace.read_scores(inspection.reference.scores)
    baseline_path = workspace.path(job.baseline)
    quantized = candidate.precisions
    if not candidate.is_baseline:
        recipe = EngineRecipe(inspection, job.calibrated, quantized)
        built = build_with_bias_correction(recipe, backend, context.part(0.0, 0.3), f"{prefix}-biases.npz", threads=config.threads)
    else:
        built = CorrectedEngine(Engine(baseline_path, (), model_size_bytes(baseline_path)))
    built_in = time.perf_counter() - start
    context.progress(0.3, "engine built")

    def scored(engine: Engine) -> AbstractContextManager[ScoredEngine]:
        if candidate.is_baseline and backend.capabilities.is_own_baseline and inspection.baseline.precision is Precision.FP32:
            # The float model itself, which the stage ``inspect`` has run on every sample.
            return nullcontext(
                ScoredEngine(backend.open(baseline_path, threads=config.threads), EngineScores(reference, are_outputs_equal=True), 0.0)
            )
        return scored_engine(engine.path, inspection, validation, backend, workspace, threads=config.threads)

    built_twice_in = None
    with failing_as_build():
        at_work = opened.enter_context(ExitStack())
        judged = at_work.enter_context(scored(built.engine))
        on_all = accuracy(reference, judged.engine, metric, config)
        is_inside = not candidate.is_baseline and fits(reference, judged.engine, metric, config, whole=on_all)
        if built.plain is not None and not is_inside and has_time(built_in, spent := time.perf_counter() - start):
            built_twice_in = built_in + spent
            at_work.close()  # one engine's memory at a time
            uncorrected = built.plain()
            plain = at_work.enter_context(scored(uncorrected))
            plain_on_all = accuracy(reference, plain.engine, metric, config)
            is_inside = fits(reference, plain.engine, metric, config, whole=plain_on_all)
            if is_inside:
                assert built.correction is not None
                on_all = plain_on_all
                judged, built = plain, CorrectedEngine(uncorrected, replace(built.correction, kept=False))
            else:
                at_work.close()
                again = at_work.enter_context(closing(backend.open(built.engine.path, threads=config.threads)))
                judged = replace(judged, runner=again)
    context.progress(0.7, "accuracy measured")
    return ScoredCandidate(
        quantized,
        built.engine,
        judged.runner,
        on_all,
        accuracy_on_search(reference, judged.engine, metric, config),
        is_inside,
        judged.loss,
        judged.engine.are_outputs_equal,
        built.correction,
        built.corrections,
        write_scores(judged.engine, workspace, f"{prefix}.npz"),
        write_achieved(inspection, quantized, built.engine, context, f"{prefix}-reached.json"),
        keep_layers(built.engine, context, f"{prefix}-layers.json"),
        built_twice_in,
    )


def reopened(
    prepared: Prepared, backend: Backend, context: StageContext, opened: ExitStack, prefix: str, *, threads: int
) -> ScoredCandidate | None:
    """Open the engine of a candidate that was prepared, and give its files the names that those of a trial have.

    Args:
        prepared: What was prepared; its files are whole.
        backend: Of the target.
        context: Where files go.
        opened: Closes the engine.
        prefix: Of the names of its files.
        threads: Of the engine.

    Returns:
        None where the runtime does not load the engine here: then it is for the caller to build one.
    """
    workspace = context.workspace

    def named(file: FileRef | None, suffix: str) -> FileRef | None:
        return None if file is None else workspace.link(workspace.path(file), prefix + suffix)

    engine = Engine(workspace.path(prepared.engine), tuple(map(workspace.path, prepared.beside)), prepared.size_bytes)
    try:
        runner = opened.enter_context(closing(backend.open(engine.path, threads=threads)))
    except BuildError as error:
        logger.warning("the engine that was built ahead does not load, and is built anew: %s", error.detail)
        return None
    scores = workspace.link(workspace.path(prepared.scores), f"{prefix}.npz")
    context.progress(0.7, "built and scored before")
    return ScoredCandidate(
        prepared.precisions,
        engine,
        runner,
        prepared.on_all,
        prepared.on_search,
        prepared.is_inside,
        prepared.loss,
        prepared.are_outputs_equal,
        prepared.bias,
        named(prepared.corrections, "-biases.npz"),
        scores,
        named(prepared.reached, "-reached.json"),
        named(prepared.layers, "-layers.json"),
    )


@contextmanager
def failing_as_build() -> Iterator[None]:
    """Take an engine that fails in the block for one that cannot be built."""
    try:
        yield
    except BuildError:
        raise
    except EngineError as error:
        raise BuildError(f"the engine was built but does not run: {error.detail}", fix=error.fix) from error


def is_usable(prepared: Prepared | None, backend: Backend, context: StageContext, seconds_left: float | None) -> bool:
    """Return whether a trial may take an engine that was prepared for what it would build here itself.

    Args:
        prepared: The engine; None: there is none.
        backend: Of the target, on this machine.
        context: Where its files are.
        seconds_left: Of the search; None: it has no limit.
    """
    if prepared is None or prepared.made_under != made_under(backend):
        return False
    if prepared.seconds_needed is not None and seconds_left is not None and prepared.seconds_needed > seconds_left:
        return False
    return all(context.workspace.has(file) for file in _files(prepared))


def made_under(backend: Backend) -> str:
    """Return what a plan of this backend depends on besides its request: alike on machines of one kind. Asked before anything is timed."""
    told = {name: value for name, value in backend.environment().items() if name not in _OF_ONE_DEVICE}
    return json.dumps({**told, "driver": driver_version()}, sort_keys=True)


def _files(prepared: Prepared) -> tuple[FileRef, ...]:
    asked = (prepared.engine, *prepared.beside, prepared.scores, prepared.corrections, prepared.reached, prepared.layers)
    return tuple(file for file in asked if file is not None)


_OF_ONE_DEVICE = {"gpu_uuid"}
