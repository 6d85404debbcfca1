from __future__ import annotations

import pytest

from calibration.accuracy.metrics import Metric
from calibration.errors import InvalidConfigError
from engine_builder.config.config import Config
from service.intake.common_keys import check_arguments, config_with, is_any_given


def test_keys_take_the_place_of_those_in_the_configuration() -> None:
    found = config_with({"batch_size": 4, "search": {"max_trials": 7}}, {"batch_size": 8, "target": None})
    assert (found.batch_size, found.search.max_trials, found.target) == (8, 7, Config().target)


def test_a_budget_takes_the_place_of_any_other() -> None:
    found = config_with({"accuracy": {"metric": "top1", "max_drop": 0.1}}, {"min_relative": 0.9})
    assert found.accuracy.metric is Metric.TOP1
    assert found == config_with({"accuracy": {"metric": "top1", "min_relative": 0.9}}, {})


def test_an_objective_may_be_given() -> None:
    assert config_with({}, {"min_speedup": 2.0}) == config_with({"objective": {"min_speedup": 2.0}}, {})


@pytest.mark.parametrize(("value", "given"), [([], {}), ({"accuracy": 3}, {"max_drop": 0.1}), ({}, {"min_speedup": 2.0, "max_drop": 0.1})])
def test_what_is_wrong_is_refused(value: object, given: dict[str, object]) -> None:
    with pytest.raises(InvalidConfigError):
        config_with(value, given)


def test_none_is_not_given() -> None:
    assert not is_any_given({"metric": None, "config": "a file", "min_score": None})
    assert is_any_given({"metric": None, "min_score": 0.0})


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("min_relativ", "Did you mean `min_relative`?"),
        ("metrics", "Did you mean `metric`?"),
        ("xyz", "all other keys of the configuration go into config"),
    ],
)
def test_an_argument_that_nobody_reads_is_refused(name: str, fix: str) -> None:
    check_arguments({"min_relative": 0.9, "batch_size": 2}, ("metric",))
    with pytest.raises(InvalidConfigError) as caught:
        check_arguments({"batch_size": 2, name: 0.9}, ("metric",))
    assert f"found the unknown name '{name}'" in caught.value.detail
    assert fix in caught.value.fix
