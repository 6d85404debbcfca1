"""What follows the search: the engine that is kept, and what other budgets would give.

By default the fastest of the engines inside the accuracy budget is kept. With an objective it is the most accurate of those that are fast
enough: the tightest budget that each of them keeps is found first (the stage ``offers``), then one after the other is judged at its own and
timed against the baseline, the most accurate first, until one is fast enough in that timing too. Where the user's own assignment is all
that is asked for, its engine is kept.

Part of the pipeline and like it deterministic: it asks for stages and handles their requests and results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import BudgetKey
from calibration.accuracy.verdict import Selection
from engine_builder.config.config import Config
from engine_builder.config.objective import Objective
from engine_builder.errors import EngineError
from engine_builder.pipeline.finalists import final_engines
from engine_builder.pipeline.judge_finalists import TIMED_FINALISTS, final_verdict
from engine_builder.pipeline.offer_front import Measured, offers, seen_accuracy
from engine_builder.pipeline.stage import RunStage, run
from engine_builder.pipeline.stage_table import OFFERS, VERDICT
from engine_builder.pipeline.stripping.strip_kept import Kept, strip_kept
from engine_builder.records.stripped_plan import StrippedPlan
from engine_builder.records.trial import Accuracy, Trial
from engine_builder.search.measured_front import fast_enough, finalists
from engine_builder.stage_io.engines import EngineJob, VerdictRequest, VerdictResult, is_reached
from engine_builder.stage_io.offers import OffersResult


@dataclass(frozen=True, slots=True)
class Searched:
    """What the search left."""

    trials: tuple[Trial, ...]
    seen: Callable[[Trial], Accuracy | None]  # what it looked at, as sure as the user asks
    selection: Selection
    least_gain: float  # relative: a smaller one is within the error of the target's latencies
    tried: int = 1  # engines with quantized layers that it scored


@dataclass(frozen=True, slots=True)
class Decision:
    """What is kept and what is offered."""

    job: EngineJob  # with the baseline that ships
    finalists: tuple[Trial, ...]  # as they ship
    judged: VerdictResult
    offers: OffersResult
    notes: tuple[str, ...]  # of what could not be built or judged
    judged_at: Budget | None = None  # where that is not the job's
    stripped: StrippedPlan | None = None  # what came of the plan without its weights; None where none was asked for


def decide(searched: Searched, job: EngineJob, driver: RunStage, seconds: Callable[[], float]) -> Decision:
    """Return what is kept, as it ships, and what is offered.

    Args:
        searched: What the search left.
        job: The job, with the baseline of the search.
        driver: Runs a stage.
        seconds: What the job's stages so far took, as recorded.

    Raises:
        EngineError: Not even the baseline can be judged.
    """
    found = _decided(searched, job, driver, seconds)
    own = found.job if found.judged_at is None else replace(found.job, config=_at_budget(found.job.config, found.judged_at))
    by_verdict, is_alone = Kept(found.finalists, found.judged), found.judged_at is not None
    kept = strip_kept(by_verdict, own, searched.selection, driver, tried=searched.tried, judged_alone=is_alone)
    return replace(found, finalists=kept.finalists, judged=kept.judged, stripped=kept.stripped)


def largest_ratio(trials: Sequence[Trial], objective: Objective | None) -> float | None:
    """Return the largest latency that is fast enough, to the baseline's, whose trial is the first; None without an objective."""
    if objective is None:
        return None
    baseline = trials[0].latency
    return 0.0 if baseline is None else objective.largest_ratio(baseline.median_ms)


def _decided(searched: Searched, job: EngineJob, driver: RunStage, seconds: Callable[[], float]) -> Decision:
    """Return the decision between whole plans; arguments as for ``decide``."""
    if job.config.assignment_only:
        return _as_given(searched, job, driver)
    if job.config.objective is not None:
        return _most_accurate(searched, job, job.config.objective, driver, seconds)
    final = final_engines(finalists(searched.trials, searched.seen), job, driver)
    judged, failures = final_verdict(final.finalists, final.job, searched.selection, driver, tried=searched.tried)
    measured = Measured(searched.trials, final.finalists, seconds(), searched.least_gain, searched.selection, searched.tried, judged)
    offered, failure = offers(measured, final.job, driver)
    return Decision(final.job, final.finalists, judged, offered, (*final.notes, *failures, *failure))


def _as_given(searched: Searched, job: EngineJob, driver: RunStage) -> Decision:
    """Return the engine of the user's own assignment, judged and timed and kept whatever came of it; nothing else is offered.

    Raises:
        EngineError: It cannot be built or run.
    """
    candidates = [trial for trial in searched.trials if trial.is_candidate]  # none, if it has no quantized layer and is the baseline
    built = [trial for trial in candidates if trial.failure is None]
    if candidates and not built:
        raise EngineError(f"the engine of the assignment: {candidates[0].failure}", fix="see the log, and change the assignment")
    tried = built[-1] if built else None  # with corrections, where the budget was missed without
    final = final_engines(() if tried is None else (tried,), job, driver)
    if tried is not None and not final.finalists:
        raise EngineError(f"the engine of the assignment: {'; '.join(final.notes)}", fix="see the log, or choose a lower builder level")
    request = VerdictRequest(final.job, final.finalists, searched.selection, most_timed=1, tried=searched.tried)
    judged = run(driver, VERDICT, request, span=VERDICT.progress)
    return Decision(final.job, final.finalists, judged, OffersResult(), final.notes)


def _most_accurate(searched: Searched, job: EngineJob, objective: Objective, driver: RunStage, seconds: Callable[[], float]) -> Decision:
    """Return the decision for an objective; the baseline is kept where nothing else is fast enough, or where it is so itself."""
    needed = largest_ratio(searched.trials, objective) or 0.0
    picked = fast_enough(searched.trials, seen_accuracy(searched.selection), needed)[:TIMED_FINALISTS] if needed < 1.0 else ()
    final = final_engines(picked, job, driver)
    names = tuple(trial.fingerprint for trial in final.finalists)
    timed = [trial for trial in searched.trials if trial.is_candidate and trial.latency is not None]
    nearest = min(timed, key=lambda trial: trial.latency.ratio if trial.latency is not None else 1.0, default=None)
    always = names or (() if nearest is None else (nearest.fingerprint,))  # where nothing is fast enough, the fastest is offered
    low, high = VERDICT.progress[0], OFFERS.progress[1]
    step = (high - low) / (len(names) + 2)
    measured = Measured(
        searched.trials, final.finalists, seconds(), searched.least_gain, searched.selection, searched.tried, may_ship=always
    )
    offered, failure = offers(measured, final.job, driver, span=(low, low + step))
    keeps = {one.fingerprint: one.keeps for one in offered.engines}
    notes = [*final.notes, *failure]
    for index, trial in enumerate(final.finalists, start=1):
        if trial.fingerprint not in keeps:
            continue
        own = replace(final.job, config=_at_budget(job.config, keeps[trial.fingerprint]))
        request = VerdictRequest(own, (trial,), searched.selection, most_timed=1, tried=searched.tried)
        try:
            judged = run(driver, VERDICT, request, key=f"verdict/{trial.fingerprint}", span=(low + step * index, low + step * (index + 1)))
        except EngineError as error:
            notes.append(f"judging engine {trial.fingerprint} failed, so the next one was taken: {error.detail}")
            continue
        if judged.chosen is not None and is_reached(objective, judged):
            return Decision(final.job, final.finalists, judged, offered, tuple(notes), keeps[trial.fingerprint])
    request = VerdictRequest(final.job, (), searched.selection, most_timed=1, tried=searched.tried)
    judged = run(driver, VERDICT, request, span=(high - step, high))
    return Decision(final.job, final.finalists, judged, offered, tuple(notes))


def _at_budget(config: Config, budget: Budget) -> Config:
    """Return the settings with this accuracy budget, stated as the job's own is."""
    stated = {key.value: getattr(budget, key) for key in BudgetKey}
    return replace(config, accuracy=replace(config.accuracy, **stated))
