"""Whole jobs in the measures that users bring their problems in, each held against the engine as plain onnxruntime runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.accuracy.measures.options import MeasureOptions
from calibration.accuracy.measures.tasks.regression import column_changes
from calibration.accuracy.metrics import Metric
from calibration.accuracy.scores import score
from calibration.codec import value_from_json
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError
from engine_builder.evaluation.measurement import search_half
from engine_builder.reporting.body.report_body import ColumnChange
from service.cli.summary import summary_lines
from tests.driver import Finished, plain_outputs, run_job
from tests.long_cases import mostly_long
from tests.model_text import model_from_text, run, samples_for

Array = NDArray[Any]
SAMPLES = 60


def classifier() -> onnx.ModelProto:
    return model_from_text(
        """sigmoid (float[N,16] x) => (float[N,3] p) {
            a = Gemm(x, w1)
            b = Relu(a)
            c = Gemm(b, w2)
            p = Sigmoid(c)
        }""",
        {"w1": (16, 32), "w2": (32, 3)},
    )


def detector() -> onnx.ModelProto:
    """A head of (4 + 2, 16 anchors): boxes about the cells of a grid in pixels, and two scores in 0..1."""
    model = model_from_text(
        """yolo (float[N,1,16,16] x) => (float[N,6,16] y) {
            a = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w1)
            b = Relu(a)
            c = Conv<strides=[2,2], pads=[1,1,1,1]>(b, w2)
            d = Reshape(c, rows)
            e = Sigmoid(d)
            f = Mul(e, scale)
            y = Add(f, grid)
        }""",
        {"w1": (8, 1, 3, 3), "w2": (6, 8, 3, 3)},
    )
    grid = np.zeros((1, 6, 16), np.float32)
    grid[0, 0], grid[0, 1] = np.tile(np.arange(4) * 16.0, 4), np.repeat(np.arange(4) * 16.0, 4)
    grid[0, 2:4] = 4.0
    scale = np.array([16, 16, 20, 20, 1, 1], np.float32).reshape(1, 6, 1)
    for name, array in (("grid", grid), ("scale", scale), ("rows", np.array([0, 6, 16], np.int64))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def segmenter() -> onnx.ModelProto:
    return model_from_text(
        """masks (float[N,1,12,12] x) => (float[N,4,12,12] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1)
            b = Relu(a)
            y = Conv<pads=[1,1,1,1]>(b, w2)
        }""",
        {"w1": (8, 1, 3, 3), "w2": (4, 8, 3, 3)},
    )


def reader() -> onnx.ModelProto:
    return model_from_text(
        """ctc (float[N,12,8] x) => (float[N,12,5] y) {
            a = MatMul(x, w1)
            b = Relu(a)
            y = MatMul(b, w2)
        }""",
        {"w1": (8, 24), "w2": (24, 5)},
    )


def embedder() -> onnx.ModelProto:
    return model_from_text(
        """embedding (float[N,16] x) => (float[N,12] e) {
            a = Gemm(x, w1)
            b = Relu(a)
            e = Gemm(b, w2)
        }""",
        {"w1": (16, 32), "w2": (32, 12)},
    )


def regressor() -> onnx.ModelProto:
    return model_from_text(
        """regression (float[N,16] x) => (float[N,2] y) {
            a = Gemm(x, w1)
            b = Relu(a)
            y = Gemm(b, w2)
        }""",
        {"w1": (16, 32), "w2": (32, 2)},
    )


def enhancer() -> onnx.ModelProto:
    return model_from_text(
        """sound (float[N,1,64] x) => (float[N,1,64] y) {
            a = Conv<pads=[1,1]>(x, w1)
            b = Relu(a)
            y = Conv<pads=[1,1]>(b, w2)
        }""",
        {"w1": (8, 1, 3), "w2": (1, 8, 3)},
    )


def wanted_boxes(outputs: Array) -> Array:
    """The surest box of each picture, as a label."""
    rows = np.moveaxis(outputs, 2, 1)
    best = rows[..., 4:].max(axis=2).argmax(axis=1)
    chosen = rows[np.arange(len(rows)), best]
    kind = chosen[:, 4:].argmax(axis=1)[:, None]
    return np.concatenate([kind, chosen[:, :2] - chosen[:, 2:4] / 2, chosen[:, :2] + chosen[:, 2:4] / 2], axis=1)[:, None]


def texts(outputs: Array) -> Array:
    """The decoded text of each sample, as a label: the blank is the class that the job must find."""
    best = outputs.argmax(axis=2)
    blank = 0 if (best == 0).sum() >= (best == 4).sum() else 4
    labels = np.full(best.shape, -100)
    for row, frames in enumerate(best):
        text = [int(frame) for place, frame in enumerate(frames) if frame != blank and (place == 0 or frame != frames[place - 1])]
        labels[row, : len(text)] = text
    return labels


JOBS: dict[str, tuple[Metric, Callable[[], onnx.ModelProto], Callable[[Array], Array] | None]] = {
    "decisions": (Metric.DECISIONS, classifier, None),
    "detections": (Metric.DETECTIONS, detector, None),
    "average precision": (Metric.AVERAGE_PRECISION, detector, None),
    "average precision of labels": (Metric.AVERAGE_PRECISION, detector, wanted_boxes),
    "segmentation": (Metric.MEAN_IOU, segmenter, None),
    "segmentation of labels": (Metric.MEAN_IOU, segmenter, lambda outputs: outputs.argmax(axis=1)),
    "ctc": (Metric.CTC_EDIT_SIMILARITY, reader, None),
    "ctc of labels": (Metric.CTC_EXACT_MATCH, reader, texts),
    "retrieval": (Metric.RETRIEVAL, embedder, None),
    "regression": (Metric.REGRESSION, regressor, None),
    "regression of labels": (Metric.R2, regressor, lambda outputs: outputs + np.random.default_rng(5).normal(size=outputs.shape)),
    "sound": (Metric.SI_SNR, enhancer, None),
}


def task_job(folder: Path, name: str) -> tuple[Finished, Mapping[str, Array], Array | None]:
    metric, make, label = JOBS[name]
    model = make()
    calibration, samples = samples_for(model, SAMPLES, seed=1), samples_for(model, SAMPLES, seed=2)
    labels = None if label is None else label(run(model, samples)[0])
    given = samples if labels is None else {**samples, "labels": labels}
    budget = {"min_si_snr": 5.0} if metric is Metric.SI_SNR else {"min_relative": 0.3}
    config = {"accuracy": {"metric": metric.value, **budget}, "search": {"max_trials": 2}}
    return run_job(folder, model, calibration, given, config), samples, labels


@pytest.mark.parametrize("name", mostly_long(JOBS, quick=4))
def test_a_job_is_judged_by_its_measure_of_the_engine_that_it_ships(tmp_path: Path, name: str) -> None:
    metric = JOBS[name][0]
    job, samples, labels = task_job(tmp_path, name)
    reference, engine = (plain_outputs(model, samples, 1) for model in (job.model_bytes, job.engine))
    own, found = (score(metric, side, reference, labels, options=MeasureOptions()) for side in (reference, engine))
    held_out = np.setdiff1d(np.arange(SAMPLES), search_half(SAMPLES, 0))
    used = held_out if job.verdict["selection"] == "held_out" else np.arange(SAMPLES)
    assert (job.result["outcome"], job.verdict["metric"], job.verdict["n"]) == ("improved", metric, len(used))
    assert not np.array_equal(engine[0], reference[0])
    # other batches here: a value on an edge may fall to the other side
    assert job.verdict["drop"] == pytest.approx((own - found)[used].mean(), abs=1e-3)
    if metric.spec.joint is not None and metric.spec.joint.options:
        assert f"the metric {metric} takes '" in job.notes


def test_the_largest_change_of_a_score_is_told_beside_decisions(tmp_path: Path) -> None:
    job, samples, _ = task_job(tmp_path, "decisions")
    reference, engine = (plain_outputs(model, samples, 1)[0] for model in (job.model_bytes, job.engine))
    assert job.chosen["largest_change"] == pytest.approx(np.abs(engine - reference).max(), rel=1e-4)  # float32, in other batches
    assert "largest_change" not in job.baseline
    assert any(line.startswith("  change    of a score at most 0.") for line in summary_lines(job.result))


@pytest.mark.parametrize("name", ["regression", "regression of labels"])
def test_the_report_tells_what_changed_in_each_column_of_numbers(tmp_path: Path, name: str) -> None:
    job, samples, labels = task_job(tmp_path, name)
    reference, engine = (plain_outputs(model, samples, 1)[0] for model in (job.model_bytes, job.engine))
    expected = column_changes(reference if labels is None else labels, reference, engine)
    columns = value_from_json(tuple[ColumnChange, ...], job.report["columns"])
    found = [(one.error_before, one.error_after, one.largest_change) for one in columns]
    assert np.array(found) == pytest.approx(expected, abs=1e-3)  # other batches here: a value on an edge may fall to the other side
    assert "What changed in each column" in job.path(job.outcome.artifacts["report.html"]).read_text()


def test_decisions_read_the_scores_beside_a_vector_and_say_what_they_leave(tmp_path: Path) -> None:
    model = classifier()
    model.graph.output.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ("N", 3)))
    config = {"accuracy": {"metric": "decisions", "min_relative": 0.3}, "search": {"max_trials": 2}}
    job = run_job(tmp_path, model, config=config)
    assert "takes 'p' for decisions at 0.5" in job.notes
    assert "the metric decisions does not read the output 'c': no budget covers it" in job.notes


def test_decisions_that_are_all_alike_are_a_warning(tmp_path: Path) -> None:
    config = {"accuracy": {"metric": "decisions", "min_relative": 0.3, "measure": {"threshold": 0.99999}}, "search": {"max_trials": 2}}
    job = run_job(tmp_path, classifier(), config=config)
    assert "every score of the float model lies on one side of 0.99999 (output 'p')" in str(job.result["warnings"])


def test_a_detector_may_give_its_classes_as_whole_numbers_beside_floats(tmp_path: Path) -> None:
    model = detector()
    for text, element, shape in (("boxes", onnx.TensorProto.FLOAT, ("N", 16, 4)), ("best", onnx.TensorProto.FLOAT, ("N", 16))):
        model.graph.output.append(onnx.helper.make_tensor_value_info(text, element, shape))
    model.graph.output.append(onnx.helper.make_tensor_value_info("kinds", onnx.TensorProto.INT64, ("N", 16)))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([4, 2], np.int64), "parts"))
    model.graph.node.extend(
        [
            onnx.helper.make_node("Transpose", ["y"], ["rows_first"], perm=[0, 2, 1]),
            onnx.helper.make_node("Split", ["rows_first", "parts"], ["boxes", "scores"], axis=2),
            onnx.helper.make_node("ReduceMax", ["scores"], ["best"], axes=[2], keepdims=0),
            onnx.helper.make_node("ArgMax", ["scores"], ["kinds"], axis=2, keepdims=0),
        ]
    )
    del model.graph.output[0]
    config = {"accuracy": {"metric": "detections", "min_relative": 0.2}, "search": {"max_trials": 2}}
    job = run_job(tmp_path, model, samples_for(model, SAMPLES, seed=1), config=config)
    assert "takes 'boxes' and 'best' and 'kinds' for a list of boxes with a score and a class each" in job.notes
    assert job.verdict["metric"] == "detections"


@pytest.mark.parametrize(
    ("name", "label", "match"),
    [
        ("average precision", lambda outputs: np.zeros(SAMPLES), r"shape \(60,\) found, \(samples, boxes, 5\) expected"),
        ("segmentation", lambda outputs: np.zeros((SAMPLES, 5, 5), np.int64), r"whole numbers of shape \(60, 12, 12\) expected"),
        ("ctc", lambda outputs: outputs[:, :, 0], r"whole numbers of shape \(samples, symbols\) expected"),
        ("regression", lambda outputs: outputs[:, :1], r"shape \(60, 1\) found, \(60, 2\) expected"),
        ("regression", lambda outputs: -outputs, "so that a share of it means nothing"),
    ],
)
def test_labels_that_the_measure_cannot_take_are_refused(tmp_path: Path, name: str, label: Callable[[Array], Array], match: str) -> None:
    metric, make, _ = JOBS[name]
    model = make()
    samples = samples_for(model, SAMPLES, seed=2)
    given = {**samples, "labels": label(run(model, samples)[0])}
    with pytest.raises(InvalidCalibrationSetError, match=match):
        run_job(tmp_path, model, samples, given, {"accuracy": {"metric": metric.value}})


def test_a_measure_that_no_engine_could_fail_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="nothing is detected, so that nothing can be lost"):
        run_job(tmp_path, detector(), config={"accuracy": {"metric": "detections", "measure": {"threshold": 1.5}}})


def test_an_option_of_another_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"measure\.neighbours: found with the metric \w+, expected retrieval"):
        run_job(tmp_path, embedder(), config={"accuracy": {"measure": {"neighbours": 3}}})
