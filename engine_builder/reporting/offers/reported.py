"""What other budgets would give, as the job's result has it."""

from __future__ import annotations

from dataclasses import replace

from calibration.accuracy.budget import Budget
from calibration.accuracy.offers.offered_budgets import budget_key, budget_value, is_looser
from engine_builder.reporting.body.job_result import (
    OfferedFile,
    ReportedBudget,
    ReportedOffer,
    ReportedOffers,
    reported_verdict,
)
from engine_builder.reporting.offers.words import budget_in_words, offers_in_words
from engine_builder.stage_io.engines import VerdictResult
from engine_builder.stage_io.offers import BudgetOffer, NotKept, OfferedEngine, OffersResult
from engine_builder.workspace.workspace import FileRef

_NO_FILE = {
    NotKept.NO_TIME: "it was not built once more, to keep the job short: ask for its budget",
    NotKept.FAILED: "building it once more failed: ask for its budget",
}


def reported_offers(
    found: OffersResult, judged: VerdictResult, asked: Budget | None, engine_name: str, engine: FileRef, *, is_predicted: bool
) -> ReportedOffers:
    """Return the offers for a reader.

    What the job's own budget gives is what the job ships, whatever the stage ``offers`` would say of it; where that is the baseline, no
    tighter budget gives anything either.

    Args:
        found: What the stage ``offers`` gave.
        judged: What the job ships.
        asked: The job's own budget; None where the question was another one.
        engine_name: Of the file that is shipped.
        engine: That file.
        is_predicted: Whether latencies are.
    """
    shipped = OfferedFile(engine_name, engine.sha256)
    timed = [replace(one, latency=judged.spread.get(one.fingerprint, one.latency)) for one in found.engines]  # the final timing, if any
    timed.sort(key=lambda one: one.latency.ratio)
    engines = tuple(_engine(one, shipped if one.fingerprint == judged.chosen else None, is_predicted=is_predicted) for one in timed)
    speedups = {one.fingerprint: one.speedup for one in engines}
    rows = [offer for offer in found.budgets if asked is None or offer.budget != asked]
    if asked is not None:
        if judged.chosen is None:
            rows = [offer if is_looser(offer.budget, asked) else BudgetOffer(offer.budget, None, None) for offer in rows]
        own = BudgetOffer(asked, judged.chosen, None if judged.chosen is None else judged.verdict)
        looser = [offer for offer in rows if is_looser(offer.budget, asked)]
        rows = [*looser, own, *rows[len(looser) :]]
    budgets = tuple(_budget(offer, speedups, is_asked=offer.budget == asked) for offer in rows if offer.fingerprint in {None, *speedups})
    return ReportedOffers(offers_in_words(budgets, engines, is_predicted=is_predicted), budgets, engines)


def _budget(offer: BudgetOffer, speedups: dict[str, float], *, is_asked: bool) -> ReportedBudget:
    return ReportedBudget(
        budget={budget_key(offer.budget): budget_value(offer.budget)},
        in_words=budget_in_words(offer.budget),
        is_asked=is_asked,
        fingerprint=offer.fingerprint,
        speedup=None if offer.fingerprint is None else speedups[offer.fingerprint],
        verdict=None if offer.verdict is None else reported_verdict(offer.verdict),
    )


def _engine(one: OfferedEngine, shipped: OfferedFile | None, *, is_predicted: bool) -> ReportedOffer:
    own = None if one.engine is None else OfferedFile(one.engine.file, one.engine.sha256)
    file = shipped or own
    return ReportedOffer(
        fingerprint=one.fingerprint,
        speedup=1.0 / one.latency.ratio,
        ratio=one.latency.ratio,
        mad=None if is_predicted else one.latency.mad,
        accuracy=one.accuracy,
        size_bytes=one.size_bytes,
        precisions=one.precisions,
        keeps={budget_key(one.keeps): budget_value(one.keeps)},
        in_words=budget_in_words(one.keeps),
        verdict=reported_verdict(one.verdict),
        assignment=one.assignment.file,
        file=file,
        no_file=None if file is not None or one.not_kept is None else _NO_FILE[one.not_kept],
    )
