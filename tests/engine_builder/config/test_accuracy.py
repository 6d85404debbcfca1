from __future__ import annotations

import re

import pytest

from calibration.errors import InvalidConfigError
from engine_builder.config.config import config_from_json


@pytest.mark.parametrize("accuracy", [{"max_drop": 0.005}, {"min_score": 0.75}, {"metric": "top1", "max_drop": 0.005}])
def test_a_budget_of_scores_may_be_a_drop_or_a_least_score(accuracy: dict[str, object]) -> None:
    found = config_from_json({"accuracy": accuracy}).accuracy
    assert found.metric == accuracy.get("metric")  # else found from the model, as with a share
    assert {key: getattr(found.budget, key) for key in accuracy if key != "metric"} == {
        key: value for key, value in accuracy.items() if key != "metric"
    }
    assert found.min_relative is None


@pytest.mark.parametrize(
    ("accuracy", "detail"),
    [
        ({"max_drop": 0.005, "min_score": 0.7}, "found max_drop and min_score, expected one budget"),
        ({"metric": "psnr", "max_drop": 0.005}, "found the metric psnr with max_drop, expected min_psnr"),
        ({"max_drop": 1.5}, "accuracy.max_drop: found 1.5"),
    ],
)
def test_budgets_that_do_not_fit_are_refused(accuracy: dict[str, object], detail: str) -> None:
    with pytest.raises(InvalidConfigError, match=re.escape(detail)):
        config_from_json({"accuracy": accuracy})
