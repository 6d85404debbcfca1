"""Softmax in its limits."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy.measures.softmax import log_softmax, without_classes

INF = np.inf


@pytest.mark.parametrize(
    ("logits", "probabilities"),
    [
        ([0.0, np.log(3.0)], [0.25, 0.75]),
        ([0.0, np.log(3.0), -INF], [0.25, 0.75, 0.0]),
        ([INF, 5.0, INF, -INF], [0.5, 0.0, 0.5, 0.0]),
        ([-INF, -INF], [0.0, 0.0]),
        ([1e300, -1e300], [1.0, 0.0]),
        ([np.nan, 0.0], [np.nan, np.nan]),
        ([np.nan, INF], [np.nan, np.nan]),
    ],
)
def test_infinite_logits_give_the_limit(logits: list[float], probabilities: list[float]) -> None:
    both = np.array([[0.0] * len(logits), logits])  # another row is there, and is not touched
    found = log_softmax(both)
    np.testing.assert_allclose(np.exp(found[1]), probabilities, atol=1e-15)
    np.testing.assert_allclose(np.exp(found[0]), 1 / len(logits))
    assert without_classes(found).tolist() == [False, not any(probabilities)]
