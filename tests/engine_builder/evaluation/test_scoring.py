"""Whole jobs by the metrics that read more than one row of classes: the user's own, tokens, spans, and outputs of several weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx.parser
import pytest

from calibration.accuracy.measures.token_classes import IGNORED, span_f1, token_f1
from calibration.accuracy.measures.values import cosine
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.codec import as_object, json_from_value
from calibration.errors import InputError, InvalidCalibrationSetError, InvalidConfigError, InvalidMetricError
from calibration.sensitivity.task_losses import losses
from engine_builder.backends.target_checks import with_metric_model
from engine_builder.config.config import config_from_json
from engine_builder.config.inspect_settings import inspect_settings
from engine_builder.evaluation.scoring import is_per_sample, is_per_token, labelled_tokens
from engine_builder.pipeline.stage_table import KEPT_STAGES
from engine_builder.stage_io.measuring import InspectRequest
from service.worker.stage_cache import StageCache
from tests.driver import Finished, plain_outputs, run_job, submitted, trials_of
from tests.model_text import Array, cnn, model_from_text, samples_for

RIGHT = "best = ArgMax<axis=1, keepdims=0>(logits) same = Equal(best, labels) y = Cast<to=1>(same)"
CLOSE = "d = Sub(logits, reference_logits) s = Abs(d) m = ReduceMax<axes=[1], keepdims=0>(s) e = Neg(m) y = Exp(e)"
IOB2 = ["O", "B-X", "I-X"]


def metric(inputs: str, nodes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> metric ({inputs}) => (float[N] y) {{ {nodes} }}')


def labelled(count: int, seed: int = 3) -> dict[str, Array]:
    """Return samples for ``cnn`` with labels that its own outputs get right nine times out of ten."""
    samples = samples_for(cnn(), count, seed)
    best = plain_outputs(cnn().SerializeToString(), samples, 8)[0].argmax(axis=1)
    return {**samples, "labels": np.where(np.arange(count) % 10 == 0, (best + 1) % 3, best)}


def tagger() -> onnx.ModelProto:
    return model_from_text(
        "g (float[N,6,5] x) => (float[N,6,3] tags) { h = MatMul(x, w1) a = Relu(h) tags = MatMul(a, w2) }", {"w1": (5, 8), "w2": (8, 3)}
    )


def tagged(count: int, seed: int = 1) -> dict[str, Array]:
    samples = samples_for(tagger(), count, seed)
    labels = plain_outputs(tagger().SerializeToString(), samples, 8)[0].argmax(axis=2)
    labels[:, 5] = IGNORED
    labels[::7, 0] = (labels[::7, 0] + 1) % 3
    return {**samples, "labels": labels}


def data_of(finished: Finished) -> Mapping[str, object]:
    return cast(Mapping[str, object], finished.report["data"])


def page_of(finished: Finished) -> str:
    return finished.path(finished.outcome.artifacts["report.html"]).read_text()


def first_refusal(
    folder: Path, model: onnx.ModelProto, samples: Mapping[str, Array], config: object = None, **graph: onnx.ModelProto
) -> InputError:
    with pytest.raises(InputError) as caught:
        run_job(folder, model, samples, samples, cast("Mapping[str, object] | None", config), metric_model=graph.get("graph"))
    assert caught.value.fix
    return caught.value


def test_a_metric_of_the_users_own_that_is_0_or_1_gives_the_verdict_of_top1(tmp_path: Path) -> None:
    samples = labelled(60)
    config = {"accuracy": {"min_relative": 0.9}, "search": {"max_trials": 2}}
    own = run_job(tmp_path / "own", cnn(), samples, samples, config, metric_model=metric("float[N,3] logits, int64[N] labels", RIGHT))
    plain = run_job(tmp_path / "plain", cnn(), samples, samples, config)
    assert (own.verdict["metric"], plain.verdict["metric"]) == ("custom", "top1")
    assert {**own.verdict, "metric": ""} == {**plain.verdict, "metric": ""}
    assert own.verdict["method"] == "score_and_exact"
    measured = [
        [(one.score, one.excess, one.flips, one.binary) for trial in trials_of(job) if (one := trial.on_all)] for job in (own, plain)
    ]
    assert measured[0] == measured[1]  # how clearly a sample was decided only top1 can tell
    assert len(measured[0]) == len(trials_of(own))


def test_a_real_valued_metric_of_the_users_own_is_measured_on_the_engine_and_reported(tmp_path: Path) -> None:
    samples = samples_for(cnn(), 40)
    own = metric("float[N,3] logits, float[N,3] reference_logits", CLOSE)
    found = run_job(tmp_path, cnn(), samples, samples, {"accuracy": {"min_relative": 0.5}}, metric_model=own)
    assert (found.verdict["metric"], found.verdict["method"]) == ("custom", "student_t")
    ours, theirs = (plain_outputs(source, samples, 8)[0] for source in (found.engine, cnn().SerializeToString()))
    assert found.verdict["n"] == 40
    assert found.chosen["accuracy"] == pytest.approx(float(np.exp(-np.abs(ours - theirs).max(axis=1)).mean()), rel=1e-4)  # other batches
    assert found.chosen["accuracy"] != 1.0
    uploaded = found.driver.workspace.root / "metric" / "metric.onnx"
    assert uploaded.read_bytes() == own.SerializeToString()
    assert len(str(data_of(found)["metric_model"])) == 64
    assert cast(Mapping[str, Mapping[str, object]], found.report["config"])["accuracy"]["metric"] == "custom"
    page = page_of(found)
    assert "--metric-model metric.onnx" in page
    assert str(data_of(found)["metric_model"]) in page


def test_an_engine_that_the_users_own_metric_cannot_score_costs_a_trial_and_not_the_job(tmp_path: Path) -> None:
    samples = samples_for(cnn(), 40)
    steep = "d = Sub(logits, reference_logits) a = Abs(d) m = ReduceMax<axes=[1], keepdims=0>(a) k = Constant<value_float=1e6>() "
    picky = "near = Constant<value_float=0.02>() one = Constant<value_float=1.0>() s = Mul(m, k) i = Sub(one, s) n = Less(m, near) "
    own = metric("float[N,3] logits, float[N,3] reference_logits", steep + picky + "y = Where(n, i, one)")
    found = run_job(tmp_path, cnn(), samples, samples, {"accuracy": {"min_relative": 0.5}}, metric_model=own)
    quantized = trials_of(found)[1:]
    assert quantized
    assert all("metric model: score" in str(trial.failure) for trial in quantized)
    assert found.result["outcome"] == "baseline_kept"


def test_an_output_that_is_not_compared_may_be_scored(tmp_path: Path) -> None:
    model = model_from_text(
        "g (float[N,6] x) => (float[N,3] y, int64[N] best) { y = MatMul(x, w) best = ArgMax<axis=1, keepdims=0>(y) }", {"w": (6, 3)}
    )
    own = metric("int64[N] best, int64[N] reference_best", "same = Equal(best, reference_best) y = Cast<to=1>(same)")
    found = run_job(tmp_path, model, samples_for(model, 40), config={"accuracy": {"min_relative": 0.5}}, metric_model=own)
    assert data_of(found)["outputs"] == ["logits", "ignore"]
    assert data_of(found)["output_weights"] == {"y": 1.0}
    baseline = trials_of(found)[0].on_all
    assert baseline is not None
    assert (baseline.score, trials_of(found)[0].loss) == (1.0, 0.0)


def test_labels_of_any_form_reach_a_metric_of_the_users_own(tmp_path: Path) -> None:
    samples = samples_for(cnn(), 24)
    labels = plain_outputs(cnn().SerializeToString(), samples, 8)[0]  # targets of a regression
    own = metric("float[N,3] logits, float[N,3] labels", CLOSE.replace("reference_logits", "labels"))
    found = run_job(tmp_path, cnn(), {**samples, "labels": labels}, config={"accuracy": {"min_relative": 0.2}}, metric_model=own)
    assert cast(float, found.baseline["accuracy"]) == pytest.approx(1.0, abs=1e-4)  # other batches


def test_the_metric_model_is_part_of_what_kept_measurements_are_found_by(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / "cache", "1", KEPT_STAGES)
    keys = set()
    for name, nodes in (("a", CLOSE), ("b", CLOSE.replace("Exp(e)", "Sigmoid(e)")), ("c", CLOSE)):
        driver, job = submitted(tmp_path / name, cnn(), metric_model=metric("float[N,3] logits, float[N,3] reference_logits", nodes))
        keys.add(
            cache.key("inspect", as_object(json_from_value(InspectRequest(job.files, inspect_settings(job.config)))), driver.workspace)
        )
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("inputs", "nodes", "words"),
    [
        ("float[N,3] scores", "m = ReduceMax<axes=[1], keepdims=0>(scores) y = Sigmoid(m)", "unknown input 'scores'"),
        ("float[N,3] logits, int64[N] labels", RIGHT, "input 'labels' found, but the validation set has no labels"),
        ("float[N,3] logits", "y = ReduceMax<axes=[1], keepdims=0>(logits)", "expected 0 to 1, where 1 is perfect"),
        (
            "float[N,3] logits, float[N,3] reference_logits",
            "d = Sub(logits, reference_logits) s = Abs(d) m = ReduceMax<axes=[1], keepdims=0>(s) y = Tanh(m)",
            "scores the float model 0 on every validation sample",
        ),
    ],
)
def test_a_metric_that_cannot_judge_is_refused_before_anything_is_measured(tmp_path: Path, inputs: str, nodes: str, words: str) -> None:
    error = first_refusal(tmp_path, cnn(), samples_for(cnn(), 20), graph=metric(inputs, nodes))
    assert isinstance(error, InvalidMetricError)
    assert words in error.detail


def test_an_output_without_an_axis_of_samples_cannot_be_scored(tmp_path: Path) -> None:
    text = "g (float[N,6] x) => (float[N,3] y, float[1,3] z) { y = MatMul(x, w) z = ReduceMax<axes=[0]>(y) }"
    model = model_from_text(text, {"w": (6, 3)})
    own = metric("float[M,N] z", "m = ReduceMax<axes=[1], keepdims=0>(z) y = Sigmoid(m)")
    assert "it reads the output 'z'" in first_refusal(tmp_path, model, samples_for(model, 20), graph=own).detail


@pytest.mark.parametrize(
    ("accuracy", "is_given", "words"),
    [
        ({"metric": "top1"}, True, "accuracy.metric: found top1 together with a metric model, expected custom"),
        ({"max_nmse": 0.1}, True, "accuracy.metric: found nmse together with a metric model"),
        ({"metric": "custom"}, False, "accuracy.metric: found custom, but no metric model"),
    ],
)
def test_a_metric_model_and_the_metric_named_must_fit(accuracy: object, is_given: bool, words: str) -> None:
    with pytest.raises(InvalidConfigError, match=words) as caught:
        with_metric_model(config_from_json({"accuracy": accuracy}), is_given=is_given)
    assert caught.value.fix


def test_a_metric_model_makes_custom_the_metric() -> None:
    config = config_from_json({"accuracy": {"min_relative": 0.9}})
    assert with_metric_model(config, is_given=False) is config
    given = with_metric_model(config, is_given=True)
    assert (given.accuracy.metric, given.accuracy.min_relative) == (Metric.CUSTOM, 0.9)
    assert with_metric_model(given, is_given=True) is given


def test_labels_of_tokens_make_token_f1_the_metric(tmp_path: Path) -> None:
    samples = tagged(40)
    found = run_job(tmp_path, tagger(), samples, samples, {"accuracy": {"min_relative": 0.5}, "search": {"max_trials": 2}})
    assert found.verdict["metric"] == "token_f1"
    assert data_of(found)["outputs"] == ["logits"]
    tags = plain_outputs(found.engine, {"x": samples["x"]}, 8)[0]
    assert found.chosen["accuracy"] == pytest.approx(float(token_f1(samples["labels"], tags).mean()), abs=1e-12)


def test_span_f1_takes_the_names_of_the_classes(tmp_path: Path) -> None:
    samples = tagged(40)
    config = {"accuracy": {"metric": "span_f1", "min_relative": 0.2, "label_names": IOB2}}
    found = run_job(tmp_path, tagger(), samples, samples, config)
    tags = plain_outputs(found.engine, {"x": samples["x"]}, 8)[0]
    named = float(span_f1(samples["labels"], tags, IOB2).mean())
    assert named != float(span_f1(samples["labels"], tags).mean())
    assert found.chosen["accuracy"] == pytest.approx(named, abs=1e-12)


def test_one_hot_labels_are_refused(tmp_path: Path) -> None:
    error = first_refusal(tmp_path, cnn(), {**samples_for(cnn(), 20), "labels": np.eye(3, dtype=np.int64)[np.arange(20) % 3]})
    assert isinstance(error, InvalidCalibrationSetError)
    assert "labels: shape (samples, 3) found, (samples,) expected" in error.detail
    assert "labels.argmax(axis=1)" in error.fix


def test_names_of_classes_are_refused_where_samples_are_classified(tmp_path: Path) -> None:
    error = first_refusal(tmp_path, cnn(), labelled(20), {"accuracy": {"label_names": ["a", "b", "c"]}})
    assert "accuracy.label_names: found with the metric top1" in error.detail


def two_outputs() -> onnx.ModelProto:
    return model_from_text(
        "g (float[N,6] x) => (float[N,4] y, float[N,4] z) { y = MatMul(x, w1) r = Relu(y) z = MatMul(r, w2) }", {"w1": (6, 4), "w2": (4, 4)}
    )


@pytest.mark.parametrize(
    ("outputs", "shares"),
    [({}, (0.5, 0.5)), ({"y": {"weight": 3}, "z": "logits"}, (0.75, 0.25)), ({"z": {"kind": "logits", "weight": 9}}, (0.1, 0.9))],
)
def test_the_loss_of_several_outputs_is_their_weighted_mean_and_so_is_the_score_where_weights_differ(
    tmp_path: Path, outputs: dict[str, object], shares: tuple[float, float]
) -> None:
    samples = samples_for(two_outputs(), 40)
    found = run_job(tmp_path, two_outputs(), samples, samples, {"outputs": outputs, "accuracy": {"metric": "cosine", "min_relative": 0.9}})
    assert data_of(found)["output_weights"] == pytest.approx(dict(zip("yz", shares, strict=True)))
    assert f"y: {shares[0]:.4g}, z: {shares[1]:.4g}" in page_of(found)
    chosen = next(trial for trial in trials_of(found) if trial.fingerprint == found.report["chosen"])
    ours, theirs = (plain_outputs(source, samples, 1) for source in (found.engine, two_outputs().SerializeToString()))
    alone = [float(losses([OutputKind.LOGITS], [reference], [output]).mean()) for reference, output in zip(theirs, ours, strict=True)]
    assert chosen.loss == pytest.approx(shares[0] * alone[0] + shares[1] * alone[1], rel=1e-3)  # other batches
    cosines = np.stack([cosine(a, b) for a, b in zip(theirs, ours, strict=True)])
    expected = np.average(cosines, axis=0, weights=shares) if shares[0] != shares[1] else cosines.min(axis=0)
    assert chosen.on_all is not None
    assert chosen.on_all.score == pytest.approx(expected.mean(), abs=1e-5)


@pytest.mark.parametrize("weight", [0, -1, "much", 1e9])
def test_weights_are_positive_numbers(weight: object) -> None:
    with pytest.raises(InvalidConfigError, match=r"outputs.y.weight: found .*, expected a number above 0"):
        config_from_json({"outputs": {"y": {"weight": weight}}})


def test_a_weight_of_an_unknown_output_is_refused(tmp_path: Path) -> None:
    error = first_refusal(tmp_path, cnn(), samples_for(cnn(), 20), {"outputs": {"logit": {"weight": 2}}})
    assert error.fix == "Did you mean 'logits'?"


def test_the_form_of_labels_tells_what_they_are_of() -> None:
    tokens = np.zeros((4, 6), np.int64)
    assert (is_per_sample(None), is_per_sample(tokens), is_per_sample(tokens[:, 0]), is_per_sample(np.zeros(4))) == (
        False,
        False,
        True,
        False,
    )
    assert (labelled_tokens(None), labelled_tokens(tokens), labelled_tokens(tokens[:, 0])) == (None, 6, None)
    assert [is_per_token(np.zeros(shape), tokens) for shape in ((4, 6, 3), (4, 5, 3), (4, 6, 1), (4, 6))] == [True, False, False, False]
    assert [is_per_token(np.zeros(shape, np.int64), tokens) for shape in ((4, 6), (4, 5), (4,))] == [True, False, False]


def detector() -> onnx.ModelProto:
    """Return a network whose one output holds four large numbers and three scores for each of 16 places."""
    text = """g (float[N,3,4,4] x) => (float[N,7,16] y) {
        h = Conv<pads=[1,1,1,1]>(x, w1) r = Relu(h) b = Conv(r, w2) boxes = Mul(b, pixels) c = Conv(r, w3) scores = Sigmoid(c)
        both = Concat<axis=1>(boxes, scores) y = Reshape(both, shape) }"""
    model = model_from_text(text, {"w1": (8, 3, 3, 3), "w2": (4, 8, 1, 1), "w3": (3, 8, 1, 1)})
    for name, value in (("pixels", np.float32(200.0)), ("shape", np.array([0, 7, 16], np.int64))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


def test_scores_beside_boxes_decide_of_an_engine(tmp_path: Path) -> None:
    samples = samples_for(detector(), 40)
    found = run_job(tmp_path, detector(), samples, samples, {"accuracy": {"min_relative": 0.5}})
    ours, theirs = (plain_outputs(source, samples, 8)[0] for source in (found.engine, detector().SerializeToString()))
    chosen = next(trial for trial in trials_of(found) if trial.fingerprint == found.report["chosen"])
    change = ours[:, 4:] - theirs[:, 4:]
    about_mean = 1 - (change**2).mean(axis=(1, 2)) / (theirs[:, 4:] - theirs[:, 4:].mean(axis=0)).var() / 2
    kept, wanted = ours[:, 4:] >= 0.5, theirs[:, 4:] >= 0.5
    dice = 2 * (kept & wanted).sum(axis=(1, 2)) / np.maximum(kept.sum(axis=(1, 2)) + wanted.sum(axis=(1, 2)), 1)
    assert chosen.on_all is not None
    assert chosen.on_all.score <= float(np.minimum(dice, about_mean).mean()) + 1e-4  # engines of other batches round otherwise
    assert chosen.on_all.score < float(cosine(theirs, ours).mean()) - 1e-3  # which sees next to nothing but the boxes
