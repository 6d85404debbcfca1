from __future__ import annotations

from dataclasses import replace

from benchmarks.int8_layers import LayerCounts
from benchmarks.nncf_page import NNCF, OURS, Comparison, Way, Widest, conditions, page
from benchmarks.process_tree import Usage
from tests.benchmarks.page_tables import table

LATENCY = {"ratio": 0.5, "ratio_mad": 0.01}
BETTER = Way(3, 0, 30_000, Usage(0, 40.0, 10.0, 300_000_000), LayerCounts(35, 35, 6, 6, 41), 0.8956, LATENCY)
WORSE = Way(5, 37, 68_000, Usage(0, 90.0, 50.0, 200_000_000), LayerCounts(34, 35, 6, 6, 8), 0.8954, {"ratio": 8.0, "ratio_mad": 0.3})
COMPARISON = Comparison("net", 0.001, 10_000, 0.8956, {OURS: BETTER, NNCF: WORSE}, Widest(41, 41, 0.8956, "all_low"), None)
ENVIRONMENT = dict.fromkeys(
    ("processor", "integer_instructions", "processors_used", "load_average", "system", "python", "onnx", "onnxruntime", "numpy"), "?"
)


def test_every_condition_holds_where_ours_is_better_in_all() -> None:
    assert [one.text for one in conditions(COMPARISON) if not one.holds] == []


def test_equal_figures_are_neither_more_nor_fewer() -> None:
    even = replace(COMPARISON, ways={OURS: BETTER, NNCF: BETTER}, widest=None)
    assert [one.holds for one in conditions(even)] == [False, True, False, False, False]


def test_without_nncf_there_are_no_conditions_and_the_reason_is_on_the_page() -> None:
    alone = replace(COMPARISON, ways={OURS: BETTER}, missing="pip could not install nncf")
    assert conditions(alone) == ()
    assert "NNCF has no figures: pip could not install nncf." in page([alone], None, ENVIRONMENT)


def test_page_says_what_does_not_hold() -> None:
    slow = replace(BETTER, usage=Usage(0, 40.0, 11.0, 1))
    text = page([replace(COMPARISON, ways={OURS: slow, NNCF: WORSE})], {"nncf": "3"}, ENVIRONMENT)
    failed = [row for row in table(text, "ours has", "holds") if row["holds"] != "yes"]
    assert failed == [{"ours has": "at least 5 times less CPU time", "found": "50 s / 11 s = 4.5", "holds": "**no**"}]
