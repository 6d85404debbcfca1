from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy.margins.selection import corrected_confidence, shrunk_together


def bootstrap(logs: np.ndarray, errors: np.ndarray, rng: np.random.Generator, common: float = 0.0) -> np.ndarray:
    """Return draws around measured logarithms, with an error of each engine's own and one that all share."""
    own = errors[:, None] * rng.standard_normal((len(logs), 2000))
    return np.asarray(np.exp(logs[:, None] + own + common * rng.standard_normal(2000)))


def test_a_corrected_confidence_shares_the_error_among_the_engines() -> None:
    assert corrected_confidence(0.95, 1) == pytest.approx(0.95)
    assert corrected_confidence(0.95, 5) == pytest.approx(0.99)
    assert corrected_confidence(0.95, 0) == pytest.approx(0.95)


def test_the_best_of_engines_that_are_alike_was_lucky() -> None:
    rng = np.random.default_rng(0)
    best, corrected = [], []
    for _ in range(100):
        logs = np.log(0.01) + 0.3 * rng.standard_normal(8)
        draws = bootstrap(logs, np.full(8, 0.3), rng)
        winner = int(np.argmin(logs))
        best.append(logs[winner] - np.log(0.01))
        corrected.append(float(np.log(shrunk_together(draws, 1e-6)[winner]).mean()) - np.log(0.01))
    assert np.mean(best) < -0.35  # 1.42 standard errors of 0.3 below the truth
    assert abs(np.mean(corrected)) < 0.4 * abs(np.mean(best))


def test_engines_that_are_far_apart_stay_where_they_are() -> None:
    logs = np.log(np.geomspace(1e-4, 0.1, 8))  # a factor of 2.7 from one to the next
    draws = bootstrap(logs, np.full(8, 0.1), np.random.default_rng(1))
    np.testing.assert_allclose(np.log(shrunk_together(draws, 1e-6)).mean(axis=1), logs, atol=0.03)


def test_what_all_engines_share_moves_none_of_them() -> None:
    logs = np.log(np.geomspace(0.005, 0.02, 6))
    draws = bootstrap(logs, np.full(6, 0.02), np.random.default_rng(2), common=0.5)
    np.testing.assert_allclose(np.log(shrunk_together(draws, 1e-6)).mean(axis=1), np.log(draws).mean(axis=1), atol=0.05)


def test_the_surest_engine_moves_least() -> None:
    logs = np.log([0.005, 0.005, 0.01, 0.02, 0.02])
    draws = bootstrap(logs, np.array([0.05, 0.8, 0.3, 0.3, 0.3]), np.random.default_rng(3))
    moved = np.log(shrunk_together(draws, 1e-6)).mean(axis=1) - np.log(draws).mean(axis=1)
    assert abs(moved[0]) < 0.1 < abs(moved[1])


def test_two_engines_say_nothing_about_each_other() -> None:
    draws = bootstrap(np.log([0.001, 0.1, 0.2]), np.full(3, 0.3), np.random.default_rng(4))
    np.testing.assert_array_equal(shrunk_together(draws[:2], 1e-6), draws[:2])
    draws[0] = 0.0  # an engine that changes nothing is no relative of the others
    np.testing.assert_array_equal(shrunk_together(draws, 1e-6), draws)
