from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Trial, failed_trial
from engine_builder.search.loss_model import PRIOR_TRIALS, LossCheck, LossModel, PredictedLoss, check, predicted_loss
from engine_builder.search.search_space import QuantizedLayers

INT8, FP8 = Precision.INT8, Precision.FP8
LAYER_PRECISIONS = (LayerPrecision("a", INT8), LayerPrecision("a", FP8), LayerPrecision("b", INT8))
PAIRS = np.array([[0.0, 9.0, 0.2], [9.0, 0.0, -0.1], [0.2, -0.1, 0.0]])
PAIR_ERRORS = np.array([[0.0, 9.0, 0.04], [9.0, 0.0, np.inf], [0.04, np.inf, 0.0]])
COVARIANCE = np.array([[9e-4, 0.0, 1.2e-3], [0.0, 4e-4, 0.0], [1.2e-3, 0.0, 1.44e-2]])  # of errors 0.03, 0.02 and 0.12
MODEL = LossModel(LAYER_PRECISIONS, np.array([1.0, 0.5, 2.0]), COVARIANCE, PAIRS, PAIR_ERRORS)


def trial(quantized: QuantizedLayers, loss: float | None) -> Trial:
    return Trial(0, "f", dict(quantized), "loss", len(quantized), None, None, loss, None, None, None, 1.0, None)


def test_the_loss_of_an_assignment_adds_up_layer_losses_and_pairs_in_the_precisions_that_it_has() -> None:
    assert MODEL.predict({"a": INT8, "b": INT8}).loss == pytest.approx(3.2)
    assert MODEL.predict({"a": FP8, "b": INT8}).loss == pytest.approx(2.4)
    assert MODEL.predict({}) == PredictedLoss(0.0, 0.0)


def test_the_error_bar_holds_what_the_samples_share_and_that_of_the_pairs_once() -> None:
    shared = math.sqrt(0.03**2 + 0.12**2 + 2 * 1.2e-3) / 3.0  # of the losses alone, relative to their sum
    assert MODEL.predict({"a": INT8, "b": INT8}).error == pytest.approx(math.hypot(3.2 * shared, 0.04))
    assert MODEL.predict({"a": FP8}).error == pytest.approx(0.02)


def test_where_pairs_cancel_all_losses_nothing_is_known() -> None:
    cancelling = LossModel(
        LAYER_PRECISIONS[1:], np.array([1.0, 1.0]), np.diag([0.01, 0.01]), np.array([[0, -3.0], [-3.0, 0]]), np.zeros((2, 2))
    )
    assert cancelling.predict({"a": FP8, "b": INT8}) == PredictedLoss(2.0, math.inf)


def test_the_error_that_pairs_share_adds_up() -> None:
    names = tuple(LayerPrecision(name, INT8) for name in "abc")
    common = 0.1 * (1.0 - np.eye(3))
    pairs = LossModel(names, np.ones(3), np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((3, 3)), common)
    assert pairs.predict(dict.fromkeys("abc", INT8)).error == pytest.approx(0.3)
    alone = LossModel(names, np.ones(3), np.zeros((3, 3)), np.zeros((3, 3)), common)
    assert alone.predict(dict.fromkeys("abc", INT8)).error == pytest.approx(0.1 * math.sqrt(3.0))


def test_the_upper_bound_lets_no_uncertain_pair_cancel_a_loss() -> None:
    names = tuple(LayerPrecision(name, INT8) for name in "abc")
    pairs, errors = np.zeros((3, 3)), np.zeros((3, 3))
    pairs[0, 1], pairs[0, 2], pairs[1, 2] = -0.5, -0.3, 0.4
    errors[0, 1], errors[0, 2], errors[1, 2] = 0.6, 0.1, 0.9
    model = LossModel(names, np.ones(3), np.diag([0.04, 0.09, np.inf]), pairs + pairs.T, errors + errors.T)
    bound = model.upper_bound
    np.testing.assert_allclose(bound.loss, [1.2, 1.3, 2.0], rtol=1e-12)
    np.testing.assert_allclose(bound.interaction, [[0.0, 0.0, -0.2], [0.0, 0.0, 0.4], [-0.2, 0.4, 0.0]], rtol=1e-12)


def test_what_minimizes_the_bound_is_no_noise() -> None:
    """Of 24 layers that all lose alike and do not interact, the best half by noisy pairs seems to lose less; by the bound it does not."""
    rng = np.random.default_rng(3)
    count = 24
    noise = np.triu(rng.normal(0.0, 0.1, size=(count, count)), 1)
    pairs, errors = noise + noise.T, 0.1 * (1.0 - np.eye(count))
    model = LossModel(tuple(LayerPrecision(f"l{i}", INT8) for i in range(count)), np.ones(count), np.zeros((count, count)), pairs, errors)
    losses = []
    for alone, together in ((model.loss, model.interaction), (model.upper_bound.loss, model.upper_bound.interaction)):
        chosen = np.arange(count) < count // 2
        for _ in range(200):  # swaps that lower the form
            inside, outside = rng.choice(np.flatnonzero(chosen)), rng.choice(np.flatnonzero(~chosen))
            other = chosen.copy()
            other[[inside, outside]] = False, True
            if predicted_loss(other, alone, together) < predicted_loss(chosen, alone, together):
                chosen = other
        losses.append(predicted_loss(chosen, alone, together))
    truth = count // 2
    assert losses[0] < 0.85 * truth
    assert losses[1] > 0.9 * truth


def test_the_error_bar_is_infinite_where_one_of_its_parts_is_not_known() -> None:
    assert MODEL.predict({"a": FP8, "b": INT8}).error == math.inf


def test_the_error_bar_is_about_as_wide_as_predictions_from_other_samples_scatter() -> None:
    """Ten perturbations of a few directions on 64 samples that differ in how much they lose, many times over."""
    rng = np.random.default_rng(0)
    layer_precisions = tuple(LayerPrecision(f"l{index}", INT8) for index in range(10))
    directions = rng.normal(size=(10, 4))
    quantized = {layer_precision.layer: INT8 for layer_precision in layer_precisions}
    said = []
    for _ in range(300):
        difficulty = rng.lognormal(0.0, 1.0, size=(64, 1, 1))
        e = difficulty * (directions + 0.5 * rng.normal(size=(64, 10, 4)))
        gram = np.einsum("sik,sjk->sij", e, e)
        loss = np.einsum("sii->si", gram)
        pairs, errors = 2.0 * gram.mean(axis=0), 2.0 * gram.std(axis=0, ddof=1) / 8.0
        np.fill_diagonal(pairs, 0.0)
        said.append(LossModel(layer_precisions, loss.mean(axis=0), np.cov(loss, rowvar=False) / 64, pairs, errors).predict(quantized))
    scatter = float(np.std([item.loss for item in said]))
    bars = float(np.sqrt(np.mean([item.error**2 for item in said])))
    assert bars == pytest.approx(scatter, rel=0.35)  # the errors of pairs, counted on top, make it somewhat wide


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
    found = LossCheck(2.0, 4, 4, 0.0).refit(PredictedLoss(1.0, 0.1))
    assert found.loss == 2.0
    assert found.error == pytest.approx(0.2)
    assert LossCheck(1.0, 4, 0, 0.5).refit(PredictedLoss(1.0, 0.0)).error == pytest.approx(0.5)


def test_the_predicted_loss_adds_up_layer_losses_and_pairs() -> None:
    interaction = np.array([[0.0, 0.5, 0.0], [0.5, 0.0, 9.0], [0.0, 9.0, 0.0]])
    assert predicted_loss([True, True, False], np.array([1.0, 2.0, 4.0]), interaction) == pytest.approx(3.5)


def test_the_predicted_loss_is_never_negative() -> None:
    assert predicted_loss([True, True], np.array([0.1, 0.1]), np.array([[0.0, -1.0], [-1.0, 0.0]])) == 0.0
