"""What onnxruntime runs is prepared, whatever onnx's own tools have against it, and computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.errors import InvalidModelError
from calibration.graph.layers import find_layers
from calibration.graph.opset import opset_version
from calibration.graph_passes.normalize import PreparedModel, prepare
from calibration.onnx_model.model_io import output_specs, read_model
from calibration.onnx_model.opset_conversion import OPSET
from tests.model_text import model_from_text, one_batch, run
from tests.runtime_models import (
    RUNTIME_ONLY,
    function_of_another_opset,
    label_outputs,
    old_pad,
    old_upsample,
    pictures,
    rows,
    unlisted_initializers,
)


def prepared(model: onnx.ModelProto, folder: Path) -> PreparedModel:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return prepare(read_model(path))


def assert_same(first: Sequence[object], second: Sequence[object]) -> None:
    """Compare outputs, arrays and the lists and maps of classifiers; float32 sums of another order differ in the last bits."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        else:
            assert str(one) == str(other)


@pytest.mark.parametrize("name", RUNTIME_ONLY)
def test_what_onnxruntime_runs_is_prepared_and_computes_the_same(name: str, tmp_path: Path) -> None:
    model = RUNTIME_ONLY[name]()
    result = prepared(model, tmp_path)
    assert find_layers(result.model)
    assert opset_version(result.model) == OPSET
    feeds = one_batch(model)
    assert_same(run(model, feeds), run(result.model, feeds))


@pytest.mark.parametrize(("opset", "scale"), [(7, 1.5), (7, 3.0), (9, 1.5), (9, 3.0), (10, 0.5), (10, 0.75), (10, 1.5), (10, 3.0)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_resizes_count_from_the_corner(mode: str, scale: float, opset: int, tmp_path: Path) -> None:
    model = old_upsample(mode, scale, opset)
    assert_same(run(model, one_batch(model)), run(prepared(model, tmp_path).model, one_batch(model)))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_an_old_pad_keeps_its_mode(mode: str, tmp_path: Path) -> None:
    model = old_pad(mode)
    assert_same(run(model, one_batch(model)), run(prepared(model, tmp_path).model, one_batch(model)))


def test_old_operators_in_a_branch_are_written_out_too(tmp_path: Path) -> None:
    model = model_from_text(
        """g (float[N,4,6] x) => (float[N,4,3] y) <float zero = {0.0}> {
            h = MatMul(x, w1) total = ReduceSum<keepdims=0>(h) is_high = Greater(total, zero)
            b = If(is_high) <
                then_branch = yes () => (float[N,4,6] t) { t = Hardmax<axis=1>(h) },
                else_branch = no () => (float[N,4,6] e) { e = Hardmax<axis=2>(h) }
            >
            y = MatMul(b, w2)
        }""",
        {"w1": (6, 6), "w2": (6, 3)},
        opset=9,
        ir_version=4,
    )
    changed = prepared(model, tmp_path).model
    for seed in range(4):  # both branches
        assert_same(run(model, one_batch(model, seed)), run(changed, one_batch(model, seed)))


def test_a_function_of_another_opset_is_converted_before_it_is_inlined(tmp_path: Path) -> None:
    result = prepared(function_of_another_opset(), tmp_path)
    x = np.array([[1.0, 2.0], [-3.0, 0.5]], np.float32)
    w = np.array([[0.5, -1.0], [0.25, 2.0]], np.float32)
    h = x @ w
    (y,) = run(result.model, {"x": x})
    np.testing.assert_allclose(y, (h - h.sum(axis=1, keepdims=True)) @ w, rtol=1e-5)  # float32 sums
    assert "model-local functions inlined" in result.notes


def test_notes_say_what_the_checker_has_against_it(tmp_path: Path) -> None:
    (note,) = (note for note in prepared(RUNTIME_ONLY["early_layer_norm"](), tmp_path).notes if "checker" in note)
    assert "LayerNormalization" in note
    assert prepared(unlisted_initializers(), tmp_path).notes == (f"opset 8 converted to {OPSET}",)


def test_notes_name_what_was_written_out(tmp_path: Path) -> None:
    notes = prepared(RUNTIME_ONLY["old_operators"](), tmp_path).notes
    assert notes == (
        "ImageScaler, Affine, ScaledTanh, ParametricSoftplus, Crop written out in operators of later opsets",
        f"opset 8 converted to {OPSET}",
        "folded into weights and biases: 2 Add and 3 Mul behind layers",
    )


def test_of_two_versions_of_the_standard_domain_the_last_counts(tmp_path: Path) -> None:
    model = rows("h = MatMul(x, w1) u = Unsqueeze<axes=[0]>(h) s = Squeeze<axes=[0]>(u) y = MatMul(s, w2)", opset=13)
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx", 11))  # at 13 these have no attribute axes
    assert_same(run(model, one_batch(model)), run(prepared(model, tmp_path).model, one_batch(model)))


def test_a_file_without_an_ir_version_is_taken(tmp_path: Path) -> None:
    model = rows("h = MatMul(x, w1) y = MatMul(h, w2)")
    expected = run(model, one_batch(model))
    model.ClearField("ir_version")
    assert_same(expected, run(prepared(model, tmp_path).model, one_batch(model)))


def test_scan_of_opset_8_is_refused_by_its_name(tmp_path: Path) -> None:
    body = onnx.parser.parse_graph("b (float[3] s, float[3] i) => (float[3] t, float[3] o) { t = Add(s, i) o = Identity(t) }")
    model = pictures("a = Relu(c)", opset=8)
    model.graph.node.append(onnx.helper.make_node("Scan", ["", "start", "p"], ["", "scanned"], body=body, num_scan_inputs=1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 3), np.float32), "start"))
    with pytest.raises(InvalidModelError, match="Scan of opset 8 found"):
        prepared(model, tmp_path)


def test_outputs_that_are_no_numbers_keep_their_place_and_type(tmp_path: Path) -> None:
    model = label_outputs()
    result = prepared(model, tmp_path).model
    assert list(result.graph.output) == list(model.graph.output)
    assert [spec.dtype for spec in output_specs(model)] == ["object", "float32", "object"]


def test_a_model_with_none_but_such_outputs_is_refused(tmp_path: Path) -> None:
    model = label_outputs()
    del model.graph.output[1]
    with pytest.raises(InvalidModelError, match=r"every output holds text.*'label', 'by_name'"):
        prepared(model, tmp_path)


def test_what_the_graph_optimizer_wrote_for_one_machine_is_refused(tmp_path: Path) -> None:
    model = rows("h = MatMul(x, w1) y = com.microsoft.nchwc.ReorderOutput<channels=3>(h)")
    with pytest.raises(InvalidModelError, match="which onnxruntime's graph optimizer wrote for one machine"):
        prepared(model, tmp_path)
