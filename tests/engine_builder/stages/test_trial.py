"""One trial: the engine that is built, its scores against the float model, and its time beside the baseline's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from numpy.typing import NDArray

from calibration.accuracy.metrics import Metric
from calibration.codec import as_object, json_from_value, value_from_json
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Capabilities, Engine
from engine_builder.backends.kernels import KernelTime
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.backends.registry import Target
from engine_builder.config.accuracy import AccuracyConfig
from engine_builder.config.config import config_from_json
from engine_builder.errors import BuildError
from engine_builder.evaluation.measurement import EngineScores, accuracy, fits, search_half
from engine_builder.pipeline.stage_table import TRIAL
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob, TrialRequest
from engine_builder.timing import Timing
from tests.driver import REAL_TIME, Driver, Json, inspection_of, plain_outputs, ranged, with_corrections
from tests.model_text import cnn, samples_for
from tests.models import attention, duplicate_node_names, fp16, several_outputs

CNN_LAYERS = ("Conv_c1", "Conv_c2", "Add_sum", "Gemm_logits")


def run_trial(driver: Driver, job: EngineJob, *quantized: str) -> Trial:
    """Run the trial of the engine with these layers in INT8 as a stage."""
    answer = driver.run_json(TRIAL, as_object(json_from_value(TrialRequest(job, dict.fromkeys(quantized, Precision.INT8), 3, "loss"))))
    return value_from_json(Trial, answer["result"])


def scores_of(driver: Driver, trial: Trial) -> NDArray[np.float64]:
    assert trial.scores is not None
    return cast("NDArray[np.float64]", driver.workspace.read_arrays(trial.scores)["scores"])


def with_zeros(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with zeros for its first weight."""
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(weight)), weight.name))
    return model


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Driver, EngineJob]:
    return ranged(
        tmp_path_factory.mktemp("job"), cnn(), samples_for(cnn(), 20), samples_for(cnn(), 12, seed=2), {"accuracy": {"max_nmse": 0.5}}
    )


def test_layers_are_named_as_these_tests_say(job: tuple[Driver, EngineJob]) -> None:
    assert tuple(layer.name for layer in inspection_of(*job).model.layers) == CNN_LAYERS


def test_the_baseline_is_the_users_file_and_scores_as_itself(job: tuple[Driver, EngineJob]) -> None:
    trial = run_trial(*job)
    assert (trial.index, trial.order, trial.low_layers, trial.failure) == (3, "loss", 0, None)
    assert trial.size_bytes == len(cnn().SerializeToString())
    assert trial.loss == 0.0
    assert trial.on_all is not None
    assert (trial.on_all.score, trial.on_all.flips, trial.on_all.samples) == (0.0, 0.0, 12)
    assert trial.latency is not None
    assert (trial.latency.ratio, trial.latency.median_ms) == (1.0, trial.latency.baseline_median_ms)


def test_the_float_baseline_is_not_run_again_on_what_the_inspection_ran_it_on(job: tuple[Driver, EngineJob]) -> None:
    driver, basics = job
    replaced = driver.workspace.write_bytes("other.onnx", with_zeros(cnn()).SerializeToString())
    trial = run_trial(driver, dataclasses.replace(basics, baseline=replaced))
    assert trial.loss == 0.0  # of a model that computes something else: what is known of the baseline is taken as it is
    assert trial.scores is not None
    assert trial.scores.sha256 == inspection_of(driver, basics).reference.scores.sha256


def test_a_half_precision_baseline_is_scored_against_the_float_model(tmp_path: Path) -> None:
    driver, basics = ranged(tmp_path, fp16(), config={"accuracy": {"metric": "cosine"}})
    replaced = driver.workspace.write_bytes("other.onnx", with_zeros(fp16()).SerializeToString())
    trial = run_trial(driver, dataclasses.replace(basics, baseline=replaced))
    assert trial.loss is not None
    assert trial.loss > 0.0


def test_a_quantized_engine_is_scored_against_the_float_model(job: tuple[Driver, EngineJob]) -> None:
    trial = run_trial(*job, "Conv_c1", "Gemm_logits")
    assert trial.low_layers == 2
    assert trial.on_all is not None
    assert 0.0 < trial.on_all.score < 0.1
    assert trial.on_all.score == pytest.approx(float(np.mean(scores_of(job[0], trial))))
    assert trial.on_all.excess == pytest.approx(0.5 - trial.on_all.score)
    assert trial.loss is not None
    assert trial.loss > 0.0


def test_half_of_the_samples_is_for_the_search(job: tuple[Driver, EngineJob]) -> None:
    trial = run_trial(*job, *CNN_LAYERS)
    assert trial.on_search is not None
    assert trial.on_search.samples == 6
    assert trial.on_search.score == pytest.approx(float(np.mean(scores_of(job[0], trial)[search_half(12, 0)])))


def test_the_same_assignment_gives_the_same_fingerprint_and_scores(job: tuple[Driver, EngineJob]) -> None:
    first, second = run_trial(*job, "Conv_c1", "Conv_c2"), run_trial(*job, "Conv_c2", "Conv_c1")
    assert (first.fingerprint, first.scores, first.loss, first.size_bytes) == (
        second.fingerprint,
        second.scores,
        second.loss,
        second.size_bytes,
    )


def test_the_float_models_outputs_are_those_of_plain_onnxruntime(job: tuple[Driver, EngineJob]) -> None:
    driver, basics = job
    kept = driver.workspace.read_arrays(inspection_of(driver, basics).reference.outputs)["0"]
    outputs = plain_outputs(cnn().SerializeToString(), samples_for(cnn(), 12, seed=2), 12)[0]
    np.testing.assert_allclose(kept.astype(float), outputs.astype(float), atol=1e-6)  # float32 sums in another order


def test_the_prepared_model_stands_in_where_the_users_file_does_not_load(tmp_path: Path) -> None:
    driver, basics = ranged(tmp_path, duplicate_node_names())
    assert basics.baseline.file == "prepared.onnx"
    trial = run_trial(driver, basics)
    assert trial.on_all is not None
    assert (trial.on_all.score, trial.on_all.flips) == (1.0, 0.0)


def test_only_compared_outputs_count(tmp_path: Path) -> None:
    driver, basics = ranged(tmp_path, several_outputs(), config={"outputs": {"hidden": "ignore"}})
    inspection = inspection_of(driver, basics)
    trial = run_trial(driver, basics, inspection.model.layers[-1].name)
    assert set(driver.workspace.read_arrays(inspection.reference.outputs)) == {"0"}
    assert trial.on_all is not None
    assert trial.on_all.binary  # agreement of the logits alone


class RecordingTimer:
    """Runs each engine once, keeping the shapes that came out."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def __call__(self, calls: Mapping[str, Callable[[], object]], **how: object) -> dict[str, Timing]:
        self.shapes = {name: cast(tuple[NDArray[np.float32], ...], call())[0].shape for name, call in calls.items()}
        return {name: Timing(1.0, 1.0, 0.0, 9, (1.0,) * 9) for name in calls}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({}, (1, 8, 8)),
        ({"batch_size": 64}, (64, 8, 8)),
        ({"shapes": {"ids": {"min": [1, 1], "opt": [5, 13], "max": [8, 16]}}}, (5, 13, 8)),
        ({"shapes": {"mask": {"min": [1, 1], "opt": [2, 3], "max": [8, 16]}}}, (2, 3, 8)),
    ],
)
def test_engines_are_timed_at_the_sizes_asked_for(config: Json, shape: tuple[int, ...], tmp_path: Path) -> None:
    driver, basics = ranged(tmp_path, attention(), config=config)
    timer = RecordingTimer()
    driver.timer = timer
    run_trial(driver, basics, inspection_of(driver, basics).model.layers[0].name)
    assert timer.shapes == {"engine": shape, "baseline": shape}


def test_an_engine_that_fails_when_it_runs_is_a_failed_build(job: tuple[Driver, EngineJob]) -> None:
    driver, basics = job
    inspected = inspection_of(driver, basics)
    samples = driver.workspace.read_arrays(inspected.samples.validation)
    broken = driver.workspace.write_arrays("broken.npz", **{name: array[:, :, :1] for name, array in samples.items()})
    changed = dataclasses.replace(inspected, samples=dataclasses.replace(inspected.samples, validation=broken))
    inspection = driver.workspace.write_value("broken_inspection.json", changed)
    with pytest.raises(BuildError, match=r"the engine was built but does not run: .*Got invalid dimensions"):
        run_trial(driver, dataclasses.replace(basics, inspection=inspection), "Conv_c1")


def test_accuracy_counts_flips_and_what_is_left_of_the_budget() -> None:
    reference, scores = np.array([1.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0, 1.0])
    config = config_from_json({"accuracy": {"metric": "top1", "min_relative": 0.9}})
    found = accuracy(reference, EngineScores(scores), Metric.TOP1, config)
    assert (found.score, found.baseline, found.flips, found.binary, found.samples) == (0.75, 0.75, 0.5, True, 4)
    assert found.excess == pytest.approx(0.075)


def test_a_budget_that_is_met_to_the_last_bit_is_met() -> None:
    scores = np.full(10, 0.1)  # whose mean is not 0.1 in float64
    kept, allowed = (config_from_json({"accuracy": one}) for one in ({"metric": "cosine", "min_relative": 1.0}, {"max_nmse": 0.1}))
    assert accuracy(scores, EngineScores(scores), Metric.COSINE, kept).met
    assert accuracy(np.zeros(10), EngineScores(scores), Metric.NMSE, allowed).met


def test_an_engine_that_changes_no_output_is_inside_any_budget() -> None:
    config = config_from_json({"accuracy": {"metric": "agreement", "min_relative": 1.0}})
    same = accuracy(np.ones(10), EngineScores(np.ones(10), are_outputs_equal=True), Metric.AGREEMENT, config)
    assert (same.met, same.probability_over) == (True, 0.0)
    assert not accuracy(np.ones(10), EngineScores(np.ones(10)), Metric.AGREEMENT, config).met  # ten samples cannot tell


def test_the_search_half_is_seeded() -> None:
    assert len(search_half(11, 0)) == 6
    np.testing.assert_array_equal(search_half(100, 3), search_half(100, 3))
    assert set(search_half(100, 3)) != set(search_half(100, 4))
    assert len(search_half(1, 0)) == 1


def test_corrected_biases_are_left_out_where_only_the_engine_without_them_meets_the_budget(tmp_path: Path) -> None:
    config: Json = {"accuracy": {"max_nmse": 0.5}, "exact_on": "any_x86_64"}  # the same weights on every processor
    quantized = ("Conv_c1",)  # on these samples the correction, judged on others, makes the outputs worse
    driver, basics = ranged(tmp_path, cnn(), samples_for(cnn(), 20, seed=8), samples_for(cnn(), 12, seed=106), config)
    corrected_basics = with_corrections(driver, basics)
    plain, corrected = run_trial(driver, basics, *quantized), run_trial(driver, corrected_basics, *quantized)
    assert corrected.corrections is not None
    assert plain.on_all is not None
    assert corrected.on_all is not None
    assert plain.on_all.score < corrected.on_all.score
    between = _just_allowed(driver, basics, plain) * 1.001
    assert between < _just_allowed(driver, basics, corrected)
    tight = dataclasses.replace(corrected_basics, config=dataclasses.replace(basics.config, accuracy=AccuracyConfig(max_nmse=between)))
    trial = run_trial(driver, tight, *quantized)
    assert trial.corrections is None
    assert trial.bias is not None
    assert not trial.bias.kept
    assert trial.met
    assert np.array_equal(scores_of(driver, trial), scores_of(driver, plain))


class DearBackend(OrtCpuBackend):
    """Builds what the processor's does, counts the builds, and says that each takes long."""

    def __init__(self, built: list[str], *, is_dear: bool) -> None:
        self.built, self.is_dear = built, is_dear

    @property
    def capabilities(self) -> Capabilities:
        return dataclasses.replace(super().capabilities, builds_are_dear=self.is_dear)

    def build(self, explicit: Path, output: Path, **more: object) -> Engine:
        self.built.append(output.parent.name)
        return super().build(explicit, output)


def counted_trial(driver: Driver, job: EngineJob, *quantized: str, is_dear: bool) -> tuple[Trial, list[str]]:
    built: list[str] = []
    driver.targets = {"onnxruntime-cpu": Target(lambda gpu, options: DearBackend(built, is_dear=is_dear))}
    return run_trial(driver, job, *quantized), built


def test_where_builds_are_dear_a_trial_builds_one_engine_and_a_second_only_where_that_misses_the_budget(tmp_path: Path) -> None:
    config: Json = {"accuracy": {"max_nmse": 0.5}, "exact_on": "any_x86_64"}
    quantized = ("Conv_c1",)
    driver, basics = ranged(tmp_path, cnn(), samples_for(cnn(), 20, seed=8), samples_for(cnn(), 12, seed=106), config)
    job = with_corrections(driver, basics)
    plain = run_trial(driver, basics, *quantized)
    both, two = counted_trial(driver, job, *quantized, is_dear=False)
    simulated, one = counted_trial(driver, job, *quantized, is_dear=True)
    assert (len(two), one) == (2, ["corrected"])
    assert both.bias is not None
    assert simulated.bias is not None
    assert (simulated.bias.kept, simulated.bias.where) == (both.bias.kept, both.bias.where)
    assert np.array_equal(scores_of(driver, simulated), scores_of(driver, both))
    between = _just_allowed(driver, basics, plain) * 1.001
    tight = dataclasses.replace(job, config=dataclasses.replace(basics.config, accuracy=AccuracyConfig(max_nmse=between)))
    trial, more = counted_trial(driver, tight, *quantized, is_dear=True)
    assert len(more) == 2
    assert trial.corrections is None
    assert trial.met


def _just_allowed(driver: Driver, basics: EngineJob, trial: Trial) -> float:
    """Return the largest mean error with which the trial is as likely over the budget as inside it: where its slack is 0."""
    assert trial.on_all is not None
    assert trial.on_all.likely_slack is not None
    assert basics.config.accuracy.max_nmse is not None
    return basics.config.accuracy.max_nmse - trial.on_all.likely_slack


@pytest.mark.parametrize(("lost", "expected"), [("search", False), ("kept apart", True)])
def test_samples_that_are_kept_for_the_verdict_do_not_choose_between_engines(lost: str, expected: bool) -> None:
    config = config_from_json({"accuracy": {"metric": "top1", "min_relative": 0.99}})
    reference, scores = np.ones(4000), np.ones(4000)
    half = search_half(4000, config.search.seed)
    rest = np.setdiff1d(np.arange(4000), half)
    scores[(half if lost == "search" else rest)[:25]] = 0.0  # 25 of 2000 are over 1%, of 4000 they are not
    assert fits(reference, EngineScores(scores), Metric.TOP1, config) is expected


def test_where_the_runtime_names_conversions_the_kernels_of_a_trials_engine_are_noted(tmp_path: Path) -> None:
    driver, job = ranged(tmp_path, cnn(), samples_for(cnn(), 20))
    driver.timer = REAL_TIME
    found = run_trial(driver, job, "Gemm_logits")
    assert found.kernels is not None
    kernels = driver.workspace.read_value(tuple[KernelTime, ...], found.kernels)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {kernel.operator for kernel in kernels}
    assert all(kernel.milliseconds > 0.0 for kernel in kernels)
