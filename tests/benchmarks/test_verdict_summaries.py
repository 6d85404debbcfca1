from __future__ import annotations

import pytest

from benchmarks.verdict_jobs import RULES, Choice, Job
from benchmarks.verdict_summaries import calibrations, closed_form, errors, outcomes, scores, summarized, worst_claims
from benchmarks.verdicts_page import page

FLOAT = Choice(1.0, False, 0.0)


def job(choice: Choice, said: tuple[tuple[float, float, bool], ...] = ((0.5, 0.5, True),), n: int = 64) -> Job:
    return Job("p", "examples", n, 0.01, dict.fromkeys(RULES, choice), 0.6, ((0.0, 0.01, 0.02), (0.04, 0.03, 0.02)), said)


def test_outcomes_are_shares_of_jobs_and_of_engines() -> None:
    done = [job(FLOAT), job(FLOAT), job(Choice(0.5, True, 0.1)), job(Choice(0.6, False, 0.1))]
    row = next(one for one in outcomes(done) if one.n is None and one.budget is None and one.rule == "margins")
    assert (row.jobs, row.inside, row.shipped, row.shipped_inside) == (4, 0.75, 0.5, 0.5)
    assert row.latency == pytest.approx(0.775)
    assert row.honest_latency == 0.6  # of the one job where the count was right


def test_jobs_that_ship_nothing_have_no_share_of_engines() -> None:
    row = outcomes([job(FLOAT)])[0]
    assert (row.shipped, row.shipped_inside, row.honest_latency) == (0.0, None, None)


def test_errors_are_those_of_the_drop() -> None:
    (row,) = errors([job(FLOAT), job(FLOAT)])
    assert row.n == 64
    assert [row.count, row.margins, row.bias] == pytest.approx([0.02, 0.01, 0.0], abs=1e-15)


def test_stated_probabilities_are_held_against_what_was_true() -> None:
    done = [job(FLOAT, ((0.1, 0.9, True), (0.1, 0.9, True), (0.1, 0.9, False), (0.7, 0.9, False)))]
    rows = calibrations(done)
    assert [(row.by, row.engines) for row in rows] == [("counts", 3), ("counts", 1), ("margins", 4)]
    assert [row.stated for row in rows] == pytest.approx([0.1, 0.7, 0.9])
    assert [row.over for row in rows] == pytest.approx([2 / 3, 0.0, 0.5])
    assert {row.by: row.brier for row in scores(done)} == {"counts": pytest.approx(0.53), "margins": pytest.approx(0.41)}


def test_the_kinds_of_jobs_with_most_wrong_claims_come_first() -> None:
    wrong = Choice(0.5, True, 0.0)
    done = [job(wrong, n=24), job(FLOAT, n=24), job(wrong, n=48), job(FLOAT, n=64)]
    found = [row for row in worst_claims(done, 2) if row.rule == "count, 95%"]
    assert [(row.n, row.wrong) for row in found] == [(48, 1.0), (24, 0.5)]
    assert found[0].low == pytest.approx(0.01)  # 0.01^(1/1): one of one


def test_no_claim_by_margins_is_wrong_too_often_in_closed_form() -> None:
    rows = closed_form((24, 64, 300, 1000), (0.001, 0.01, 0.05))
    assert max(row.wrong for row in rows if row.rule.startswith("margins")) <= 0.05
    assert max(row.wrong for row in rows if row.rule.startswith("count")) > 0.2  # eight engines, each tested by itself
    alone = next(row for row in rows if (row.rule, row.engines, row.n) == ("count, 95%", 1, 64))
    assert alone.wrong == pytest.approx(0.95**64)  # no flip at 5%: with fewer than 59 samples nothing is claimed


def test_the_page_has_a_section_for_each_group_and_every_rule() -> None:
    found = summarized([job(FLOAT), job(Choice(0.6, False, 0.1))], (64,), (0.01,))
    where = {"processor": "P", "integer_instructions": ["avx2"], "processors_used": 2, "load_average": 0.1, "system": "S"}
    text = page(found, {**where, "python": "3", "onnx": "1", "onnxruntime": "1", "numpy": "2"})
    assert "## Examples" in text
    assert "| 64 | 1.000; 1.000; 0.800 |" in text
    assert all(f"| {rule} |" in text for rule in RULES)
