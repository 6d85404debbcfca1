"""What a verdict keeps, built without its weights: judged, timed and kept, or left with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import onnx
import pytest

from calibration.accuracy.verdict import Selection
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Backend, Runner
from engine_builder.config.config import Config
from engine_builder.config.objective import Objective
from engine_builder.engines.factory import Building
from engine_builder.errors import EngineError
from engine_builder.pipeline.stage_table import TRIAL
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob, StripRequest, StripResult, TrialRequest, VerdictRequest
from engine_builder.stages.after_search.strip import strip
from engine_builder.stages.verdict import verdict
from engine_builder.timing import RelativeLatency, Timing
from engine_builder.workspace.workspace import StageContext, Workspace
from tests.driver import Driver, Json, ranged
from tests.engine_builder.fake_levels import LevelledBackend, Levels
from tests.fake_timer import FakeTimer
from tests.model_text import cnn, samples_for

WHOLE_BYTES = 200_000  # of a whole engine, to which no engine without weights comes near


@dataclasses.dataclass
class Stripping(Levels):
    """Engines without their weights, with their outputs negated where it ``spoils``."""

    asked: list[bool] = dataclasses.field(default_factory=list)

    def __call__(self, config: Config, context: StageContext, *, final: bool = False, route: str = "", stripped: bool = False) -> Backend:
        self.asked.append(stripped)
        self.routes.append(route)
        return LevelledBackend(self, final)


@dataclasses.dataclass(frozen=True)
class Times:
    """A timer that says what a test wants of the engine, beside 2 ms of the whole plan and 4 ms of the baseline."""

    engine_ms: float

    def __call__(self, calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
        taken = {"engine": self.engine_ms, "whole": 2.0, "baseline": 4.0}
        return {name: Timing(taken[name], taken[name], 0.0, 18, (taken[name],) * 9) for name in calls}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Driver, StripRequest]:
    config: Json = {"accuracy": {"metric": "agreement", "min_relative": 0.75}}
    driver, job = ranged(tmp_path_factory.mktemp("job"), cnn(), samples_for(cnn(), 20), samples_for(cnn(), 40, seed=2), config)
    driver.timer = FakeTimer(1.0)
    trial = driver.run(TRIAL, TrialRequest(job, {"Conv_c1": Precision.INT8, "Conv_c2": Precision.INT8}, 1, "loss"))
    judged = verdict(
        VerdictRequest(job, (trial,), Selection.SHARED, most_timed=1),
        context_of(driver, tmp_path_factory.mktemp("verdict")),
        timer=FakeTimer(1.0),
        building=Levels(),
    )
    assert judged.engine is not None
    model = onnx.load_model(driver.workspace.path(judged.engine))
    model.doc_string = "w" * WHOLE_BYTES
    onnx.save_model(model, driver.workspace.path(judged.engine))
    return driver, StripRequest(job, (trial,), judged, Selection.SHARED, 1)


def context_of(driver: Driver, folder: Path) -> StageContext:
    folder.mkdir(exist_ok=True)
    return StageContext(Workspace(driver.workspace.root), folder, lambda fraction, message: None)


def stripped(
    kept: tuple[Driver, StripRequest],
    folder: Path,
    *,
    engine_ms: float = 2.0,
    building: Building | None = None,
    change: Callable[[StripRequest], StripRequest] = lambda request: request,
) -> StripResult:
    driver, request = kept
    return strip(change(request), context_of(driver, folder / "scratch"), timer=Times(engine_ms), building=building or Stripping())


def test_what_ships_is_what_was_judged_and_timed_with_its_weights_put_back(kept: tuple[Driver, StripRequest], tmp_path: Path) -> None:
    driver, request = kept
    building = Stripping()
    found = stripped(kept, tmp_path, engine_ms=1.99, building=building)
    assert (building.asked, building.built) == ([True], ["final"])
    plan, judged = found.plan, found.judged
    assert plan.ships
    assert plan.relative is not None
    assert plan.relative.ratio == pytest.approx(1.99 / 2.0)
    assert judged.engine is not None
    assert judged.explicit is not None
    engine = driver.workspace.path(judged.engine)
    assert onnx.load_model(engine).doc_string == "final"  # what was built here
    assert plan.size_bytes == engine.stat().st_size < WHOLE_BYTES < plan.whole_bytes
    assert [file.name for file in plan.weights] == [driver.workspace.path(judged.explicit).name]
    assert plan.weights[0].sha256 == judged.explicit.sha256
    name = request.judged.chosen
    assert name is not None
    assert judged.chosen == name
    assert [judged.ratio, judged.spread[name].ratio] == pytest.approx([1.99 / 4.0] * 2)
    assert (judged.latency_ms[name].median, judged.latency_ms["baseline"].median) == (1.99, 4.0)
    assert [one.verdict for one in judged.judged] == [judged.verdict]
    assert found.chosen is not None
    assert found.chosen.scores not in (None, request.finalists[0].scores)  # its own
    assert found.chosen.size_bytes == request.finalists[0].size_bytes  # of the whole engine, to compare with the baseline's


@pytest.mark.parametrize(("engine_ms", "is_slower"), [(2.01, False), (2.05, True)])
def test_one_that_is_slower_beyond_the_error_of_the_timing_ships_whole(
    kept: tuple[Driver, StripRequest], tmp_path: Path, engine_ms: float, *, is_slower: bool
) -> None:
    found = stripped(kept, tmp_path, engine_ms=engine_ms)
    assert found.plan.ships is not is_slower
    if is_slower:
        assert found.plan.why_not == "with its weights put back the engine takes 1.025 times as long as with the whole plan"
        assert (found.judged, found.chosen) == (kept[1].judged, kept[1].finalists[0])  # nothing else changes


@dataclasses.dataclass
class Crowded(Stripping):
    """There is room for two engines at once."""

    whole: Path = Path()

    def __call__(self, config: Config, context: StageContext, *, final: bool = False, route: str = "", stripped: bool = False) -> Backend:
        made = super().__call__(config, context, final=final, route=route, stripped=stripped)
        return cast(Backend, Full(made, self.whole))


class Full:
    """A backend that opens all but one engine."""

    def __init__(self, backend: Backend, whole: Path) -> None:
        self._backend, self._whole = backend, whole

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def open(self, engine: Path, *, threads: int) -> Runner:
        if engine == self._whole:
            raise EngineError("no room on the GPU", fix="free memory")
        return self._backend.open(engine, threads=threads)


@pytest.mark.parametrize(("engine_ms", "ships"), [(2.0, True), (2.1, False)])
def test_where_there_is_no_room_for_all_the_whole_plan_is_known_by_the_baseline(
    kept: tuple[Driver, StripRequest], tmp_path: Path, engine_ms: float, *, ships: bool
) -> None:
    driver, request = kept
    name = request.judged.chosen
    assert name is not None
    assert request.judged.engine is not None
    before = dataclasses.replace(request.judged, spread={name: RelativeLatency(0.5, 0.0, 0.001)})
    building = Crowded(whole=driver.workspace.path(request.judged.engine))
    found = stripped(
        kept, tmp_path, engine_ms=engine_ms, building=building, change=lambda request: dataclasses.replace(request, judged=before)
    )
    assert found.plan.relative is not None
    ratio = engine_ms / 2.0
    assert [found.plan.relative.ratio, found.plan.relative.error] == pytest.approx([ratio, 0.002 * ratio])
    assert found.plan.ships is ships


def test_one_that_misses_the_budget_ships_whole(kept: tuple[Driver, StripRequest], tmp_path: Path) -> None:
    found = stripped(kept, tmp_path, building=Stripping(spoils=True))
    assert found.plan.why_not is not None
    assert found.plan.why_not.endswith("and is outside the accuracy budget")
    assert found.judged == kept[1].judged
    assert found.plan.accuracy is not None
    assert found.plan.accuracy < 0.5


def test_one_that_saves_nothing_ships_whole(kept: tuple[Driver, StripRequest], tmp_path: Path) -> None:
    driver, request = kept
    assert request.judged.engine is not None
    whole = driver.workspace.path(request.judged.engine)
    content = whole.read_bytes()
    model = onnx.load_model(whole)
    model.doc_string = ""
    onnx.save_model(model, whole)
    try:
        found = stripped(kept, tmp_path)
    finally:
        whole.write_bytes(content)
    assert "without its weights the plan is no smaller" in str(found.plan.why_not)


def test_one_that_is_no_longer_as_fast_as_asked_for_ships_whole(kept: tuple[Driver, StripRequest], tmp_path: Path) -> None:
    def with_objective(request: StripRequest) -> StripRequest:
        config = dataclasses.replace(request.job.config, objective=Objective(min_speedup=2.0))
        return dataclasses.replace(request, job=dataclasses.replace(request.job, config=config))

    assert stripped(kept, tmp_path, engine_ms=2.0, change=with_objective).plan.ships
    found = stripped(kept, tmp_path, engine_ms=2.01, change=with_objective)
    assert "is not one that is at least 2x as fast as the baseline" in str(found.plan.why_not)


def given(request: StripRequest) -> StripRequest:
    config = dataclasses.replace(request.job.config, assignment={"*": Precision.INT8}, assignment_only=True)
    return dataclasses.replace(request, job=dataclasses.replace(request.job, config=config))


@pytest.mark.parametrize(("spoils", "engine_ms", "ships"), [(False, 2.0, True), (True, 2.0, False), (False, 3.0, False)])
def test_an_engine_that_was_asked_for_by_its_assignment_only_has_to_be_as_good_as_the_whole_one(
    kept: tuple[Driver, StripRequest], tmp_path: Path, *, spoils: bool, engine_ms: float, ships: bool
) -> None:
    found = stripped(kept, tmp_path, engine_ms=engine_ms, building=Stripping(spoils=spoils), change=given)
    assert found.plan.ships is ships


@pytest.mark.parametrize("engine_ms", [4.0, 4.2])
def test_a_baseline_that_is_kept_is_stripped_too(kept: tuple[Driver, StripRequest], tmp_path: Path, engine_ms: float) -> None:
    driver, request = kept
    without = dataclasses.replace(request.judged, chosen=None, engine=None, ratio=1.0)
    padded = driver.workspace.root / "baseline.onnx"
    model = cnn()
    model.doc_string = "w" * WHOLE_BYTES
    onnx.save_model(model, padded)

    def baseline(request: StripRequest) -> StripRequest:
        job: EngineJob = dataclasses.replace(request.job, baseline=driver.workspace.adopt("baseline.onnx"))
        return dataclasses.replace(request, job=job, judged=without, tried=3)

    found = stripped(kept, tmp_path, engine_ms=engine_ms, change=baseline)
    assert found.chosen is None
    assert found.plan.ships is (engine_ms == 4.0)
    if found.plan.ships:
        assert (found.judged.chosen, found.judged.ratio, found.judged.latency_ms["baseline"].median) == (None, 1.0, engine_ms)
        assert found.judged.engine is not None
        assert found.judged.baseline_accuracy == found.judged.verdict.engine


def test_an_engine_of_a_build_route_is_built_by_it(kept: tuple[Driver, StripRequest], tmp_path: Path) -> None:
    def routed(request: StripRequest) -> StripRequest:
        trials: tuple[Trial, ...] = tuple(dataclasses.replace(trial, build_route="-a=1") for trial in request.finalists)
        return dataclasses.replace(request, finalists=trials)

    building = Stripping()
    stripped(kept, tmp_path, building=building, change=routed)
    assert building.routes == ["-a=1"]
