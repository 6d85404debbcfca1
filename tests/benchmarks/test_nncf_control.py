from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.jobs import Job
from benchmarks.nncf_control import NncfFailedError, run_nncf, widest_trial
from benchmarks.nncf_page import Widest

JOB = Job("j", Path("no.onnx"), Path("no-calibration.npz"), Path("no-validation.npz"), {})


def trial(quantized: int, slack: float, score: float) -> dict[str, object]:
    return {"low_layers": quantized, "order": "all_low", "on_all": {"excess": slack, "score": score}}


def test_widest_trial_is_the_one_inside_the_budget_with_the_most_quantized_layers() -> None:
    trials = [trial(0, 0.001, 0.9), trial(9, -0.001, 0.8), trial(5, 0.0, 0.89), {"low_layers": 7, "order": "loss", "on_all": None}]
    assert widest_trial(trials, 9) == Widest(5, 9, 0.89, "all_low")


def test_baseline_alone_has_no_widest_trial() -> None:
    assert widest_trial([trial(0, 0.001, 0.9)], 9) is None


def test_reason_why_nncf_failed_is_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(NncfFailedError, match=r"status 1: .*no\.onnx"):
        run_nncf(Path(sys.executable), JOB, 0.001, tmp_path, 60)
