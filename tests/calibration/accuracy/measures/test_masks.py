"""What is a mask in an output, and what only looks like one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.accuracy.measures.classes import agreement, kl_divergence
from calibration.accuracy.measures.masks import mask_of
from calibration.accuracy.measures.values import IDENTICAL_PSNR, WORST_LOSS, cosine, nmse, psnr
from calibration.accuracy.metrics import OutputKind
from calibration.sensitivity.task_losses import losses

Measure = Callable[[NDArray[np.generic], NDArray[np.generic]], NDArray[np.float64]]

NUMBERS = np.array([[0.5, -3.0, 2.0, 1.0], [7.0, 0.0, 1.5, -40.0]])


@pytest.mark.parametrize("level", [-np.inf, np.inf, -1e4, -65504.0, -1e9, 1e30])
def test_a_level_far_from_all_other_values_is_a_mask(level: float) -> None:
    reference = NUMBERS.copy()
    reference[0, 1] = reference[1, 3] = level
    mask = mask_of(reference)
    assert mask is not None
    assert mask.hidden.tolist() == (reference == level).tolist()
    assert mask.alike(reference).tolist() == mask.hidden.tolist()
    assert not mask.alike(NUMBERS).any()


@pytest.mark.parametrize(
    "reference",
    [
        NUMBERS,
        np.where(NUMBERS == -40.0, -1e9, NUMBERS),  # a lone value may have been computed
        np.where(NUMBERS < 0.0, -1e9, NUMBERS * 1e7),  # others are as large
        np.where(NUMBERS < 0.0, -9e3, NUMBERS),  # as networks compute
        np.full((2, 4), -1e9),  # there is nothing else
        np.zeros((2, 0)),
    ],
    ids=["plain", "lone", "others as large", "small", "nothing else", "empty"],
)
def test_what_may_have_been_computed_is_none(reference: np.ndarray) -> None:
    assert mask_of(reference) is None


@given(st.lists(st.booleans(), min_size=24, max_size=24), st.sampled_from([-np.inf, np.inf, -1e4, -1e9, -3.4e38]), st.integers(0, 99))
def test_masked_values_change_no_measure_of_the_others(hidden: list[bool], level: float, seed: int) -> None:
    rng, where = np.random.default_rng(seed), np.array([hidden, hidden])
    where[:, :2], where[:, -1] = True, False  # two values are hidden, and one is not
    reference = rng.normal(size=where.shape)
    output = reference + 0.1 * rng.normal(size=where.shape)
    seen = [array[~where].reshape(2, -1) for array in (reference, output)]
    masked = [np.where(where, value, array) for value, array in ((level, reference), (level * (1.0 - 1e-4), output))]
    for measure in (nmse, psnr, cosine, lambda r, x: losses([OutputKind.VALUES], [r], [x])):
        np.testing.assert_allclose(measure(*masked), measure(*seen), rtol=1e-9)


def test_a_value_that_only_one_masks_is_an_error_of_its_size() -> None:
    reference = np.where(np.arange(6) < 2, -1e4, 1.0)[None]
    output = np.where(np.arange(6) < 1, -1e4, 1.0)[None]
    assert nmse(reference, reference + 0.1)[0] == pytest.approx(0.01)
    assert nmse(reference, output)[0] == WORST_LOSS  # 1e8 over a norm of 4
    assert cosine(reference, output)[0] < 0.0


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
