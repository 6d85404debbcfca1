"""Which probes the analysis asks for, and when it stops."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.pipeline.on_demand.analysis import MAX_PROBE_SAMPLES, next_share, probed_samples
from engine_builder.stage_io.measuring import (
    InspectRequest,
    InspectResult,
    InteractionsRequest,
    RankRequest,
    SensitivityRequest,
    SensitivityResult,
)
from tests.engine_builder.fake_job import HALFWAY, FakeStages, run


@dataclasses.dataclass
class Racing(FakeStages):
    """Leaves nothing open after so many samples."""

    enough: int = 100
    sample_seconds: float = 0.05
    probed: int = 16  # layer precisions by a later stage

    def inspect(self, name: str, request: InspectRequest) -> InspectResult:
        return dataclasses.replace(super().inspect(name, request), sample_seconds=self.sample_seconds)

    def sensitivity(self, name: str, request: SensitivityRequest) -> SensitivityResult:
        probed = self.probed if request.start else len(self.world.layers)
        return dataclasses.replace(super().sensitivity(name, request), probed=probed if request.start < self.enough else 0)


def test_later_shares_know_the_earlier_ones_and_about_what_the_budget_allows() -> None:
    stages = Racing(HALFWAY)
    run(stages)
    asked = stages.requests(SensitivityRequest)
    assert [(request.start, request.stop) for request in asked] == [(0, 20), (20, 40), (40, 70), (70, 100)]
    assert [len(request.earlier) for request in asked] == [0, 1, 2, 3]
    assert asked[0].allowed_loss is None  # so that a job with another budget need not probe them again
    (allowed,) = {request.allowed_loss for request in asked[1:]}
    assert allowed is not None
    exact = 2.0 * 0.001  # twice the drop of top1
    assert exact / 2**0.5 <= allowed <= exact * 2**0.5
    assert [request.allowed_loss for request in stages.requests(InteractionsRequest)] == [allowed]


def test_later_shares_are_larger_where_little_is_left_open() -> None:
    stages = Racing(HALFWAY, probed=1)
    run(stages)
    assert [(request.start, request.stop) for request in stages.requests(SensitivityRequest)] == [(0, 20), (20, 40), (40, 80), (80, 100)]
    slow = Racing(HALFWAY, sample_seconds=1.0, probed=1)
    run(slow)
    shares = [(request.start, request.stop) for request in slow.requests(SensitivityRequest)]
    assert shares == [(0, 10), (10, 20), (20, 40), (40, 60), (60, 80), (80, 100)]  # a twentieth of a second for each layer precision


def test_shares_end_when_more_samples_would_decide_nothing() -> None:
    stages = Racing(HALFWAY, enough=40)
    run(stages)
    assert [request.start for request in stages.requests(SensitivityRequest)] == [0, 20, 40]
    (ranked,) = stages.requests(RankRequest)
    assert [file.file for file in ranked.losses] == ["sensitivity/0.npz", "sensitivity/1.npz"]  # the last one holds nothing


def test_what_is_probed_at_once_asks_for_no_budget() -> None:
    stages = Racing(HALFWAY, sample_seconds=1e-4)
    run(stages)
    assert [(request.start, request.stop, request.allowed_loss) for request in stages.requests(SensitivityRequest)] == [(0, 100, None)]
    assert [request.allowed_loss for request in stages.requests(InteractionsRequest)] == [None]


def probe_shares(samples: int, batch: int, forward_seconds: float, is_open: float = 1.0) -> tuple[tuple[int, int], ...]:
    """Return the samples [start, stop) of each sensitivity stage, of which every one but the first probes the same share of decisions."""
    used = probed_samples(samples, batch)
    ends = [0]
    while ends[-1] < used:
        ends.append(next_share(ends[-1], used, batch, forward_seconds, is_open if len(ends) > 1 else 1.0))
    return tuple(itertools.pairwise(ends))


@given(st.integers(1, 2000), st.integers(1, 300), st.floats(0.0, 1000.0))
def test_shares_cover_the_probed_samples_once_in_whole_batches(samples: int, batch: int, seconds: float) -> None:
    shares = probe_shares(samples, batch, seconds)
    assert shares[0][0] == 0
    assert all(one[1] == other[0] for one, other in itertools.pairwise(shares))
    used = shares[-1][1]
    assert min(samples, MAX_PROBE_SAMPLES) - batch < used <= samples
    assert used <= max(MAX_PROBE_SAMPLES, batch)
    assert all((stop - start) % batch == 0 for start, stop in shares[:-1])


def test_a_race_begins_with_a_few_samples_and_at_most_doubles_them() -> None:
    assert probe_shares(256, 4, 0.01) == ((0, 256),)  # takes less than the sessions of a second stage
    assert probe_shares(256, 4, 0.1) == ((0, 16), (16, 32), (32, 64), (64, 128), (128, 256))
    assert probe_shares(256, 24, 0.1)[:2] == ((0, 24), (24, 48))


def test_slow_models_are_probed_in_more_shares() -> None:
    counts = [len(probe_shares(256, 8, seconds)) for seconds in (0.0, 0.5, 5.0, 500.0)]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-1] == 256 // 8
    assert np.all(np.diff(probe_shares(256, 8, 500.0)) == 8)
