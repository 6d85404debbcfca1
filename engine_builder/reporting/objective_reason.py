"""The one sentence that says why an engine was chosen or the baseline kept, where an engine was to be fast enough."""

from __future__ import annotations

from collections.abc import Sequence

from engine_builder.records.trial import Trial
from engine_builder.reporting.body.job_result import ReportedObjective, ReportedOffer
from engine_builder.reporting.offers.words import speedup_in_words
from engine_builder.search.search_space import BASELINE
from engine_builder.stage_io.engines import VerdictResult


def objective_reason(
    objective: ReportedObjective,
    trials: Sequence[Trial],
    judged: VerdictResult,
    engines: Sequence[ReportedOffer],
    *,
    is_predicted: bool,
) -> str:
    """Return why this engine was chosen or the baseline kept.

    Args:
        objective: What was asked.
        trials: All trials.
        judged: What was decided.
        engines: That are offered, the fastest first.
        is_predicted: Whether latencies are.
    """
    count = sum(1 for trial in trials if trial.low_layers and trial.failure is None)
    tried = f"{count} low-precision engine{'' if count == 1 else 's'} tried"
    if judged.chosen is not None:
        return f"The most accurate engine that {objective.in_words}, of {tried}."
    if objective.is_reached:
        return f"The baseline itself is fast enough, {judged.latency_ms[BASELINE].median:.3g} ms a call: nothing is more accurate."
    if not engines:
        return f"No engine {objective.in_words}: of {tried}, none is faster than the baseline."
    fastest = engines[0]
    speedup = speedup_in_words(fastest.speedup, is_predicted=is_predicted)
    had = f"the fastest of {tried} is {speedup}, inside {fastest.in_words}, and is offered"
    return f"No engine {objective.in_words}: {had}."
