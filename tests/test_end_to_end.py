"""Whole jobs on small models, judged from outside: the engine runs in plain onnxruntime and is as good as the report says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from calibration.accuracy.metrics import Metric
from calibration.accuracy.scores import score
from calibration.data.dataset import split_held_out
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import input_specs, output_specs
from engine_builder.errors import BuildError, StageCrashedError
from engine_builder.evaluation.measurement import search_half
from engine_builder.pipeline.optimize import optimize
from service.cli.summary import summary_lines
from tests.driver import QUANTIZED_IS_SLOWER, Array, Finished, plain_outputs, run_job, submitted, trials_of
from tests.long_cases import mostly_long
from tests.model_text import ModelMaker, cnn, fixed_batch, model_from_text, samples_for
from tests.models import AWKWARD, attention, bf16_inside, duplicate_node_names, fp16, input_called_labels, several_outputs

LENIENT = {"accuracy": {"min_relative": 0.5}}


def fixed_batch_4() -> onnx.ModelProto:
    return cnn("4,1,8,8")


def fixed_batch_16() -> onnx.ModelProto:
    return cnn("16,1,8,8")


def transposed_gemm() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] x) => (float[N,3] y) {
            turned = Transpose<perm=[1,0]>(x)
            y = Gemm<transA=1, transB=1, alpha=0.5, beta=2.0>(turned, w, b)
        }""",
        {"w": (3, 6), "b": (3,)},
    )


def one_bad_layer() -> onnx.ModelProto:
    """Four linear layers; the input of the last has one column a thousand times the others, which 8 bits cannot hold with the rest.

    Bounds, which nothing reaches, keep the columns from being evened out.
    """
    model = model_from_text(
        """g (float[N,16] x) => (float[N,8] y) {
            h1 = MatMul(x, w1)
            a1 = Tanh(h1)
            h2 = MatMul(a1, w2)
            a2 = Tanh(h2)
            h3 = MatMul(a2, w3)
            spread = Mul(h3, columns)
            bounded = Clip(spread, lowest, highest)
            y = MatMul(bounded, w4)
        }""",
        {"w1": (16, 16), "w2": (16, 16), "w3": (16, 16), "w4": (16, 8)},
    )
    columns = np.ones(16, np.float32)
    columns[0] = 1000.0
    model.graph.initializer.append(onnx.numpy_helper.from_array(columns, "columns"))
    for name, bound in (("lowest", -1e6), ("highest", 1e6)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(bound, np.float32), name))
    last = next(tensor for tensor in model.graph.initializer if tensor.name == "w4")
    weight = onnx.numpy_helper.to_array(last).copy()
    weight[0] /= 1000.0
    last.CopyFrom(onnx.numpy_helper.from_array(weight, "w4"))
    return model


PLAIN = {"repair": False}  # SmoothQuant would make the bad layer a good one
# Three layers in int8 stay far below, the last alone is far above.
# One low precision: kernels are profiled in earnest, and of several the search would take what they happen to say.
BAD_LAYER_BUDGET = {"accuracy": {"max_nmse": 0.005}, "calibration": PLAIN, "precisions": ["fp32", "int8"]}
# Its first axis counts no samples, so the inspection refuses it; ``transposed_gemm`` is the same with the samples in front.
NOT_BY_SAMPLES = {"gemm_factors"}
MORE = (duplicate_node_names, bf16_inside, fixed_batch_4, fixed_batch_16, transposed_gemm, one_bad_layer)
JOBS: Mapping[str, ModelMaker] = {
    **{name: maker for name, maker in AWKWARD.items() if name not in NOT_BY_SAMPLES},
    **{maker.__name__: maker for maker in MORE},
}


@pytest.mark.parametrize("maker", mostly_long(JOBS.values(), quick=4), ids=JOBS)
def test_every_awkward_model_becomes_an_engine_as_good_as_reported(maker: ModelMaker, tmp_path: Path) -> None:
    model = maker()
    calibration, validation = samples_for(model, 30, seed=1), samples_for(model, 24, seed=2)
    finished = run_job(tmp_path, model, calibration, validation, LENIENT)

    assert finished.result["outcome"] == "improved"
    assert cast(Mapping[str, int], finished.chosen["precisions"]).keys() & {"int8", "int8_dynamic"}
    engine = onnx.load(finished.engine)
    assert input_specs(engine) == input_specs(model)
    assert output_specs(engine) == output_specs(model)
    assert finished.model_bytes == model.SerializeToString()
    assert accuracy_from_outside(finished, model, validation) == pytest.approx(
        cast(float, finished.chosen["accuracy"]), abs=1e-7
    )  # float32 sums in another order


def accuracy_from_outside(finished: Finished, model: onnx.ModelProto, validation: Mapping[str, Array]) -> float:
    """Score the engine file in plain onnxruntime against the float model, on the samples of the verdict."""
    first = input_specs(model)[0].shape[0]
    batch = first if isinstance(first, int) else 1
    fed = {name: array[np.arange(24 + -24 % batch) % 24] for name, array in validation.items()}  # whole batches
    outputs = plain_outputs(finished.engine, fed, batch)
    reference = plain_outputs(prepare(model).model.SerializeToString(), fed, batch)
    kinds = cast(Sequence[str], cast(Mapping[str, object], finished.report["data"])["outputs"])
    metric = Metric(str(finished.verdict["metric"]))
    read = [i for i, kind in enumerate(kinds) if (kind in ("logits", "probabilities") if metric is Metric.AGREEMENT else kind != "ignore")]
    judged = [finished.judged[output_specs(model)[i].name] for i in read]
    inputs = {name: array[:24] for name, array in fed.items()}
    scores = score(metric, [outputs[i][:24] for i in read], [reference[i][:24] for i in read], None, judged=judged, inputs=inputs)
    used = np.arange(24)
    if finished.verdict["selection"] == "held_out":
        used = np.setdiff1d(used, search_half(24, 0))
    assert len(used) == finished.verdict["n"]
    return float(np.mean(scores[used]))


@pytest.mark.long
@pytest.mark.parametrize(
    ("maker", "words"),
    [
        (AWKWARD["opset_9"], "opset 9 converted to 17"),
        (AWKWARD["shared_weight"], "'w' is shared"),
        (fp16, "computes in fp16: it is the baseline, accuracy is relative to float32"),
        (bf16_inside, "the uploaded file does not load"),
        (several_outputs, "output 'best' holds int64, not floating-point values: it is not compared"),
    ],
)
def test_notes_say_what_was_changed(maker: ModelMaker, words: str, tmp_path: Path) -> None:
    assert words in run_job(tmp_path, maker()).notes


@pytest.mark.parametrize("maker", mostly_long([cnn, fp16, fixed_batch]))
def test_a_kept_baseline_is_the_users_file_byte_for_byte(maker: ModelMaker, tmp_path: Path) -> None:
    finished = run_job(tmp_path, maker(), timer=QUANTIZED_IS_SLOWER)
    assert finished.result["outcome"] == "baseline_kept"
    assert "none was faster" in str(finished.result["reason"])
    assert finished.engine.read_bytes() == maker().SerializeToString()
    assert finished.chosen == finished.baseline
    assert finished.result["speedup"] == 1.0


@pytest.mark.long
@pytest.mark.parametrize("maker", [duplicate_node_names, bf16_inside])
def test_a_kept_baseline_is_the_prepared_model_where_the_runtime_refuses_the_users_file(maker: ModelMaker, tmp_path: Path) -> None:
    finished = run_job(tmp_path, maker(), timer=QUANTIZED_IS_SLOWER)
    assert finished.result["outcome"] == "baseline_kept"
    assert finished.engine.read_bytes() == prepare(maker()).model.SerializeToString(deterministic=True)
    plain_outputs(finished.engine, samples_for(maker(), 4), 4)
    assert finished.model_bytes == maker().SerializeToString()
    assert str(tmp_path) not in finished.notes


def test_a_half_precision_model_is_its_own_baseline(tmp_path: Path) -> None:
    finished = run_job(tmp_path, fp16())
    assert finished.baseline["precisions"] == {"fp16": 4}
    assert finished.baseline["size_bytes"] == len(finished.model_bytes)
    assert finished.chosen["precisions"] == {"int8": 4}


def test_a_hopeless_budget_ends_with_the_baseline_and_names_the_layers_in_the_way(tmp_path: Path) -> None:
    finished = run_job(tmp_path, one_bad_layer(), config={"accuracy": {"metric": "cosine", "min_relative": 1.0}, "calibration": PLAIN})
    assert finished.result["outcome"] == "baseline_kept"
    assert finished.engine.read_bytes() == finished.model_bytes
    reason = str(finished.result["reason"])
    assert "kept the accuracy budget" in reason
    assert "The most sensitive layers stood in the way: MatMul_y (int8)" in reason
    assert not any(trial.met for trial in trials_of(finished) if trial.low_layers)


def test_the_layer_that_cannot_be_quantized_stays_float(tmp_path: Path) -> None:
    finished = run_job(tmp_path, one_bad_layer(), config=BAD_LAYER_BUDGET)
    assert finished.result["outcome"] == "improved"
    assignment = json.loads((tmp_path / "assignment.json").read_text())
    assert [name for name, precision in assignment.items() if precision == "fp32"] == ["MatMul_y"]
    assert cast(float, finished.chosen["accuracy"]) < 0.005


def test_the_same_seed_gives_the_same_orders_trials_and_engine(tmp_path: Path) -> None:
    first, second = (run_job(tmp_path / name, one_bad_layer(), config=BAD_LAYER_BUDGET) for name in ("a", "b"))
    assert first.report["orders"] == second.report["orders"]
    assert first.result["outcome"] == second.result["outcome"] == "improved"
    assert first.engine.read_bytes() == second.engine.read_bytes()
    assert [trial.scores for trial in trials_of(first)] == [trial.scores for trial in trials_of(second)]


@pytest.mark.long
def test_another_seed_holds_out_other_samples(tmp_path: Path) -> None:
    one, two = (run_job(tmp_path / str(seed), cnn(), config={"search": {"seed": seed}}) for seed in (0, 1))
    assert one.driver.results["inspect"]["result"] != two.driver.results["inspect"]["result"]


def test_the_search_stops_at_max_trials(tmp_path: Path) -> None:
    finished = run_job(tmp_path, attention(), config={"accuracy": {"min_relative": 1.0}, "search": {"max_trials": 3}})
    assert len(trials_of(finished)) == 3
    assert cast(Mapping[str, object], finished.report["search"])["ended"] == "the limit of 3 trials was reached"


def test_the_search_stops_at_max_seconds(tmp_path: Path) -> None:
    finished = run_job(tmp_path, attention(), config={"accuracy": {"min_relative": 1.0}, "search": {"max_seconds": 0.001}})
    assert len(trials_of(finished)) == 2  # the baseline and everything quantized are always tried
    assert "0.001 seconds" in str(cast(Mapping[str, object], finished.report["search"])["ended"])


def test_a_correction_makes_the_layer_quantized_that_could_not_be(tmp_path: Path) -> None:
    finished = run_job(tmp_path, one_bad_layer(), config={**BAD_LAYER_BUDGET, "calibration": {"repair": True}})
    assert finished.result["outcome"] == "improved"
    assert json.loads((tmp_path / "assignment.json").read_text())["MatMul_y"] == "int8"
    assert ["MatMul_y"] in [item["where"] for item in cast(Sequence[Mapping[str, object]], finished.report["repairs"]) if item["kept"]]


class FailingTrials:
    """Fails every trial from the n-th on."""

    def __init__(self, first: int, error: Exception) -> None:
        self.first, self.error, self.seen = first, error, 0

    def __call__(self, name: str) -> Exception | None:
        self.seen += name.startswith("trial/")
        return self.error if name.startswith("trial/") and self.seen >= self.first else None


CRASH = StageCrashedError("the stage ended by SIGSEGV", fix="See log.txt.")


@pytest.mark.long
def test_three_failures_in_a_row_end_the_search_with_what_was_found(tmp_path: Path) -> None:
    whole = run_job(tmp_path / "whole", one_bad_layer(), config=BAD_LAYER_BUDGET)
    first_met = next(trial.index for trial in trials_of(whole) if trial.met and trial.low_layers)
    finished = run_job(tmp_path / "failing", one_bad_layer(), config=BAD_LAYER_BUDGET, broken=FailingTrials(first_met + 2, CRASH))
    trials = trials_of(finished)
    assert [trial.failure for trial in trials] == [None] * (first_met + 1) + [CRASH.detail] * (len(trials) - first_met - 1)
    assert len(trials) <= first_met + 1 + 3
    assert finished.result["outcome"] == "improved"
    assert json.loads((tmp_path / "failing" / "assignment.json").read_text())["MatMul_y"] == "fp32"


def test_three_failures_in_a_row_are_the_last_trials(tmp_path: Path) -> None:
    strict = {"accuracy": {"min_relative": 1.0}}
    finished = run_job(tmp_path, attention(), config=strict, broken=FailingTrials(3, BuildError("no kernel", fix="None.")))
    assert [trial.failure for trial in trials_of(finished)] == [None, None, "no kernel", "no kernel", "no kernel"]
    assert cast(Mapping[str, object], finished.report["search"])["ended"] == "3 trials in a row failed"
    assert finished.result["outcome"] == "baseline_kept"
    assert finished.engine.read_bytes() == finished.model_bytes


@pytest.mark.parametrize("config", [{}, {"objective": {"min_speedup": 1.5}}])
def test_where_no_quantized_engine_runs_that_is_what_is_said(tmp_path: Path, config: dict[str, object]) -> None:
    job = run_job(tmp_path, attention(), config=config, broken=FailingTrials(2, CRASH))
    assert job.result["outcome"] == "baseline_kept"
    assert "the stage ended by SIGSEGV" in str(job.result["none_ran"])
    first, *others = summary_lines(job.result)
    assert first.startswith("The baseline is kept: no quantized engine could be built or run: all 3 that were tried failed")
    assert not any("inside the budget" in line or "faster than" in line for line in (first, *others))
    page = job.path(job.outcome.artifacts["report.html"]).read_text(encoding="utf-8")
    assert "<p class=lead><b>The baseline is kept: no quantized engine could be built or run.</b></p>" in page
    assert "<p>No quantized engine could be built or run: all 3" in page


def test_without_a_validation_set_a_seeded_40_percent_is_held_out(tmp_path: Path) -> None:
    finished = run_job(tmp_path, cnn(), samples_for(cnn(), 40))
    rest, held_out = split_held_out(40, 0)
    data = cast(Mapping[str, object], finished.report["data"])
    assert (data["calibration_samples"], data["validation_samples"]) == (len(rest), len(held_out)) == (24, 16)
    assert data["validation_held_out_of_calibration"] is True
    assert "16 of the calibration samples were held out" in finished.notes


def test_one_file_for_both_sets_is_said(tmp_path: Path) -> None:
    samples = samples_for(cnn(), 16)
    finished = run_job(tmp_path, cnn(), samples, samples)
    data = cast(Mapping[str, object], finished.report["data"])
    assert (data["calibration_samples"], data["validation_samples"]) == (16, 16)
    assert data["calibration_is_validation"] is True
    assert "calibration and validation are the same file" in finished.notes


def labels_of(model: onnx.ModelProto, samples: Mapping[str, Array], output: int) -> Array:
    """Return the float model's own classes, every fourth one wrong."""
    scores = plain_outputs(model.SerializeToString(), samples, len(next(iter(samples.values()))))[output]
    found = np.asarray(scores.argmax(axis=1), dtype=np.int64)
    found[::4] = (found[::4] + 1) % 3
    return found


@pytest.mark.parametrize(
    ("maker", "name", "output"), [(cnn, "labels", 0), (input_called_labels, "__labels__", 0), (several_outputs, "labels", 1)]
)
def test_labels_give_top1_of_the_output_that_holds_classes(
    maker: Callable[[], onnx.ModelProto], name: str, output: int, tmp_path: Path
) -> None:
    model = maker()
    validation = samples_for(model, 24, seed=2)
    validation[name] = labels_of(model, validation, output)
    accepted = {"accuracy": {"allow_chance": True}}  # random weights name one class nearly always, as well as a constant answer would
    finished = run_job(tmp_path, model, samples_for(model, 20), validation, accepted)
    assert finished.verdict["metric"] == "top1"
    assert finished.baseline["accuracy"] == pytest.approx(0.75)


@pytest.mark.long
def test_the_size_of_a_baseline_counts_its_external_data(tmp_path: Path) -> None:
    model = cnn()
    driver, job = submitted(tmp_path, model)
    onnx.save_model(model, tmp_path / "model" / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    job = dataclasses.replace(job, files=dataclasses.replace(job.files, model=driver.workspace.adopt("model/model.onnx")))
    driver.timer = QUANTIZED_IS_SLOWER
    outcome = optimize(job, driver, driver)
    result = cast(Mapping[str, Mapping[str, object]], outcome.result)
    files = [tmp_path / "model" / name for name in ("model.onnx", "weights.bin")]
    assert result["baseline"]["size_bytes"] == result["engine"]["size_bytes"] == sum(file.stat().st_size for file in files)


def test_the_settings_of_the_measurements_have_their_effect(tmp_path: Path) -> None:
    measured = {"analysis": "full", "search": {"orders": ["loss"]}, "calibration": {"method": "percentile", "samples": 12}}
    config = {**measured, "threads": 2, "batch_size": 3}
    finished = run_job(tmp_path, cnn(), config=config)
    assert set(cast(Mapping[str, object], finished.report["orders"])) == {"loss"}
    table = json.loads((tmp_path / "ranges.json").read_text())
    assert (table["method"], table["samples"]) == ("percentile", 12)
    assert cast(Mapping[str, object], finished.result["environment"])["threads"] == 2
    assert cast(Mapping[str, object], finished.report["data"])["timing_batch"] == 3
