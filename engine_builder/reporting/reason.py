"""The one sentence that says why an engine was chosen or the baseline kept."""

from __future__ import annotations

from collections.abc import Sequence

from calibration.accuracy.resolution import inside_in_words
from calibration.accuracy.verdict import AccuracyVerdict, Answer
from calibration.sensitivity.records import Sensitivity
from engine_builder.records.trial import FOLDED, Trial
from engine_builder.search.search import NOTHING_LEFT
from engine_builder.search.search_space import is_one_format
from engine_builder.search.shipping_rule import LEAST_GAIN, is_accurate_enough
from engine_builder.stage_io.engines import VerdictResult
from engine_builder.timing import MIN_GAIN

NONE_RAN = "No quantized engine could be built or run"
NO_LAYER = "no layer can take a lower precision"
NONE_FASTER = "no layer that can take a lower precision is predicted to be faster in it"
LIKELY = 0.9  # probability of being inside the budget from which an engine is called likely inside
IN_THE_WAY = 5  # most sensitive layers named where the budget kept the baseline
HELD_UP = 3.0  # times the median: a 95th percentile beyond it is that of a machine with other work


def reason(
    trials: Sequence[Trial],
    finalists: Sequence[Trial],
    judgement: VerdictResult,
    sensitivities: Sequence[Sensitivity],
    *,
    can_quantize: bool,
    confidence: float | None,
    ended: str,
    slower: bool = False,
) -> str:
    """Return in one sentence why this engine was chosen or the baseline kept.

    Args:
        trials: All trials.
        finalists: Those that the verdict was asked about.
        judgement: What it decided.
        sensitivities: The loss of each layer precision; none where the search did not need them.
        can_quantize: Whether any layer can take a lower precision.
        confidence: That the user asked of the verdict, 0-1; None where none was.
        ended: Why the search ended, in words.
        slower: Whether layers were left out that could take a lower precision, since they are predicted to be slower in it.
    """
    tried = [trial for trial in trials if trial.low_layers and trial.failure is None]
    chosen = next((trial for trial in finalists if trial.fingerprint == judgement.chosen), None)
    if chosen is not None:
        return _why_chosen(chosen, len(tried), judgement, slower=slower)
    if not tried:
        return _why_none_tried(trials, ended, can_quantize=can_quantize, slower=slower)
    if not any(trial.met for trial in tried):
        return _why_none_met(tried, sensitivities)
    if finalists and not judgement.judged:
        return "Engines kept the accuracy budget and were faster in the search, but failed as they were built and timed for the verdict."
    return _why_none_faster(trials, tried, judgement, confidence)


def why_not_analysed(ended: str, failures: Sequence[str] = ()) -> str:
    """Return in one sentence why no sensitivities were measured.

    Args:
        ended: Why the search ended, in words.
        failures: What could not be measured, a sentence each.
    """
    if failures:
        return f"Sensitivities and dependencies could not be measured: {failures[-1]}."
    if ended == NOTHING_LEFT:
        return (
            "Sensitivities and dependencies were not measured: the accuracy budget stood in no faster engine's way, so they decide nothing."
        )
    return f"Sensitivities and dependencies were not measured: {ended} before they were needed."


def why_not_corrected(ended: str) -> str:
    """Return in one sentence why no corrections but those of biases were measured.

    Args:
        ended: Why the search ended, in words.
    """
    missing = "No corrections but those of biases were measured"
    if ended == NOTHING_LEFT:
        return f"{missing}: the fastest engine keeps the accuracy budget without them, so they decide nothing."
    return f"{missing}: {ended} before they were needed."


def why_none_ran(trials: Sequence[Trial]) -> str | None:
    """Return why no quantized engine could be built or run; None where one could, or none was tried.

    That is no answer about accuracy or speed: a fault of the runtime or of this program, or a model that the runtime cannot take quantized.

    Args:
        trials: All trials.
    """
    failures = [trial.failure for trial in trials if trial.low_layers]
    reasons = list(dict.fromkeys(failure for failure in failures if failure))
    if not failures or None in failures or not reasons:
        return None
    if len(failures) == 1:
        return reasons[0]
    which = "each with the same reason" if len(reasons) == 1 else f"for {len(reasons)} reasons, the first of which is"
    return f"all {len(failures)} that were tried failed, {which}: {reasons[0]}"


def _why_chosen(chosen: Trial, tried: int, judgement: VerdictResult, *, slower: bool) -> str:
    if chosen.order == FOLDED:
        beaten = f"the best of {tried + 1} engines tried" if tried else "the only engine tried"
        certain = inside_in_words(judgement.verdict.probability_over_budget)
        return f"The float model with its constants folded into the layers, {beaten}: no layer is quantized. It is {certain}."
    same = ": it changes no output of any sample" if chosen.are_outputs_equal else ""
    return f"{_which(chosen, tried, judgement, slower=slower)} It is {inside_in_words(judgement.verdict.probability_over_budget)}{same}."


def _which(chosen: Trial, tried: int, judgement: VerdictResult, *, slower: bool) -> str:
    precisions = set(chosen.precisions.values())
    those = "can be quantized and is not predicted to be slower" if slower else "can be quantized"
    whole = f" Every layer that {those} is quantized." if is_one_format(chosen.order) else ""
    if whole and all(precision.rounds_in_kernel for precision in precisions):
        whole = f" Every layer that can be in {' or '.join(sorted(precisions))} is, and all others are floats."
    if tried == 1:
        return f"The only low-precision engine tried: it {_keeps(judgement.verdict)} the accuracy budget.{whole}"
    best = min(judgement.spread, key=lambda name: judgement.spread[name].ratio)
    of = f"of {tried} low-precision engines tried.{whole}"
    if best == chosen.fingerprint:
        return f"The fastest engine that {_keeps(judgement.verdict)} the accuracy budget, {of}"
    among = f"those that {_keep(judgement.verdict)} the accuracy budget and that the timing cannot tell from the fastest"
    return f"The safest engine among {among}, {of}"


def _keeps(verdict: AccuracyVerdict) -> str:
    """Return what may be said of an engine with this verdict: no more than the verdict does."""
    if verdict.answer is Answer.MET:
        return "keeps"
    return "likely keeps" if verdict.probability_over_budget <= 1.0 - LIKELY else "more likely keeps than misses"


def _keep(verdict: AccuracyVerdict) -> str:
    return _keeps(verdict).replace("keeps", "keep").replace("misses", "miss")


def _why_none_tried(trials: Sequence[Trial], ended: str, *, can_quantize: bool, slower: bool) -> str:
    if not can_quantize:
        return f"No low-precision engine was tried: {NONE_FASTER if slower else NO_LAYER}."
    failure = why_none_ran(trials) or next((trial.failure for trial in trials if trial.failure), None)
    return f"{NONE_RAN}: {failure}" if failure is not None else f"No low-precision engine was tried: {ended}."


def _why_none_met(tried: Sequence[Trial], sensitivities: Sequence[Sensitivity]) -> str:
    worst = sorted(sensitivities, key=lambda row: -row.loss)[:IN_THE_WAY]
    named = ", ".join(f"{row.layer} ({row.precision})" for row in worst)
    in_the_way = f" The most sensitive layers stood in the way: {named}." if named else ""
    missed = f"None of {len(tried)} low-precision engines" if len(tried) > 1 else "The only low-precision engine tried"
    untold = [trial.on_all for trial in tried if trial.on_all is not None and trial.on_all.excess >= 0.0]
    if untold:
        few = f"{len(untold)} lost no more than is allowed on the {untold[0].samples:,} samples, which are too few to tell"
        verb = "is" if len(tried) > 1 else "is not"
        return f"{missed} {verb} more likely inside the accuracy budget than not: {few}."
    verb = "kept" if len(tried) > 1 else "missed"
    return f"{missed} {verb} the accuracy budget.{in_the_way}"


def _why_none_faster(trials: Sequence[Trial], tried: Sequence[Trial], judgement: VerdictResult, confidence: float | None) -> str:
    fastest = min((trial.latency.ratio for trial in tried if trial.met and trial.latency is not None), default=None)
    is_predicted = judgement.least_gain > MIN_GAIN
    if fastest is not None and not judgement.judged:
        took = "is predicted to take" if is_predicted else "took"
        best = f"the best {took} {fastest:.2f} of its time.{_busy(trials)}"
        return f"Engines kept the accuracy budget, but none was faster than the baseline: {best}"
    if judgement.judged and not any(is_accurate_enough(one.verdict, confidence) for one in judgement.judged):
        asked = "" if confidence is None else f" at the confidence asked for, {confidence:.0%}"
        return f"Engines kept the accuracy budget in the search, but none passed the verdict{asked}."
    spread = f"by at least {LEAST_GAIN:.0%} beyond the spread of the timing, which is what makes another model worth it"
    if fastest is not None and is_predicted:
        spread = f"by more than the error of a prediction, {judgement.least_gain:.0%}: the best is predicted at {fastest:.2f} of its time"
    return f"Engines kept the accuracy budget, but none was faster than the baseline {spread}.{_busy(trials)}"


def _busy(trials: Sequence[Trial]) -> str:
    """Return what to say where the baseline was held up often while it was timed: a small gain is then easily missed."""
    timed = next((trial.latency for trial in trials if trial.latency is not None and trial.latency.runs), None)
    if timed is None or timed.p95_ms < HELD_UP * timed.median_ms:
        return ""
    times = timed.p95_ms / timed.median_ms
    return (
        f" The machine was busy meanwhile: the slowest 5% of the baseline's calls took {times:.0f} times the median or more. "
        "An idle machine may find a faster engine."
    )
