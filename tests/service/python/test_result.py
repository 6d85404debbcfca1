from __future__ import annotations

from pathlib import Path

import pytest

from service.python.result import Engine, Latency, Offer, OfferedFile, UnknownResultError, Verdict, result_from_json

VERDICT = {"answer": "met", "metric": "top1", "drop": 0.001, "interval": [0.0, 0.002], "confidence": 0.95, "n": 100, "flips": 3}
RESULT: dict[str, object] = {
    "outcome": "improved",
    "reason": "The fastest.",
    "speedup": 1.5,
    "speedup_spread": 0.1,
    "baseline": {
        "accuracy": 0.9,
        "latency_ms": {"median": 3.0, "p95": 4.0, "mad": 0.1, "runs": 9},
        "size_bytes": 7,
        "precisions": {"fp32": 2},
    },
    "chosen": {"accuracy": 0.9, "latency_ms": {"median": 2.0, "later": 1}, "precisions": {"int8": 2}},
    "verdict": VERDICT,
    "engine": {"name": "engine.onnx"},
    "offers": {
        "in_words": "at 99%: 2x",
        "budgets": [],
        "engines": [
            {
                "fingerprint": "a",
                "speedup": 2.0,
                "in_words": "99%",
                "verdict": VERDICT,
                "file": {"name": "a/engine.onnx", "sha256": "0"},
            },
            {"fingerprint": "b", "speedup": 1.8, "in_words": "99.5%", "file": None, "no_file": "no time"},
        ],
    },
    "warnings": ["few samples"],
    "of_a_newer_version": 1,
}


def test_a_result_is_typed_and_what_is_not_known_stays_in_its_json() -> None:
    found = result_from_json(RESULT, engine=Path("out/engine.onnx"))
    assert found.is_improved
    assert (found.speedup, found.speedup_spread, found.predicted_speedup) == (1.5, 0.1, None)
    assert found.baseline == Engine(0.9, Latency(3.0, 4.0, 0.1, 9), 7, {"fp32": 2})
    assert found.chosen.latency_ms == Latency(2.0)
    assert found.verdict == Verdict("met", "top1", 0.001, (0.0, 0.002), 0.95, 100)
    assert found.offers.engines[0].file == OfferedFile("a/engine.onnx", "0")
    assert found.offers.engines[1] == Offer("b", 1.8, "99.5%", no_file="no time")
    assert found.warnings == ("few samples",)
    assert found.json["of_a_newer_version"] == 1
    assert (found.engine_path, found.report_path) == (Path("out/engine.onnx"), None)


def test_a_prediction_is_no_speedup() -> None:
    predicted = {key: value for key, value in RESULT.items() if not key.startswith("speedup")}
    found = result_from_json({**predicted, "predicted_speedup": {"value": 1.4, "range": [1.2, 1.6]}})
    assert found.speedup is None
    assert found.predicted_speedup is not None
    assert found.predicted_speedup.range == (1.2, 1.6)


@pytest.mark.parametrize("change", [{"outcome": 3}, {"verdict": "met"}, {"offers": {"engines": [{}]}}])
def test_a_result_of_another_form_is_an_error_of_ours(change: dict[str, object]) -> None:
    with pytest.raises(UnknownResultError):
        result_from_json({**RESULT, **change})


def test_a_path_in_the_json_is_not_taken_for_ours() -> None:
    assert result_from_json({**RESULT, "engine_path": "/etc/passwd"}).engine_path is None
