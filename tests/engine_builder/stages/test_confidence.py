"""What is refused before anything is measured: a confidence that no engine could show on the samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import Metric
from calibration.errors import InvalidConfigError
from engine_builder.stage_io.measuring import ConfidenceRequest, ConfidenceResult
from engine_builder.stages.confidence import check_confidence
from engine_builder.workspace.workspace import StageContext, Workspace
from tests.driver import run_job
from tests.model_text import cnn, samples_for


def checked(folder: Path, metric: Metric, budget: Budget, confidence: float) -> ConfidenceResult:
    """Ask on 40 samples, on each of which the float model is perfect."""
    context = StageContext(Workspace(folder), folder, lambda fraction, message: None)
    scores = np.full(40, metric.spec.perfect)
    request = ConfidenceRequest(context.workspace.write_arrays("scores.npz", scores=scores), metric, budget, confidence, seed=0)
    return check_confidence(request, context)


@pytest.mark.parametrize(
    ("metric", "budget", "confidence", "words"),
    [
        (
            Metric.AGREEMENT,
            Budget(min_relative=0.9999),
            0.95,
            "0.95 cannot be reached with 40 validation samples: even an engine that changes no score needs 29956",
        ),
        (Metric.NMSE, Budget(max_nmse=0.1), 0.9, "needs 1000"),
        (Metric.KL, Budget(max_kl=1000.0), 0.9, "needs 1000"),
        (Metric.AGREEMENT, Budget(min_relative=1.0), 0.9, "no number of samples can show"),
    ],
)
def test_a_confidence_that_the_samples_cannot_reach_is_refused(
    metric: Metric, budget: Budget, confidence: float, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        checked(tmp_path, metric, budget, confidence)
    assert words in caught.value.detail
    assert ("allow a larger drop" in caught.value.fix.lower()) == (metric is Metric.AGREEMENT)  # no budget of an error wants fewer samples
    assert "leave accuracy.confidence out" in caught.value.fix


def test_a_confidence_that_the_samples_can_reach_is_accepted(tmp_path: Path) -> None:
    assert checked(tmp_path, Metric.AGREEMENT, Budget(min_relative=0.9), 0.9) == ConfidenceResult(40)


def test_a_job_asks_before_it_measures(tmp_path: Path) -> None:
    config = {"accuracy": {"metric": "agreement", "confidence": 0.95, "min_relative": 0.999}}
    with pytest.raises(InvalidConfigError, match="cannot be reached with 12 validation samples"):
        run_job(tmp_path, cnn(), samples_for(cnn(), 20), samples_for(cnn(), 12, seed=2), config)
    assert list(tmp_path.rglob("ranges.json")) == []


def test_a_least_score_that_the_float_model_misses_is_refused_with_its_own(tmp_path: Path) -> None:
    context = StageContext(Workspace(tmp_path), tmp_path, lambda fraction, message: None)
    scores = context.workspace.write_arrays("scores.npz", scores=np.repeat([1.0, 0.0], [30, 10]))
    with pytest.raises(InvalidConfigError, match=r"accuracy.min_score: 0.8 found, but the float model itself scores 0.75 \(top1\)"):
        check_confidence(ConfidenceRequest(scores, Metric.TOP1, Budget(min_score=0.8), None, seed=0), context)
    assert check_confidence(ConfidenceRequest(scores, Metric.TOP1, Budget(min_score=0.75), None, seed=0), context) == ConfidenceResult(40)
