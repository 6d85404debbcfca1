"""Why no faster engine was chosen, and what a reader can do next, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import MOST_LIKELY_OVER, Answer, IntervalMethod, Selection
from engine_builder.backends.base import Source
from engine_builder.reporting.amounts import percent_in_words, rounded_count
from engine_builder.reporting.body.job_result import Outcome
from engine_builder.reporting.body.layer_facts import ReportedLayer
from engine_builder.reporting.body.report_body import ReportBody
from engine_builder.reporting.body.search_facts import trials_in_words
from engine_builder.reporting.decision.compared_engines import chosen_of, compared_engines, faster_engines
from engine_builder.reporting.offers.words import speedup_in_words
from engine_builder.reporting.tables import BASELINES, drop_in_words, score
from engine_builder.search.search_space import BASELINE

MOST_LAYERS = 4  # that a sentence names
LEAST_SHARE = 0.01  # of the time of all kernels: a layer that would save less is not named


@dataclass(frozen=True, slots=True)
class SlowLayer:
    """A layer that stays float, and what it would save in its fastest low precision."""

    layer: ReportedLayer
    saved: float  # share of the time of all kernels of the baseline engine, above 0


def why_not_faster(body: ReportBody) -> list[str]:
    """Return why no faster engine was chosen, a sentence or two each."""
    engines, metric = compared_engines(body), body.result.verdict.metric
    chosen = chosen_of(engines, body.chosen)
    if not engines:
        return []
    if chosen is None:
        faster, than = [one for one in engines if one.ratio < 1.0], "the baseline"
    else:
        faster, than = faster_engines(engines, chosen), "what was chosen"
    are = "are" if len(faster) > 1 else "is"
    told = [f"Of {len(engines)} engines that were tried, {len(faster) or 'none'} {are} faster than {than}."]
    over = [one for one in faster if one.over >= MOST_LIKELY_OVER]
    if over:
        nearest = min(over, key=lambda one: (one.over, one.ratio))
        many = "That one is" if len(faster) == 1 else "All of them are" if len(over) == len(faster) else f"{len(over)} of them are"
        told[0] += (
            f" {many} more likely over the accuracy budget than inside. The nearest is trial {nearest.trial.index}: "
            f"{1.0 / nearest.ratio:.2f}x, {metric} {score(nearest.score, metric)}."
        )
    slow = slow_layers(body)
    if slow and chosen is not None:
        total = sum(one.saved for one in slow)
        told.append(f"Layers that stay float would save up to {percent_in_words(total)} of all kernel time if their accuracy allowed it.")
    told.append(f"The search ended after {trials_in_words(body.search)}: {body.search.ended}.")
    return told


def slow_layers(body: ReportBody) -> list[SlowLayer]:
    """Return the layers that stay float and would save most time, by the kernels in the engines with every layer quantized."""
    if not body.forecasts:
        return []
    kernels = body.forecasts[0].kernels_ms
    total = sum(times[BASELINE] for times in kernels.values())
    found = []
    for layer in body.layers:
        times = kernels.get(layer.name, {})
        low = [spent for name, spent in times.items() if name != BASELINE]
        if layer.precision in BASELINES and low and total > 0.0:
            saved = (times[BASELINE] - min(low)) / total
            if saved > LEAST_SHARE:
                found.append(SlowLayer(layer, saved))
    return sorted(found, key=lambda one: -one.saved)


def next_steps(body: ReportBody) -> list[str]:
    """Return what a reader can do next, a sentence or two each."""
    return [*_certainty(body), *_layers(body), *_budgets(body)]


def _certainty(body: ReportBody) -> Iterator[str]:
    verdict = body.result.verdict
    if verdict.method is IntervalMethod.SAME_ENGINE or verdict.answer is Answer.MET:
        return
    if verdict.samples_needed is not None and verdict.samples_needed > verdict.n:
        needed = rounded_count(verdict.samples_needed)
        yield (
            f"To be certain ({100 * verdict.confidence:.4g}% confidence): about {needed} validation samples in the place of {verdict.n:,}, "
            "if as many of them change as of these."
        )
    else:
        yield (
            "To be certain: more samples alone may not do, since what these lost is too near to the budget. Take the safer engine, or a "
            "looser budget."
        )
    if verdict.selection is Selection.SHARED:
        yield "The search saw the same samples. Ones that it did not see say more: give the job a larger validation set."


def _layers(body: ReportBody) -> Iterator[str]:
    slow = slow_layers(body)[:MOST_LAYERS]
    if not slow or body.result.outcome is Outcome.BASELINE_KEPT:
        return
    named = ", ".join(
        f"{one.layer.name} ({percent_in_words(one.saved)} of the time{_alone(one.layer, body.result.verdict.metric)})" for one in slow
    )
    how = "predicted" if body.kernel_times is Source.PREDICTED else "profiled"
    yield (
        f"To be faster, look at the layers that stay float and take most: {named}, {how}. More calibration samples, or training with "
        "these layers quantized, may let them in."
    )


def _alone(layer: ReportedLayer, metric: Metric) -> str:
    if layer.drop is not None:
        return f", about {drop_in_words(metric, layer.drop)} of {metric} alone"
    return "" if layer.loss is None else f", loss {layer.loss:.2g} alone"


def _budgets(body: ReportBody) -> Iterator[str]:
    result, is_predicted = body.result, body.result.latency_source is Source.PREDICTED
    others = [one for one in result.offers.engines if one.fingerprint != body.chosen]
    if not others:
        return
    parts = []
    for one in others:
        speed = speedup_in_words(one.speedup, is_predicted=is_predicted)
        ((key, value),) = one.keeps.items()
        where = f", in {one.file.name}" if one.file is not None else ""
        parts.append(f"{speed} at {one.in_words} ({key}: {value:.6g}{where})")
    yield f"Other budgets, from engines that were measured: {'; '.join(parts)}."
