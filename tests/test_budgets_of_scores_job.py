"""Whole jobs whose budget is a drop or a least score."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from calibration.errors import InvalidConfigError
from tests.driver import Finished, run_job
from tests.model_text import cnn, run, samples_for


def job(folder: Path, accuracy: dict[str, object], wrong: int = 6) -> Finished:
    """Run a job on 60 validation samples, of which ``wrong`` have another label than the float model finds."""
    model, validation = cnn(), samples_for(cnn(), 60, seed=3)
    labels = run(model, validation)[0].argmax(axis=1)
    labels[:wrong] = (labels[:wrong] + 1) % 3
    return run_job(folder, model, samples_for(model, 40), {**validation, "labels": labels}, {"accuracy": {"metric": "top1", **accuracy}})


@pytest.mark.parametrize(
    ("accuracy", "allowed", "words"),
    [({"max_drop": 0.3}, 0.3, "a drop of 0.3 (asked for)"), ({"min_score": 0.6}, 0.3, "a score of 0.6 (asked for)")],
)
def test_the_budget_goes_through_to_verdict_offers_and_report(
    accuracy: dict[str, object], allowed: float, words: str, tmp_path: Path
) -> None:
    done = job(tmp_path, accuracy)
    assert done.result["outcome"] == "improved"
    assert done.verdict["budget"] == pytest.approx(allowed)
    assert done.verdict["answer"] != "not_met"
    offers = cast(dict[str, object], done.result["offers"])
    assert words in str(offers["in_words"])
    key = next(iter(accuracy))
    budgets = cast(list[dict[str, dict[str, float]]], offers["budgets"])
    assert all(list(row["budget"]) == [key] for row in budgets)
    values = [row["budget"][key] for row in budgets]
    assert values == sorted(values, reverse=key == "max_drop")  # the loosest first
    assert words.removesuffix(" (asked for)") in done.path(done.outcome.artifacts["report.html"]).read_text()


def test_a_least_score_that_the_float_model_misses_ends_the_job_with_that_score(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"min_score: 0.95 found, but the float model itself scores 0.9 "):
        job(tmp_path, {"min_score": 0.95})


def test_the_samples_are_as_the_budgets_need_them(tmp_path: Path) -> None:
    assert np.isclose(cast(float, job(tmp_path, {"max_drop": 0.3}).baseline["accuracy"]), 0.9)
