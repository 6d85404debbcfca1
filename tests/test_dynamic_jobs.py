"""Whole jobs where static int8 misses a budget that int8 with ranges of the call keeps, and where that is not worth a try."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.number_formats.precision import Precision
from tests.driver import Array, Finished, plain_outputs, run_job, trials_of
from tests.model_text import cnn, model_from_text, samples_for

TIGHT = {"accuracy": {"max_nmse": 0.002}}


def encoder() -> onnx.ModelProto:
    """Two blocks of a transformer without its attention, and a head."""
    return model_from_text(
        """encoder (float[N,6,16] x) => (float[N,6,5] y) {
            u1 = MatMul(x, w1)
            u2 = Add(u1, b1)
            u3 = Relu(u2)
            u4 = MatMul(u3, w2)
            first = Add(x, u4)
            d1 = MatMul(first, w3)
            d2 = Relu(d1)
            d3 = MatMul(d2, w4)
            second = Add(first, d3)
            normal = LayerNormalization(second, gamma)
            y = MatMul(normal, w5)
        }""",
        {"w1": (16, 32), "b1": (32,), "w2": (32, 16), "w3": (16, 32), "w4": (32, 16), "gamma": (16,), "w5": (16, 5)},
    )


def outlying(count: int, seed: int) -> dict[str, Array]:
    """Return samples of very different sizes: one range for all of them has few steps left for the small ones."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(scale=1.5, size=(count, 1, 1)))
    return {"x": np.asarray(rng.normal(size=(count, 6, 16)) * sizes, dtype=np.float32)}


def job(folder: Path, **config: object) -> Finished:
    return run_job(folder, encoder(), outlying(48, 1), outlying(40, 2), {**TIGHT, **config})


def lost(engine: Path, batch: int) -> float:
    """Return the mean error of the outputs of an engine in plain onnxruntime, in units of the float model's."""
    samples = outlying(40, 2)
    (found,), (expected,) = (plain_outputs(model, samples, batch) for model in (engine, encoder().SerializeToString()))
    error = ((found - expected) ** 2).sum(axis=(1, 2)) / (expected**2).sum(axis=(1, 2))
    return float(error.mean())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return job(tmp_path_factory.mktemp("dynamic"))


def test_the_engine_that_rounds_at_run_time_ships_where_static_ranges_miss_the_budget(finished: Finished) -> None:
    trials = {trial.order: trial for trial in trials_of(finished)}
    assert not trials["all_low"].met
    assert trials["all_int8_dynamic"].met
    assert set(trials["all_int8_dynamic"].precisions.values()) == {Precision.INT8_DYNAMIC}
    assert finished.result["outcome"] == "improved"
    assert finished.chosen["precisions"] == {"fp32": 2, "int8_dynamic": 5}  # the two sums stay floats


def test_it_is_in_plain_onnxruntime_as_good_as_was_reported(finished: Finished) -> None:
    assert lost(finished.engine, 1) == pytest.approx(cast(float, finished.chosen["accuracy"]), rel=1e-3)
    assert {(entry.domain, entry.version) for entry in onnx.load(finished.engine).opset_import} == {("", 17)}


def test_one_sample_a_call_is_no_warning_and_several_are(finished: Finished, tmp_path: Path) -> None:
    said = "range of the whole call"
    assert not any(said in str(warning) for warning in cast(list[object], finished.result["warnings"]))
    alone = {"precisions": ["fp32", "int8_dynamic"], "accuracy": {"max_nmse": 0.5}}
    several = job(tmp_path, batch_size=4, **alone)
    assert "int8_dynamic" in cast(Mapping[str, int], several.chosen["precisions"])
    (warning,) = [str(item) for item in cast(list[object], several.result["warnings"]) if said in str(item)]
    assert "calls of 4 samples" in warning
    given, shuffled = (float(found) for found in re.search(r"nmse (\S+)\) and shuffled \((\S+)\); the worse counts", warning).groups())  # type: ignore[union-attr]  # a failed match fails the test
    assert lost(several.engine, 4) == pytest.approx(given, rel=1e-3)
    assert given != shuffled
    assert cast(float, several.chosen["accuracy"]) == pytest.approx(max(given, shuffled), rel=1e-3)


def by_size(count: int, seed: int) -> dict[str, Array]:
    """Return the samples of ``outlying`` with those of about the same size beside each other."""
    x = outlying(count, seed)["x"]
    return {"x": x[np.argsort(np.abs(x).max(axis=(1, 2)))]}


def test_an_engine_that_keeps_the_budget_among_chosen_neighbours_only_does_not_ship(tmp_path: Path) -> None:
    config = {"precisions": ["fp32", "int8_dynamic"], "batch_size": 4, "accuracy": {"max_nmse": 0.002}, "search": {"max_trials": 2}}
    found = run_job(tmp_path, encoder(), by_size(48, 1), by_size(40, 2), config)
    (dynamic,) = [trial for trial in trials_of(found) if trial.is_candidate]
    assert dynamic.met  # in the user's order
    assert found.result["outcome"] == "baseline_kept"
    orders = found.driver.results["verdict"]["result"]["orders"][dynamic.fingerprint]  # type: ignore[index]  # JSON
    assert orders["given"] < 0.002 < orders["shuffled"]
    (finalist,) = cast(list[Mapping[str, Mapping[str, object]]], found.report["finalists"])
    assert finalist["verdict"]["engine"] == orders["shuffled"]
    offers = cast(Mapping[str, list[Mapping[str, object]]], found.result["offers"])
    assert [offer["accuracy"] for offer in offers["engines"]] == [orders["shuffled"]]
    assert [offer["fingerprint"] for offer in offers["budgets"] if offer["is_asked"]] == [None]


@pytest.mark.long
def test_biases_of_dynamic_layers_are_corrected_and_their_weights_rounded_by_gptq(tmp_path: Path) -> None:
    config = {"precisions": ["fp32", "int8_dynamic"], "accuracy": {"max_nmse": 0.5}, "calibration": {"second_order": ["int8_dynamic"]}}
    found = job(tmp_path, analysis="full", **config)
    tried = [(str(one["what"]), one["where"]) for one in cast(list[Mapping[str, object]], found.report["repairs"])]
    assert ("bias correction", ["MatMul_u1"]) in tried  # the only one with a bias
    assert sorted(cast(list[str], where) for what, where in tried if what == "GPTQ") == [
        [f"MatMul_{name}"] for name in ("d1", "d3", "u1", "u4", "y")
    ]


def test_how_many_samples_share_a_call_matters_here(finished: Finished) -> None:
    assert lost(finished.engine, 8) > 2 * lost(finished.engine, 1)  # else the two tests above could not tell


@pytest.mark.long
def test_a_convolution_network_has_no_dynamic_engine(tmp_path: Path) -> None:
    found = run_job(tmp_path, cnn(), samples_for(cnn(), 30, seed=1), samples_for(cnn(), 24, seed=2), {"accuracy": {"min_relative": 0.5}})
    assert [trial.order for trial in trials_of(found)] == ["baseline", "all_low"]
    assert {precision for trial in trials_of(found) for precision in trial.precisions.values()} == {Precision.INT8}


@pytest.mark.long
def test_a_job_without_the_precision_has_no_dynamic_engine(tmp_path: Path) -> None:
    found = job(tmp_path, precisions=["fp32", "int8"])
    assert {precision for trial in trials_of(found) for precision in trial.precisions.values()} == {Precision.INT8}


def test_an_lstm_takes_the_precision_and_the_result_says_which_operators_that_needs(tmp_path: Path) -> None:
    model = model_from_text(
        """tagger (float[N,7,16] x) => (float[N,7,5] y) {
            steps = Transpose <perm = [1, 0, 2]> (x)
            all, hn, cn = LSTM <hidden_size = 24, direction = "bidirectional"> (steps, w, r, b)
            turned = Transpose <perm = [2, 0, 1, 3]> (all)
            joined = Reshape (turned, shape)
            y = MatMul (joined, v)
        }""",
        {"w": (2, 96, 16), "r": (2, 96, 24), "b": (2, 192), "v": (48, 5)},
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 7, -1]), "shape"))
    config = {"precisions": ["fp32", "int8_dynamic"], "accuracy": {"max_nmse": 0.01}}
    found = run_job(tmp_path, model, samples_for(model, 40, seed=1), samples_for(model, 30, seed=2), config)
    assert found.chosen["precisions"] == {"int8_dynamic": 2}
    engine = cast(Mapping[str, object], found.result["engine"])
    assert engine["opsets"] == {"ai.onnx": 17, "com.microsoft": 1}
    assert "LSTM" in {node.op_type for node in model.graph.node}
    assert "DynamicQuantizeLSTM" in {node.op_type for node in onnx.load(found.engine).graph.node}
