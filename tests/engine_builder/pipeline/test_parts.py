"""A stage that is split and put together gives what it gives whole, to the last bit, but for how many parts there were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from calibration.codec import as_object, json_from_value
from calibration.number_formats.precision import Precision
from engine_builder.pipeline.parts import SPLITS, MeasuredPart, even_parts, in_words
from engine_builder.pipeline.stage import Stage
from engine_builder.pipeline.stage_table import HESSIAN, INTERACTIONS, SENSITIVITY
from engine_builder.records.calibrated import Calibrated
from engine_builder.stage_io.measuring import HessianRequest, InteractionsRequest, SensitivityRequest
from tests.driver import Driver, ranged
from tests.model_text import fixed_batch, samples_for

SAMPLES = 24


@pytest.fixture
def job(tmp_path: Path) -> tuple[Driver, Calibrated]:
    """A model that takes one sample a call."""
    driver, job = ranged(tmp_path, fixed_batch(), samples_for(fixed_batch(), SAMPLES), samples_for(fixed_batch(), 16))
    return driver, job.calibrated


def whole_and_in_parts(driver: Driver, stage: Stage[Any, Any], request: object, most: int) -> tuple[object, object, int]:
    """Return what a stage gives whole, what it gives in parts measured last to first, and how many parts there were."""
    split, asked = SPLITS[stage.name], as_object(json_from_value(request))
    whole = content(driver, driver.run_json(stage, asked)["result"])
    parts = split.parts(asked, most)
    results = {index: driver.run_json(stage, parts[index])["result"] for index in reversed(range(len(parts)))}
    joined = split.joined(asked, [results[index] for index in range(len(parts))])
    return whole, content(driver, driver.run_json(stage, joined)["result"]), len(parts)


def content(driver: Driver, result: object) -> object:
    """Return a result with the bytes of its file."""
    assert isinstance(result, Mapping)
    file = result.get("losses")
    rest = {name: value for name, value in result.items() if name != "providers"}
    return rest, None if file is None else (driver.workspace.root / file["file"]).read_bytes()


@pytest.mark.parametrize("most", [2, 3, 24, 100])
def test_single_layers_lose_the_same_to_the_last_bit(job: tuple[Driver, Calibrated], most: int) -> None:
    driver, of = job
    whole, joined, count = whole_and_in_parts(driver, SENSITIVITY, SensitivityRequest(of, 0, SAMPLES, batch=1), most)
    assert joined == whole
    assert count == min(most, SAMPLES)


def test_a_later_share_of_a_race_is_the_same_too(job: tuple[Driver, Calibrated]) -> None:
    driver, of = job
    earlier = (driver.run(SENSITIVITY, SensitivityRequest(of, 0, 10)).losses,)
    for allowed in (1e-9, 1e-3, 1e9):
        request = SensitivityRequest(of, 10, 24, earlier, allowed, 1)
        whole, joined, _ = whole_and_in_parts(driver, SENSITIVITY, request, 4)
        assert joined == whole


def test_pairs_have_the_same_tests(job: tuple[Driver, Calibrated]) -> None:
    driver, of = job
    losses = (driver.run(SENSITIVITY, SensitivityRequest(of, 0, SAMPLES)).losses,)
    whole, joined, count = whole_and_in_parts(driver, INTERACTIONS, InteractionsRequest(of, losses, None, (0, 20), 1), 3)
    assert joined == whole
    assert count == 3
    assert whole[0]["tests"]  # type: ignore[index]


@pytest.mark.parametrize("allowed", [None, 1e-9, 1e-4, 1e-2, 1e9])
def test_traces_are_the_same_whether_the_budget_asks_for_more_probes_or_not(job: tuple[Driver, Calibrated], allowed: float | None) -> None:
    driver, of = job
    whole, joined, count = whole_and_in_parts(driver, HESSIAN, HessianRequest(of, (Precision.INT8,), allowed, 0), 2)
    assert joined == whole
    assert count == 2
    assert whole[0]["traces"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("start", "stop", "batch", "most", "parts"),
    [
        (0, 64, 64, 8, ((0, 64),)),
        (0, 64, 16, 2, ((0, 32), (32, 64))),
        (16, 50, 16, 8, ((16, 32), (32, 48), (48, 50))),
        (0, 80, 16, 2, ((0, 32), (32, 80))),
        (0, 3, 1, 0, ((0, 3),)),
    ],
)
def test_parts_are_whole_calls(start: int, stop: int, batch: int, most: int, parts: tuple[tuple[int, int], ...]) -> None:
    assert even_parts(start, stop, batch, most) == parts


def test_what_is_one_call_is_asked_for_as_it_is(job: tuple[Driver, Calibrated]) -> None:
    asked = as_object(json_from_value(SensitivityRequest(job[1], 0, 8, batch=8)))
    assert SPLITS["sensitivity"].parts(asked, 4) == (asked,)


def test_who_measured_parts_is_said_by_kind_and_provider() -> None:
    def part(worker: str, kind: str, provider: str) -> MeasuredPart:
        return MeasuredPart({"providers": {provider: 1}}, worker, kind)

    parts = [
        part("one", "cpu worker", "CPUExecutionProvider"),
        part("two", "cpu worker", "CPUExecutionProvider"),
        part("one", "cpu worker", "CPUExecutionProvider"),
        part("gpu-0", "worker of L4", "CUDAExecutionProvider"),
        part("gpu-0", "worker of L4", "CPUExecutionProvider"),
    ]
    assert in_words(parts) == (
        "5 parts: 3 on 2 cpu workers (CPUExecutionProvider), 1 on 1 worker of L4 (CPUExecutionProvider), "
        "1 on 1 worker of L4 (CUDAExecutionProvider)"
    )
    assert in_words([MeasuredPart({"providers": {}}, "one", "cpu worker")]) == "1 part"
