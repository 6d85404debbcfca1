from __future__ import annotations

from dataclasses import replace

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import BudgetKey
from calibration.codec import value_from_json
from engine_builder.reporting.body.job_result import OfferedFile, ReportedOffers, reported_verdict
from engine_builder.reporting.offers.reported import reported_offers
from engine_builder.stage_io.engines import VerdictResult
from engine_builder.stage_io.offers import BudgetOffer, NotKept, OfferedEngine, OffersResult
from engine_builder.timing import RelativeLatency
from engine_builder.workspace.workspace import FileRef
from tests.engine_builder.report_body import FULL_VERDICT, VERDICT
from tests.engine_builder.report_desk import KEPT

SHIPPED = FileRef("engine.onnx", "c" * 64)
KEPT_BASELINE = value_from_json(VerdictResult, KEPT)


def engine(name: str, ratio: float, keeps: float, *, file: bool = True, not_kept: NotKept | None = None) -> OfferedEngine:
    return OfferedEngine(
        fingerprint=name,
        latency=RelativeLatency(ratio, 0.01),
        accuracy=0.89,
        keeps=Budget(min_relative=keeps),
        verdict=FULL_VERDICT,
        size_bytes=1000,
        precisions={"int8": 4},
        assignment=FileRef(f"front/{name}/assignment.json", "a" * 64),
        engine=FileRef(f"front/{name}/engine.onnx", "b" * 64) if file else None,
        not_kept=not_kept,
    )


def given(*fingerprints: str | None) -> tuple[BudgetOffer, ...]:
    values = (0.99, 0.999, 0.9999)
    return tuple(
        BudgetOffer(Budget(min_relative=value), name, None if name is None else FULL_VERDICT)
        for value, name in zip(values, fingerprints, strict=True)
    )


def reported(found: OffersResult, judged: VerdictResult, asked: float | None, *, is_predicted: bool = False) -> ReportedOffers:
    budget = None if asked is None else Budget(min_relative=asked)
    return reported_offers(found, judged, budget, "engine.onnx", SHIPPED, is_predicted=is_predicted)


FOUND = OffersResult((engine("fast", 0.5, 0.991), engine("safe", 0.8, 0.9995)), given("fast", "safe", None))


def rows(offers: ReportedOffers) -> list[tuple[str, str | None, bool]]:
    return [(row.in_words, row.fingerprint, row.is_asked) for row in offers.budgets]


def test_what_the_jobs_own_budget_gives_is_what_ships() -> None:
    judged = replace(KEPT_BASELINE, chosen="safe", verdict=FULL_VERDICT, engine=SHIPPED)
    found = replace(FOUND, engines=(FOUND.engines[0], engine("safe", 0.8, 0.9995, file=False)))
    offers = reported(found, judged, 0.9995)
    assert rows(offers) == [("99%", "fast", False), ("99.9%", "safe", False), ("99.95%", "safe", True), ("99.99%", None, False)]
    assert offers.budgets[2].verdict == VERDICT
    assert [one.file for one in offers.engines] == [OfferedFile("front/fast/engine.onnx", "b" * 64), OfferedFile("engine.onnx", "c" * 64)]


def test_where_the_baseline_is_kept_no_tighter_budget_gives_anything() -> None:
    assert rows(reported(FOUND, KEPT_BASELINE, 0.995)) == [
        ("99%", "fast", False),
        ("99.5%", None, True),
        ("99.9%", None, False),
        ("99.99%", None, False),
    ]


def test_a_usual_budget_that_was_asked_for_stands_once() -> None:
    assert rows(reported(FOUND, KEPT_BASELINE, 0.999)) == [("99%", "fast", False), ("99.9%", None, True), ("99.99%", None, False)]


def test_without_a_budget_of_its_own_a_job_marks_none() -> None:
    assert rows(reported(FOUND, KEPT_BASELINE, None)) == [("99%", "fast", False), ("99.9%", "safe", False), ("99.99%", None, False)]


def test_an_engine_has_its_figures() -> None:
    one = reported(FOUND, KEPT_BASELINE, 0.9999).engines[0]
    assert (one.speedup, one.ratio, one.mad, one.accuracy, one.size_bytes) == (2.0, 0.5, 0.01, 0.89, 1000)
    assert (one.keeps, one.in_words, one.verdict) == ({BudgetKey.MIN_RELATIVE: 0.991}, "99.1%", reported_verdict(FULL_VERDICT))
    assert (one.assignment, one.no_file) == ("front/fast/assignment.json", None)


def test_a_predicted_latency_has_no_spread() -> None:
    offers = reported(FOUND, KEPT_BASELINE, 0.9999, is_predicted=True)
    assert [one.mad for one in offers.engines] == [None, None]
    assert "2.00x predicted" in offers.in_words


def test_an_engine_without_a_file_says_what_to_do() -> None:
    found = replace(FOUND, engines=tuple(engine(why.value, 0.5, 0.99, file=False, not_kept=why) for why in NotKept), budgets=())
    offers = reported(found, KEPT_BASELINE, 0.9999)
    assert all(one.file is None and (one.no_file or "").endswith("ask for its budget") for one in offers.engines)
