from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.accuracy.measures.classes import agreement, by_class, kl, kl_divergence, top1, top5, topk
from calibration.accuracy.measures.values import IDENTICAL_PSNR, WORST_LOSS, cosine, nmse, psnr
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError


def test_kl_of_logits_is_that_of_their_probabilities() -> None:
    reference, output = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert kl_divergence(reference, output) == pytest.approx([expected], rel=1e-12)
    assert kl_divergence(np.exp(reference), np.exp(output), probabilities=True) == pytest.approx([expected], rel=1e-9)  # floor of 1e-12


def test_the_metric_kl_tells_probabilities_from_logits_by_their_values() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 4, 8))
    moved = logits + 0.1 * np.random.default_rng(1).normal(size=logits.shape)
    p, q = (np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True) for x in (logits, moved))
    expected = (p * np.log(p / q)).sum(axis=-1).mean(axis=-1)
    assert kl(logits, moved) == pytest.approx(expected, rel=1e-9)
    assert kl(p.astype(np.float32), q.astype(np.float32)) == pytest.approx(expected, rel=1e-4)
    assert kl(np.abs(logits), np.abs(moved)) == pytest.approx(kl_divergence(np.abs(logits), np.abs(moved)))  # at least 0, other sums


def test_the_metric_kl_takes_predictions_of_padding_for_probabilities_as_the_others() -> None:
    p = np.array([[[0.25, 0.75], [0.0, 0.0]]])
    q = np.array([[[0.5, 0.5], [0.0, 0.0]]])
    assert kl(p, q) == pytest.approx(kl_divergence(p[:, 0], q[:, 0], probabilities=True) / 2, rel=1e-9)


@pytest.mark.parametrize(("output", "fix"), [(np.zeros((4, 1)), "closeness"), (np.zeros((4, 3), np.int64), "agreement")])
def test_the_metric_kl_refuses_what_is_no_distribution(output: NDArray[np.generic], fix: str) -> None:
    with pytest.raises(InvalidConfigError, match="kl needs a score for each of several classes") as refused:
        kl(output, output)
    assert fix in refused.value.fix


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


def test_certain_classes_agree_whatever_else_there_is() -> None:
    certain = np.array([[0.0, np.inf, 1.0]])
    assert kl_divergence(certain, np.array([[-3.0, np.inf, 7.0]])).tolist() == [0]
    assert kl_divergence(certain, np.array([[np.inf, 0.0, 1.0]])).tolist() == [WORST_LOSS]


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
