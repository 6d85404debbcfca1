"""What the scores of the finalists say of the budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.drop_posterior import probabilities_over, slack_draws
from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import DEFAULT_CONFIDENCE, AccuracyVerdict, Answer, IntervalMethod, Selection, drop_evidence, judge
from engine_builder.config.accuracy import AccuracyConfig
from engine_builder.evaluation.measurement import EngineScores, read_scores, search_half
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.search.shipping_rule import is_accurate_enough
from engine_builder.stage_io.engines import VerdictRequest
from engine_builder.workspace.workspace import Workspace


def judged_finalists(request: VerdictRequest, inspection: Inspection, workspace: Workspace) -> list[tuple[Trial, AccuracyVerdict]]:
    """Return the verdicts in order; where an order is needed for a confidence, up to the first that is not accepted."""
    config = request.job.config
    scored = [trial for trial in request.finalists if trial.scores is not None]
    answers = verdicts_on([scores_of(trial, inspection, workspace) for trial in scored], inspection, request, workspace)
    judged = list(zip(scored, answers, strict=True))
    if config.accuracy.confidence is None or request.selection is Selection.SHARED:  # rule 2
        return judged
    passed = sum(1 for _ in itertools.takewhile(lambda answer: is_accurate_enough(answer, config.accuracy.confidence), answers))
    return judged[: passed + 1]  # rule 1


def judged_on(request: VerdictRequest, samples: int) -> NDArray[np.int64]:
    """Return the indices of the samples that the verdict is about: all, or those that the search did not see."""
    used = np.arange(samples)
    return used if request.selection is Selection.SHARED else np.setdiff1d(used, search_half(samples, request.job.config.search.seed))


def scores_of(trial: Trial, inspection: Inspection, workspace: Workspace) -> EngineScores:
    """Return what a trial's engine scored."""
    assert trial.scores is not None  # it is a finalist
    return read_scores(trial.scores, workspace, inspection.reference.metric, are_outputs_equal=trial.are_outputs_equal)


def verdicts_on(
    engines: Sequence[EngineScores], inspection: Inspection, request: VerdictRequest, workspace: Workspace
) -> list[AccuracyVerdict]:
    """Return the verdict on each engine: on all samples, or on those that the search did not see."""
    if not engines:
        return []
    config, metric = request.job.config, inspection.reference.metric
    reference = workspace.read_scores(inspection.reference.scores)
    used = judged_on(request, len(reference))
    reference, engines = reference[used], [engine.of(used) for engine in engines]
    budget, seed = config.accuracy.budget, config.search.seed
    evidence = [
        drop_evidence(metric, reference, one.scores, budget, margins=one.margins, are_outputs_equal=one.are_outputs_equal)
        for one in engines
    ]
    likely = probabilities_over(slack_draws(evidence, np.random.default_rng(seed), are_chosen_from=len(engines) > 1))
    return [
        judge(
            metric,
            reference,
            one.scores,
            budget,
            confidence=config.accuracy.confidence or DEFAULT_CONFIDENCE,
            selection=request.selection,
            rng=np.random.default_rng(seed),
            probability_over_budget=probability,
            chosen_from=request.tried if request.selection is Selection.SHARED else 1,
        )
        for one, probability in zip(engines, likely, strict=True)
    ]


def same_engine(metric: Metric, scores: NDArray[np.float64], asked: AccuracyConfig, selection: Selection) -> AccuracyVerdict:
    """Return the verdict on an engine that is the reference itself: met, and certainly so. Nothing is left to estimate.

    Args:
        metric: What the scores are.
        scores: (samples,), of the samples that the verdict is about.
        asked: The budget, and the confidence where one is asked for.
        selection: Whether the search saw these samples.
    """
    mean = float(scores.mean())
    return AccuracyVerdict(
        answer=Answer.MET,
        metric=metric,
        baseline=mean,
        engine=mean,
        drop=0.0,
        interval=(0.0, 0.0),
        confidence=asked.confidence or DEFAULT_CONFIDENCE,
        method=IntervalMethod.SAME_ENGINE,
        n=len(scores),
        flips=0,
        budget=asked.budget.largest_drop(mean),
        probability_over_budget=0.0,
        samples_needed=len(scores),
        selection=selection,
    )
