from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from examples.demo import disagreement, result_lines
from examples.remeasure import Measurement
from examples.server import ServerStartError, running_server

RESULT: dict[str, object] = {
    "outcome": "improved",
    "baseline": {"latency_ms": {"median": 4.0, "mad": 0.05, "p95": 4.5, "runs": 200}, "accuracy": 0.8956, "precisions": {"fp32": 35}},
    "chosen": {"latency_ms": {"median": 2.5, "p95": 2.75, "runs": 210}, "accuracy": 0.8954, "precisions": {"int8": 30, "fp32": 5}},
    "speedup": 1.6,
    "verdict": {
        "answer": "met_on_sample",
        "metric": "top1",
        "drop": 0.0002,
        "interval": [-0.0006, 0.0011],
        "confidence": 0.95,
        "n": 5000,
        "selection": "held_out",
        "probability_over_budget": 0.31,
        "samples_needed": 40_000,
    },
}


def told(result: Mapping[str, object]) -> dict[str, list[str]]:
    """Return the lines of a result by the word that they begin with; a line without one belongs to the word before it."""
    words: dict[str, list[str]] = {}
    for line in result_lines(result):
        word, text = line[:14].strip(), line[14:]
        words.setdefault(word or list(words)[-1], []).append(text)
    return words


def with_verdict(**changes: object) -> dict[str, object]:
    verdict = RESULT["verdict"]
    assert isinstance(verdict, dict)
    return {**RESULT, "verdict": {**verdict, **changes}}


def test_result_is_told_with_spread_precisions_interval_and_verdict() -> None:
    assert told(RESULT) == {
        "outcome": ["a faster engine inside the budget"],
        "latency": ["4.000 ± 0.050 ms (p95 4.500, 200 runs) -> 2.500 ms (p95 2.750, 210 runs): 1.60 times as fast"],
        "layers": ["35 fp32 -> 30 int8, 5 fp32"],
        "accuracy": [
            "top1 0.8956 -> 0.8954",
            "drop +0.00020, between -0.00060 and +0.00110 (each with 95% confidence)",
            "on 5,000 held-out samples",
        ],
        "verdict": [
            "the budget is likely met, although these samples are too few to be certain",
            "inside the budget with probability 0.69; at these rates 40,000 samples would settle it",
        ],
    }


def test_kept_baseline_is_said_in_words() -> None:
    kept = {**RESULT, "outcome": "baseline_kept", "chosen": RESULT["baseline"], "speedup": 1.0}
    assert told(kept)["outcome"] == ["the fp32 model is kept: nothing faster stays inside the budget"]


def test_shared_samples_are_not_called_held_out() -> None:
    assert told(with_verdict(selection="shared"))["accuracy"][-1] == "on 5,000 samples, which the search saw too"


@pytest.mark.parametrize(("standard_errors", "agrees"), [(3.5, True), (4.5, False)])
def test_outside_accuracy_may_differ_by_chance_only(standard_errors: float, agrees: bool) -> None:
    top1 = 0.9
    outside = Measurement(top1=top1, median_ms=1.0, mad_ms=0.1)
    reported = top1 - standard_errors * math.sqrt(top1 * (1 - top1) / 5000)
    problem = disagreement({**RESULT, "chosen": {"accuracy": reported}}, outside)
    assert (problem is None) == agrees


@pytest.mark.parametrize(("flips", "agrees"), [(5, True), (6, False)])
def test_outside_accuracy_on_the_same_pictures_may_differ_by_a_few_of_them(flips: int, agrees: bool) -> None:
    chosen = {"accuracy": 0.9 - (flips - 0.5) / 10_000}  # half a picture off the bound
    problem = disagreement({**with_verdict(n=10_000), "chosen": chosen}, Measurement(top1=0.9, median_ms=1.0, mad_ms=0.1))
    assert (problem is None) == agrees


@pytest.mark.long
def test_server_that_cannot_start_is_reported_with_its_words(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the server wants its folder")
    with pytest.raises(ServerStartError, match="the server ended with status"), running_server(tmp_path):
        pass
