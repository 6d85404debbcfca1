"""Finalists that are built again at the final level: their own scores are judged, and what was measured is what ships."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.accuracy.verdict import Answer, Selection
from calibration.codec import value_from_json
from calibration.errors import InvalidMetricError
from calibration.number_formats.precision import Precision
from engine_builder.engines.quantized_engine import BUILD_ROUTE
from engine_builder.errors import BuildError
from engine_builder.evaluation import measurement
from engine_builder.pipeline.optimize import optimize
from engine_builder.pipeline.stage_table import TRIAL
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import BaselineRequest, EngineJob, RebuildRequest, TrialRequest, VerdictRequest, VerdictResult
from engine_builder.stages.baseline import FINAL_FOLDER, baseline
from engine_builder.stages.rebuild import rebuild
from engine_builder.stages.verdict import verdict
from engine_builder.workspace.workspace import StageContext, Workspace
from tests.driver import Driver, Finished, Json, ranged, submitted, trials_of
from tests.engine_builder.fake_levels import Levels
from tests.fake_timer import FakeTimer
from tests.model_text import cnn, samples_for

SAMPLES = 40


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Driver, EngineJob, Trial]:
    config: Json = {"accuracy": {"metric": "agreement", "min_relative": 0.75}}
    driver, basics = ranged(tmp_path_factory.mktemp("job"), cnn(), samples_for(cnn(), 20), samples_for(cnn(), SAMPLES, seed=2), config)
    driver.timer = FakeTimer(1.0)
    quantized = {"Conv_c1": Precision.INT8, "Conv_c2": Precision.INT8}
    return driver, basics, driver.run(TRIAL, TrialRequest(basics, quantized, 1, "loss"))


def context_of(driver: Driver, folder: Path) -> StageContext:
    folder.mkdir(exist_ok=True)
    return StageContext(Workspace(driver.workspace.root), folder, lambda fraction, message: None)


def rebuilt(job: tuple[Driver, EngineJob, Trial], folder: Path, levels: Levels) -> Trial:
    driver, basics, trial = job
    return rebuild(RebuildRequest(basics, trial), context_of(driver, folder), building=levels)


def judged(job: tuple[Driver, EngineJob, Trial], folder: Path, finalist: Trial, levels: Levels) -> VerdictResult:
    driver, basics, _ = job
    request = VerdictRequest(basics, (finalist,), Selection.SHARED, most_timed=1)
    return verdict(request, context_of(driver, folder), timer=FakeTimer(1.0), building=levels)


def scores_of(driver: Driver, trial: Trial) -> NDArray[np.float64]:
    assert trial.scores is not None
    return cast("NDArray[np.float64]", driver.workspace.read_arrays(trial.scores)["scores"])


def level_of(path: Path) -> str:
    return onnx.load_model(path).doc_string


def test_a_finalist_is_built_at_the_final_level_scored_and_kept(job: tuple[Driver, EngineJob, Trial], tmp_path: Path) -> None:
    driver, _, trial = job
    levels = Levels()
    final = rebuilt(job, tmp_path / "scratch", levels)
    assert levels.built == ["final"]
    assert (final.fingerprint, final.precisions, final.latency) == (trial.fingerprint, trial.precisions, trial.latency)
    assert final.engine is not None
    engine = driver.workspace.path(final.engine)
    assert level_of(engine) == "final"
    assert final.size_bytes == engine.stat().st_size
    assert final.scores != trial.scores  # a file of its own
    np.testing.assert_array_equal(scores_of(driver, final), scores_of(driver, trial))


def test_a_finalist_of_a_build_route_is_built_by_it_again_and_its_explicit_model_says_so(
    job: tuple[Driver, EngineJob, Trial], tmp_path: Path
) -> None:
    driver, basics, trial = job
    levels, route = Levels(), "-fuse=off -tile=2"
    request = RebuildRequest(basics, dataclasses.replace(trial, build_route=route))
    final = rebuild(request, context_of(driver, tmp_path / "scratch"), building=levels)
    assert (levels.routes, final.build_route) == ([route], route)
    result = judged(job, tmp_path / "verdict", final, levels)
    assert result.explicit is not None
    properties = onnx.load_model(driver.workspace.path(result.explicit)).metadata_props
    assert {entry.key: entry.value for entry in properties}[BUILD_ROUTE] == route


def test_the_engine_that_ships_is_the_rebuilt_one(job: tuple[Driver, EngineJob, Trial], tmp_path: Path) -> None:
    levels = Levels()
    final = rebuilt(job, tmp_path / "scratch", levels)
    result = judged(job, tmp_path / "verdict", final, levels)
    assert result.chosen == final.fingerprint
    assert levels.built == ["final"]  # the verdict times the very engine whose scores it judged
    assert result.engine is not None
    assert level_of(job[0].workspace.path(result.engine)) == "final"


def test_a_rebuilt_engine_that_no_longer_meets_the_budget_is_not_shipped(job: tuple[Driver, EngineJob, Trial], tmp_path: Path) -> None:
    driver, _, trial = job
    levels = Levels(spoils=True)
    assert trial.met
    final = rebuilt(job, tmp_path / "scratch", levels)
    assert scores_of(driver, final).mean() < 0.5 < scores_of(driver, trial).mean()
    assert not final.met
    result = judged(job, tmp_path / "verdict", final, levels)
    assert (result.chosen, result.engine) == (None, None)
    assert [item.verdict.answer for item in result.judged] == [Answer.NOT_MET]
    assert judged(job, tmp_path / "before", dataclasses.replace(trial, engine=None), Levels()).chosen == trial.fingerprint


def test_a_rebuilt_engine_that_the_users_own_metric_cannot_score_is_no_fault_of_the_user(
    job: tuple[Driver, EngineJob, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> NDArray[np.float64]:
        raise InvalidMetricError("score -3", fix="Clip it.")

    monkeypatch.setattr(measurement, "scorer_of", lambda found, workspace: refuse)
    with pytest.raises(BuildError, match="cannot be scored: score -3"):
        rebuilt(job, tmp_path / "scratch", Levels())


def test_the_final_baseline_has_files_of_its_own(job: tuple[Driver, EngineJob, Trial], tmp_path: Path) -> None:
    driver, basics, _ = job
    levels = Levels()
    searched = baseline(BaselineRequest(basics), context_of(driver, tmp_path / "search"), building=levels)
    final = baseline(BaselineRequest(basics, final=True), context_of(driver, tmp_path / "final"), building=levels)
    assert levels.built == ["search", "final"]
    paths = [driver.workspace.path(found.baseline) for found in (searched, final)]
    assert [level_of(path) for path in paths] == ["search", "final"]
    known = [driver.workspace.read_value(Inspection, found.inspection) for found in (searched, final)]  # whose content is as promised
    scores = [found.baseline.scores for found in known]
    assert scores[0].file != scores[1].file


def test_progress_of_a_build_is_that_of_the_stage(job: tuple[Driver, EngineJob, Trial], tmp_path: Path) -> None:
    driver, basics, trial = job
    seen: list[tuple[float, str]] = []
    context = dataclasses.replace(context_of(driver, tmp_path / "scratch"), progress=lambda share, message: seen.append((share, message)))
    rebuild(RebuildRequest(basics, trial), context, building=Levels())
    assert seen == [(pytest.approx(0.35), "building: choosing kernels"), (0.7, "engine built")]


def whole_job(folder: Path, timer: FakeTimer) -> Finished:
    config = {"accuracy": {"metric": "cosine", "min_relative": 0.9}, "builder": {"search_optimization_level": 0}}
    driver, request = submitted(folder, cnn(), config=config)
    driver.timer = timer  # ONNX Runtime passes for a target with levels
    return Finished(driver, optimize(request, driver, driver), request.files.model, b"")


def test_a_whole_job_ships_what_was_built_at_the_final_level(tmp_path: Path) -> None:
    whole = whole_job(tmp_path, FakeTimer(1.0))
    final = [name for name in whole.driver.calls if name.startswith("final/")]
    assert final[0] == "final/baseline"
    assert f"final/{whole.report['chosen']}" in final
    assert whole.driver.calls[-3:] == ["verdict", "offers", "report"]
    chosen = value_from_json(Trial, whole.driver.results[f"final/{whole.report['chosen']}"]["result"])
    assert whole.chosen["size_bytes"] == chosen.size_bytes == whole.engine.stat().st_size
    assert whole.chosen["accuracy"] == pytest.approx(scores_of(whole.driver, chosen).mean())
    assert len(trials_of(whole)) == len([name for name in whole.driver.calls if name.startswith("trial/")])


def test_without_a_finalist_the_baseline_of_the_final_level_ships(tmp_path: Path) -> None:
    finished = whole_job(tmp_path, FakeTimer(4.0))
    assert finished.result["outcome"] == "baseline_kept"
    assert [name for name in finished.driver.calls if name.startswith("final/")] == ["final/baseline"]
    assert finished.engine.parent.name == FINAL_FOLDER
