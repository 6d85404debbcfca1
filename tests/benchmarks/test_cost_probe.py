from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from benchmarks.cost_probe import made_up, probe_cost
from calibration.onnx_model.model_io import TensorSpec
from calibration.sensitivity.perturbed_model import Probe


@pytest.fixture
def three_products(tmp_path: Path) -> Path:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 4] x) => (float[n, 4] y) '
    model = onnx.parser.parse_model(text + "{ a = MatMul(x, u) b = Relu(a) c = MatMul(b, v) d = Tanh(c) y = MatMul(d, w) }")
    rng = np.random.default_rng(0)
    for name in "uvw":
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal((4, 4)).astype(np.float32), name))
    onnx.save_model(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_passes_are_counted_by_stage(three_products: Path) -> None:
    found = probe_cost(three_products, shapes={}, samples=6, few=4)
    passes = {stage.stage: stage.passes for stage in found.stages}
    assert found.layer_precisions == 3
    assert passes["single-layer losses and Gram matrix"] == 3 * 6
    assert passes["pairs"] == 3 * 4  # there are no more pairs than three
    tensors, samples = 6, 4  # a weight and an input each; two tries at least settle the first probe's step
    assert passes["Hessian traces"] >= tensors * samples * 3 / 2
    assert passes["sessions"] == 0


def test_probes_are_left_as_they_were(three_products: Path) -> None:
    before = Probe.outputs_from
    probe_cost(three_products, shapes={}, samples=2, few=2)
    assert Probe.outputs_from is before


def test_made_up_inputs_have_the_kind_that_their_names_tell() -> None:
    specs = [TensorSpec(name, "int64", ("n", "t")) for name in ("input_ids", "attention_mask", "token_type_ids")]
    made = made_up(specs, {spec.name: [3] for spec in specs}, 2)
    assert made["attention_mask"].tolist() == [[1, 1, 1]] * 2
    assert made["token_type_ids"].tolist() == [[0, 0, 0]] * 2
    assert made["input_ids"].shape == (2, 3)


def test_open_axis_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="input 'x' has open axes"):
        made_up([TensorSpec("x", "float32", ("n", "t"))], {}, 2)


def test_axes_that_the_model_fixes_stay_as_they_are() -> None:
    assert made_up([TensorSpec("x", "float32", ("n", 1, 28))], {"x": [3, 224]}, 2)["x"].shape == (2, 1, 28)
