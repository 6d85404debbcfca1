"""What a plan of a network is predicted to take, and how the page tells it."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.gains.page import page
from benchmarks.gains.plans import Gain
from tests.benchmarks.page_tables import table
from tests.benchmarks.test_plans import WHERE

BEFORE = Gain("net", 8, "L4", "fp16", 0, 10, 1.0, 0.9, 0.1, 12)
AFTER = dataclasses.replace(BEFORE, case="int8", low_layers=9, predicted_ms=1.25, products_ms=0.75, others_ms=0.5, kernels=20)
ONLY_PAYING = dataclasses.replace(AFTER, case="int8 where it pays", low_layers=2, predicted_ms=0.9)


def shown(*found: Gain, left_out: dict[str, str] | None = None) -> str:
    return page(found, left_out or {}, {**WHERE, "gpus": ["L4"]})


def test_each_plan_is_set_beside_that_in_fp16() -> None:
    rows = table(shown(BEFORE, AFTER, ONLY_PAYING), "network")
    assert [row["of FP16"] for row in rows] == ["1.000", "1.250", "0.900"]
    assert [row["layers low"] for row in rows] == ["0 of 10", "9 of 10", "2 of 10"]


@pytest.mark.parametrize(("others", "verdict"), [(0.5, "loses"), (0.2, "gains")])
def test_what_products_save_is_set_against_what_other_kernels_cost(others: float, verdict: str) -> None:
    after = dataclasses.replace(AFTER, others_ms=others)
    assert f"batch 8 {verdict} (1.25 of FP16): products save 150 us, other kernels take" in shown(BEFORE, after)


def test_what_was_not_built_is_told() -> None:
    text = shown(BEFORE, left_out={"net, batch 8, L4, fp8": "the build failed: no", "net, batch 1": "no layer of it is predicted to pay"})
    assert "- net, batch 8, L4, fp8: the build failed: no." in text
    assert "No plan *where it pays*, since none of its layers does: net, batch 1." in text
