from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from calibration.accuracy.measures import (
    IDENTICAL_PSNR,
    WORST_LOSS,
    agreement,
    by_class,
    closeness,
    cosine,
    kl_divergence,
    nmse,
    psnr,
    top1,
    top5,
    topk,
)
from calibration.accuracy.metrics import Measure, Metric, OutputKind, divergence, score
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

Floats = NDArray[np.float32]

FLOATS = arrays.arrays(np.float32, (4, 5), elements=st.floats(-50, 50, width=32))


def test_kl_of_logits_is_that_of_their_probabilities() -> None:
    reference, output = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert kl_divergence(reference, output) == pytest.approx([expected], rel=1e-12)
    assert kl_divergence(np.exp(reference), np.exp(output), probabilities=True) == pytest.approx([expected], rel=1e-9)  # floor of 1e-12


def test_kl_does_not_change_when_logits_move_together() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    assert kl_divergence(logits, logits + np.float32(8)) == pytest.approx(np.zeros(3), abs=1e-10)  # float32 rounding of the sum


def test_kl_of_small_differences_is_half_the_fisher_form() -> None:
    rng = np.random.default_rng(0)
    logits, d = rng.normal(size=(4, 6)), 1e-4 * rng.normal(size=(4, 6))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    fisher = (p * d**2).sum(axis=1) - (p * d).sum(axis=1) ** 2
    assert kl_divergence(logits, logits + d) == pytest.approx(fisher / 2, rel=1e-3)  # third order: 1e-4 of it


def test_kl_averages_over_the_predictions_of_a_sample() -> None:
    reference, output = np.zeros((1, 2, 3)), np.zeros((1, 2, 3))
    output[0, 1] = [1, 0, 0]
    assert kl_divergence(reference, output) == pytest.approx(kl_divergence(reference[:, 1], output[:, 1]) / 2)


def test_kl_takes_masked_classes_and_certain_probabilities() -> None:
    masked = np.array([[0.0, -np.inf, 1.0]])
    assert kl_divergence(masked, masked) == pytest.approx([0.0])
    certain = np.array([[1.0, 0.0]])
    assert kl_divergence(certain, certain, probabilities=True) == pytest.approx([0.0], abs=1e-10)
    assert np.isfinite(kl_divergence(certain, 1 - certain, probabilities=True)).all()


@given(FLOATS, FLOATS)
@settings(max_examples=50, deadline=None)
def test_divergences_are_finite_never_negative_and_zero_at_the_reference(reference: Floats, output: Floats) -> None:
    for kind in (OutputKind.LOGITS, OutputKind.VALUES):
        values = divergence(kind, reference, output)
        assert values.shape == (4,)
        assert ((values >= 0) & (values <= WORST_LOSS)).all()
        assert divergence(kind, reference, reference) == pytest.approx(np.zeros(4), abs=1e-12)


def test_an_ignored_output_costs_nothing() -> None:
    assert divergence(OutputKind.IGNORE, np.zeros((3, 2)), np.ones((3, 2))).tolist() == [0, 0, 0]


def test_nmse_is_the_squared_error_over_the_squared_norm() -> None:
    assert nmse(np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[3.0, 5.0], [0.0, 2.0]])).tolist() == [1 / 25, 0]


def test_nmse_of_a_zero_reference_is_measured_against_the_others() -> None:
    assert nmse(np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [2.0, 0.0]])).tolist() == [1 / 4, 0]
    assert nmse(np.zeros((2, 3)), np.zeros((2, 3))).tolist() == [0, 0]


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_scores_worst(broken: float) -> None:
    reference = np.random.default_rng(0).normal(size=(2, 6))
    output = reference.copy()
    output[1, 2] = broken
    labels = reference.argmax(axis=1)
    assert nmse(reference, output).tolist() == [0, WORST_LOSS]
    assert kl_divergence(reference, output).tolist() == [0, WORST_LOSS]
    assert cosine(reference, output).tolist() == [1, -1]
    assert psnr(reference, output).tolist() == [IDENTICAL_PSNR, 0]
    assert agreement(reference, np.full_like(reference, np.nan)).tolist() == [0, 0]
    assert top1(labels, np.full_like(reference, np.nan)).tolist() == [0, 0]


def test_infinities_that_agree_are_no_error() -> None:
    values = np.array([[1.0, -np.inf, 2.0]])
    assert nmse(values, values).tolist() == [0]
    assert cosine(values, values).tolist() == [1]


LOWEST = float(np.finfo(np.float32).min)
HIDDEN = np.array([False, True, False, False, True, False])


@pytest.mark.parametrize(
    ("measure", "masks"),
    [
        *((measure, (low, -np.inf)) for measure in (nmse, cosine, psnr, agreement, kl_divergence) for low in (-np.inf, LOWEST)),
        *((measure, (np.inf, np.inf)) for measure in (nmse, cosine, psnr)),  # of classes it would be the certain one
    ],
)
def test_what_is_masked_alike_counts_for_nothing(measure: Measure, masks: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(5, 6))
    output = reference + 0.3 * rng.normal(size=(5, 6))
    expected = measure(reference[:, ~HIDDEN], output[:, ~HIDDEN])
    reference[:, HIDDEN], output[:, HIDDEN] = masks
    assert measure(reference, output) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("measure", "worst"), [(nmse, WORST_LOSS), (kl_divergence, WORST_LOSS), (cosine, -1), (psnr, 0)])
def test_what_is_masked_in_the_engine_alone_scores_worst(measure: Measure, worst: float) -> None:
    reference = np.random.default_rng(4).normal(size=(2, 6))
    output = np.where(HIDDEN, -np.inf, reference)
    assert measure(reference, output).tolist() == [worst, worst]


def test_a_row_that_is_masked_whole_agrees_with_its_like_alone() -> None:
    rows = np.array([[[1.0, 2.0, 3.0], [-np.inf] * 3]])
    other = np.array([[[1.0, 2.0, 3.0], [-np.inf, 0.0, -np.inf]]])
    assert kl_divergence(rows, rows).tolist() == [0]
    assert kl_divergence(rows, other).tolist() == kl_divergence(other, rows).tolist() == [WORST_LOSS]
    assert nmse(rows, rows).tolist() == [0]
    assert nmse(np.full((1, 3), -np.inf), np.full((1, 3), -np.inf)).tolist() == [0]
    assert psnr(np.full((1, 3), -np.inf), np.full((1, 3), -np.inf)).tolist() == [IDENTICAL_PSNR]


def test_certain_classes_agree_whatever_else_there_is() -> None:
    certain = np.array([[0.0, np.inf, 1.0]])
    assert kl_divergence(certain, np.array([[-3.0, np.inf, 7.0]])).tolist() == [0]
    assert kl_divergence(certain, np.array([[np.inf, 0.0, 1.0]])).tolist() == [WORST_LOSS]


def test_psnr_of_an_error_of_a_tenth_of_the_peak_is_20_decibels() -> None:
    reference = np.array([[0.0, 1.0, 0.5, 0.25]])
    assert psnr(reference, reference + 0.1) == pytest.approx([20.0])
    assert psnr(reference, reference).tolist() == [IDENTICAL_PSNR]


def test_cosine_of_opposite_orthogonal_and_zero_vectors() -> None:
    reference = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    output = np.array([[-2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    assert cosine(reference, output).tolist() == [-1, 0, 1, 0]


def test_cosine_of_identical_vectors_is_exactly_one() -> None:
    values = np.random.default_rng(0).normal(size=(100, 33)).astype(np.float32)
    assert (cosine(values, values) == 1).all()


def test_agreement_compares_the_best_class() -> None:
    assert agreement(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[0.0, 9.0], [0.0, 9.0]])).tolist() == [1, 0]


def test_agreement_is_a_fraction_where_a_sample_holds_several_predictions() -> None:
    reference = np.eye(4)[None]
    output = reference.copy()
    output[0, 0] = [0, 1, 0, 0]
    assert agreement(reference, output).tolist() == [0.75]


def test_agreement_of_class_indices_compares_them_as_they_are() -> None:
    assert agreement(np.array([3, 4]), np.array([3, 5])).tolist() == [1, 0]


def test_agreement_refuses_an_output_without_classes() -> None:
    with pytest.raises(InvalidConfigError, match=r"several classes, found an output of shape \(8, 1\)"):
        agreement(np.zeros((8, 1), np.float32), np.zeros((8, 1), np.float32))


def test_a_fix_for_an_output_of_one_value_names_only_what_takes_it() -> None:
    one = np.zeros((8, 1), np.float32)
    refusals: tuple[Callable[[], object], ...] = (lambda: agreement(one, one), lambda: top1(np.zeros(8, np.int64), one))
    for refuse in refusals:
        with pytest.raises(InvalidConfigError) as caught:
            refuse()
        assert "closeness" in caught.value.fix
        assert "metric model" in caught.value.fix
        assert not any(word in caught.value.fix for word in ("top1", "cosine", "agreement"))


def test_classes_lie_on_the_last_axis_longer_than_one() -> None:
    assert by_class(np.zeros((2, 10, 1, 1))).shape == (2, 1, 10)
    assert by_class(np.zeros((2, 1, 10))).shape == (2, 1, 10)
    assert by_class(np.zeros((2, 7, 10))).shape == (2, 7, 10)
    assert by_class(np.zeros((2, 1))).shape == (2, 1, 1)


def test_top1_and_top5_count_the_label_among_the_best() -> None:
    scores = np.array([[5.0, 4, 3, 2, 1, 0]] * 3)
    assert top1(np.array([0, 4, 5]), scores).tolist() == [1, 0, 0]
    assert top5(np.array([0, 4, 5]), scores).tolist() == [1, 1, 0]


def test_of_equal_scores_only_k_can_win() -> None:
    assert sum(topk(np.array([label]), np.zeros((1, 6)), k=2)[0] for label in range(6)) == 2


def test_top1_takes_singleton_axes_and_class_indices() -> None:
    assert top1(np.array([1]), np.array([0.0, 3.0]).reshape(1, 2, 1, 1)).tolist() == [1]
    assert top1(np.array([1, 0]), np.array([1, 1])).tolist() == [1, 0]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_a_label_outside_the_classes_is_refused(labels: list[int]) -> None:
    with pytest.raises(InvalidCalibrationSetError, match="expected 0 to 2"):
        top1(np.array(labels), np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 4, 3)])
def test_top1_refuses_outputs_that_are_not_a_row_of_classes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidConfigError, match="one row of class scores"):
        top1(np.array([0, 0]), np.zeros(shape, np.float32))


def test_score_of_the_reference_itself_is_perfect() -> None:
    outputs = [
        np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32),
        np.random.default_rng(1).normal(size=(6, 2, 3)).astype(np.float32),
    ]
    labels, token_labels = outputs[0].argmax(axis=1), outputs[1].argmax(axis=2)
    perfect = {Metric.NMSE: 0.0, Metric.PSNR: IDENTICAL_PSNR}
    for metric in set(Metric) - {Metric.CUSTOM}:
        scored, wanted = (outputs[1:], token_labels) if metric.is_per_token else (outputs, labels)
        assert score(metric, scored, scored, wanted) == pytest.approx(np.full(6, perfect.get(metric, 1.0)), abs=1e-15), metric


def test_the_average_over_outputs_follows_their_weights() -> None:
    reference, output = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    found = score(Metric.AGREEMENT, [reference, output], [reference, reference], None, weights=[3.0, 1.0])
    assert found.tolist() == [0.75]


def test_weights_leave_a_perfect_score_exact() -> None:
    reference = np.random.default_rng(0).normal(size=(5, 4))
    for weights in ([0.1, 0.2, 0.7], [1e-3, 1.0, 1e6], [1 / 3, 0.3, 0.1]):
        assert score(Metric.AGREEMENT, [reference] * 3, [reference] * 3, None, weights=weights).tolist() == [1.0] * 5


@pytest.mark.parametrize("metric", [Metric.TOP1, Metric.TOP5])
def test_labels_of_tokens_are_refused_where_samples_are_classified(metric: Metric) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=r"labels: shape \(2, 3\) found, \(2,\) expected") as caught:
        score(metric, [np.zeros((2, 4))], [np.zeros((2, 4))], np.zeros((2, 3), np.int64))
    assert "token_f1 or span_f1" in caught.value.fix


def test_top1_without_labels_says_what_to_add() -> None:
    with pytest.raises(InvalidCalibrationSetError, match="top1 compares with labels") as caught:
        score(Metric.TOP1, [np.zeros((2, 3))], [np.zeros((2, 3))], None)
    assert "`labels`" in caught.value.fix


def test_closeness_of_scores_is_one_less_the_largest_change_of_each_sample() -> None:
    reference = np.array([[0.1, 0.9], [0.2, 0.4]])
    output = np.array([[0.15, 0.9], [0.2, 0.38]])
    np.testing.assert_allclose(closeness(reference, output), [0.95, 0.98])


def test_a_score_on_the_other_side_of_a_half_is_as_far_as_can_be() -> None:
    np.testing.assert_array_equal(closeness(np.array([[0.501], [0.9]]), np.array([[0.499], [0.9]])), [0.0, 1.0])


def test_closeness_of_other_values_is_in_units_of_their_span_over_all_samples() -> None:
    np.testing.assert_allclose(closeness(np.array([100.0, 300.0, 200.0]), np.array([100.0, 301.0, 200.0])), [1.0, 0.995, 1.0])


def test_a_constant_value_that_moves_is_measured_against_itself() -> None:
    np.testing.assert_allclose(closeness(np.array([-5.0, -5.0]), np.array([-5.0, -4.5])), [1.0, 0.9])


def test_closeness_of_what_is_not_finite_is_none() -> None:
    np.testing.assert_array_equal(closeness(np.array([0.2, 0.3, 0.4]), np.array([np.nan, np.inf, 0.4])), [0.0, 0.0, 1.0])


def test_of_several_outputs_the_worst_counts_unless_their_weights_differ() -> None:
    reference = [np.eye(2), np.eye(2)]
    outputs = [np.eye(2), np.array([[0.0, 1.0], [0.0, 1.0]])]
    np.testing.assert_allclose(score(Metric.COSINE, outputs, reference, None), [0.0, 1.0])
    np.testing.assert_allclose(score(Metric.COSINE, outputs, reference, None, weights=[2.0, 2.0]), [0.0, 1.0])
    np.testing.assert_allclose(score(Metric.COSINE, outputs, reference, None, weights=[3.0, 1.0]), [0.75, 1.0])
    assert score(Metric.NMSE, outputs, reference, None)[0] == pytest.approx(2.0)


def test_a_score_beside_a_vector_is_judged_by_its_change_not_by_its_direction() -> None:
    reference = [np.ones((2, 4)), np.array([[0.6], [0.6]])]
    outputs = [np.ones((2, 4)), np.array([[0.6], [0.4]])]
    np.testing.assert_array_equal(score(Metric.COSINE, outputs, reference, None), [1.0, 0.0])
