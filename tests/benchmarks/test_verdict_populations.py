from __future__ import annotations

import numpy as np
import pytest

from benchmarks.verdict_engines import Front
from benchmarks.verdict_populations import FLIPS, JUST_OVER, corner_populations, example_populations, simulated_populations

BUDGETS = (0.01, 0.05)


def test_engines_of_a_simulated_front_change_the_shares_they_are_made_for() -> None:
    populations = {one.name: one for one in simulated_populations(BUDGETS, np.random.default_rng(0))}
    for name in ("normal changes", "heavy tails (t of 2)", "towards 0", "saturated probabilities", "labels"):
        flips = [(one.table.lost + one.table.gained) / one.table.n for one in populations[name].engines]
        assert flips == pytest.approx(FLIPS, abs=0.00011), name  # one of 10,000
    assert all(one.latency.shape == (len(one.engines),) for one in populations.values())
    assert all(np.all(np.diff(one.latency) < 0) for one in populations.values())


def test_every_engine_of_a_corner_is_just_over_its_only_budget() -> None:
    populations = list(corner_populations(BUDGETS, np.random.default_rng(1)))
    assert [one.budgets for one in populations] == [(0.01,)] * 3 + [(0.05,)] * 3
    for one in populations:
        np.testing.assert_allclose(one.drops(), JUST_OVER * one.budgets[0], atol=0.00011)
        assert not np.array_equal(one.engines[0].engine, one.engines[1].engine)


def test_hidden_flips_are_small_changes_of_the_least_clear_samples() -> None:
    hidden = next(one for one in corner_populations((0.05,), np.random.default_rng(2)) if one.name.startswith("hidden")).engines[0]
    flipped = hidden.engine < 0
    assert hidden.reference[flipped].max() <= np.quantile(hidden.reference, 2 * JUST_OVER * 0.05)
    np.testing.assert_array_equal(hidden.engine[~flipped], hidden.reference[~flipped])


def test_a_front_is_judged_by_agreement_and_by_labels() -> None:
    rng = np.random.default_rng(3)
    reference = rng.normal(0.0, 1.0, (100, 3)).astype(np.float32)
    engines = np.stack([reference, reference + rng.normal(0.0, 0.5, (100, 3)).astype(np.float32)])
    front = Front("f", np.array([0.9, 0.5]), reference, engines, rng.integers(0, 3, 100))
    agreement, top1 = example_populations([front], BUDGETS)
    changed = float(np.mean(engines[1].argmax(axis=1) != reference.argmax(axis=1)))
    np.testing.assert_allclose(agreement.drops(), [0.0, changed])
    right = [float(np.mean(logits.argmax(axis=1) == front.labels)) for logits in (reference, engines[1])]
    np.testing.assert_allclose(top1.drops(), [0.0, right[0] - right[1]])
