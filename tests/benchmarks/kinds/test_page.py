from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.kinds.case import Quality
from benchmarks.kinds.outside import Found
from benchmarks.kinds.page import page, row

RESULT = {"outcome": "baseline_kept", "speedup": 1.5, "verdict": {"answer": "met_on_sample", "metric": "cosine"}}
FOUND = Found("net", "AP", 0, 12.4, "", RESULT, 0.99, Quality(1.0, 0.5), Quality(0.995, 0.4), 1.456)
FAILED = Found("net", "AP", 2, 3.0, "error: no", {}, 0.99, None, None, None)
ENVIRONMENT = dict.fromkeys(
    ("processor", "integer_instructions", "processors_used", "load_average", "system", "python", "onnx", "onnxruntime", "numpy"), "?"
)


@pytest.mark.parametrize(
    ("kept", "truth", "is_true"), [(0.99, 0.1, "yes"), (0.98, 0.495, "by labels"), (0.98, 0.494, "NO"), (float("nan"), 0.1, "NO")]
)
def test_verdict_is_true_by_the_float_models_answers_or_by_labels(kept: float, truth: float, is_true: str) -> None:
    assert replace(FOUND, quality=Quality(kept, truth)).is_true == is_true


def test_row_holds_what_was_said_beside_what_was_measured() -> None:
    expected = ["net", "AP", "baseline kept", "met on sample", "cosine", "1.50", "1.46", "0.9950", "0.5000", "0.4000", "yes", "12"]
    assert row(FOUND) == expected


def test_failed_job_gives_its_status_and_message() -> None:
    assert row(FAILED) == ["net", "AP", "exit 2: error: no", *["-"] * 7, "no engine", "3"]


def test_page_holds_a_row_for_each_job() -> None:
    assert page([FOUND, FAILED], ENVIRONMENT, 0.99).count("| net | AP |") == 2
