from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy.metrics import Metric
from engine_builder.closed_loop.run_scores import by_worst_step, scores_of_runs
from engine_builder.records.closed_loop import ClosedLoop

LENGTHS = (2, 3, 1)
LOOP = ClosedLoop({"h": 1}, LENGTHS, is_judged_last=False)
SCORES = np.array([1.0, 0.5, 0.25, 1.0, 0.25, 0.75])
VECTORS = (np.zeros((6, 4)),)
SINGLE = (np.full((6, 1), 3.0),)
SCORE = (np.full((6, 1), 0.5),)


@pytest.mark.parametrize(
    ("metric", "reference", "expected"),
    [
        (Metric.AGREEMENT, VECTORS, [0.75, 0.5, 0.75]),
        (Metric.COSINE, VECTORS, [0.75, 0.5, 0.75]),
        (Metric.COSINE, SINGLE, [0.5, 0.25, 0.75]),  # by closeness
        (Metric.CLOSENESS, SINGLE, [0.5, 0.25, 0.75]),
        (Metric.CLOSENESS, SCORE, [0.75, 0.5, 0.75]),  # decisions
        (Metric.COSINE, SCORE, [0.75, 0.5, 0.75]),
        (Metric.COSINE, (*VECTORS, *SINGLE), [0.5, 0.25, 0.75]),
        (Metric.NMSE, VECTORS, [0.75, 0.5, 0.75]),
    ],
)
def test_a_sequence_counts_by_the_mean_or_by_the_worst_of_its_steps(
    metric: Metric, reference: tuple[np.ndarray, ...], expected: list[float]
) -> None:
    assert scores_of_runs(SCORES, LOOP, metric, reference).tolist() == expected
    assert by_worst_step(metric, reference) is (expected[0] == 0.5)


def test_a_sequence_with_one_label_counts_by_its_last_step() -> None:
    loop = ClosedLoop({"h": 1}, LENGTHS, is_judged_last=True)

    assert scores_of_runs(SCORES, loop, Metric.TOP1, VECTORS).tolist() == [0.5, 0.25, 0.75]


def test_single_samples_keep_their_scores() -> None:
    assert scores_of_runs(SCORES, None, Metric.COSINE, VECTORS) is SCORES


def test_perfect_steps_make_a_perfect_sequence() -> None:
    loop = ClosedLoop({"h": 1}, (49,), is_judged_last=False)

    assert scores_of_runs(np.full(49, 0.1), loop, Metric.COSINE, VECTORS).tolist() == [0.1]  # the sum over 49 rounds
