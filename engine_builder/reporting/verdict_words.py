"""A verdict in words."""

from __future__ import annotations

from calibration.accuracy.measures.values import IDENTICAL_PSNR
from calibration.accuracy.metrics import Metric
from calibration.accuracy.resolution import inside_in_words
from calibration.accuracy.verdict import Answer, IntervalMethod, Selection
from engine_builder.reporting.amounts import rounded_count
from engine_builder.reporting.body.job_result import ReportedVerdict

_SMALL = 1e-5
ANSWERS = {Answer.MET: "met", Answer.MET_ON_SAMPLE: "likely met", Answer.NOT_MET: "not met"}  # in a word or two
_ANSWERS = {
    Answer.MET: "The accuracy budget is met",
    Answer.MET_ON_SAMPLE: "The accuracy budget is likely met, although these samples are too few to be certain",
    Answer.NOT_MET: "The accuracy budget is not met",
}
_SELECTIONS = {
    Selection.HELD_OUT: "The search did not see these samples.",
    Selection.SHARED: "The search saw the same samples: there are too few to keep some apart.",
}


def verdict_in_words(verdict: ReportedVerdict) -> str:
    """Return what the verdict says and how certain it is, for a person."""
    if verdict.method is IntervalMethod.SAME_ENGINE:
        return "The accuracy budget is met: the engine is the model that was uploaded, so that nothing is lost."
    low, high = verdict.interval
    verb = worsening(verdict.metric)
    change = f"{verdict.metric} {verb}s by {amount(verdict.drop)} (allowed {amount(verdict.budget)})"
    if verdict.drop < 0.0:  # the engine is better
        moves = {"drop": "rise", "rise": "drop"}[verb]
        change = f"{verdict.metric} {moves}s by {amount(-verdict.drop)} (a {verb} of {amount(verdict.budget)} is allowed)"
    between = f"interval of the {verb}: {signed(low)} to {signed(high)}"
    if verdict.metric.spec.unit:  # decibels against the float model itself, of which a drop says nothing to anybody
        change = f"{verdict.metric} is {decibels(verdict.drop)} dB (at least {decibels(verdict.budget)})"
        between = f"interval: {decibels(high)} to {decibels(low)} dB"
    lines = [
        f"{_ANSWERS[verdict.answer]}: {change} on {verdict.n:,} samples, {verdict.flips:,} of which changed; {between}, each end with "
        f"{_percent(verdict.confidence)} confidence (both at once: at least {_percent(max(2 * verdict.confidence - 1, 0.0))}).",
        f"The engine is {inside_in_words(verdict.probability_over_budget)}.",
    ]
    if verdict.answer is Answer.NOT_MET and verdict.drop <= verdict.budget:
        lines.append("The samples lost no more than is allowed, but so few of them often do where all data lose more.")
    if verdict.answer is Answer.MET_ON_SAMPLE and verdict.drop > verdict.budget:
        lines.append("The samples lost more than is allowed; how clearly each decision is made says that all data more likely lose less.")
    if verdict.answer is not Answer.MET and verdict.samples_needed is not None:
        lines.append(f"About {rounded_count(verdict.samples_needed)} samples with the same rates would settle it.")
    return " ".join([*lines, _SELECTIONS[verdict.selection]])


def worsening(metric: Metric) -> str:
    """Return what a metric does where an engine is worse: of an error, less is better."""
    return metric.spec.worsening


def decibels(drop: float) -> str:
    """Return the PSNR or SI-SNR of an engine from its drop, as a number of decibels."""
    return f"{IDENTICAL_PSNR - drop:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def amount(value: float) -> str:
    """Return how much of a score may be lost or is: as ``signed``, without a plus."""
    return signed(value).removeprefix("+")


def signed(value: float) -> str:
    """Return a difference of scores with its sign; those of errors may be far below any share of samples."""
    return f"{value:+.5f}" if value == 0 or abs(value) >= _SMALL else f"{value:+.2e}"
