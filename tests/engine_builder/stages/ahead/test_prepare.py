"""An engine that is built and scored before its trial: the trial that takes it is the one that builds its own, but for the times."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from calibration.codec import as_object, json_from_value, value_from_json
from calibration.number_formats.precision import Precision
from engine_builder.errors import BuildError
from engine_builder.pipeline.ahead.preparing import PREPARATIONS
from engine_builder.pipeline.stage_table import PREPARE, TRIAL
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob, Prepared, PrepareRequest, TrialRequest
from engine_builder.workspace.workspace import FileRef, Workspace
from tests.driver import Driver, Json, ranged, with_corrections
from tests.model_text import cnn, samples_for

LAYERS = dict.fromkeys(("Conv_c2", "Gemm_logits"), Precision.INT8)


@pytest.fixture
def job(tmp_path: Path) -> tuple[Driver, EngineJob]:
    driver, job = ranged(tmp_path, cnn(), samples_for(cnn(), 20), samples_for(cnn(), 12, seed=2), {"accuracy": {"max_nmse": 0.5}})
    return driver, with_corrections(driver, job)


def asked(job: EngineJob, **changed: object) -> TrialRequest:
    return dataclasses.replace(TrialRequest(job, LAYERS, 3, "loss"), **changed)  # type: ignore[arg-type]


def trial_of(driver: Driver, request: TrialRequest) -> Trial:
    return value_from_json(Trial, driver.run_json(TRIAL, as_object(json_from_value(request)))["result"])


def prepared_for(driver: Driver, request: TrialRequest) -> tuple[Prepared, TrialRequest]:
    """Prepare a trial as whoever runs stages does, and return the request that takes what was prepared."""
    plain = as_object(json_from_value(request))
    part = PREPARATIONS[TRIAL.name].part(plain)
    assert part is not None
    answer: Json = driver.run_json(PREPARE, part.request)
    assert value_from_json(Prepared, answer["result"]).engine.file.startswith(f"{part.folder}/")
    joined = value_from_json(TrialRequest, PREPARATIONS[TRIAL.name].joined(plain, answer["result"]))
    return value_from_json(Prepared, answer["result"]), joined


def but_for_times(trial: Trial) -> Trial:
    return dataclasses.replace(trial, latency=None, seconds=0.0)


def test_a_trial_takes_what_was_prepared_and_is_the_same_as_without(job: tuple[Driver, EngineJob]) -> None:
    driver, engine_job = job
    alone = trial_of(driver, asked(engine_job))
    prepared, joined = prepared_for(driver, asked(engine_job))
    builds = count_of_builds(driver)
    taken = trial_of(driver, joined)
    assert count_of_builds(driver) == builds  # nothing was built
    assert but_for_times(taken) == but_for_times(alone)
    assert taken.latency is not None
    assert taken.latency.runs > 0
    assert taken.seconds >= prepared.seconds  # a search with a limit counts all that was done for it


def count_of_builds(driver: Driver) -> int:
    """Return how many messages of finished builds there were."""
    return driver.messages.count("engine built")


def test_the_seconds_of_an_answer_have_those_of_what_was_prepared(job: tuple[Driver, EngineJob]) -> None:
    prepared, joined = prepared_for(job[0], asked(job[1]))
    prepared = dataclasses.replace(prepared, seconds=1000.0)
    trial = trial_of(job[0], dataclasses.replace(joined, prepared=prepared))
    assert trial.seconds > 1000.0
    assert TRIAL.took is not None
    assert TRIAL.took(trial) == trial.seconds


@pytest.mark.parametrize("what", ["kind", "file gone", "file changed", "no time", "does not load"])
def test_what_does_not_fit_is_built_anew(job: tuple[Driver, EngineJob], what: str) -> None:
    driver, engine_job = job
    alone = trial_of(driver, asked(engine_job))
    prepared, joined = prepared_for(driver, asked(engine_job))
    path = driver.workspace.path(prepared.engine)
    if what == "kind":
        prepared = dataclasses.replace(prepared, made_under="another GPU")
    elif what == "file gone":
        path.unlink()
    elif what == "file changed":
        path.write_bytes(b"damaged")
    elif what == "no time":
        prepared = dataclasses.replace(prepared, seconds_needed=1e9)
        joined = dataclasses.replace(joined, seconds_left=1e8)
    else:
        prepared = dataclasses.replace(prepared, engine=driver.workspace.write_bytes(prepared.engine.file, b"no engine"))
    before = count_of_builds(driver)
    taken = trial_of(driver, dataclasses.replace(joined, prepared=prepared))
    assert count_of_builds(driver) == before + 1
    assert but_for_times(taken) == but_for_times(alone)
    assert taken.seconds < 1000.0


def test_where_nothing_is_quantized_there_is_nothing_to_prepare(job: tuple[Driver, EngineJob]) -> None:
    with pytest.raises(BuildError, match="no layer takes the precision"):
        job[0].run_json(PREPARE, as_object(json_from_value(PrepareRequest(job[1], {}))))


def test_a_file_is_there_only_with_its_content(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    file = workspace.write_bytes("a/b", b"content")
    assert workspace.has(file)
    assert not workspace.has(FileRef("a/b", "0" * 64))
    assert not workspace.has(FileRef("a/c", file.sha256))
