"""Gets what other budgets would give: the engines on the measured front, judged at each of them.

Part of the pipeline and like it deterministic: it asks for stages and handles their requests and results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from calibration.accuracy.offers.offered_budgets import budget_key, usual_budgets
from calibration.accuracy.verdict import Selection
from engine_builder.errors import EngineError
from engine_builder.pipeline.stage import RunStage, run
from engine_builder.pipeline.stage_table import OFFERS
from engine_builder.records.trial import Accuracy, Trial
from engine_builder.search.measured_front import beaten, offered, relative_to_baseline
from engine_builder.stage_io.engines import EngineJob, VerdictResult
from engine_builder.stage_io.offers import OffersRequest, OffersResult
from engine_builder.timing import RelativeLatency

# For building the engines that are offered: a share of the seconds that the job took so far, and what short jobs may take in any case.
SHARE_OF_JOB, LEAST_SECONDS = 0.06, 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a job measured."""

    trials: tuple[Trial, ...]
    finalists: tuple[Trial, ...]  # as they ship
    seconds: float  # of all stages so far
    least_gain: float  # relative: a smaller one is within the error of the target's latencies
    selection: Selection
    tried: int  # engines with quantized layers that the search scored
    judged: VerdictResult | None = None  # None before the verdict
    may_ship: tuple[str, ...] = ()  # fingerprints of the engines of which the verdict may keep one


def offers(
    measured: Measured, job: EngineJob, driver: RunStage, *, span: tuple[float, float] | None = None
) -> tuple[OffersResult, tuple[str, ...]]:
    """Return the result of the stage ``offers``, and a note if it failed: that costs the offers, not the job.

    Args:
        measured: What the job measured.
        job: The job, with the baseline that ships.
        driver: Runs a stage.
        span: The part of the job's progress; the stage's own by default.
    """
    judged = measured.judged
    shipped = None if judged is None else judged.chosen
    always = (*measured.may_ship, *(() if shipped is None else (shipped,)))
    spread: Mapping[str, RelativeLatency] = {} if judged is None else judged.spread
    as_shipped = {trial.fingerprint: trial for trial in measured.finalists}
    worse = {} if judged is None else judged.reordered  # by which the verdict went
    lost = beaten(measured.trials)  # their files are gone
    found = [as_shipped.get(trial.fingerprint, trial) for trial in measured.trials if trial.fingerprint not in lost]
    trials = [replace(trial, scores=worse.get(trial.fingerprint, trial.scores)) for trial in found]
    seen = seen_accuracy(measured.selection)
    baseline = next((accuracy.baseline for trial in trials if (accuracy := seen(trial)) is not None), 0.0)
    budgets = usual_budgets(budget_key(job.config.accuracy.budget), baseline)
    engines = offered(trials, seen, spread, budgets, least_gain=measured.least_gain, always=always)
    if not engines:
        return OffersResult(), ()
    latency = {trial.fingerprint: relative for trial in engines if (relative := relative_to_baseline(trial, spread)) is not None}
    request = OffersRequest(
        job, engines, latency, measured.selection, measured.tried, shipped, always, max(measured.seconds * SHARE_OF_JOB, LEAST_SECONDS)
    )
    try:
        return run(driver, OFFERS, request, span=span), ()
    except EngineError as error:
        return OffersResult(), (f"what other budgets would give could not be found out: {error.detail}",)


def seen_accuracy(selection: Selection) -> Callable[[Trial], Accuracy | None]:
    """Return which accuracy of a trial the search looked at, whatever confidence was asked for."""
    return lambda trial: trial.on_search if selection is Selection.HELD_OUT else trial.on_all
