from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.precision import Precision
from calibration.singles import Decision
from engine_builder.search.choices import Low
from engine_builder.search.loss_model import PRIOR_TRIALS, LossCheck, LossModel, PredictedLoss, check, predicted_loss
from engine_builder.search.trial import Trial, failed_trial

INT8, FP8 = Precision.INT8, Precision.FP8
DECISIONS = (Decision("a", INT8), Decision("a", FP8), Decision("b", INT8))
PAIRS = np.array([[0.0, 9.0, 0.2], [9.0, 0.0, -0.1], [0.2, -0.1, 0.0]])
PAIR_ERRORS = np.array([[0.0, 9.0, 0.04], [9.0, 0.0, np.inf], [0.04, np.inf, 0.0]])
MODEL = LossModel(DECISIONS, np.array([1.0, 0.5, 2.0]), np.array([0.03, 0.02, 0.12]), PAIRS, PAIR_ERRORS)


def trial(low: Low, loss: float | None) -> Trial:
    return Trial(0, "f", dict(low), "loss", len(low), None, None, loss, None, None, None, 1.0, None)


def test_the_loss_of_an_assignment_adds_up_singles_and_pairs_in_the_precisions_that_it_has() -> None:
    assert MODEL.predict({"a": INT8, "b": INT8}).loss == pytest.approx(3.2)
    assert MODEL.predict({"a": FP8, "b": INT8}).loss == pytest.approx(2.4)
    assert MODEL.predict({}) == PredictedLoss(0.0, 0.0)


def test_the_error_bar_holds_those_of_singles_and_pairs_once() -> None:
    assert MODEL.predict({"a": INT8, "b": INT8}).error == pytest.approx(math.sqrt(0.03**2 + 0.12**2 + 0.04**2))
    assert MODEL.predict({"a": FP8}).error == pytest.approx(0.02)


def test_the_error_bar_is_infinite_where_one_of_its_parts_is_not_known() -> None:
    assert MODEL.predict({"a": FP8, "b": INT8}).error == math.inf


def test_the_error_bar_of_a_sum_of_probes_is_about_as_wide_as_the_sum_scatters() -> None:
    """Ten layers and their pairs, each measured with its own noise, many times over."""
    rng = np.random.default_rng(0)
    decisions = tuple(Decision(f"l{index}", INT8) for index in range(10))
    alone, pairs = rng.uniform(1.0, 2.0, 10), np.triu(rng.normal(0.0, 0.1, (10, 10)), 1)
    sigma, pair_sigma = np.full(10, 0.05), np.full((10, 10), 0.02)
    low = {decision.layer: INT8 for decision in decisions}
    said = []
    for _ in range(300):
        seen = pairs + np.triu(rng.normal(0.0, pair_sigma), 1)
        said.append(LossModel(decisions, alone + rng.normal(0.0, sigma), sigma, seen + seen.T, pair_sigma).predict(low))
    assert np.std([item.loss for item in said]) == pytest.approx(said[0].error, rel=0.15)  # 300 draws: 4% of error


def test_without_trials_the_model_stands_as_it_is() -> None:
    found = check(MODEL, [trial({}, 0.0), failed_trial(1, "f", {"a": INT8}, "loss", "no such kernel"), trial({"a": INT8}, None)])
    assert found == LossCheck(1.0, 0, 0, 0.0)


def test_few_trials_move_the_factor_little_and_many_move_it_all_the_way() -> None:
    factors = [check(MODEL, [trial({"a": INT8}, 2.0)] * count).factor for count in (1, 3, 300)]
    assert factors[0] == pytest.approx(2.0 ** (1 / (1 + PRIOR_TRIALS)))
    assert factors[1] == pytest.approx(math.sqrt(2.0))
    assert factors[2] == pytest.approx(2.0, rel=0.02)


def test_the_factor_is_that_of_least_squares_of_the_logarithms() -> None:
    trials = [trial({"a": INT8}, 1.5), trial({"b": INT8}, 2.0), trial({"a": INT8, "b": INT8}, 4.0)]
    logs = np.log([1.5, 1.0, 4.0 / 3.2])
    shifts = np.linspace(-1.0, 1.0, 20_001)
    penalty = ((logs[:, None] - shifts) ** 2).sum(axis=0) + PRIOR_TRIALS * shifts**2
    assert check(MODEL, trials).factor == pytest.approx(math.exp(shifts[np.argmin(penalty)]), abs=1e-4)


def test_every_trial_is_checked_against_the_error_bar() -> None:
    near, far = trial({"a": INT8}, 1.02), trial({"b": INT8}, 1.0)
    assert (check(MODEL, [near]).trials, check(MODEL, [near]).within) == (1, 1)
    assert (check(MODEL, [near, far]).trials, check(MODEL, [near, far]).within) == (2, 0)  # the factor leaves the near one too


def test_a_refitted_prediction_is_as_uncertain_as_the_model_was_off() -> None:
    assert LossCheck(2.0, 4, 4, 0.0).refit(PredictedLoss(1.0, 0.1)) == PredictedLoss(2.0, pytest.approx(0.2))
    assert LossCheck(1.0, 4, 0, 0.5).refit(PredictedLoss(1.0, 0.0)).error == pytest.approx(0.5)


def test_the_predicted_loss_adds_up_singles_and_pairs() -> None:
    interaction = np.array([[0.0, 0.5, 0.0], [0.5, 0.0, 9.0], [0.0, 9.0, 0.0]])
    assert predicted_loss([True, True, False], np.array([1.0, 2.0, 4.0]), interaction) == pytest.approx(3.5)


def test_the_predicted_loss_is_never_negative() -> None:
    assert predicted_loss([True, True], np.array([0.1, 0.1]), np.array([[0.0, -1.0], [-1.0, 0.0]])) == 0.0
