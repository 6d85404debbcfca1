"""The finalists built as they would ship, and those whose answers depend on what stands beside a sample run in another order."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from calibration.accuracy.verdict import AccuracyVerdict, Selection
from calibration.data.dataset import load_saved
from engine_builder.backends.base import Backend
from engine_builder.engines.finalist_verdicts import scores_of, verdicts_on
from engine_builder.engines.quantized_engine import build, recipe_of, write_explicit
from engine_builder.evaluation.measurement import EngineScores, depends_on_order, scored_engine, write_scores
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.search.measured_front import ratio_of
from engine_builder.search.shipping_rule import is_accurate_enough
from engine_builder.stage_io.engines import OrderScores, VerdictRequest
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace


@dataclass(frozen=True, slots=True, eq=False)
class BuiltFinalists:
    """The engines that may ship."""

    passed: list[tuple[Trial, AccuracyVerdict]]  # safest first, those that are timed
    engines: Mapping[str, Path]  # by fingerprint
    judged: list[tuple[Trial, AccuracyVerdict]]  # all finalists, by the worse order of samples where both were run
    orders: Mapping[str, OrderScores]  # by fingerprint
    reordered: Mapping[str, FileRef]  # scores, by fingerprint, where the random order is the worse


def build_finalists(
    passed: Sequence[tuple[Trial, AccuracyVerdict]],
    judged: Sequence[tuple[Trial, AccuracyVerdict]],
    request: VerdictRequest,
    inspection: Inspection,
    context: StageContext,
    backend: Backend,
) -> BuiltFinalists:
    """Return the fastest engines that pass, in any order of the samples, built: as many as are timed at most."""
    workspace, job = context.workspace, request.job
    worse, orders = {trial.fingerprint: answer for trial, answer in judged}, {}
    reordered: dict[str, FileRef] = {}
    kept: dict[str, Path] = {}
    tested = len(passed)
    for position, (trial, answer) in sorted(enumerate(passed), key=lambda one: ratio_of(one[1][0])):
        if position >= tested:
            continue
        done = 0.3 + 0.5 * len(kept) / request.most_timed
        folder = context.scratch / trial.fingerprint
        folder.mkdir()
        recipe = recipe_of(trial, inspection, job.calibrated)
        place = replace(context.part(done, done + 0.5 / request.most_timed), scratch=folder)
        if trial.engine is None:
            engine = build(recipe, backend, place).path
        else:
            engine = folder / backend.capabilities.engine_name
            shutil.copyfile(workspace.path(trial.engine), engine)
            write_explicit(recipe, backend, place)
        if depends_on_order(trial.precisions, inspection):
            context.progress(done, "samples in another order")
            scores, shuffled = _shuffled(engine, trial, request, inspection, backend, workspace)
            orders[trial.fingerprint] = OrderScores(answer.engine, shuffled.engine)
            worse[trial.fingerprint] = max(answer, shuffled, key=lambda one: (one.probability_over_budget, one.drop))
            if worse[trial.fingerprint] is shuffled:
                reordered[trial.fingerprint] = write_scores(scores, workspace, f"verdict/{trial.fingerprint}.shuffled.npz")
        if is_accurate_enough(worse[trial.fingerprint], job.config.accuracy.confidence, is_given=job.config.assignment_only):
            kept[trial.fingerprint] = engine
        elif job.config.accuracy.confidence is not None and request.selection is Selection.HELD_OUT:
            tested = position  # rule 1: what stands behind an engine that fails was not tested
            kept = {one.fingerprint: kept[one.fingerprint] for one, _ in passed[:position] if one.fingerprint in kept}
        if len(kept) == request.most_timed:
            break
    known = [(trial, worse[trial.fingerprint]) for trial, _ in judged]
    return BuiltFinalists([(trial, answer) for trial, answer in known if trial.fingerprint in kept], kept, known, orders, reordered)


def _shuffled(
    engine: Path, trial: Trial, request: VerdictRequest, inspection: Inspection, backend: Backend, workspace: Workspace
) -> tuple[EngineScores, AccuracyVerdict]:
    """Return the scores of an engine that is run over the samples in a random order, and the verdict on it."""
    config = request.job.config
    validation, rng = load_saved(workspace.path(inspection.samples.validation)), np.random.default_rng(config.search.seed)
    with scored_engine(engine, inspection, validation, backend, workspace, threads=config.threads, shuffled=rng) as scored:
        scores = scored.engine
    finalists = [one for one in request.finalists if one.scores is not None]
    beside = [
        scores if one.fingerprint == trial.fingerprint else scores_of(one, inspection, workspace) for one in finalists
    ]  # one of them is chosen by these samples
    return scores, verdicts_on(beside, inspection, request, workspace)[[one.fingerprint for one in finalists].index(trial.fingerprint)]
