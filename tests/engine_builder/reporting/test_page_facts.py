"""How the page tells facts of a machine."""

from __future__ import annotations

from dataclasses import replace

from engine_builder.reporting.page import render
from tests.engine_builder.report_body import BODY, with_result


def test_facts_that_a_gpu_tells_of_each_engine_are_a_line_of_text() -> None:
    told = {**BODY.result.environment, "transfers_ms": {"engine": {"copy_in": 0.12345, "copy_out": None}, "baseline": {"copy_in": 2}}}
    text = render(with_result(replace(BODY.result, environment=told), BODY))
    assert "engine: (copy_in: 0.1235, copy_out: None), baseline: (copy_in: 2)" in text
