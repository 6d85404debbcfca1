"""How long a trial's engine is timed, and what its record says of the timing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.pipeline.stage_table import TRIAL
from engine_builder.records.trial import Latency
from engine_builder.search.deciding import Deciding
from engine_builder.stage_io.engines import EngineJob, TrialRequest
from engine_builder.stages.trial import DECIDING_SECONDS, LEAST_SECONDS
from engine_builder.timed_enough import ROUGH, EachKnown, TrialKnown
from engine_builder.timing import Timing, relative_of_rounds
from tests.driver import Driver, ranged
from tests.engine_builder.stages.test_trial import run_trial
from tests.model_text import cnn, samples_for


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Driver, EngineJob]:
    return ranged(
        tmp_path_factory.mktemp("job"), cnn(), samples_for(cnn(), 20), samples_for(cnn(), 12, seed=2), {"accuracy": {"max_nmse": 0.5}}
    )


@pytest.mark.parametrize(("most_nmse", "best"), [(0.5, 0.7), (1e-12, None)])
def test_an_engine_competes_with_the_best_one_only_inside_the_budget(
    job: tuple[Driver, EngineJob], most_nmse: float, best: float | None
) -> None:
    how = asked_of_timer(job, Deciding((0.8,), 0.7), most_nmse=most_nmse)
    assert how["enough"] == TrialKnown((0.8,), best)
    assert how["seconds"] == DECIDING_SECONDS


@pytest.mark.parametrize(("left", "seconds"), [(None, DECIDING_SECONDS), (1e6, DECIDING_SECONDS), (0.0, LEAST_SECONDS)])
def test_an_engine_is_timed_no_longer_than_the_search_has_time(job: tuple[Driver, EngineJob], left: float | None, seconds: float) -> None:
    assert asked_of_timer(job, Deciding(), seconds_left=left)["seconds"] == seconds


def test_the_baseline_itself_is_compared_with_nothing(job: tuple[Driver, EngineJob]) -> None:
    assert asked_of_timer(job, Deciding((0.8,), 0.7), layers=())["enough"] == EachKnown(ROUGH)


def test_the_error_of_the_ratio_is_in_the_trials_record(job: tuple[Driver, EngineJob]) -> None:
    blocks = {"baseline": (1.0,) * 12, "engine": tuple(0.5 + 0.01 * (index * 5 % 12) for index in range(12))}
    found = recorded(job, blocks)
    expected = relative_of_rounds(blocks["engine"], blocks["baseline"])
    assert expected.error > 0.005
    assert (found.ratio, found.ratio_mad, found.ratio_error) == (expected.ratio, expected.mad, expected.error)


def recorded(job: tuple[Driver, EngineJob], blocks: Mapping[str, tuple[float, ...]]) -> Latency:
    """Return the latency of a trial whose engines took so many milliseconds in each round."""
    driver, basics = job
    driver.timer = lambda calls, **how: {name: Timing(1.0, 1.0, 0.0, 12, ms) for name, ms in blocks.items()}
    latency = run_trial(driver, basics, "Conv_c1").latency
    assert latency is not None
    return latency


def asked_of_timer(
    job: tuple[Driver, EngineJob],
    deciding: Deciding,
    *,
    layers: Sequence[str] = ("Conv_c1",),
    most_nmse: float = 0.5,
    seconds_left: float | None = None,
) -> Mapping[str, object]:
    """Return what the timer was asked for in the trial of some layers."""
    driver, basics = job
    asked: dict[str, object] = {}

    def timer(calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
        asked.update(how)
        return {name: Timing(1.0, 1.0, 0.0, 9, (1.0,) * 9) for name in calls}

    config = dataclasses.replace(basics.config, accuracy=dataclasses.replace(basics.config.accuracy, max_nmse=most_nmse))
    changed = dataclasses.replace(basics, config=config)
    driver.timer = timer
    driver.run(TRIAL, TrialRequest(changed, dict.fromkeys(layers, Precision.INT8), 1, "loss", deciding, seconds_left))
    return asked
