from __future__ import annotations

from dataclasses import replace

from engine_builder.backends.base import Source
from engine_builder.reporting.body.job_result import PredictedSpeedup
from engine_builder.reporting.page import render
from tests.engine_builder.report_body import BODY, KEPT_BASELINE, RESULT
from tests.engine_builder.reporting.page_reader import Page

HEADING = "At other budgets"


def test_the_page_says_it_in_words_and_as_tables() -> None:
    section = Page(render(BODY)).sections[HEADING]
    assert section.text.startswith("At 99%: 1.43x; at 99.9% (asked for): 1.25x; nothing faster is inside 99.99%.")
    budgets, engines = section.tables
    assert budgets[1:] == [
        ["99%", "1.43x", "trial 1", "80.0%"],
        ["99.9% (asked for)", "1.25x", "trial 2 (chosen)", "80.0%"],
        ["99.99%", "nothing faster", "baseline", "-"],
    ]
    why = "building it once more failed: ask for its budget"
    assert engines[1:] == [
        ["trial 1", "1.43x ± 0.008", "0.8955", "99.5%", "80.0%", "0.90 MB", "2 fp32, 2 int8", "front/f1/engine.onnx"],
        ["trial 2 (chosen)", "1.25x ± 0.005", "0.8990", "99.88%", "80.0%", "1.00 MB", "3 fp32, 1 int8", why],
    ]


def test_predicted_speedups_are_never_called_measured() -> None:
    engines = tuple(replace(engine, mad=None) for engine in RESULT.offers.engines)
    result = replace(
        RESULT,
        latency_source=Source.PREDICTED,
        speedup=None,
        predicted_speedup=PredictedSpeedup(1.25, (1.1, 1.4)),
        offers=replace(RESULT.offers, engines=engines),
    )
    _, table = Page(render(replace(BODY, result=result))).sections[HEADING].tables
    assert [row[1] for row in table[1:]] == ["1.43x predicted", "1.25x predicted"]


def test_without_a_faster_engine_there_is_no_such_part() -> None:
    assert HEADING not in Page(render(KEPT_BASELINE)).headings
