from __future__ import annotations

from dataclasses import replace

import pytest

from engine_builder.records.stripped_plan import StrippedPlan, WeightsFile
from engine_builder.reporting.body.job_result import result_json
from engine_builder.reporting.body.report_body import body_from_json, body_json
from engine_builder.reporting.body.reported_stripping import reported_stripping, whole_in_words
from engine_builder.reporting.page import render
from engine_builder.timing import RelativeLatency
from tests.engine_builder.reporting.decision.test_section import BODY
from tests.engine_builder.reporting.page_reader import Page

SHIPS = StrippedPlan(
    whole_bytes=13_250_084,
    why_not=None,
    size_bytes=157_308,
    weights=(WeightsFile("model.explicit.onnx", "a" * 64, 1_000_000), WeightsFile("w.bin", "b" * 64, 12_000_000)),
    load_seconds=0.81,
    relative=RelativeLatency(1.002, 0.001, 0.003),
    accuracy=0.9,
)
SLOWER = replace(SHIPS, why_not="it is <slower>")
FAILED = StrippedPlan(13_250_084, "2 are missing")


def body(plan: StrippedPlan | None) -> Page:
    return Page(render(replace(BODY, result=replace(BODY.result, stripped=reported_stripping(plan)))))


def test_it_tells_what_is_saved_what_puts_it_back_and_what_that_costs() -> None:
    said = body(SHIPS).sections["The plan without its weights"].text
    assert "157.3 kB in the place of 13.25 MB" in said
    assert "from model.explicit.onnx (13.00 MB); opening both took 0.81 s here" in said
    assert "the engine takes 1.002 ± 0.003 of the whole plan's time" in said
    assert "python refit.py whole.plan" in said
    assert "zeros" in said


@pytest.mark.parametrize(("plan", "why_not"), [(SLOWER, "it is <slower>"), (FAILED, "2 are missing")])
def test_a_plan_that_ships_whole_says_why_and_nothing_of_a_script(plan: StrippedPlan, why_not: str) -> None:
    said = body(plan).sections["The plan without its weights"].text
    assert f"The plan ships with its weights, although it was asked for without: {why_not}." in said
    assert "refit.py" not in said
    assert whole_in_words(reported_stripping(plan)).endswith(f"{why_not}.")


def test_a_job_without_the_wish_has_no_section_and_no_key() -> None:
    assert "The plan without its weights" not in body(None).headings
    assert "stripped" not in result_json(BODY.result)
    assert (whole_in_words(None), whole_in_words(reported_stripping(SHIPS))) == ("", "")


def test_it_is_in_the_result_and_survives_json() -> None:
    told = reported_stripping(SHIPS)
    whole = replace(BODY, result=replace(BODY.result, stripped=told))
    found = result_json(whole.result)["stripped"]
    assert isinstance(found, dict)
    assert (found["is_stripped"], found["size_bytes"], found["weights_bytes"]) == (True, 157_308, 13_000_000)
    assert (found["weights"], found["ratio"], found["error"]) == (["model.explicit.onnx", "w.bin"], 1.002, 0.003)
    assert body_from_json(body_json(whole)) == whole


def test_the_size_of_what_ships_is_that_of_the_file() -> None:
    assert [plan.shipped_bytes for plan in (SHIPS, SLOWER, FAILED)] == [157_308, 13_250_084, 13_250_084]
