from __future__ import annotations

from dataclasses import replace

import pytest

from engine_builder.reporting.body.job_result import PredictedSpeedup, reported_verdict, result_json
from tests.engine_builder.report_body import FULL_VERDICT, RESULT, VERDICT

PREDICTED = replace(RESULT, speedup=None, speedup_spread=None, predicted_speedup=PredictedSpeedup(1.25, (1.1, 1.5)))
KEYS = {"outcome", "reason", "latency_source", "baseline", "chosen", "verdict", "engine", "warnings", "environment", "outputs", "offers"}


def test_what_does_not_apply_is_no_key() -> None:
    measured, predicted = result_json(RESULT), result_json(PREDICTED)
    assert set(measured) == KEYS | {"speedup", "speedup_spread"}
    assert set(predicted) == KEYS | {"predicted_speedup"}
    assert predicted["predicted_speedup"] == {"value": 1.25, "range": [1.1, 1.5]}


def test_a_baseline_is_repaired_or_has_no_such_key() -> None:
    side = {
        "latency_ms": {"median": 10.0, "p95": 11.0, "mad": 0.05, "runs": 100},
        "accuracy": 0.9,
        "size_bytes": 4_000_000,
        "precisions": {"fp32": 4},
    }
    assert result_json(RESULT)["baseline"] == side
    repaired = replace(RESULT, baseline=replace(RESULT.baseline, repaired="so"))
    assert result_json(repaired)["baseline"] == {**side, "repaired": "so"}


@pytest.mark.parametrize("speedups", [{"speedup": None}, {"predicted_speedup": PredictedSpeedup(1.0, (1.0, 1.0))}])
def test_a_result_with_no_speedup_or_with_two_is_refused(speedups: dict[str, PredictedSpeedup | None]) -> None:
    with pytest.raises(ValueError, match="expected exactly one"):
        replace(RESULT, **speedups)  # type: ignore[arg-type]  # one of the two fields is a float, and None here


def test_the_reported_verdict_leaves_out_the_scores_that_stand_with_the_engines() -> None:
    assert set(type(FULL_VERDICT).__slots__) - set(type(VERDICT).__slots__) == {"baseline", "engine"}
    assert all(getattr(reported_verdict(FULL_VERDICT), name) == getattr(FULL_VERDICT, name) for name in type(VERDICT).__slots__)
