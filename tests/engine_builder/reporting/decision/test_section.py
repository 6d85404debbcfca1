from __future__ import annotations

from dataclasses import replace

from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import Answer
from engine_builder.reporting.page import render
from tests.engine_builder.reporting.decision.decided_bodies import decided, tried, verdict
from tests.engine_builder.reporting.page_reader import Page

BODY = decided(
    [tried(1, 0.7, 0.42), tried(2, 0.71, 0.001)], {"f2": verdict(0.001, Answer.MET, score=0.9), "f1": verdict(0.42, score=0.8985)}, "f1"
)


def test_the_finalists_stand_in_a_table_with_their_verdicts_the_fastest_first() -> None:
    page = Page(render(BODY))
    chosen, safer = page.sections["Finalists"].rows
    assert chosen == {
        "engine": "trial 1 (chosen)",
        "speed-up": "1.43x ± 0.004",
        "top1": "0.8985",
        "drop, with its interval": "+0.00150 (-0.00200\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}+0.00400)",
        "inside the budget": "58.0%",
        "verdict": "likely met",
        "samples to be certain": "17,000",
    }
    assert (safer["engine"], safer["verdict"], safer["inside the budget"]) == ("trial 2", "met", "> 99%")
    assert page.source.count("<tr class=picked>") == 1


def test_one_engine_has_one_speed_up_all_over_the_page() -> None:
    page = Page(render(BODY))
    assert page.tiles[0].startswith("1.43x ± 0.003 ")
    assert "An engine 1.43x as fast (± 0.003)" in page.text
    (row,) = [row for row in page.sections["The numbers: Trials"].rows if row["trial"].startswith("1 ")]
    assert row["of baseline"].startswith("0.700 ")


def test_finalists_of_decibels_are_told_in_them() -> None:
    found = replace(verdict(0.2, score=54.628), metric=Metric.PSNR, drop=95.372, interval=(95.0, 95.6), budget=110.0)
    (row,) = Page(render(decided([tried(1, 0.7, 0.2)], {"f1": found}, "f1"))).sections["Finalists"].rows
    assert row["psnr"] == "54.63 dB"
    assert " ".join(row["psnr, with its interval"].split()) == "54.63 (54.40 to 55.00)"
