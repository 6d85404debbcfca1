"""The stage ``confidence``: refuses early what no engine could show on the user's samples."""

from __future__ import annotations

import numpy as np

from calibration.accuracy.verdict import Answer, Selection, judge, smallest_n
from calibration.errors import InvalidConfigError
from engine_builder.stage_io.measuring import ConfidenceRequest, ConfidenceResult
from engine_builder.workspace.workspace import StageContext


def check_confidence(request: ConfidenceRequest, context: StageContext) -> ConfidenceResult:
    """Refuse a confidence that not even an engine without a single changed score could reach on these samples.

    Args:
        request: The float model's scores, and what is asked for.
        context: Where the scores are.

    Raises:
        InvalidConfigError: It cannot be reached; says how many samples would do.
    """
    scores = context.workspace.read_scores(request.scores)
    confidence, metric, budget = request.confidence, request.metric, request.budget
    rng = np.random.default_rng(request.seed)
    best = judge(metric, scores, scores, budget, confidence=confidence, selection=Selection.SHARED, rng=rng)
    if best.answer is Answer.MET:
        return ConfidenceResult(len(scores))
    ways = "allow a larger drop, or leave accuracy.confidence out to accept a budget that is met on the samples"
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
