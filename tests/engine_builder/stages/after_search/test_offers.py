"""Other budgets, on a real small job: verdicts of told scores, and engines that are built again byte for byte."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from calibration.accuracy.budget import Budget
from calibration.accuracy.verdict import Answer, Selection
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Backend, Engine
from engine_builder.config.config import Config
from engine_builder.engines.factory import Building, building_backend
from engine_builder.errors import BuildError
from engine_builder.evaluation.measurement import search_half
from engine_builder.pipeline.stage_table import TRIAL
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob, TrialRequest
from engine_builder.stage_io.offers import NotKept, OffersRequest, OffersResult
from engine_builder.stages.after_search.offers import offers
from engine_builder.timing import RelativeLatency
from engine_builder.workspace.workspace import StageContext, Workspace
from tests.driver import Driver, Json, plain_outputs, ranged, run_job
from tests.engine_builder.fake_levels import LevelledBackend, Levels
from tests.fake_timer import FakeTimer
from tests.model_text import cnn, samples_for

SAMPLES = 400
PLENTY = 1000.0  # seconds
SAFE, FAST = ("Conv_c1",), ("Conv_c1", "Conv_c2", "Gemm_logits")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Driver, EngineJob]:
    config: Json = {"accuracy": {"metric": "agreement", "min_relative": 0.9999}}
    return ranged(tmp_path_factory.mktemp("job"), cnn(), samples_for(cnn(), 20), samples_for(cnn(), SAMPLES, seed=2), config)


@pytest.fixture(scope="module")
def trials(job: tuple[Driver, EngineJob]) -> dict[tuple[str, ...], Trial]:
    driver, basics = job
    driver.timer = FakeTimer(1.0)
    return {
        layers: driver.run(TRIAL, TrialRequest(basics, dict.fromkeys(layers, Precision.INT8), index, "loss"))
        for index, layers in enumerate((SAFE, FAST), start=1)
    }


def told(job: tuple[Driver, EngineJob], trial: Trial, wrong: Sequence[int]) -> Trial:
    """Return the trial as if its engine were wrong on some samples."""
    scores = np.ones(SAMPLES)
    scores[list(wrong)] = 0.0
    return dataclasses.replace(trial, scores=job[0].workspace.write_arrays(f"told/{trial.fingerprint}.npz", scores=scores))


def run(
    job: tuple[Driver, EngineJob],
    folder: Path,
    *engines: tuple[Trial, float],
    seconds: float = PLENTY,
    shipped: str | None = None,
    selection: Selection = Selection.SHARED,
    confidence: float | None = None,
    building: Building = building_backend,
) -> OffersResult:
    """Run the stage for engines, safest first, each with its latency to the baseline's."""
    driver, basics = job
    accuracy = dataclasses.replace(basics.config.accuracy, confidence=confidence)
    basics = dataclasses.replace(basics, config=dataclasses.replace(basics.config, accuracy=accuracy))
    latency = {trial.fingerprint: RelativeLatency(ratio, 0.001) for trial, ratio in engines}
    request = OffersRequest(
        basics, tuple(trial for trial, _ in engines), latency, selection, 1, shipped, () if shipped is None else (shipped,), seconds
    )
    folder.mkdir(exist_ok=True)
    context = StageContext(Workspace(driver.workspace.root), folder, lambda fraction, message: None)
    return offers(request, context, building=building)


class Refusing(LevelledBackend):
    """A backend that cannot build."""

    def build(self, *args: object, **options: object) -> Engine:
        raise BuildError("the compiler crashed", fix="none")


def refusing(config: Config, context: StageContext, *, final: bool = False, route: str = "", stripped: bool = False) -> Backend:
    return Refusing(Levels(), final)


def given(result: OffersResult) -> dict[float | None, str | None]:
    return {offer.budget.min_relative: offer.fingerprint for offer in result.budgets}


def test_each_budget_gives_the_fastest_engine_inside_it(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    safe, fast = told(job, trials[SAFE], ()), told(job, trials[FAST], (0,))  # 0.25% lost
    found = run(job, tmp_path, (safe, 0.8), (fast, 0.5))
    assert given(found) == {0.99: fast.fingerprint, 0.999: safe.fingerprint, 0.9999: None}  # 400 samples cannot tell 0.01% from nothing
    assert [one.fingerprint for one in found.engines] == [fast.fingerprint, safe.fingerprint]
    assert [one.latency.ratio for one in found.engines] == [0.5, 0.8]


def test_every_offer_is_more_likely_inside_its_budget_than_not_and_the_next_tighter_is_not(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    found = run(job, tmp_path, (told(job, trials[SAFE], range(8)), 0.8))
    (engine,) = found.engines
    assert engine.accuracy == pytest.approx(1 - 8 / SAMPLES)
    assert engine.keeps.min_relative is not None
    assert 0.96 < engine.keeps.min_relative <= 0.98  # 2% are lost here, and the samples leave some more open
    assert engine.verdict.probability_over_budget <= 0.5
    assert engine.verdict.budget == pytest.approx(1 - engine.keeps.min_relative)


def test_an_engine_that_a_faster_one_beats_at_every_budget_is_no_offer(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    slow, fast = told(job, trials[SAFE], range(20)), told(job, trials[FAST], range(8))
    found = run(job, tmp_path, (fast, 0.5), (slow, 0.8))
    assert [one.fingerprint for one in found.engines] == [fast.fingerprint]
    shipped = run(job, tmp_path / "shipped", (fast, 0.5), (slow, 0.8), shipped=slow.fingerprint)
    assert [one.fingerprint for one in shipped.engines] == [fast.fingerprint, slow.fingerprint]


def test_the_judging_at_a_budget_ends_with_the_first_engine_that_is_over_it(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    unsafe, lucky = told(job, trials[SAFE], range(20)), told(job, trials[FAST], ())
    assert given(run(job, tmp_path, (unsafe, 0.8), (lucky, 0.5)))[0.99] is None


def test_the_engine_that_ships_is_judged_in_any_case(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    unsafe, shipped = told(job, trials[SAFE], range(20)), told(job, trials[FAST], ())
    found = run(job, tmp_path, (unsafe, 0.8), (shipped, 0.5), shipped=shipped.fingerprint)
    assert given(found)[0.99] == shipped.fingerprint
    assert [(one.fingerprint, one.engine) for one in found.engines] == [(shipped.fingerprint, None)]  # its file is the job's engine


def test_a_confidence_that_is_asked_for_is_asked_of_offers_too(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    trial = told(job, trials[SAFE], (0, 1))
    (likely,), (sure,) = (run(job, tmp_path, (trial, 0.8), confidence=level, seconds=0.0).engines for level in (None, 0.95))
    assert likely.verdict.answer is Answer.MET_ON_SAMPLE
    assert sure.verdict.answer is Answer.MET
    assert (sure.keeps.min_relative or 0.0) < (likely.keeps.min_relative or 0.0)


def test_samples_that_the_search_saw_do_not_count_where_others_were_kept_apart(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    seen = search_half(SAMPLES, job[1].config.search.seed)
    trial = told(job, trials[SAFE], seen[:100].tolist())
    (apart,), shared = (
        run(job, tmp_path, (trial, 0.8), selection=selection, seconds=0.0).engines for selection in (Selection.HELD_OUT, Selection.SHARED)
    )
    assert (apart.accuracy, apart.verdict.n) == (1.0, SAMPLES - len(seen))
    assert shared[0].accuracy == 0.75


def test_an_engine_that_lost_nearly_everything_is_no_offer(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    assert run(job, tmp_path, (told(job, trials[SAFE], range(350)), 0.8)).engines == ()


def test_the_engine_is_the_one_whose_scores_these_are(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    driver, trial = job[0], trials[FAST]
    (offer,) = run(job, tmp_path, (trial, 0.5)).engines
    assert offer.engine is not None
    assert offer.engine.file == f"front/{trial.fingerprint}/engine.onnx"
    path, samples = driver.workspace.path(offer.engine), samples_for(cnn(), SAMPLES, seed=2)
    (engine,), (own,) = plain_outputs(path, samples, 1), plain_outputs(cnn().SerializeToString(), samples, 1)
    assert trial.scores is not None
    np.testing.assert_array_equal(engine.argmax(axis=1) == own.argmax(axis=1), driver.workspace.read_scores(trial.scores) == 1.0)
    assert offer.size_bytes == path.stat().st_size
    assignment = json.loads(driver.workspace.path(offer.assignment).read_text())
    assert {name for name, precision in assignment.items() if precision == "int8"} == set(trial.precisions)
    assert offer.precisions == {"fp32": len(assignment) - len(trial.precisions), "int8": len(trial.precisions)}
    assert onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_outputs()


def test_an_engine_that_was_kept_is_copied(job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path) -> None:
    kept = job[0].workspace.write_bytes("trials/kept.plan", b"a plan")
    (offer,) = run(job, tmp_path, (dataclasses.replace(trials[SAFE], engine=kept), 0.8), seconds=0.0).engines
    assert offer.engine is not None
    assert job[0].workspace.path(offer.engine).read_bytes() == b"a plan"


def test_without_time_an_engine_is_offered_and_said_not_to_be_built(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    (offer,) = run(job, tmp_path, (trials[SAFE], 0.8), seconds=0.0).engines
    assert (offer.engine, offer.not_kept) == (None, NotKept.NO_TIME)


def test_an_engine_that_cannot_be_built_again_is_said_so(
    job: tuple[Driver, EngineJob], trials: dict[tuple[str, ...], Trial], tmp_path: Path
) -> None:
    (offer,) = run(job, tmp_path, (trials[SAFE], 0.8), building=refusing).engines
    assert (offer.engine, offer.not_kept) == (None, NotKept.FAILED)


def test_a_whole_job_that_keeps_the_baseline_names_what_looser_budgets_give(tmp_path: Path) -> None:
    finished = run_job(tmp_path, cnn(), config={"accuracy": {"metric": "cosine", "min_relative": 1.0}, "outputs": {"logits": "values"}})
    assert finished.result["outcome"] == "baseline_kept"
    told_offers = finished.result["offers"]
    assert isinstance(told_offers, dict)
    (nearest, *_) = sorted(told_offers["engines"], key=lambda engine: -engine["keeps"]["min_relative"])
    assert f"2.00x was to be had at {nearest['in_words']}" in str(finished.result["reason"])
    assert told_offers["in_words"].endswith("nothing faster is inside 100% (asked for)")
    own = Budget(min_relative=1.0)
    (row,) = [row for row in told_offers["budgets"] if row["is_asked"]]
    assert (row["budget"], row["fingerprint"]) == ({"min_relative": own.min_relative}, None)
    for engine in told_offers["engines"]:
        ref = finished.outcome.artifacts[engine["file"]["name"]]
        assert (ref.sha256, ref.file) == (engine["file"]["sha256"], engine["file"]["name"])
        assert engine["assignment"] in finished.outcome.artifacts
