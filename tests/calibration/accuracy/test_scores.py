from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from calibration.accuracy.kinds.evidence import Ending, Evidence
from calibration.accuracy.kinds.table import judged_output
from calibration.accuracy.measures.options import BoxFormat, MeasureOptions
from calibration.accuracy.measures.values import WORST_LOSS
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.accuracy.scores import divergence, score
from calibration.errors import InvalidCalibrationSetError

Floats = NDArray[np.float32]

FLOATS = arrays.arrays(np.float32, (4, 5), elements=st.floats(-50, 50, width=32))


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


def test_score_of_the_reference_itself_is_perfect() -> None:
    outputs = [
        np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32),
        np.random.default_rng(1).normal(size=(6, 2, 3)).astype(np.float32),
    ]
    labels, token_labels = outputs[0].argmax(axis=1), outputs[1].argmax(axis=2)
    for metric in (metric for metric in Metric if metric.spec.joint is None and metric is not Metric.CUSTOM):
        scored, wanted = (outputs[1:], token_labels) if metric.is_per_token else (outputs, labels)
        judged = [judged_output(Evidence("y", output)) for output in scored]
        assert score(metric, scored, scored, wanted, judged=judged) == pytest.approx(np.full(6, metric.spec.perfect), abs=1e-15), metric


JOINT: dict[Metric, list[NDArray[np.generic]]] = {
    Metric.DECISIONS: [np.random.default_rng(2).random((20, 3))],
    Metric.AVERAGE_PRECISION: [np.random.default_rng(3).random((20, 7, 4)), np.random.default_rng(4).random((20, 7, 2))],
    Metric.DETECTIONS: [np.random.default_rng(3).random((20, 7, 4)), np.random.default_rng(4).random((20, 7, 2))],
    Metric.MEAN_IOU: [np.random.default_rng(5).normal(size=(20, 3, 8, 8))],
    Metric.EXACT_MATCH: [np.random.default_rng(6).normal(size=(20, 8, 5))],
    Metric.EDIT_SIMILARITY: [np.random.default_rng(6).integers(0, 4, (20, 8))],
    Metric.CTC_EXACT_MATCH: [np.random.default_rng(6).normal(size=(20, 8, 5))],
    Metric.CTC_EDIT_SIMILARITY: [np.random.default_rng(6).normal(size=(20, 8, 5))],
    Metric.RETRIEVAL: [np.random.default_rng(7).normal(size=(20, 6))],
    Metric.REGRESSION: [np.random.default_rng(7).normal(size=(20, 2)), np.random.default_rng(8).normal(size=(20, 1))],
    Metric.R2: [np.random.default_rng(7).normal(size=(20, 2))],
    Metric.SSIM: [np.random.default_rng(9).random((20, 1, 9, 9))],
    Metric.SI_SNR: [np.random.default_rng(9).normal(size=(20, 50))],
}


def test_every_joint_measure_is_tried_here() -> None:
    assert set(JOINT) == {metric for metric in Metric if metric.spec.joint is not None}


@pytest.mark.parametrize("metric", JOINT)
def test_a_joint_measure_gives_the_float_model_itself_the_perfect_score(metric: Metric) -> None:
    outputs = [array.astype(np.float32) if array.dtype.kind == "f" else array for array in JOINT[metric]]
    boxes = MeasureOptions(boxes=BoxFormat.CXCYWH) if metric.spec.joint is not None and "boxes" in metric.spec.joint.options else None
    assert score(metric, outputs, outputs, None, options=boxes).tolist() == [metric.spec.perfect] * 20


@pytest.mark.parametrize("metric", JOINT)
def test_a_joint_measure_gives_a_broken_engine_less(metric: Metric) -> None:
    outputs = JOINT[metric]
    options = MeasureOptions(boxes=BoxFormat.CXCYWH) if metric in (Metric.AVERAGE_PRECISION, Metric.DETECTIONS) else None
    broken = [np.full_like(array, np.nan) if array.dtype.kind == "f" else array + 100 for array in outputs]
    assert score(metric, broken, outputs, None, options=options).max() < 0.1 * metric.spec.perfect


def test_labels_take_the_place_of_the_float_model_where_there_are_any() -> None:
    output, labels = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 2.0, 3.0])
    assert score(Metric.R2, [output], [output], None).tolist() == [1.0, 1.0, 1.0]
    assert score(Metric.R2, [output], [output], labels).tolist() == pytest.approx([1.0, 1.0, -0.5])  # the variance of the labels is 2/3


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


@pytest.mark.parametrize("metric", [Metric.KL, Metric.AGREEMENT])
def test_classes_are_compared_along_the_axis_that_the_model_gives_them(metric: Metric) -> None:
    rng = np.random.default_rng(9)
    logits = rng.normal(size=(6, 4, 3, 8))  # 4 classes of each of 24 pixels
    moved = logits + rng.normal(size=logits.shape)
    pixels = judged_output(Evidence("seg", logits, Ending("Conv", 1, is_linear=True), class_axis=1))
    expected = score(metric, [np.moveaxis(moved, 1, -1)], [np.moveaxis(logits, 1, -1)], None)
    assert score(metric, [moved], [logits], None, judged=[pixels]) == pytest.approx(expected, rel=1e-12)
    assert score(metric, [moved], [logits], None) != pytest.approx(expected, rel=1e-2)  # along the width
