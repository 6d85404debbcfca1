"""The stage ``confidence``: refuses early what no engine could show on the user's samples."""

from __future__ import annotations

import numpy as np

from calibration.accuracy.verdict import Answer, Selection, judge, smallest_n
from calibration.errors import InvalidConfigError
from engine_builder.stage_io.measuring import ConfidenceRequest, ConfidenceResult
from engine_builder.workspace.workspace import StageContext


def check_confidence(request: ConfidenceRequest, context: StageContext) -> ConfidenceResult:
    """Refuse a least score that the float model itself misses, and a confidence that not even an engine like it could reach.

    Args:
        request: The float model's scores, and what is asked for.
        context: Where the scores are.

    Raises:
        InvalidConfigError: It cannot be reached; says how many samples would do, or which score.
    """
    scores = context.workspace.read_scores(request.scores)
    confidence, metric, budget = request.confidence, request.metric, request.budget
    if budget.min_score is not None and float(scores.mean()) < budget.min_score:
        raise InvalidConfigError(
            f"accuracy.min_score: {budget.min_score:g} found, but the float model itself scores {scores.mean():.6g} ({metric}) on these "
            f"{len(scores)} validation samples",
            fix="Ask for less than that score, or check that samples and labels are prepared as for the model.",
        )
    if confidence is None:
        return ConfidenceResult(len(scores))
    rng = np.random.default_rng(request.seed)
    best = judge(metric, scores, scores, budget, confidence=confidence, selection=Selection.SHARED, rng=rng)
    if best.answer is Answer.MET:
        return ConfidenceResult(len(scores))
    looser = "" if budget.claim is None else "allow a larger drop, "  # an error has no bound: any budget of one wants as many samples
    ways = f"{looser}or leave accuracy.confidence out to accept a budget that is met on the samples"
    is_perfect = bool((scores == 1.0).all())
    needed = smallest_n(budget, confidence, metric=metric) if is_perfect else best.samples_needed
    if needed is None:
        raise InvalidConfigError(
            f"accuracy.confidence: no number of samples can show with confidence {confidence:g} that nothing at all is lost",
            fix=f"{ways[0].upper()}{ways[1:]}.",
        )
    raise InvalidConfigError(
        f"accuracy.confidence: {confidence:g} cannot be reached with {len(scores)} validation samples: "
        f"even an engine that changes no score needs {needed}",
        fix=f"Upload at least {needed} validation samples, {ways}.",
    )
