"""Which probes the analysis asks for, and when it stops."""

from __future__ import annotations

import dataclasses

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

    def inspect(self, name: str, request: InspectRequest) -> InspectResult:
        return dataclasses.replace(super().inspect(name, request), sample_seconds=self.sample_seconds)

    def sensitivity(self, name: str, request: SensitivityRequest) -> SensitivityResult:
        return dataclasses.replace(super().sensitivity(name, request), probed=int(request.start < self.enough))


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
