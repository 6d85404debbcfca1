"""An engine that is built again by a route, beside the one it came from."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest

from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Backend
from engine_builder.config.config import Config
from engine_builder.engines.quantized_engine import BUILD_ROUTE, EXPLICIT_NAME
from engine_builder.pipeline.stage_table import TRIAL
from engine_builder.records.build_route import ROUTE, routed_fingerprint
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob, RouteRequest, RouteResult, TrialRequest
from engine_builder.stages.after_search.route import route
from engine_builder.timing import Timing
from engine_builder.workspace.workspace import StageContext, Workspace
from tests.driver import Driver, Json, ranged
from tests.engine_builder.fake_levels import LevelledBackend, Levels
from tests.fake_timer import FakeTimer
from tests.model_text import cnn, samples_for

HANGS = """
import json, sys, time
from engine_builder.stages.after_search import route
with route._ended_after(json.loads(sys.argv[1])):
    time.sleep(60) if sys.argv[2] == "hang" else None
print("went on")
"""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Driver, EngineJob, Trial]:
    config: Json = {"accuracy": {"metric": "agreement", "min_relative": 0.75}}
    driver, job = ranged(tmp_path_factory.mktemp("job"), cnn(), samples_for(cnn(), 20), samples_for(cnn(), 40, seed=2), config)
    driver.timer = FakeTimer(1.0)
    found = driver.run(TRIAL, TrialRequest(job, {"Conv_c1": Precision.INT8, "Conv_c2": Precision.INT8}, 1, "loss"))
    engine = driver.workspace.root / "origin.onnx"
    engine.write_bytes(cnn().SerializeToString())
    return driver, job, dataclasses.replace(found, engine=driver.workspace.adopt("origin.onnx"))


@dataclasses.dataclass
class ByRoute(Levels):
    """Engines of a route, with their outputs negated where it ``spoils``."""

    def __call__(self, config: Config, context: StageContext, *, final: bool = False, route: str = "", stripped: bool = False) -> Backend:
        self.routes.append(route)
        return LevelledBackend(self, final=True)


@dataclasses.dataclass(frozen=True)
class Times:
    """A timer that says what a test wants of the route's engine, beside 2 ms of the one it came from and 4 ms of the baseline."""

    engine_ms: float

    def __call__(self, calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
        taken = {"engine": self.engine_ms, "origin": 2.0, "baseline": 4.0}
        assert sorted(calls) == sorted(taken)  # all in turns
        return {name: Timing(taken[name], taken[name], 0.0, 18, (taken[name],) * 9) for name in calls}


def routed(origin: tuple[Driver, EngineJob, Trial], folder: Path, timer: Times, building: ByRoute) -> RouteResult:
    driver, job, trial = origin
    folder.mkdir()
    context = StageContext(Workspace(driver.workspace.root), folder, lambda fraction, message: None)
    return route(RouteRequest(job, trial, "-a=1", 7, 600.0), context, timer=timer, building=building)


def test_it_is_scored_and_timed_beside_the_engine_it_came_from_and_kept_if_it_helps(
    origin: tuple[Driver, EngineJob, Trial], tmp_path: Path
) -> None:
    driver, _, before = origin
    building = ByRoute()
    found = routed(origin, tmp_path / "scratch", Times(1.5), building)
    assert building.routes == ["-a=1"]
    assert found.relative.ratio == pytest.approx(0.75)
    trial = found.trial
    assert trial.latency is not None
    assert trial.latency.ratio == pytest.approx(1.5 / 4.0)
    assert (trial.index, trial.order, trial.build_route) == (7, ROUTE, "-a=1")
    assert trial.fingerprint == routed_fingerprint(before.fingerprint, "-a=1")
    assert (trial.precisions, trial.low_layers) == (before.precisions, before.low_layers)
    assert trial.on_all == before.on_all  # the same kernels round the same
    assert trial.engine is not None
    assert onnx.load_model(driver.workspace.path(trial.engine)).doc_string == "final"  # what was built here
    explicit = onnx.load_model(tmp_path / "scratch" / EXPLICIT_NAME)
    assert BUILD_ROUTE in {entry.key for entry in explicit.metadata_props}


def test_one_that_is_no_faster_is_not_kept(origin: tuple[Driver, EngineJob, Trial], tmp_path: Path) -> None:
    found = routed(origin, tmp_path / "scratch", Times(1.99), ByRoute())
    assert found.trial.engine is None
    assert found.trial.on_all is not None  # it was judged all the same


def test_one_that_misses_the_budget_is_not_kept_however_fast(origin: tuple[Driver, EngineJob, Trial], tmp_path: Path) -> None:
    found = routed(origin, tmp_path / "scratch", Times(0.5), ByRoute(spoils=True))
    assert found.trial.on_all is not None
    assert not found.trial.met
    assert found.trial.engine is None


@pytest.mark.parametrize(("wanted", "status"), [("hang", -signal.SIGALRM), ("end", 0)])
def test_a_route_that_hangs_is_ended_with_its_time(wanted: str, status: int) -> None:
    seconds = 0.2 if wanted == "hang" else 60.0
    done = subprocess.run([sys.executable, "-c", HANGS, json.dumps(seconds), wanted], capture_output=True, check=False, timeout=50)
    assert done.returncode == status
    assert (b"went on" in done.stdout) is (wanted == "end")
