from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.accuracy.measures.tasks.retrieval import nearest_kept, neighbours_kept, neighbours_of
from calibration.errors import InvalidConfigError


def by_hand(reference: np.ndarray, output: np.ndarray, k: int) -> list[float]:
    found = []
    for index in range(len(reference)):
        near = []
        for rows in (reference, output):
            unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            cosines = unit @ unit[index]
            near.append({int(i) for i in np.argsort(-cosines) if i != index} and {int(i) for i in np.argsort(-cosines)[1 : k + 1]})
        found.append(len(near[0] & near[1]) / k)
    return found


def test_a_sample_scores_the_share_of_its_neighbours_that_stay() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(600, 8)).astype(np.float32)
    output = reference + 0.3 * rng.normal(size=reference.shape).astype(np.float32)
    assert neighbours_kept(reference, output, 5).tolist() == by_hand(reference.astype(np.float64), output.astype(np.float64), 5)


@given(st.integers(0, 1000), st.integers(1, 4))
def test_what_changes_no_angle_keeps_every_neighbour(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(12, 6))
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert (neighbours_kept(reference, 3.0 * reference @ rotation, k) == 1.0).all()


def test_copies_in_the_set_cost_nothing_when_they_change_places() -> None:
    rng = np.random.default_rng(1)
    reference = np.repeat(rng.normal(size=(6, 5)), 4, axis=0)
    output = reference * (1 + 1e-8 * rng.normal(size=(24, 1)))
    assert (neighbours_kept(reference, output, 2) == 1.0).all()


def test_more_damage_keeps_fewer_neighbours() -> None:
    rng = np.random.default_rng(2)
    reference, noise = rng.normal(size=(200, 16)), rng.normal(size=(200, 16))
    kept = [neighbours_kept(reference, reference + size * noise, 10).mean() for size in (0.0, 0.03, 0.3, 3.0)]
    assert kept == sorted(kept, reverse=True)
    assert (kept[0], kept[-1] < 0.3) == (1.0, True)


def test_a_broken_sample_keeps_nothing() -> None:
    reference = np.random.default_rng(3).normal(size=(20, 4))
    output = reference.copy()
    output[7, 0] = np.nan
    assert neighbours_kept(reference, output)[7] == 0.0


def test_neighbours_that_can_hardly_be_lost_are_refused() -> None:
    assert (neighbours_of(1000, None), neighbours_of(16, None)) == (10, 4)
    with pytest.raises(InvalidConfigError, match="retrieval of 10 neighbours found with 16 validation samples, expected at least 21"):
        neighbours_of(16, 10)
    with pytest.raises(InvalidConfigError, match="at least 8"):
        neighbours_of(4, None)


def test_the_nearest_neighbour_is_told_of_enough_samples() -> None:
    rows = np.random.default_rng(3).normal(size=(40, 6))
    assert nearest_kept(rows, rows) == 1.0
    assert nearest_kept(rows[:7], rows[:7]) is None
    other = nearest_kept(rows, np.random.default_rng(4).normal(size=(40, 6)))
    assert other is not None
    assert other < 0.3
