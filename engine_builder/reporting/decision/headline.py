"""The headline: what was chosen and how sure that is, never more than the verdict says; and what its neighbours would cost."""

from __future__ import annotations

from calibration.accuracy.resolution import inside_in_words
from calibration.accuracy.verdict import Answer
from engine_builder.reporting.amounts import as_fast_in_words, percent_in_words, times_in_words
from engine_builder.reporting.body.job_result import JobResult, Outcome
from engine_builder.reporting.body.report_body import ReportBody
from engine_builder.reporting.decision.compared_engines import (
    LEAST_RISK,
    ComparedEngine,
    chosen_of,
    compared_engines,
    faster_engines,
    safer_neighbour,
)
from engine_builder.reporting.reason import LIKELY
from engine_builder.reporting.tables import score
from engine_builder.reporting.timing_words import speedup_spread
from engine_builder.timing import RelativeLatency


def speedup_in_words(result: JobResult) -> str:
    """Return the one speed-up that the whole report tells, with its spread."""
    if result.predicted_speedup is not None:
        return times_in_words(result.predicted_speedup.value, None, is_predicted=True)
    return times_in_words(result.speedup or 1.0, result.speedup_spread, is_predicted=False)


def headline(result: JobResult) -> str:
    """Return what was chosen and how sure that is."""
    if result.outcome is Outcome.BASELINE_KEPT:
        return "The baseline is kept." if result.none_ran is None else "The baseline is kept: no quantized engine could be built or run."
    is_predicted, verdict = result.predicted_speedup is not None, result.verdict
    speedup = result.predicted_speedup.value if result.predicted_speedup is not None else result.speedup or 1.0
    engine = f"An engine {as_fast_in_words(speedup, result.speedup_spread, is_predicted=is_predicted)}"
    inside, over = (_probability(value) for value in (1.0 - verdict.probability_over_budget, verdict.probability_over_budget))
    if result.objective is not None:
        return f"{engine}: the most accurate that {result.objective.in_words}."
    if verdict.answer is Answer.MET:
        return f"{engine} keeps the accuracy budget, with {100 * verdict.confidence:.4g}% confidence."
    if verdict.answer is Answer.NOT_MET:
        return f"{engine} is more likely over the accuracy budget than inside: inside with probability {inside}."
    if 1.0 - verdict.probability_over_budget >= LIKELY:
        return f"{engine} likely keeps the accuracy budget: probability {inside}. {verdict.n:,} samples cannot make it certain."
    return f"{engine} more likely keeps the accuracy budget than not: inside with probability {inside}, over it with {over}."


def neighbours_in_words(body: ReportBody) -> list[tuple[str, str]]:
    """Return what the safer and the faster engine beside the chosen one would cost, each with its name; nothing of a kept baseline."""
    engines, result = compared_engines(body), body.result
    chosen = chosen_of(engines, body.chosen)
    if chosen is None or result.objective is not None:
        return []
    safer, faster = safer_neighbour(engines, chosen), faster_engines(engines, chosen)
    lines = []
    if safer is not None:
        more = safer.ratio / chosen.ratio - 1.0
        cost = f"{percent_in_words(more)} more time" if more > 0.0005 else "no more time"
        lines.append(("Safer", f"{_named(safer, body)} takes {cost} and {_how_sure(safer)}{_where(safer, result)}."))
    elif not chosen.is_met and chosen.over >= LEAST_RISK:
        lines.append(("Safer", "no other engine that was tried is much safer; the baseline loses nothing, at 1x."))
    if faster:
        nearest = faster[0]
        less = 1.0 - nearest.ratio / chosen.ratio
        accuracy = f"{result.verdict.metric} {score(nearest.score, result.verdict.metric)}, {_how_sure(nearest)}"
        lines.append(("Faster", f"{_named(nearest, body)} takes {percent_in_words(less)} less time; {accuracy}{_where(nearest, result)}."))
    else:
        lines.append(("Faster", "no engine that was tried is faster beyond the spread of the timing."))
    return lines


def engine_speedup(one: ComparedEngine, result: JobResult) -> str:
    """Return an engine's speed-up with its spread."""
    spread = speedup_spread(RelativeLatency(one.ratio, one.spread)) if one.spread else None
    return times_in_words(1.0 / one.ratio, spread, is_predicted=result.predicted_speedup is not None)


def _named(one: ComparedEngine, body: ReportBody) -> str:
    return f"trial {one.trial.index}, {engine_speedup(one, body.result)},"


def _how_sure(one: ComparedEngine) -> str:
    if one.verdict is not None and one.is_met:
        return f"keeps the budget with {100 * one.verdict.confidence:.4g}% confidence"
    return f"is {inside_in_words(one.over)}"


def _where(one: ComparedEngine, result: JobResult) -> str:
    """Return where the engine is to be had."""
    offer = next((offer for offer in result.offers.engines if offer.fingerprint == one.trial.fingerprint), None)
    if offer is None:
        return ""
    return f" ({offer.file.name})" if offer.file is not None else f" (inside {offer.in_words}: ask for that budget)"


def _probability(value: float) -> str:
    return "above 0.99" if value >= 0.99 else "below 0.01" if value < 0.01 else f"{value:.2f}"
