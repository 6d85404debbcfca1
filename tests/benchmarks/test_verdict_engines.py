from __future__ import annotations

import numpy as np

from benchmarks.verdict_engines import SHARES, example_fronts


def test_engines_of_a_front_get_faster_and_change_more() -> None:
    low, lowest = example_fronts(("resnet20",), orders=1, pictures=128)
    for front in (low, lowest):
        assert front.engines.shape == (len(SHARES), 128, 10)
        assert front.labels.shape == (128,)
        assert np.all(np.diff(front.latency) < 0)
        assert np.mean(front.reference.argmax(axis=1) == front.labels) > 0.8  # top-1 is 0.88
        moved = np.abs(front.engines - front.reference).mean(axis=(1, 2))
        assert moved[0] > 0
        assert moved[-1] > 2 * moved[0]
    assert np.abs(lowest.engines[-1] - lowest.reference).mean() > np.abs(low.engines[-1] - low.reference).mean()
    assert (low.latency[-1], lowest.latency[-1]) == (0.5, 0.4)
