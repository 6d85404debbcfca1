"""A user's own metric: what it is fed, how its scores are read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from calibration.accuracy.own_metrics.metric_model import BATCH, MetricModel
from calibration.errors import InvalidMetricError
from tests.model_text import Array

Written = Callable[..., MetricModel]
BEST = "m = ReduceMax<axes=[1], keepdims=0>(scores) y = Sigmoid(m)"
RIGHT = "best = ArgMax<axis=1, keepdims=0>(scores) same = Equal(best, labels) y = Cast<to=1>(same)"
DISTANCE = "d = Sub(scores, reference_scores) s = Abs(d) m = ReduceMax<axes=[1], keepdims=1>(s) e = Neg(m) y = Exp(e)"


def graph(inputs: str, nodes: str, output: str = "float[N] y", *, opset: int = 17, extra: str = "") -> str:
    return f'<ir_version: 8, opset_import: ["": {opset}{extra}]> metric ({inputs}) => ({output}) {{ {nodes} }}'


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(inputs: str, nodes: str, output: str = "float[N] y", *, opset: int = 17, extra: str = "") -> MetricModel:
        model = onnx.parser.parse_model(graph(inputs, nodes, output, opset=opset, extra=extra))
        (tmp_path / "metric.onnx").write_bytes(model.SerializeToString())
        return MetricModel(tmp_path / "metric.onnx")

    return write


def logits(samples: int = 20, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(samples, 4)).astype(np.float32)


def refused(action: Callable[[], object]) -> InvalidMetricError:
    with pytest.raises(InvalidMetricError) as caught:
        action()
    assert caught.value.detail.startswith("metric model: ")
    assert caught.value.fix
    return caught.value


def test_outputs_and_labels_are_fed_by_name(written: Written) -> None:
    metric, scores = written("float[N,4] scores, int64[N] labels", RIGHT), logits()
    labels = np.where(np.arange(20) < 15, scores.argmax(axis=1), (scores.argmax(axis=1) + 1) % 4)
    metric.check({"scores": scores}, labels)
    assert metric.score({"scores": scores}, {"scores": scores}, labels).tolist() == [1.0] * 15 + [0.0] * 5


def test_the_float_models_outputs_are_fed_as_reference(written: Written) -> None:
    metric, reference = written("float[N,4] scores, float[N,4] reference_scores", DISTANCE, "float[N,1] y"), logits()
    metric.check({"scores": reference}, None)
    moved = reference.copy()
    moved[3, 1] += 0.5
    found = metric.score({"scores": moved}, {"scores": reference}, None)
    np.testing.assert_allclose(found, np.where(np.arange(20) == 3, np.exp(-0.5), 1.0), rtol=1e-6)  # float32


def test_any_subset_of_the_outputs_will_do(written: Written) -> None:
    metric = written("float[N,4] scores", BEST)
    metric.check({"other": logits(seed=1), "scores": logits()}, None)
    assert metric.score({"other": logits(seed=1), "scores": logits()}, {"scores": logits()}, None).shape == (20,)


def test_an_output_of_the_model_called_labels_comes_first(written: Written) -> None:
    metric = written("float[N,4] labels", "m = ReduceMax<axes=[1], keepdims=0>(labels) y = Sigmoid(m)")
    found = metric.score({"labels": logits()}, {"labels": logits()}, np.arange(20))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits().max(axis=1))), rtol=1e-5)  # float32


def test_values_are_cast_to_the_type_of_the_input(written: Written) -> None:
    metric, scores = written("float[N,4] scores, int32[N] labels", RIGHT.replace("best =", "wide =") + " best = Cast<to=6>(wide)"), logits()
    labels = scores.argmax(axis=1).astype(np.int64)
    assert metric.score({"scores": scores.astype(np.float16)}, {"scores": scores}, labels).mean() == 1.0


def test_many_samples_are_scored_in_their_order(written: Written) -> None:
    metric, scores = written("float[N,4] scores, int64[N] labels", RIGHT), logits(2 * BATCH + 7)
    labels = np.zeros(len(scores), np.int64)
    assert metric.score({"scores": scores}, {"scores": scores}, labels).tolist() == (scores.argmax(axis=1) == 0).astype(float).tolist()


def test_a_sample_that_is_not_finite_scores_0_and_is_not_shown_to_the_graph(written: Written) -> None:
    metric, reference = (
        written(
            "float[N,4] scores",
            BEST,
        ),
        logits(),
    )
    broken = reference.copy()
    broken[2, 0], broken[5, 3] = np.nan, np.inf
    found = metric.score({"scores": broken}, {"scores": reference}, None)
    assert np.flatnonzero(found == 0.0).tolist() == [2, 5]


def test_infinities_that_the_float_model_has_too_are_shown_to_the_graph(written: Written) -> None:
    metric, reference = written("float[N,4] scores", BEST), logits()
    reference[:, 3] = -np.inf
    found = metric.score({"scores": reference}, {"scores": reference}, None)
    assert (found == metric.score({"scores": np.where(reference < -9, -9, reference)}, {"scores": reference}, None)).all()


@pytest.mark.parametrize(
    ("inputs", "nodes", "words"),
    [
        ("float[N,4] logits", BEST.replace("scores", "logits"), "unknown input 'logits', expected an output of the model ('scores')"),
        (
            "float[N,4] reference_other, float[N,4] scores",
            "a = Add(reference_other, scores) " + BEST.replace("scores", "a"),
            "unknown input 'reference_other'",
        ),
        ("float[N,4] scores, int64[N] labels", RIGHT, "input 'labels' found, but the validation set has no labels"),
        ("float[N,4] reference_scores", BEST.replace("scores", "reference_scores"), "expected at least one output of the model: 'scores'"),
        ("float[N,5] scores", BEST, "has the shape (samples, 5), expected (samples, 4)"),
        ("float[N] scores", "y = Sigmoid(scores)", "has the shape (samples), expected (samples, 4)"),
        ("int64[N,4] scores", "f = Cast<to=1>(scores) " + BEST.replace("scores", "f"), "input 'scores' is int64, expected float32"),
        ("float[N,4] scores", "y = ReduceMax<axes=[1], keepdims=0>(scores)", "expected 0 to 1, where 1 is perfect"),
        ("float[N,4] scores", "m = ReduceMax<axes=[1], keepdims=0>(scores) n = Sub(m, m) y = Div(n, n)", "score nan for sample 0 found"),
        ("float[N,4] scores", "m = ReduceMax<keepdims=0>(scores) s = Sigmoid(m) y = Identity(s)", "expected (8,) or (8, 1)"),
        (
            "float[N,4] scores",
            "m = ReduceMean<axes=[0], keepdims=1>(scores) d = Sub(scores, m) x = ReduceMax<axes=[1], keepdims=0>(d) y = Sigmoid(x)",
            "in a call of its own, expected the same",
        ),
        (
            "float[N,4] scores, float[N,4] reference_scores",  # all samples agree with themselves: only their neighbours' outputs tell
            "d = Sub(scores, reference_scores) s = Abs(d) a = ReduceMax<axes=[0,1], keepdims=1>(s) m = ReduceMax<axes=[1], keepdims=1>(s) "
            "z = Sub(m, m) b = Add(z, a) e = Neg(b) y = Exp(e)",
            "in a call of its own, expected the same",
        ),
        ("float[N,4] scores", "r = RandomUniformLike(scores) y = ReduceMean<axes=[1], keepdims=0>(r)", "expected the same"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(written: Written, inputs: str, nodes: str, words: str) -> None:
    output = "float[A,B] y" if "b = Add" in nodes else "float y" if "Identity(s)" in nodes else "float[N] y"
    metric = written(inputs, nodes, output)
    assert words in refused(lambda: metric.check({"scores": logits()}, None)).detail


@pytest.mark.parametrize(
    ("inputs", "nodes", "output", "options", "words"),
    [
        ("float[8,4] scores", "y = ReduceMax<axes=[1], keepdims=0>(scores)", "float[8] y", {}, "input 'scores' takes exactly 8 samples"),
        (
            "float[N,4] scores",
            "y = Relu(scores) z = Abs(scores)",
            "float[N,4] y, float[N,4] z",
            {},
            "2 outputs found ('y', 'z'), expected one",
        ),
        ("float[N,4] scores", "y = ArgMax<axis=1, keepdims=0>(scores)", "int64[N] y", {}, "output 'y' holds int64"),
        ("float[N,4] scores", "y = ReduceMax<axes=[1], keepdims=0>(scores)", "float[N] y", {"opset": 99}, "opset 99 found"),
        ("float[N,4] scores", "y = evil.Judge(scores)", "float[N] y", {"extra": ', "evil": 1'}, "'Judge' of the custom domain 'evil'"),
        ("float[N,4] scores", "y = Magic(scores)", "float[N] y", {}, "operator 'Magic', which ONNX opset 17 does not have"),
    ],
)
def test_graphs_that_are_not_allowed_are_refused(
    written: Written, inputs: str, nodes: str, output: str, options: dict[str, int | str], words: str
) -> None:
    assert words in refused(lambda: written(inputs, nodes, output, **options)).detail


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "is empty"), (b"PK\x03\x04 something", "found a zip archive"), (b"import os", "not an ONNX model")]
)
def test_files_that_are_no_graph_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "metric.onnx").write_bytes(data)
    assert words in refused(lambda: MetricModel(tmp_path / "metric.onnx")).detail


def test_external_data_are_refused_even_if_they_are_there(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(graph("float[N,4] scores", "m = Mul(scores, w) y = ReduceMax<axes=[1], keepdims=0>(m)"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(4, np.float32), "w"))
    onnx.save_model(model, tmp_path / "metric.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").exists()
    assert "tensor 'w' lies in another file" in refused(lambda: MetricModel(tmp_path / "metric.onnx")).detail


def test_a_graph_that_fails_when_it_runs_is_refused(written: Written) -> None:
    metric = written(
        "float[N,M] scores, float[N,K] reference_other", "d = Sub(scores, reference_other) y = ReduceMax<axes=[1], keepdims=0>(d)"
    )
    outputs = {"scores": logits(), "other": np.ones((20, 3), np.float32)}
    assert "it fails on the outputs of the model" in refused(lambda: metric.score(outputs, outputs, None)).detail
