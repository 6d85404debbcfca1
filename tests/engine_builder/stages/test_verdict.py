"""The last word: which finalist is judged, timed and kept, and what is said of the baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import Answer, IntervalMethod, Selection, judge
from calibration.number_formats.precision import Precision
from engine_builder.config.accuracy import AccuracyConfig
from engine_builder.config.objective import Objective
from engine_builder.engines.finalist_verdicts import same_engine
from engine_builder.evaluation.measurement import search_half
from engine_builder.pipeline.stage_table import TRIAL, VERDICT
from engine_builder.records.inspection import Baseline
from engine_builder.records.trial import Trial
from engine_builder.search.shipping_rule import LEAST_GAIN
from engine_builder.stage_io.engines import EngineJob, TrialRequest, VerdictRequest, VerdictResult
from engine_builder.timed_enough import FinalistsKnown
from engine_builder.timing import Timing
from tests.driver import Driver, Json, inspection_of, plain_outputs, ranged
from tests.fake_timer import FakeTimer
from tests.model_text import cnn, samples_for

FAST, SLOW = FakeTimer(1.0), FakeTimer(4.0)
LAYERS = ("Conv_c1", "Conv_c2", "Add_sum", "Gemm_logits")
SAMPLES = 40
MARGINS = np.linspace(0.05, 4.0, SAMPLES)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Driver, EngineJob]:
    config: Json = {"accuracy": {"metric": "agreement", "min_relative": 0.75}}
    return ranged(tmp_path_factory.mktemp("job"), cnn(), samples_for(cnn(), 20), samples_for(cnn(), SAMPLES, seed=2), config)


def finalist(job: tuple[Driver, EngineJob], wrong: Sequence[int], *quantized: str) -> Trial:
    """Return a trial whose engine is said to be wrong on some samples."""
    driver, basics = job
    driver.timer = FAST
    trial = driver.run(TRIAL, TrialRequest(basics, dict.fromkeys(quantized, Precision.INT8), 0, "loss"))
    scores = np.ones(SAMPLES)
    scores[list(wrong)] = 0.0
    return dataclasses.replace(trial, scores=driver.workspace.write_arrays(f"told/{trial.fingerprint}.npz", scores=scores))


def judged(
    job: tuple[Driver, EngineJob],
    finalists: Sequence[Trial] = (),
    *,
    selection: Selection = Selection.SHARED,
    confidence: float | None = None,
    timer: Callable[..., Mapping[str, Timing]] = FAST,
    most_timed: int = 3,
    tried: int = 1,
    **changes: object,
) -> VerdictResult:
    """Run the stage, with ``changes`` of the job."""
    driver, basics = job
    driver.timer = timer
    config = dataclasses.replace(basics.config, accuracy=dataclasses.replace(basics.config.accuracy, confidence=confidence))
    changed = dataclasses.replace(basics, **{"config": config, **changes})  # type: ignore[arg-type]  # fields of the job
    return driver.run(VERDICT, VerdictRequest(changed, tuple(finalists), selection, most_timed, tried))


def test_without_finalists_the_baseline_is_kept_and_meets_the_budget_as_itself(job: tuple[Driver, EngineJob]) -> None:
    result = judged(job)
    assert (result.chosen, result.engine, result.explicit, result.ratio) == (None, None, None, 1.0)
    assert (result.baseline_accuracy, result.baseline_precisions) == (1.0, {"fp32": 4})
    assert result.baseline_size_bytes == len(cnn().SerializeToString())
    answer = result.verdict
    assert (answer.answer, answer.drop, answer.n, answer.method) == (Answer.MET, 0.0, SAMPLES, IntervalMethod.SAME_ENGINE)
    assert (answer.interval, answer.probability_over_budget) == ((0.0, 0.0), 0.0)


@pytest.mark.parametrize(
    ("metric", "asked"),
    [
        (Metric.TOP1, AccuracyConfig(min_relative=0.99, confidence=0.9)),
        (Metric.NMSE, AccuracyConfig(max_nmse=0.1, confidence=0.9)),
        (Metric.PSNR, AccuracyConfig(min_psnr=20.0, confidence=0.9)),
    ],
)
def test_the_verdict_on_the_reference_itself_is_what_judging_it_measures_and_certain(metric: Metric, asked: AccuracyConfig) -> None:
    scores = np.random.default_rng(0).integers(0, 2, 50).astype(np.float64)
    answer = same_engine(metric, scores, asked, Selection.HELD_OUT)
    measured = judge(metric, scores, scores, asked.budget, confidence=0.9, selection=Selection.HELD_OUT, rng=np.random.default_rng(0))
    told = ("baseline", "engine", "drop", "budget", "n", "flips", "confidence", "selection", "metric")
    assert [getattr(answer, name) for name in told] == pytest.approx([getattr(measured, name) for name in told])
    assert (answer.answer, answer.interval, answer.probability_over_budget) == (Answer.MET, (0.0, 0.0), 0.0)


def test_the_fastest_that_passes_is_kept_and_is_the_engine_that_was_measured(job: tuple[Driver, EngineJob]) -> None:
    safe, fast = finalist(job, [], "Conv_c1"), finalist(job, [3], *LAYERS)
    result = judged(job, [safe, fast], timer=TimerByName({safe.fingerprint: 1.5, fast.fingerprint: 1.0}))
    assert result.chosen == fast.fingerprint
    assert result.ratio == 0.5
    assert [item.fingerprint for item in result.judged] == [safe.fingerprint, fast.fingerprint]
    assert result.engine is not None
    assert result.explicit is not None
    engine, explicit = (job[0].workspace.path(ref) for ref in (result.engine, result.explicit))
    assert engine.read_bytes() == explicit.read_bytes()
    assert engine.stat().st_size == fast.size_bytes
    plain_outputs(engine, samples_for(cnn(), 4), 4)
    assert result.verdict.engine == pytest.approx(1 - 1 / SAMPLES)


def test_of_engines_that_the_timing_cannot_tell_apart_the_safest_is_kept(job: tuple[Driver, EngineJob]) -> None:
    safe, fast = finalist(job, [], "Conv_c1"), finalist(job, [3], *LAYERS)
    result = judged(job, [safe, fast], timer=TimerByName({safe.fingerprint: 1.005, fast.fingerprint: 1.0}))
    assert (result.chosen, result.ratio) == (safe.fingerprint, 1.005 / 2.0)


def in_search(trial: Trial, ratio: float) -> Trial:
    """Return the trial with another latency in the search."""
    assert trial.latency is not None
    return dataclasses.replace(trial, latency=dataclasses.replace(trial.latency, ratio=ratio))


class TimerByName:
    """Says what each engine takes, by its name; the baseline takes 2 ms."""

    def __init__(self, milliseconds: Mapping[str, float], waited: Mapping[str, float] | None = None) -> None:
        self.waited = waited or {}
        self.milliseconds = {**milliseconds, "baseline": 2.0}
        self.timed: tuple[str, ...] = ()

    def __call__(self, calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
        self.timed = tuple(calls)
        ms, waited = self.milliseconds, self.waited
        return {name: Timing(ms[name], ms[name], 0.0, 18, (ms[name],) * 9, waited.get(name)) for name in calls}


def test_what_the_engine_that_waited_longest_waited_is_told(job: tuple[Driver, EngineJob]) -> None:
    trial = finalist(job, [], *LAYERS)
    one = {trial.fingerprint: 1.0}
    assert judged(job, [trial], timer=TimerByName(one, {"baseline": 0.25, trial.fingerprint: 0.4})).waited == 0.4
    assert judged(job, [trial], timer=TimerByName(one)).waited is None


def test_an_engine_that_is_not_likely_inside_is_no_reason_to_stop_judging(job: tuple[Driver, EngineJob]) -> None:
    bad, good = finalist(job, range(20), "Conv_c1", "Conv_c2"), finalist(job, [], *LAYERS)
    result = judged(job, [bad, good])
    assert result.judged[0].verdict.answer is Answer.NOT_MET
    assert result.chosen == good.fingerprint


def test_a_confidence_on_samples_that_the_search_saw_is_shared_out_among_all_engines_that_it_tried(job: tuple[Driver, EngineJob]) -> None:
    trial = finalist(job, [], *LAYERS)  # the score bound of 40 samples without a flip at 25% lies 3.65 standard deviations away: 1e-4
    assert judged(job, [trial], confidence=0.95, tried=100).chosen == trial.fingerprint
    assert judged(job, [trial], confidence=0.95, tried=10_000).chosen is None
    held_out = judged(job, [trial], confidence=0.95, tried=10_000, selection=Selection.HELD_OUT)
    assert held_out.chosen == trial.fingerprint


def test_decisions_by_a_hair_count_against_an_engine_that_changed_none(job: tuple[Driver, EngineJob]) -> None:
    driver, basics = job
    strict = dataclasses.replace(basics.config, accuracy=dataclasses.replace(basics.config.accuracy, min_relative=0.97))
    clear, hair = (
        dataclasses.replace(
            trial,
            scores=driver.workspace.write_arrays(
                f"told/{trial.fingerprint}-margins.npz", scores=np.ones(SAMPLES), reference_margins=MARGINS, margins=MARGINS - moved
            ),
        )
        for trial, moved in (
            (finalist(job, [], "Conv_c1"), np.full(SAMPLES, 1e-3)),
            (finalist(job, [], *LAYERS), 0.98 * np.where(MARGINS < 1.0, MARGINS, 0.0)),
        )
    )
    result = driver.run(VERDICT, VerdictRequest(dataclasses.replace(basics, config=strict), (clear, hair), Selection.SHARED, 3))
    by_name = {one.fingerprint: one.verdict for one in result.judged}
    assert by_name[clear.fingerprint].probability_over_budget < 0.1 < 0.2 < by_name[hair.fingerprint].probability_over_budget


def test_an_engine_that_gains_less_than_three_percent_is_worth_it_only_if_it_changes_nothing(job: tuple[Driver, EngineJob]) -> None:
    trial = finalist(job, [], *LAYERS)
    timer = TimerByName({trial.fingerprint: 1.96})  # of 2
    assert judged(job, [trial], timer=timer).chosen is None
    assert judged(job, [dataclasses.replace(trial, are_outputs_equal=True)], timer=timer).chosen == trial.fingerprint


def test_judging_for_a_confidence_on_samples_kept_apart_stops_at_the_first_failure(job: tuple[Driver, EngineJob]) -> None:
    safe, bad, lucky = finalist(job, [], "Conv_c1"), finalist(job, range(20), "Conv_c1", "Conv_c2"), finalist(job, [], *LAYERS)
    timer = TimerByName({safe.fingerprint: 1.5, bad.fingerprint: 1.2, lucky.fingerprint: 1.0})
    result = judged(job, [safe, bad, lucky], timer=timer, selection=Selection.HELD_OUT, confidence=0.7)
    answers = [item.verdict.answer for item in result.judged]
    assert answers == [Answer.MET, Answer.NOT_MET]
    assert timer.timed == ("baseline", safe.fingerprint)
    assert result.chosen == safe.fingerprint


def test_an_engine_that_is_not_faster_leaves_the_baseline(job: tuple[Driver, EngineJob]) -> None:
    result = judged(job, [finalist(job, [], *LAYERS)], timer=SLOW)
    assert (result.chosen, result.engine) == (None, None)
    assert result.verdict.drop == 0.0


def test_a_gain_inside_the_spread_of_the_timing_is_none(job: tuple[Driver, EngineJob]) -> None:
    def noisy(calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
        varying = tuple(1.2 + 0.175 * index for index in range(9))  # 5% faster in the median, and never twice the same
        blocks = {name: (2.0,) * 9 if name == "baseline" else varying for name in calls}
        return {name: Timing(float(np.median(times)), max(times), 0.3, 18, times) for name, times in blocks.items()}

    assert judged(job, [finalist(job, [], *LAYERS)], timer=noisy).chosen is None


def test_met_on_the_sample_alone_does_where_no_confidence_is_asked(job: tuple[Driver, EngineJob]) -> None:
    close = finalist(job, range(9), *LAYERS)  # 22.5% of the samples changed, 25% allowed
    accepted = judged(job, [close])
    assert (accepted.chosen, accepted.verdict.answer) == (close.fingerprint, Answer.MET_ON_SAMPLE)
    demanded = judged(job, [close], confidence=0.95)
    assert demanded.chosen is None
    assert demanded.verdict.answer is Answer.MET  # the baseline's


def test_held_out_samples_are_those_that_the_search_did_not_see(job: tuple[Driver, EngineJob]) -> None:
    seen = search_half(SAMPLES, 0)
    trial = finalist(job, [int(index) for index in seen], *LAYERS)  # wrong on all that the search saw, on none of the others
    result = judged(job, [trial], selection=Selection.HELD_OUT)
    answer = result.verdict
    assert (answer.n, answer.flips, answer.selection) == (SAMPLES - len(seen), 0, Selection.HELD_OUT)
    assert result.chosen == trial.fingerprint


def test_a_baseline_in_half_precision_is_judged_against_float32(job: tuple[Driver, EngineJob]) -> None:
    driver, basics = job
    scores = np.ones(SAMPLES)
    scores[:16] = 0.0
    half = Baseline(Precision.FP16, driver.workspace.write_arrays("told/baseline.npz", scores=scores))
    inspected = dataclasses.replace(inspection_of(driver, basics), baseline=half)
    inspection = driver.workspace.write_value("told/inspection.json", inspected)
    result = judged(job, inspection=inspection)
    assert (result.baseline_accuracy, result.baseline_precisions) == (0.6, {"fp16": 4})
    answer = result.verdict
    assert (answer.answer, answer.baseline, answer.engine) == (Answer.NOT_MET, 1.0, 0.6)
    assert answer.drop == pytest.approx(0.4)
    quantized = finalist(job, [0], *LAYERS)
    better = judged(job, [quantized], inspection=inspection)
    assert better.chosen == quantized.fingerprint
    assert better.verdict.drop == pytest.approx(1 / SAMPLES)
    assert better.baseline_accuracy == 0.6


def test_the_environment_says_how_to_repeat_the_timing(job: tuple[Driver, EngineJob]) -> None:
    found = judged(job).environment
    assert found["threads"] == 1
    assert found["processor"]
    assert set(found) >= {"platform", "python", "onnxruntime", "onnx", "clock"}


def test_no_more_engines_are_timed_than_asked_for(job: tuple[Driver, EngineJob]) -> None:
    trials = [in_search(finalist(job, [], *LAYERS[:count]), 1.0 - 0.1 * count) for count in (1, 2, 3, 4)]
    timer = TimerByName({trial.fingerprint: 1.9 - 0.2 * index for index, trial in enumerate(trials)})
    result = judged(job, trials, timer=timer)
    assert timer.timed == ("baseline", *(trial.fingerprint for trial in trials[1:]))
    assert result.chosen == trials[-1].fingerprint
    alone = judged(job, trials, timer=timer, most_timed=1)
    assert timer.timed == ("baseline", trials[-1].fingerprint)
    assert alone.chosen == trials[-1].fingerprint


def test_the_engines_that_were_fastest_in_the_search_are_timed_whatever_their_safety(job: tuple[Driver, EngineJob]) -> None:
    trials = [in_search(finalist(job, [], *LAYERS[:count]), ratio) for count, ratio in ((1, 0.6), (2, 0.5), (3, 0.55))]
    timer = TimerByName({trial.fingerprint: 1.0 for trial in trials})
    judged(job, trials, timer=timer, most_timed=2)
    assert timer.timed == ("baseline", trials[1].fingerprint, trials[2].fingerprint)


@pytest.mark.parametrize(("jitter", "kept"), [(0.002, "fast"), (0.12, "safe")])
def test_an_advantage_within_its_error_ships_the_safer_engine(job: tuple[Driver, EngineJob], jitter: float, kept: str) -> None:
    safe, fast = finalist(job, [], "Conv_c1"), finalist(job, [3], *LAYERS)
    rng = np.random.default_rng(1)
    shape = 1.0 + jitter * rng.permutation(np.linspace(-1.0, 1.0, 15))
    milliseconds = {"baseline": np.full(15, 2.0), safe.fingerprint: np.full(15, 1.0), fast.fingerprint: 0.96 * shape}

    def timer(calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
        return {name: Timing(float(np.median(ms)), 2.0, 0.0, 18, tuple(ms)) for name, ms in milliseconds.items()}

    assert judged(job, [safe, fast], timer=timer).chosen == {"fast": fast, "safe": safe}[kept].fingerprint


def test_finalists_are_timed_until_it_is_known_which_ships(job: tuple[Driver, EngineJob]) -> None:
    safe, fast = finalist(job, [], "Conv_c1"), finalist(job, [3], *LAYERS)
    asked: list[Mapping[str, object]] = []

    def timer(calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
        asked.append(how)
        return FAST(calls)

    judged(job, [safe, fast], timer=timer)
    enough = asked[0]["enough"]
    assert isinstance(enough, FinalistsKnown)
    assert list(enough.finalists) == [safe.fingerprint, fast.fingerprint]
    assert enough.bounds == (1.0 - LEAST_GAIN,)
    config = dataclasses.replace(job[1].config, objective=Objective(min_speedup=1.6))
    driver, basics = job
    driver.timer = timer
    driver.run(VERDICT, VerdictRequest(dataclasses.replace(basics, config=config), (fast,), Selection.SHARED, 1))
    enough = asked[-1]["enough"]
    assert isinstance(enough, FinalistsKnown)
    assert enough.bounds == (1.0 - LEAST_GAIN, 1.0 / 1.6)
