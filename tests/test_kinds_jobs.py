"""Whole jobs whose outputs are judged by what they hold, each held against the engine as plain onnxruntime runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.accuracy.kinds.evidence import Ending, Evidence
from calibration.accuracy.kinds.rows.finding import joint_rows
from calibration.accuracy.kinds.rows.matching import joint_scores
from calibration.accuracy.measures.tasks.regression import regression
from calibration.accuracy.measures.tasks.retrieval import neighbours_kept
from calibration.errors import InvalidCalibrationSetError
from engine_builder.evaluation.measurement import search_half
from service.cli.summary import summary_lines
from tests.driver import Finished, plain_outputs, run_job
from tests.model_text import model_from_text, run, samples_for

Array = NDArray[Any]
SAMPLES = 60


def sorted_detector() -> onnx.ModelProto:
    """Rows of 16 cells sorted by score in the graph, those below 0.45 padded by -1: their number, boxes, scores and classes."""
    model = model_from_text(
        """ssd (float[N,1,16,16] x) => (int32[N,1] num_dets, float[N,16,4] boxes, float[N,16] scores, int64[N,16] classes) {
            a = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w1)
            b = Relu(a)
            c = Conv<strides=[2,2], pads=[1,1,1,1]>(b, w2)
            d = Reshape(c, rows)
            e = Sigmoid(d)
            t = Transpose<perm=[0,2,1]>(e)
            shares, each = Split<axis=2>(t, parts)
            scaled = Mul(shares, scale)
            all_boxes = Add(scaled, grid)
            best = ReduceMax<axes=[2], keepdims=0>(each)
            kinds = ArgMax<axis=2, keepdims=0>(each)
            v, i = TopK<axis=1>(best, k)
            there = Greater(v, least)
            scores = Where(there, v, nothing)
            i3 = Unsqueeze(i, last)
            i4 = Expand(i3, wide)
            boxes_then = GatherElements<axis=1>(all_boxes, i4)
            there3 = Unsqueeze(there, last)
            boxes = Where(there3, boxes_then, nothing)
            kinds_then = GatherElements<axis=1>(kinds, i)
            classes = Where(there, kinds_then, no_class)
            ones = Cast<to=6>(there)
            num_dets = ReduceSum<keepdims=1>(ones, first)
        }""",
        {"w1": (8, 1, 3, 3), "w2": (7, 8, 3, 3)},
    )
    grid = np.zeros((1, 16, 4), np.float32)
    grid[0, :, [0, 2]], grid[0, :, [1, 3]] = np.tile(np.arange(4) * 16.0, 4), np.repeat(np.arange(4) * 16.0, 4)
    grid[0, :, 2:] += 16.0
    constants = {
        "grid": grid,
        "scale": np.full((1, 1, 4), 8, np.float32),
        "rows": np.array([0, 7, 16]),
        "parts": np.array([4, 3]),
        "k": np.array([16]),
        "least": np.float32(0.45),
        "nothing": np.float32(-1),
        "no_class": np.int64(-1),
        "last": np.array([2]),
        "first": np.array([1]),
        "wide": np.array([1, 1, 4]),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())
    return model


def outputs_of(job: Finished) -> dict[str, dict[str, object]]:
    return {str(one["name"]): one for one in cast(list[dict[str, object]], job.result["outputs"])}


@pytest.mark.parametrize("element", ["int32", "float"])
def test_detections_in_several_outputs_are_judged_as_one(tmp_path: Path, element: str) -> None:
    model = sorted_detector()
    if element == "float":  # as TensorFlow's exports have classes and their number
        for node in model.graph.node:
            for index, name in enumerate(node.output):
                if name in ("classes", "num_dets"):
                    node.output[index] = f"whole_{name}"
        for value in model.graph.output:
            if value.name in ("classes", "num_dets"):
                model.graph.node.append(onnx.helper.make_node("Cast", [f"whole_{value.name}"], [value.name], to=onnx.TensorProto.FLOAT))
                value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    samples = samples_for(model, SAMPLES, seed=4)
    job = run_job(tmp_path, model, samples, samples, {"accuracy": {"min_relative": 0.2}, "search": {"max_trials": 2}})
    names = [value.name for value in model.graph.output]
    assert {name: one["kinds"] for name, one in outputs_of(job).items()} == {name: ["detections"] for name in names}
    assert "not compared" not in job.notes
    assert "is the same for all" not in str(job.result["warnings"])
    reference = dict(zip(names, run(model, samples), strict=True))
    engine = dict(zip(names, plain_outputs(job.engine, samples, SAMPLES), strict=True))
    joint = joint_rows([Evidence(name, array, Ending(selects=True)) for name, array in reference.items()], {})
    assert joint is not None
    assert job.verdict["metric"] == "fidelity"
    assert job.chosen["accuracy"] == pytest.approx(joint_scores(joint[0], reference, engine).mean(), abs=1e-6)
    assert cast(float, job.chosen["accuracy"]) < 1.0


@pytest.mark.long
@pytest.mark.parametrize("metric", ["detections", "average_precision"])
def test_the_metrics_of_detectors_take_padded_rows_beside_their_number(tmp_path: Path, metric: str) -> None:
    config = {"accuracy": {"metric": metric, "min_relative": 0.2}, "search": {"max_trials": 2}}
    job = run_job(tmp_path, sorted_detector(), config=config)
    assert "takes 'boxes' and 'scores' and 'classes' for a list of boxes with a score and a class each" in job.notes
    assert "boxes x1y1x2y2;" in job.notes


def test_the_users_word_takes_a_detector_apart(tmp_path: Path) -> None:
    config = {"accuracy": {"min_relative": 0.1}, "outputs": {"boxes": "regression"}, "search": {"max_trials": 1}}
    kinds = {name: one["kinds"] for name, one in outputs_of(run_job(tmp_path, sorted_detector(), config=config)).items()}
    assert kinds["boxes"] == ["regression"]
    assert "classes" not in kinds


def test_the_users_word_puts_whole_numbers_to_the_detections(tmp_path: Path) -> None:
    config = {"accuracy": {"min_relative": 0.1}, "outputs": {"boxes": "detections", "classes": "detections"}, "search": {"max_trials": 1}}
    job = run_job(tmp_path, sorted_detector(), config=config)
    assert outputs_of(job)["classes"]["why"] == "as outputs says"


def embedder() -> onnx.ModelProto:
    return model_from_text(
        "g (float[N,16] x) => (float[N,12] e) { a = Gemm(x, w1) b = Relu(a) e = Gemm(b, w2) }",
        {"w1": (16, 32), "w2": (32, 12)},
    )


@pytest.mark.parametrize("said", [{}, {"outputs": {"e": "embedding"}}])
def test_neighbours_that_an_embedding_keeps_are_told_beside_the_verdict(tmp_path: Path, said: dict[str, object]) -> None:
    model = embedder()
    samples = samples_for(model, SAMPLES, seed=2)
    job = run_job(tmp_path, model, samples, samples, {"accuracy": {"min_relative": 0.2}, "search": {"max_trials": 2}, **said})
    (reference,), (engine,) = run(model, samples), plain_outputs(job.engine, samples, SAMPLES)
    share = neighbours_kept(reference, engine, 1).mean()
    assert job.verdict["metric"] == "fidelity"
    assert job.chosen["nearest_kept"] == pytest.approx(share)
    words = f"{share:.0%} of the samples keep their nearest neighbour among the validation samples"
    assert any(words in line and line.endswith("accuracy.metric: retrieval") for line in summary_lines(job.result))
    assert words in job.path(job.outcome.artifacts["report.html"]).read_text(encoding="utf-8")
    assert "nearest_kept" not in job.baseline


@pytest.mark.long
@pytest.mark.parametrize(
    "said", [{"accuracy": {"metric": "retrieval", "min_relative": 0.1}}, {"accuracy": {"min_relative": 0.1}, "outputs": {"e": "logits"}}]
)
def test_neighbours_are_not_told_where_they_are_judged_or_mean_nothing(tmp_path: Path, said: dict[str, object]) -> None:
    job = run_job(tmp_path, embedder(), config={**said, "search": {"max_trials": 2}})
    assert "nearest_kept" not in job.chosen
    assert "nearest neighbour" not in "".join(summary_lines(job.result))


def single(ending: str = "Sigmoid") -> onnx.ModelProto:
    return model_from_text(
        f"g (float[N,16] x) => (float[N,1] y) {{ a = Gemm(x, w1) b = Relu(a) c = Gemm(b, w2) y = {ending}(c) }}",
        {"w1": (16, 32), "w2": (32, 1)},
    )


@pytest.mark.parametrize("metric", [None, "top1"])
@pytest.mark.parametrize(("ending", "threshold"), [("Sigmoid", 0.5), ("Identity", 0.0)])
def test_yes_or_no_beside_one_value_a_sample_is_what_decides(tmp_path: Path, metric: str | None, ending: str, threshold: float) -> None:
    model = single(ending)
    samples = samples_for(model, SAMPLES, seed=2)
    (reference,) = run(model, samples)
    labels = (reference[:, 0] >= threshold).astype(np.int64)
    labels[::10] = 1 - labels[::10]  # the float model is wrong sometimes
    accuracy: dict[str, object] = {"min_relative": 0.2, **({} if metric is None else {"metric": metric})}
    job = run_job(tmp_path, model, samples, {**samples, "labels": labels}, {"accuracy": accuracy, "search": {"max_trials": 2}})
    (engine,) = plain_outputs(job.engine, samples, SAMPLES)
    assert job.verdict["metric"] == "decisions"
    judged = np.setdiff1d(np.arange(SAMPLES), search_half(SAMPLES, 0)) if job.verdict["selection"] == "held_out" else np.arange(SAMPLES)
    assert job.baseline["accuracy"] == pytest.approx(((reference[:, 0] >= threshold) == labels)[judged].mean())
    assert cast(float, job.baseline["accuracy"]) < 1.0
    assert job.chosen["accuracy"] == pytest.approx(((engine[:, 0] >= threshold) == labels)[judged].mean())
    assert f"takes 'y' for decisions at {threshold:g}" in job.notes
    assert "labels" not in str(job.result["warnings"])


@pytest.mark.long
def test_the_users_word_that_a_value_is_no_decision_counts(tmp_path: Path) -> None:
    model = single()
    samples = samples_for(model, SAMPLES, seed=2)
    given = {**samples, "labels": np.arange(SAMPLES) % 2}
    job = run_job(tmp_path, model, samples, given, {"outputs": {"y": "regression"}, "search": {"max_trials": 1}})
    assert job.verdict["metric"] == "fidelity"
    assert "decisions compares the values of 'y' with them" in str(job.result["warnings"])


@pytest.mark.long
def test_labels_that_say_the_opposite_are_a_warning(tmp_path: Path) -> None:
    model = single()
    samples = samples_for(model, SAMPLES, seed=2)
    labels = (run(model, samples)[0][:, 0] < 0.5).astype(np.int64)
    labels[::10] = 1 - labels[::10]
    job = run_job(tmp_path, model, samples, {**samples, "labels": labels}, {"search": {"max_trials": 1}})
    assert "the opposite labels would give 0.9000: check that each label" in str(job.result["warnings"])


@pytest.mark.long
def test_a_score_for_each_of_several_labels_is_compared_with_them(tmp_path: Path) -> None:
    model = model_from_text(
        "g (float[N,16] x) => (float[N,3] y) { a = Gemm(x, w1) b = Relu(a) c = Gemm(b, w2) y = Sigmoid(c) }",
        {"w1": (16, 32), "w2": (32, 3)},
    )
    samples = samples_for(model, SAMPLES, seed=2)
    labels = (run(model, samples)[0] >= 0.5).astype(np.int64)
    job = run_job(tmp_path, model, samples, {**samples, "labels": labels}, {"search": {"max_trials": 1}})
    assert job.verdict["metric"] == "decisions"


@pytest.mark.long
@pytest.mark.parametrize("values", [1, 3])
def test_numbers_of_the_form_of_the_output_are_what_a_regression_should_say(tmp_path: Path, values: int) -> None:
    model = model_from_text(
        f"g (float[N,16] x) => (float[N,{values}] y) {{ a = Gemm(x, w1) b = Relu(a) y = Gemm(b, w2) }}",
        {"w1": (16, 32), "w2": (32, values)},
    )
    samples = samples_for(model, SAMPLES, seed=2)
    (reference,) = run(model, samples)
    labels = reference + np.random.default_rng(3).normal(size=reference.shape).astype(np.float32) * 0.1
    given = {**samples, "labels": labels[:, 0] if values == 1 else labels}
    job = run_job(tmp_path, model, samples, given, {"accuracy": {"min_relative": 0.2}, "search": {"max_trials": 2}})
    (engine,) = plain_outputs(job.engine, samples, SAMPLES)
    assert job.verdict["metric"] == "regression"
    assert job.chosen["accuracy"] == pytest.approx(regression(labels, engine).mean(), abs=1e-5)  # float32, in other batches
    assert outputs_of(job)["y"]["kinds"] == ["regression"]


def test_numbers_of_another_form_are_refused_as_before(tmp_path: Path) -> None:
    model = single()
    samples = samples_for(model, SAMPLES, seed=2)
    with pytest.raises(InvalidCalibrationSetError, match=r"float64 .*found, whole numbers expected"):
        run_job(tmp_path, model, samples, {**samples, "labels": np.random.default_rng(3).normal(size=(SAMPLES, 2))})


@pytest.mark.long
@pytest.mark.parametrize(("labels", "key"), [(np.arange(SAMPLES), "regression compares the values of 'y'"), (None, "decisions compares")])
def test_labels_that_are_not_used_are_said_to_be_so(tmp_path: Path, labels: Array | None, key: str) -> None:
    model = single("Exp")
    samples = samples_for(model, SAMPLES, seed=2)
    given = {**samples, "labels": np.arange(SAMPLES) % 2 if labels is None else labels}
    job = run_job(tmp_path, model, samples, given, {"search": {"max_trials": 1}})
    (warning,) = [str(one) for one in cast(list[object], job.result["warnings"]) if "not used" in str(one)]
    assert warning.startswith("the validation labels are not used: fidelity compares with the float model; accuracy.metric: ")
    assert key in warning
    told = run_job(tmp_path / "told", model, samples, given, {"accuracy": {"metric": "fidelity"}, "search": {"max_trials": 1}})
    assert "the validation labels are not used" in told.notes
    assert "not used" not in str(told.result["warnings"])
