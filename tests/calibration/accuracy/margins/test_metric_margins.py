from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy.margins.metric_margins import margins_of
from calibration.accuracy.measures.options import MeasureOptions
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.accuracy.scores import score

LOGITS, PROBABILITIES = OutputKind.LOGITS, OutputKind.PROBABILITIES


def runs(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reference = rng.normal(0.0, 1.0, shape).astype(np.float32)
    return reference, reference + rng.normal(0.0, 0.5, shape).astype(np.float32)


@pytest.mark.parametrize("metric", [Metric.TOP1, Metric.TOP5, Metric.AGREEMENT])
def test_scores_are_the_signs_of_margins(metric: Metric) -> None:
    reference, output = runs(100, 8)
    labels = np.random.default_rng(1).integers(0, 8, 100)
    margins = margins_of(metric, [LOGITS], [reference], [output], labels)
    assert margins is not None
    np.testing.assert_array_equal(margins.engine > 0, score(metric, [output], [reference], labels) == 1.0)
    np.testing.assert_array_equal(margins.reference > 0, score(metric, [reference], [reference], labels) == 1.0)


def test_the_least_clear_of_several_outputs_counts() -> None:
    first, second = runs(50, 4), runs(50, 1, 6)
    margins = margins_of(Metric.AGREEMENT, [LOGITS, LOGITS], [first[0], second[0]], [first[1], second[1]], None)
    assert margins is not None
    np.testing.assert_array_equal(margins.engine > 0, score(Metric.AGREEMENT, [first[1], second[1]], [first[0], second[0]], None) == 1.0)


def test_probabilities_are_compared_as_such() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32)
    margins = margins_of(Metric.AGREEMENT, [PROBABILITIES], [p], [p], None)
    assert margins is not None
    assert margins.reference[0] == pytest.approx(np.log(0.901 / 0.101), rel=1e-5)  # float32


@pytest.mark.parametrize(
    ("metric", "shape"),
    [
        (Metric.COSINE, (4, 8)),
        (Metric.TOKEN_F1, (4, 7, 3)),
        (Metric.AGREEMENT, (4, 7, 3)),  # a decision for each of seven tokens
        (Metric.TOP5, (4, 5)),  # every label is among five of five
        (Metric.AGREEMENT, (4, 1)),
    ],
)
def test_other_scores_have_no_margins(metric: Metric, shape: tuple[int, ...]) -> None:
    reference, output = runs(*shape)
    assert margins_of(metric, [LOGITS], [reference], [output], np.zeros(4, dtype=np.int64)) is None


def test_decisions_of_the_model_itself_have_no_margins() -> None:
    answers = np.array([1, 2, 3])
    assert margins_of(Metric.AGREEMENT, [OutputKind.LABELS], [answers], [answers], None) is None


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(("at", "given"), [(0.5, None), (0.0, 0.0), (0.3, 0.3)])
def test_decisions_of_one_value_a_sample_have_margins(labelled: bool, at: float, given: float | None) -> None:
    reference, output = runs(100, 1)
    if at > 0:
        reference, output = (1 / (1 + np.exp(-values)) for values in (reference, output))
    output[3] = np.nan
    labels = np.random.default_rng(1).integers(0, 2, 100) if labelled else None
    margins = margins_of(Metric.DECISIONS, [OutputKind.SCORES], [reference], [output], labels, given)
    assert margins is not None
    options = MeasureOptions(threshold=given)
    for own, values in ((margins.reference, reference), (margins.engine, output)):
        np.testing.assert_array_equal(own > 0, score(Metric.DECISIONS, [values], [reference], labels, options=options) == 1.0)


def test_several_decisions_a_sample_have_no_margin_of_their_own() -> None:
    reference, output = runs(100, 3)
    assert margins_of(Metric.DECISIONS, [OutputKind.SCORES], [reference], [output], None, 0.0) is None
