"""What a job finds of what another one measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine_builder.pipeline.optimize import PIPELINE_VERSION, optimize
from engine_builder.pipeline.stage_table import KEPT_STAGES
from service.worker.stage_cache import StageCache
from tests.driver import Driver, submitted
from tests.model_text import cnn, samples_for


@dataclass
class Cached:
    """A driver whose measurements are kept."""

    driver: Driver
    cache: StageCache

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        return self.cache.run(stage, request, self.driver.workspace, lambda: self.driver(name, stage, request, span))


def test_kept_measurements_serve_a_second_job(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / "cache", PIPELINE_VERSION, KEPT_STAGES)
    outcomes, calls = [], []
    for name in ("first", "second"):
        driver, job = submitted(tmp_path / name, cnn())
        outcomes.append(optimize(job, Cached(driver, cache), driver))
        calls.append(driver.calls)
    assert outcomes[0].engine == outcomes[1].engine
    assert "inspect" in calls[0]
    assert [call for call in calls[1] if call.startswith(tuple(KEPT_STAGES))] == []


def test_another_budget_measures_no_sensitivity_again(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / "cache", PIPELINE_VERSION, KEPT_STAGES)
    changes: tuple[Mapping[str, object], ...] = (
        {"accuracy": {"metric": "agreement", "min_relative": 0.999}},
        {"accuracy": {"metric": "agreement", "min_relative": 0.9}},
        {
            "accuracy": {"metric": "agreement", "min_relative": 0.9, "confidence": 0.6},
            "search": {"max_trials": 3, "orders": ["loss"]},
            "threads": 1,
        },
    )
    measured = []
    for index, config in enumerate(changes):
        asked = {**config, "analysis": "full"}
        driver, job = submitted(tmp_path / str(index), cnn(), samples_for(cnn(), 40), samples_for(cnn(), 40, seed=2), asked)
        optimize(job, Cached(driver, cache), driver)
        measured.append({call.split("/")[0] for call in driver.calls} & KEPT_STAGES)
    assert measured[0] == KEPT_STAGES
    assert measured[1] <= {"hessian"}  # traces are probed as closely as the budget's boundary needs
    assert measured[2] == set()
