from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision
from calibration.sensitivity.records import Sensitivity, SensitivityTable
from engine_builder.backends.base import Capabilities
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.backends.registry import Target, TargetContext
from engine_builder.records.assignment import fingerprint_of
from engine_builder.records.trial import FOLDED, Accuracy, Latency, Trial
from engine_builder.search.time_model import TensorEdge, TimeModel
from engine_builder.stage_io.engines import PredictedSequence, PredictRequest, PredictResult, TrialSaid
from engine_builder.stage_io.measuring import RankResult
from engine_builder.stages.predict import edges_between, gains_from, predict, prefix_sequence
from engine_builder.workspace.workspace import StageContext
from tests.driver import ranged
from tests.model_text import cnn, model_from_text, samples_for

Predicting = tuple[PredictRequest, StageContext]

LAYERS = ("Conv_c1", "Conv_c2", "Add_sum", "Gemm_logits")


def edges_of(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> dict[tuple[str | None, tuple[str, ...]], bool]:
    """Return whether something else reads each tensor edge, by its producer and readers."""
    prepared = prepare(model).model
    edges = edges_between(prepared, find_layers(prepared), ONNXRUNTIME_CPU_SCHEME, sizes or {})
    found = {(edge.producer, edge.readers): edge.float_readers for edge in edges}
    assert len(found) == len(edges)
    return found


def test_a_pooled_and_reshaped_tensor_is_the_tensor_itself() -> None:
    model = model_from_text(
        """g (float[N,1,8,8] x) => (float[N,3] y)
        <int64[2] shape = {0, -1}> {
            c = Conv<pads=[1,1,1,1]>(x, w1)
            r = Relu(c)
            p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
            f = Reshape(p, shape)
            y = Gemm(f, w2)
        }""",
        {"w1": (4, 1, 3, 3), "w2": (64, 3)},
    )
    assert edges_of(model) == {
        (None, ("Conv_c",)): False,
        ("Conv_c", ("Gemm_y",)): False,
        ("Gemm_y", ()): True,  # an output of the model is a float
    }


def test_averages_are_floats_on_both_sides() -> None:
    assert edges_of(cnn()) == {
        (None, ("Conv_c1",)): False,
        ("Conv_c1", ("Conv_c2", "Add_sum")): False,  # the residual
        ("Conv_c2", ("Add_sum",)): False,
        ("Add_sum", ()): True,  # the pooling reads floats ...
        (None, ("Gemm_logits",)): False,  # ... and what it writes must be quantized anew
        ("Gemm_logits", ()): True,
    }


def test_a_branch_that_no_layer_reads_reads_floats() -> None:
    model = model_from_text(
        """g (float[N,1,8,8] x) => (float[N,4,8,8] y, float[N,4,8,8] z) {
            a = Conv<pads=[1,1,1,1]>(x, w1)
            y = Conv<pads=[1,1,1,1]>(a, w2)
            z = Sigmoid(a)
        }""",
        {"w1": (4, 1, 3, 3), "w2": (4, 4, 3, 3)},
    )
    assert edges_of(model)["Conv_a", ("Conv_y",)]


def test_a_matmul_writes_floats() -> None:
    model = model_from_text("g (float[N,4] x) => (float[N,4] y) { a = MatMul(x, w1) y = MatMul(a, w2) }", {"w1": (4, 4), "w2": (4, 4)})
    assert edges_of(model) == {(None, ("MatMul_a",)): False, (None, ("MatMul_y",)): False}


def test_a_layer_that_reads_one_tensor_twice_is_one_reader() -> None:
    model = model_from_text(
        """g (float[N,4,4] x) => (float[N,4,4] y) {
            a = MatMul(x, w)
            y = MatMul(a, a)
        }""",
        {"w": (4, 4)},
    )
    assert edges_of(model) == {(None, ("MatMul_a",)): False, (None, ("MatMul_y",)): False}


def test_sizes_are_those_of_the_tensor_that_the_layer_writes() -> None:
    prepared = prepare(cnn()).model
    edges = edges_between(prepared, find_layers(prepared), ONNXRUNTIME_CPU_SCHEME, {"input": 64, "r1": 256})
    assert [edge.elements for edge in edges if edge.readers[:1] in (("Conv_c1",), ("Conv_c2",))] == [64, 256]
    assert isinstance(edges[0], TensorEdge)


def test_where_types_are_those_of_kernels_what_writes_a_tensor_rounds_it() -> None:
    prepared = prepare(cnn()).model
    edges = edges_between(prepared, find_layers(prepared), TENSORRT_SCHEME, {})
    found = {edge.readers: (edge.producer, edge.is_fused) for edge in edges if edge.readers}
    assert found == {
        ("Conv_c1",): (None, False),  # the model's input is a float
        ("Conv_c2", "Add_sum"): (None, True),
        ("Add_sum",): (None, True),
        ("Gemm_logits",): (None, True),
    }


def test_a_layer_precision_gains_what_its_kernel_saves_against_the_baselines() -> None:
    gains = gains_from({"a": {"baseline": 0.5, "int8": 0.2, "fp8": 0.6}, "b": {"baseline": 0.1, "int4": 0.1}})
    assert gains == {
        LayerPrecision("a", Precision.INT8): pytest.approx(0.3),
        LayerPrecision("a", Precision.FP8): pytest.approx(-0.1),
        LayerPrecision("b", Precision.INT4): 0.0,
    }


def no_dependency(layer_precisions: int) -> dict[str, NDArray[np.float64]]:
    """Return the arrays of layer precisions that do not interact, known exactly."""
    return {name: np.zeros((layer_precisions, layer_precisions)) for name in ("likely", "likely_error", "common_error", "loss_covariance")}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Predicting:
    """A small network with its ranges, and losses that grow from layer to layer."""
    root = tmp_path_factory.mktemp("job")
    driver, searched = ranged(
        root / "workspace", cnn(), samples_for(cnn(), 40), config={"accuracy": {"metric": "agreement", "min_relative": 0.9}}
    )
    scratch = root / "scratch"
    scratch.mkdir()
    context = StageContext(driver.workspace, scratch, lambda fraction, message: None)
    rows = tuple(Sensitivity(layer, Precision.INT8, 10.0**-index, 0.0, None, None) for index, layer in enumerate(LAYERS))
    order = tuple(LayerPrecision(layer, Precision.INT8) for layer in reversed(LAYERS))
    return PredictRequest(searched, ranked("one", rows, order, context), TRIALS), context


def ranked(name: str, rows: tuple[Sensitivity, ...], order: tuple[LayerPrecision, ...], context: StageContext) -> RankResult:
    table = context.workspace.write_value(f"{name}.json", SensitivityTable(rows, 24, 24, 1.0, ()))
    return RankResult(table, context.workspace.write_arrays(f"{name}.npz", **no_dependency(len(rows))), {"loss": order})


def trial(index: int, names: Sequence[str], ratio: float, order: str, kind: Precision = Precision.INT8) -> Trial:
    accuracy = Accuracy(1.0, 1.0, 0.0, 0.0, binary=True, samples=16)
    latency = Latency(ratio, ratio, 0.01, 10, 1.0, 0.01, ratio)
    quantized = dict.fromkeys(names, kind)
    return Trial(index, f"f{index}", quantized, order, len(quantized), accuracy, accuracy, 0.0, latency, 1, None, 1.0, None)


KERNELS = {layer: {"baseline": 0.2, "int8": 0.1} for layer in LAYERS}
TRIALS = (trial(0, (), 1.0, "baseline"), trial(1, LAYERS, 0.5, "all_low"))


def sequences_of(found: PredictResult) -> dict[str, PredictedSequence]:
    return {sequence.name: sequence for sequence in found.ladders}


def test_the_first_prediction_gives_the_frontier_and_the_prefixes_of_each_order(job: Predicting) -> None:
    request, context = job
    found = predict(request, context)
    sequences = sequences_of(found)
    assert list(sequences) == ["frontier", "loss"]
    assert [set(candidate) for candidate in sequences["loss"].rungs] == [set(LAYERS[-count:]) for count in (1, 2, 3)]
    assert set(found.kernels_ms) == set(LAYERS)
    assert all(set(times) == {"baseline", "int8"} for times in found.kernels_ms.values())
    for one, other in itertools.pairwise(sequences["frontier"].ratios):
        assert other < one
    assert list(context.scratch.glob("profile*")) == []
    fingerprints = [name for sequence in found.ladders for name in sequence.fingerprints]
    candidates = [candidate for sequence in sequences.values() for candidate in sequence.rungs]
    assert fingerprints == [fingerprint_of(LAYERS, candidate, Precision.FP32) for candidate in candidates]


def test_a_later_prediction_takes_the_kernel_times_of_the_first_and_gives_the_frontier_alone(
    job: Predicting,
) -> None:
    request, context = job
    found = predict(replace(request, kernels_ms=KERNELS, refined=True), context)
    assert list(sequences_of(found)) == ["refine"]
    assert found.kernels_ms == KERNELS
    assert found == predict(replace(request, kernels_ms=KERNELS, refined=True), context)


def test_what_was_timed_is_predicted_as_it_was(job: Predicting) -> None:
    request, context = job
    found = predict(replace(request, kernels_ms=KERNELS, refined=True), context)
    predicted = found.predicted
    assert predicted["f0"] == TrialSaid(1.0, 0.0, 0.0, 0.0, 0.0)
    assert predicted["f1"].ratio == pytest.approx(0.5)
    assert predicted["f1"].loss == pytest.approx(1.111)


def test_the_folded_float_model_says_nothing_of_layers(job: Predicting) -> None:
    request, context = job
    asked = replace(request, kernels_ms=KERNELS)
    assert predict(replace(asked, trials=(*TRIALS, trial(2, (), 0.8, FOLDED))), context) == predict(asked, context)


def test_a_failed_trial_says_nothing_about_time(job: Predicting) -> None:
    request, context = job
    broken = Trial(2, "f2", {"Conv_c1": Precision.INT8}, "loss", 1, None, None, None, None, None, None, 0.0, "the compiler crashed")
    found = predict(replace(request, trials=(*TRIALS, broken), kernels_ms=KERNELS), context)
    assert found.time_model.trials == 2


@pytest.fixture
def both(job: Predicting) -> Predicting:
    """The same job with a choice of INT8 and FP8: FP8 loses a tenth, and saves as much in the convolutions and half as much elsewhere."""
    request, context = job
    kinds = {Precision.INT8: 1.0, Precision.FP8: 0.1}
    rows = tuple(
        Sensitivity(layer, kind, share * 10.0**-index, 0.0, None, None)
        for index, layer in enumerate(LAYERS)
        for kind, share in kinds.items()
    )
    order = tuple(LayerPrecision(layer, kind) for kind in reversed(kinds) for layer in reversed(LAYERS))
    kernels = {layer: {"baseline": 0.2, "int8": 0.1, "fp8": 0.1 if "Conv" in layer else 0.15} for layer in LAYERS}
    return replace(request, ranked=ranked("both", rows, order, context), kernels_ms=kernels, refined=True), context


ALL_FP8 = trial(2, LAYERS, 0.6, "all_fp8", Precision.FP8)


class BackendOfAGpu(OrtCpuBackend):
    """Builds what the processor's does, and says that memory converts an element in a nanosecond's thousandth."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, conversion_ms=1e-9, names_conversions=False)


def test_before_a_mixed_engine_is_timed_a_conversion_takes_what_the_target_says(job: Predicting) -> None:
    request, context = job
    table = {"onnxruntime-cpu": Target(lambda gpu, options: BackendOfAGpu())}
    on_gpu = TargetContext(context.workspace, context.scratch, context.progress, table)
    alone = replace(request, kernels_ms=KERNELS, trials=TRIALS[:1])
    assert predict(alone, on_gpu).time_model.conversion_ns == pytest.approx(1e-3)
    assert predict(alone, context).time_model.conversion_ns == pytest.approx(1.5)


def test_each_layer_takes_the_precision_that_is_best_for_it(both: Predicting) -> None:
    request, context = both
    found = predict(replace(request, trials=(*TRIALS, ALL_FP8)), context)
    candidates = sequences_of(found)["refine"].rungs
    fp8, int8 = Precision.FP8, Precision.INT8
    assert {"Conv_c1": fp8, "Conv_c2": fp8, "Add_sum": fp8, "Gemm_logits": fp8} in candidates
    assert candidates[-1]["Gemm_logits"] is int8
    assert any(set(candidate.values()) == {int8, fp8} for candidate in candidates)
    assert set(found.time_model.overhead_ms) == {"int8", "fp8"}
    predicted = found.predicted
    assert [predicted[f"f{index}"].ratio for index in range(3)] == pytest.approx([1.0, 0.5, 0.6])
    assert [predicted[f"f{index}"].loss for index in range(3)] == pytest.approx([0.0, 1.111, 0.1111])


def test_the_loss_model_is_checked_against_the_trials(both: Predicting) -> None:
    request, context = both
    trials = [dataclasses.replace(item, loss=loss) for item, loss in zip((*TRIALS, ALL_FP8), (0.0, 2.222, 0.2222), strict=True)]
    found = predict(replace(request, trials=tuple(trials)), context)
    assert (found.loss_model and dataclasses.astuple(found.loss_model)) == (pytest.approx(2.0**0.4), 2, 0, pytest.approx(0.6 * np.log(2.0)))


def test_in_a_prefix_a_layer_precision_replaces_another_of_its_layer_only_where_it_is_faster(both: Predicting) -> None:
    """The convolutions are as fast in FP8 as in INT8, which loses more; the stage is asked with the first kernel times known."""
    request, context = both
    kernels = request.kernels_ms
    assert kernels is not None
    assert request.ranked is not None
    found = predict(replace(request, trials=(*TRIALS, ALL_FP8)), context)
    assert found.kernels_ms == kernels
    times = TimeModel(1.0, gains_from(kernels), (), 0.0, {})
    sequence = prefix_sequence("loss", request.ranked.rankings["loss"], times, ())
    assert len(sequence.rungs) == 6  # four layers in FP8 one by one, then two of them in INT8
    assert {layer: kind.value for layer, kind in sequence.rungs[-1].items()} == {
        "Conv_c1": "fp8",
        "Conv_c2": "fp8",
        "Add_sum": "int8",
        "Gemm_logits": "int8",
    }


def test_a_precision_that_was_not_timed_is_in_no_candidate_sequence(both: Predicting) -> None:
    request, context = both
    kernels = {layer: {"baseline": 0.2, "int8": 0.1} for layer in LAYERS}
    failed = Trial(2, "f2", dict.fromkeys(LAYERS, Precision.FP8), "all_fp8", 4, None, None, None, None, None, None, 0.0, "no such kernel")
    found = predict(replace(request, kernels_ms=kernels, trials=(*TRIALS, failed)), context)
    assert {kind for candidate in sequences_of(found)["refine"].rungs for kind in candidate.values()} == {Precision.INT8}


def test_only_one_format_engines_that_were_timed_are_profiled(both: Predicting) -> None:
    request, context = both
    failed = Trial(2, "f2", dict.fromkeys(LAYERS, Precision.FP8), "all_fp8", 4, None, None, None, None, None, None, 0.0, "no such kernel")
    found = predict(replace(request, kernels_ms=None, trials=(*TRIALS, failed)), context)
    sequences = sequences_of(found)
    assert all(set(times) == {"baseline", "int8"} for times in found.kernels_ms.values())
    assert {kind for sequence in sequences.values() for candidate in sequence.rungs for kind in candidate.values()} == {Precision.INT8}
