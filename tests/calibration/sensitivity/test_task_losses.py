"""The second-order form of each loss is its own Fisher metric, written out here in full."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.accuracy.kinds.part import Part
from calibration.accuracy.measures.values import WORST_LOSS
from calibration.accuracy.metrics import OutputKind
from calibration.accuracy.scores import divergence
from calibration.sensitivity.task_losses import SKETCH, losses, whitened

KINDS = (OutputKind.LOGITS, OutputKind.PROBABILITIES, OutputKind.VALUES)
Floats = NDArray[np.float64]


def softmax(z: Floats) -> Floats:
    p = np.exp(z - z.max())
    return np.asarray(p / p.sum())


def metric(kind: OutputKind, z: Floats) -> Floats:
    """F of one sample of (classes,), (classes, classes)."""
    if kind is OutputKind.LOGITS:
        p = softmax(z)
        return np.asarray(np.diag(p) - np.outer(p, p))
    if kind is OutputKind.PROBABILITIES:
        return np.diag(1.0 / z)
    return np.asarray(2.0 * np.eye(len(z)) / np.sum(z**2))


def outputs(kind: OutputKind, seed: int, *, samples: int = 3, classes: int = 5, step: float = 1e-3) -> tuple[Floats, Floats]:
    """A reference and a small difference that the kind allows, each (samples, classes)."""
    rng = np.random.default_rng(seed)
    z, d = rng.normal(size=(samples, classes)) * 2, rng.normal(size=(samples, classes)) * step
    if kind is OutputKind.PROBABILITIES:
        before = np.array([softmax(row) for row in z])
        after = np.array([softmax(row) for row in z + d])
        return before, np.asarray(after - before)
    return z, d


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_whitened_squares_to_half_the_quadratic_form(kind: OutputKind, seed: int) -> None:
    z, d = outputs(kind, seed)
    e = whitened([kind], [z], [z + d]).astype(np.float64)
    expected = [0.5 * row @ metric(kind, base) @ row for base, row in zip(z, d, strict=True)]
    np.testing.assert_allclose((e**2).sum(axis=1), expected, rtol=1e-4)  # e is float32


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_quadratic_form_is_the_loss_of_a_small_difference(kind: OutputKind, seed: int) -> None:
    z, d = outputs(kind, seed)
    e = whitened([kind], [z], [z + d]).astype(np.float64)
    np.testing.assert_allclose((e**2).sum(axis=1), losses([kind], [z], [z + d]), rtol=0.02, atol=1e-12)  # third order: |d| is 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_two_layers_are_half_their_bilinear_form(kind: OutputKind) -> None:
    z, d = outputs(kind, 0)
    _, other = outputs(kind, 0, step=2e-3)
    products = np.sum(whitened([kind], [z], [z + d]).astype(np.float64) * whitened([kind], [z], [z + other]), axis=1)
    expected = [0.5 * a @ metric(kind, base) @ b for base, a, b in zip(z, d, other, strict=True)]
    np.testing.assert_allclose(products, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_no_difference_is_no_loss(kind: OutputKind) -> None:
    z, _ = outputs(kind, 1)
    assert np.abs(losses([kind], [z], [z])).max() < 1e-15
    assert np.abs(whitened([kind], [z], [z])).max() == 0.0


def test_logits_may_shift_without_loss() -> None:
    z, _ = outputs(OutputKind.LOGITS, 2)
    assert np.abs(whitened([OutputKind.LOGITS], [z], [z + 1.0])).max() < 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_divergence_of_the_metrics(kind: OutputKind) -> None:
    z, d = outputs(kind, 7, step=0.5)
    np.testing.assert_allclose(losses([kind], [z], [z + d]), divergence(kind, z, z + d), rtol=1e-12)


def test_a_masked_class_is_no_loss_and_a_broken_sample_is_the_worst() -> None:
    z, d = outputs(OutputKind.LOGITS, 8)
    z[:, 2] = -np.inf
    x = z + d
    x[1, 0] = np.nan
    found = losses([OutputKind.LOGITS], [z], [x])
    np.testing.assert_allclose(found, divergence(OutputKind.LOGITS, z, x))
    assert found[1] == WORST_LOSS
    e = whitened([OutputKind.LOGITS], [z], [x]).astype(np.float64)
    np.testing.assert_allclose((e**2).sum(axis=1)[[0, 2]], found[[0, 2]], rtol=0.02)
    assert not e[1].any()


@pytest.mark.parametrize("mask", [-np.inf, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("kind", [OutputKind.LOGITS, OutputKind.VALUES])
def test_masked_values_leave_the_loss_and_its_second_order_form_to_the_others(kind: OutputKind, mask: float) -> None:
    z, d = outputs(kind, 11, step=0.02)
    x = z + d
    kept = np.arange(z.shape[-1]) % 2 == 0
    expected = losses([kind], [z[..., kept]], [x[..., kept]])
    z[..., ~kept], x[..., ~kept] = mask, -np.inf  # an engine in FP16 has -inf where float32 has its lowest value
    np.testing.assert_allclose(losses([kind], [z], [x]), expected, rtol=1e-9)
    np.testing.assert_allclose(losses([kind], [z], [x]), divergence(kind, z, x), rtol=1e-9)
    e = whitened([kind], [z], [x]).astype(np.float64)
    np.testing.assert_allclose((e**2).sum(axis=1), expected, rtol=0.05)  # to second order


def test_a_row_that_only_one_of_two_masks_whole_is_the_worst() -> None:
    z, x = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    z[:, 1], x[0, 1] = -np.inf, -np.inf
    assert losses([OutputKind.LOGITS], [z], [x]).tolist() == [0, WORST_LOSS]


@pytest.mark.parametrize("zeros", [[1], [0, 1, 2]])
def test_a_sample_of_zeros_is_measured_against_the_others(zeros: list[int]) -> None:
    z, d = outputs(OutputKind.VALUES, 9, step=0.1)
    z[zeros] = 0.0
    e = whitened([OutputKind.VALUES], [z], [z + d]).astype(np.float64)
    np.testing.assert_allclose((e**2).sum(axis=1), losses([OutputKind.VALUES], [z], [z + d]), rtol=1e-5)


def test_several_predictions_of_one_sample_are_averaged() -> None:
    z, d = outputs(OutputKind.LOGITS, 3, samples=6)
    single = (whitened([OutputKind.LOGITS], [z], [z + d]).astype(np.float64) ** 2).sum(axis=1)
    together = z.reshape(2, 3, -1), (z + d).reshape(2, 3, -1)
    e = whitened([OutputKind.LOGITS], [together[0]], [together[1]]).astype(np.float64)
    np.testing.assert_allclose((e**2).sum(axis=1), single.reshape(2, 3).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize(("weights", "first", "second"), [((), 0.5, 0.5), ((3.0, 7.0, 1.0), 0.75, 0.25), ((1e-9, 1.0, 1.0), 0.0, 1.0)])
def test_losses_of_several_outputs_are_averaged_by_weight_and_ignored_ones_do_not_count(
    weights: tuple[float, ...], first: float, second: float
) -> None:
    z, d = outputs(OutputKind.LOGITS, 4)
    v, c = outputs(OutputKind.VALUES, 5, classes=7)
    kinds = [OutputKind.LOGITS, OutputKind.IGNORE, OutputKind.VALUES]
    both = losses(kinds, [z, z, v], [z + d, z + 9, v + c], weights)
    alone = losses(kinds[:1], [z], [z + d]), losses(kinds[2:], [v], [v + c])
    np.testing.assert_allclose(both, first * alone[0] + second * alone[1], rtol=1e-6)  # 1e-9 is a share too
    e = whitened(kinds, [z, z, v], [z + d, z + 9, v + c], weights).astype(np.float64)
    np.testing.assert_allclose((e**2).sum(axis=1), both, rtol=0.02)  # third order


def test_inner_products_of_two_layers_follow_the_weights() -> None:
    z, d = outputs(OutputKind.LOGITS, 4)
    v, c = outputs(OutputKind.VALUES, 5, classes=7)
    kinds, weights = [OutputKind.LOGITS, OutputKind.VALUES], (1.0, 4.0)
    first, second = (whitened(kinds, [z, v], [z + s * d, v + t * c], weights).astype(np.float64) for s, t in ((1.0, 2.0), (3.0, -1.0)))
    logits, values = (
        (whitened([kind], [r], [r + x]).astype(np.float64) ** 2).sum(axis=1) for kind, r, x in zip(kinds, (z, v), (d, c), strict=True)
    )
    np.testing.assert_allclose((first * second).sum(axis=1), 0.2 * 3.0 * logits + 0.8 * -2.0 * values, rtol=1e-4, atol=1e-9)  # float32


def test_nothing_to_compare_gives_no_loss() -> None:
    z, d = outputs(OutputKind.LOGITS, 6)
    assert not losses([OutputKind.IGNORE], [z], [z + d]).any()
    assert not whitened([OutputKind.IGNORE], [z], [z + d]).any()


def test_a_sketch_keeps_inner_products_without_bias() -> None:
    rng = np.random.default_rng(0)
    samples, width = 100, 3 * SKETCH + 17
    z = np.ones((samples, width), dtype=np.float32)
    a, b = rng.normal(size=(2, samples, width)).astype(np.float32)
    first, second = (whitened([OutputKind.VALUES], [z], [z + d]).astype(np.float64) for d in (a, a + b))
    assert first.shape == (samples, SKETCH)
    found = np.sum(first * second, axis=1)
    exact = np.sum(a.astype(np.float64) * (a + b), axis=1) / width
    error = found - exact
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(samples)
    assert error.std() < 3 / np.sqrt(SKETCH)  # of products that are 1 on average


class OutputContract(ABC):
    """What probes rely on of the loss of an output, of whatever kind."""

    kind: OutputKind

    @abstractmethod
    def pair(self) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        """Return a reference and another output in which the last sample is the same, (samples, values) each."""

    def test_loss_is_one_number_a_sample_never_negative_and_zero_where_nothing_differs(self) -> None:
        reference, output = self.pair()
        found = losses([self.kind], [reference], [output])
        assert found.shape == (len(reference),)
        assert (found[:-1] > 0).all()
        assert found[-1] == pytest.approx(0.0, abs=1e-15)

    def test_loss_is_the_divergence_of_the_metrics(self) -> None:
        reference, output = self.pair()
        np.testing.assert_allclose(losses([self.kind], [reference], [output]), divergence(self.kind, reference, output), rtol=1e-12)

    def test_whitened_is_one_row_a_sample_and_zero_where_nothing_differs(self) -> None:
        reference, output = self.pair()
        found = whitened([self.kind], [reference], [output])
        assert (found.shape, found.dtype) == (reference.shape, np.dtype(np.float32))
        assert found[:-1].any(axis=1).all()
        assert not found[-1].any()

    def test_a_sample_is_judged_by_itself_among_others_of_its_size(self) -> None:
        reference, output = self.pair()
        alone = [losses([self.kind], [reference[i : i + 1]], [output[i : i + 1]])[0] for i in range(len(reference))]
        np.testing.assert_allclose(losses([self.kind], [reference], [output]), alone, rtol=1e-12, atol=1e-15)


class FloatOutput(OutputContract):
    def pair(self) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        z, d = outputs(self.kind, 12, step=0.3)
        d[-1] = 0.0
        return z, z + d


class TestLogits(FloatOutput):
    kind = OutputKind.LOGITS


class TestProbabilities(FloatOutput):
    kind = OutputKind.PROBABILITIES


class TestValues(FloatOutput):
    kind = OutputKind.VALUES


class TestLabels(OutputContract):
    kind = OutputKind.LABELS

    def pair(self) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        return np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), np.array([[1, 2, 0], [0, 0, 0], [7, 8, 9]])


def test_boxes_are_matched_and_weighted_by_the_scores_of_an_output_beside_them() -> None:
    rng = np.random.default_rng(7)
    boxes, scores = rng.uniform(0, 64, (6, 8, 4)), -np.sort(-rng.uniform(size=(6, 8)), axis=1)
    scores[:, 4:] *= 1e-6
    rows = Part(OutputKind.DETECTIONS, 2, (4,), (20.0, 20.0, 20.0, 20.0, 0.3), beside=(1,))
    forms = ((rows,), (Part(OutputKind.SCORES, units=(0.3,)),))
    order = np.array([1, 0, 2, 3, 7, 6, 5, 4])
    swapped = [boxes[:, order], scores]  # the scores are sorted again
    assert losses(forms, [boxes, scores], [boxes, scores]) == pytest.approx(np.zeros(6))
    assert losses(forms, [boxes, scores], swapped).max() < losses([OutputKind.VALUES] * 2, [boxes, scores], swapped).min()
    noise, faint, clear = rng.normal(size=boxes.shape), np.zeros((1, 8, 1)), np.zeros((1, 8, 1))
    faint[:, 4:], clear[:, :4] = 1.0, 1.0
    assert losses(forms, [boxes, scores], [boxes + noise * faint, scores]).max() < 1e-6
    moved = [boxes + 0.1 * noise * clear, scores]
    assert losses(forms, [boxes, scores], moved).min() > 1e-6
    e = whitened(forms, [boxes, scores], moved)
    assert (e**2).sum(axis=1) == pytest.approx(losses(forms, [boxes, scores], moved), rel=1e-4)  # float32
