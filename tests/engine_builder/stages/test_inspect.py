"""The first stage: what it finds out, and every problem of the user's files and settings that it must name."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.accuracy.metrics import Metric, OutputKind
from calibration.errors import InputError, InvalidCalibrationSetError, InvalidConfigError, InvalidModelError, error_from_problem
from engine_builder.backends.target_checks import check_config
from engine_builder.errors import UnsupportedTargetError
from engine_builder.records.inspection import Inspection
from engine_builder.stages.inspect import BATCH_BYTES, probe_batch
from service.cli.commands import exit_status
from tests.driver import Samples, inspected, inspection_of, ranged, submitted
from tests.model_text import Array, ModelMaker, cnn, fixed_batch, model_from_text, samples_for
from tests.models import attention, fp16, input_called_labels, several_outputs
from tests.unusable_models import UNUSABLE

# What the message about each model must name.
UNUSABLE_WORDS = {
    "quantize_linear": "already quantized: node that makes 'q' is a QuantizeLinear",
    "dequantized_weight": "already quantized: node that makes 'w' is a DequantizeLinear",
    "qlinear_conv": "already quantized: node that makes 'y' is a QLinearConv",
    "conv_integer": "already quantized: node that makes 'y' is a ConvInteger",
    "matmul_integer": "already quantized: node that makes 'y' is a MatMulInteger",
    "dynamic_quantize": "already quantized: node that makes 'y' is a DynamicQuantizeLinear",
    "narrow_weight": "already quantized: weight 'packed' is int4",
    "custom_domain": "operator 'Magic' of the custom domain 'com.example'",
    "unknown_operator": "operator 'Flurb', which ONNX opset 17 does not have",
    "operator_of_a_later_opset": "operator 'Gelu', which ONNX opset 17 does not have",
    "no_layer": "no quantizable layer",
    "layers_in_a_subgraph_only": "no quantizable layer",
    "float64": "no quantizable layer",
    "opset_too_new": "opset 99 found",
    "opset_too_old": "opset 6 found, 7 or later expected",
    "ir_version_too_new": "IR version 99 found",
    "sparse_weight": "sparse weights",
    "no_nodes": "the graph has no nodes",
    "no_inputs": "has no inputs",
    "string_input": "input 'words': element type string found",
    "bfloat16_input": "input 'x': element type bfloat16 found",
    "sequence_input": "input 'x': is a sequence",
    "only_scalars": "input 't': is a scalar, and no other input has an axis",
    "dangling_tensor": "input 'nowhere'",
    "wrong_weight_size": "tensor 'w1': 140 bytes found, 144 expected",
    "inner_sizes_differ": "Incompatible dimensions for matrix multiplication",
}


def inspection(
    folder: Path,
    model: onnx.ModelProto | bytes,
    calibration: Samples | None = None,
    validation: Samples | None = None,
    config: Mapping[str, object] | None = None,
) -> Inspection:
    """Run the stage and return what it found."""
    driver, job = submitted(folder, model, calibration, validation, config)
    check_config(job.config)  # as whoever takes a job does
    return driver.workspace.read_value(Inspection, inspected(driver, job).inspection)


def problem(
    folder: Path,
    model: onnx.ModelProto | bytes,
    calibration: Samples | None = None,
    validation: Samples | None = None,
    config: Mapping[str, object] | None = None,
) -> InputError:
    """Run the stage, which must refuse, and return the error; nothing half-made may be left."""
    with pytest.raises(InputError) as caught:
        inspection(folder, model, calibration, validation, config)
    error = caught.value
    assert (error.status, exit_status(error)) == (422, 2)
    assert error.fix
    assert error_from_problem(error.problem()).problem() == error.problem()
    assert list(folder.glob("scratch-*")) == []
    return error


def linear() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (float[N,3] y) { y = MatMul(x, w) }", {"w": (6, 3)})


def embedding() -> onnx.ModelProto:
    return model_from_text(
        "g (int64[N,T] ids) => (float[N,T,8] y) { e = Gather(table, ids) y = MatMul(e, w) }", {"table": (4, 8), "w": (8, 8)}
    )


def npz(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # object arrays are the point of some tests
    return stream.getvalue()


def rows(count: int, width: int = 6) -> dict[str, Array]:
    return {"x": np.random.default_rng(5).normal(size=(count, width)).astype(np.float32)}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_model_is_refused_by_its_own_words(name: str, tmp_path: Path) -> None:
    error = problem(tmp_path, UNUSABLE[name](), rows(8))
    assert type(error) is InvalidModelError
    assert UNUSABLE_WORDS[name] in error.detail


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"no model at all", "is not an ONNX model"),
        (pickle.dumps({"weights": [1]}), "found a Python pickle"),
        (cnn().SerializeToString()[:-40], "is truncated"),
    ],
)
def test_a_file_that_is_no_model_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    error = problem(tmp_path, data, rows(8))
    assert type(error) is InvalidModelError
    assert words in error.detail


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    onnx.save_model(cnn(), tmp_path / "big.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    error = problem(tmp_path / "job", (tmp_path / "big.onnx").read_bytes(), samples_for(cnn(), 8))
    assert type(error) is InvalidModelError
    assert "weights.bin" in error.detail


def with_nan(values: Array, sample: int) -> Array:
    changed = values.copy()
    changed[sample, 0, 0, 0] = np.nan
    return changed


IMAGES = samples_for(cnn(), 10)["input"]
BAD_SAMPLES: Mapping[str, tuple[Samples, str]] = {
    "wrong name": ({"imput": IMAGES}, "array 'input': missing"),
    "extra array": ({"input": IMAGES, "inputs": IMAGES}, "array 'inputs': no such model input"),
    "dtype": ({"input": IMAGES.astype(bool)}, "array 'input': bool found, float32 expected"),
    "rank": ({"input": IMAGES[0]}, "array 'input': 3 axes found"),
    "shape": ({"input": IMAGES[..., :7]}, "array 'input': size 7 found on axis 3"),
    "nan": ({"input": with_nan(IMAGES, sample=3)}, "array 'input' holds NaN in 1 of 10 samples, first in sample 3"),
    "empty": ({"input": IMAGES[:0]}, "array 'input': is empty"),
    "too few": ({"input": IMAGES[:7]}, "7 samples found, at least 8 expected"),
    "labels of wrong length": ({"input": IMAGES, "labels": np.zeros(9, np.int64)}, "array 'labels': shape (9,) found, (10,) expected"),
    "labels of wrong type": ({"input": IMAGES, "labels": np.zeros(10)}, "array 'labels': float64 found"),
    "labels out of range": ({"input": IMAGES, "labels": np.full(10, 3)}, "labels: found values 3 to 3, expected 0 to 2"),
    "pickled array": (npz(input=np.array([{}] * 8, dtype=object)), "array 'input': holds pickled Python objects"),
    "pickle": (pickle.dumps([1, 2]), "is a Python pickle"),
    "truncated": (npz(input=IMAGES)[:-50], "damaged or truncated"),
    "no npz": (b"hello: these are samples", "is none of .npz, .npy, "),
    "empty file": (b"", "is empty"),
}


@pytest.mark.parametrize("name", sorted(BAD_SAMPLES.keys() - {"labels out of range"}))  # labels of a calibration set are not read
def test_a_bad_calibration_set_is_refused_by_name(name: str, tmp_path: Path) -> None:
    bad, words = BAD_SAMPLES[name]
    error = problem(tmp_path, cnn(), bad, None if name == "too few" else samples_for(cnn(), 10))
    assert type(error) is InvalidCalibrationSetError
    assert words in error.detail


@pytest.mark.parametrize("name", sorted(BAD_SAMPLES.keys() - {"too few"}))  # seven are enough beside the calibration set
def test_a_bad_validation_set_is_refused_by_name(name: str, tmp_path: Path) -> None:
    bad, words = BAD_SAMPLES[name]
    error = problem(tmp_path, cnn(), samples_for(cnn(), 10), bad)
    assert type(error) is InvalidCalibrationSetError
    assert words in error.detail


def test_fewer_than_eight_samples_in_both_files_are_refused(tmp_path: Path) -> None:
    assert "4 calibration and 3 validation samples" in problem(tmp_path / "two", linear(), rows(4), rows(3)).detail
    same = rows(5)
    assert "at least 8 different ones" in problem(tmp_path / "same", linear(), same, same).detail


def test_one_calibration_sample_is_refused(tmp_path: Path) -> None:
    assert "1 calibration sample found" in problem(tmp_path / "file", linear(), rows(1), rows(9)).detail
    assert "1 calibration sample found" in problem(tmp_path / "key", linear(), rows(9), rows(9), {"calibration": {"samples": 1}}).detail


@pytest.mark.parametrize(
    ("broken", "words"), [(0, "calibration set: the model itself fails"), (1, "validation set: the model itself fails")]
)
def test_samples_that_the_model_cannot_run_carry_the_runtimes_words(broken: int, words: str, tmp_path: Path) -> None:
    sets = [{"ids": np.arange(64).reshape(16, 4) % 4} for _ in range(2)]
    sets[broken]["ids"][9, 2] = 7
    error = problem(tmp_path, embedding(), *sets)
    assert type(error) is InvalidCalibrationSetError
    assert words in error.detail
    assert "idx=7 must be within the inclusive range [-4,3]" in error.detail


def test_samples_of_a_size_that_does_not_fit_inside_the_model_are_refused(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,T] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": (8, 4)})
    error = problem(tmp_path, model, rows(12))
    assert "held-out calibration samples: the model itself fails" in error.detail
    assert "MatMul" in error.detail


def test_outputs_that_are_nan_are_refused(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,3] y) { r = Sqrt(x) y = MatMul(r, w) }", {"w": (6, 3)})
    error = problem(tmp_path, model, rows(12))
    assert "the float model's own output 'y' holds NaN on these samples, numbers expected" in error.detail
    assert "outputs: {'y': ignore}" in error.fix


def test_outputs_that_are_infinite_are_taken(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,3] y) { h = MatMul(x, w) r = Relu(h) y = Log(r) }", {"w": (6, 3)})
    driver, basics = ranged(tmp_path, model, rows(12))
    assert inspection_of(driver, basics).reference.metric is Metric.FIDELITY


def test_an_input_may_hold_what_the_model_takes_and_a_note_says_so(tmp_path: Path) -> None:
    model = model_from_text(
        "g (float[N,6] x, float[N,6] m) => (float[N,3] y) { s = Add(x, m) p = Softmax<axis=1>(s) y = MatMul(p, w) }", {"w": (6, 3)}
    )
    mask = np.zeros((12, 6), np.float32)
    mask[4:, 5] = -np.inf
    driver, basics = ranged(tmp_path, model, {**rows(12), "m": mask})
    notes = inspection_of(driver, basics).notes
    assert any("array 'm' holds -inf in 8 of 12 samples, first in sample 4: taken as it is" in note for note in notes)


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        ({"target": "onnxruntime-gpu"}, UnsupportedTargetError, "'onnxruntime-gpu' is unknown here"),
        ({"gpu": "L4"}, UnsupportedTargetError, "gpu: found 'L4', expected none"),
        ({"precisions": ["fp8"]}, InvalidConfigError, "precisions[0]: found fp8"),
        ({"precisions": ["fp32"]}, InvalidConfigError, "precisions: found only fp32"),
        ({"outputs": {"z": "logits"}}, InvalidConfigError, "outputs: found 'z', expected one of 'y'"),
        ({"outputs": {"y": "ignore"}}, InvalidModelError, "all outputs are set to ignore"),
        ({"shapes": {"z": {"min": [1], "opt": [1], "max": [1]}}}, InvalidConfigError, "shapes: found input 'z'"),
        ({"accuracy": {"metric": "top1"}}, InvalidCalibrationSetError, "top1 compares with labels"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(
    config: Mapping[str, object], kind: type[InputError], words: str, tmp_path: Path
) -> None:
    error = problem(tmp_path, linear(), rows(20), rows(40), config)
    assert type(error) is kind
    assert words in error.detail


def test_single_values_are_compared_by_closeness_and_cosine_of_them_is_refused(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,1] y) { h = MatMul(x, w) y = Sigmoid(h) }", {"w": (6, 1)})
    assert inspection(tmp_path / "a", model, rows(12)).reference.metric is Metric.CLOSENESS
    error = problem(tmp_path / "b", model, rows(12), config={"accuracy": {"metric": "cosine", "min_relative": 0.9}})
    assert "cosine compares directions" in error.detail
    assert inspection(tmp_path / "c", model, rows(12), config={"accuracy": {"max_nmse": 0.1}}).reference.metric is Metric.NMSE


def test_outputs_that_the_metric_does_not_read_are_named(tmp_path: Path) -> None:
    text = """g (float[N,6] x) => (float[N,3] p, float[N,4] state) { h = MatMul(x, w) state = Tanh(h) l = MatMul(h, v) p = Softmax(l) }"""
    model = model_from_text(text, {"w": (6, 4), "v": (4, 3)})
    found = inspection(tmp_path / "a", model, rows(12))
    assert (found.reference.metric, found.notes[1:]) == (Metric.FIDELITY, ())  # which reads all of them
    notes = inspection(tmp_path / "b", model, rows(12), config={"accuracy": {"metric": "agreement"}}).notes
    assert "the metric agreement does not read the output 'state': no budget covers it" in notes


def test_the_kinds_of_outputs_can_be_overridden(tmp_path: Path) -> None:
    wanted = {"outputs": {"hidden": "ignore", "logits": "values"}}
    inspected = inspection(tmp_path, several_outputs(), config=wanted)
    assert inspected.model.outputs.kinds == (OutputKind.IGNORE, OutputKind.VALUES, OutputKind.IGNORE)
    assert (inspected.reference.metric, inspected.model.outputs.compared, inspected.reference.scored) == (Metric.FIDELITY, (1,), (0,))


def test_an_input_called_labels_is_an_input(tmp_path: Path) -> None:
    inspected = inspection(tmp_path / "a", input_called_labels(), config={"outputs": {"y": "logits"}})
    assert inspected.reference.metric is Metric.AGREEMENT
    samples = {**samples_for(input_called_labels(), 12), "__labels__": np.zeros(12, np.int64)}
    assert inspection(tmp_path / "b", input_called_labels(), samples).reference.metric is Metric.TOP1


@pytest.mark.parametrize(("fixed", "calibration", "kept"), [(4, 10, 8), (16, 50, 48), (16, 5, 16)])
def test_calibration_samples_of_a_fixed_batch_fill_whole_calls(fixed: int, calibration: int, kept: int, tmp_path: Path) -> None:
    model = cnn(f"{fixed},1,8,8")
    inspected = inspection(tmp_path, model, samples_for(cnn(), calibration), samples_for(cnn(), 9))
    assert (inspected.model.batch, inspected.model.is_batch_fixed, inspected.calls.timed_batch) == (fixed, True, fixed)
    assert (inspected.samples.calibration_samples, inspected.samples.validation_samples) == (kept, 9)


def test_a_batch_size_against_the_models_fixed_one_is_refused(tmp_path: Path) -> None:
    error = problem(tmp_path, fixed_batch(), config={"batch_size": 8})
    assert "batch_size: found 8, expected 1: the model fixes the samples of a call to 1" in error.detail


def test_the_sizes_of_a_timed_call_must_suit_the_model(tmp_path: Path) -> None:
    model = model_from_text("g (float[N,T] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": (8, 4)})
    shapes = {"x": {"min": [1, 4], "opt": [1, 6], "max": [8, 8]}}
    error = problem(tmp_path, model, rows(12, width=8), config={"shapes": shapes})
    assert type(error) is InvalidConfigError
    assert "the model itself fails at the sizes that engines are timed with ('x' (1, 6))" in error.detail


def test_fewer_calibration_samples_may_be_asked_for(tmp_path: Path) -> None:
    inspected = inspection(tmp_path, linear(), rows(20), rows(10), {"calibration": {"samples": 5}})
    assert (inspected.samples.calibration_samples, inspected.samples.validation_samples) == (5, 10)
    assert "calibration.samples: 5 of the calibration samples used" in inspected.notes


def test_a_half_precision_model_is_compared_in_float32(tmp_path: Path) -> None:
    inspected = inspection(tmp_path, fp16())
    assert (inspected.model.float_type, inspected.baseline.precision) == ("fp16", "fp16")
    assert inspected.model.file.file == "prepared.onnx"


@pytest.mark.parametrize(("side", "expected"), [(8, 64), (64, 8), (100, 4), (2000, 1)])
def test_the_batch_is_a_power_of_two_whose_largest_activations_fit(side: int, expected: int) -> None:
    model = model_from_text("g (float[N,32,H,W] x) => (float[N,32,H,W] y) { c = Relu(x) d = Relu(c) y = Relu(d) }", {})
    batch = probe_batch(model, {"x": (1, 32, side, side)})
    assert batch == expected
    assert batch == 1 or batch * 4 * 4 * 32 * side**2 <= BATCH_BYTES


@pytest.mark.parametrize(("maker", "size", "probed", "scored"), [(attention, 2, 64, 2), (attention, 100, 64, 100), (cnn, 2, 64, 64)])
def test_engines_are_scored_in_the_calls_of_the_user_where_layers_round_by_call(
    maker: ModelMaker, size: int, probed: int, scored: int, tmp_path: Path
) -> None:
    found = inspection(tmp_path, maker(), config={"batch_size": size})
    assert (found.model.batch, found.calls.scored_batch) == (probed, scored)
