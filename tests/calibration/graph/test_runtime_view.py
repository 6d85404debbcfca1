"""What the installed onnxruntime says of operators, models and types."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from calibration.errors import InvalidModelError
from calibration.graph.runtime_view import complaint, has_operator, is_standard, objection, refusal, types_of
from calibration.graph_passes.normalize import prepare
from calibration.onnx_model.model_io import read_model
from calibration.onnx_model.supported_models import check_supported
from tests import models
from tests.model_text import ModelMaker
from tests.runtime_models import RUNTIME_ONLY, rows


@pytest.mark.parametrize(
    ("domain", "name", "opset", "known", "standard"),
    [
        ("", "MatMul", 17, True, True),
        ("ai.onnx", "MatMul", 17, True, True),
        ("", "Upsample", 9, True, True),
        ("", "Upsample", 10, False, False),  # given up
        ("", "LayerNormalization", 13, True, False),
        ("", "LayerNormalization", 17, True, True),
        ("", "Affine", 9, True, False),
        ("", "Affine", 17, False, False),
        ("ai.onnx.ml", "Scaler", 17, True, False),
        ("com.microsoft", "FusedMatMul", 17, True, False),
        ("com.example", "Magic", 17, False, False),
        ("", "Flurb", 17, False, False),
    ],
)
def test_operators_are_told_apart(domain: str, name: str, opset: int, *, known: bool, standard: bool) -> None:
    assert has_operator(domain, name, opset) is known
    assert is_standard(domain, name, opset) is standard


def test_types_come_from_the_runtime_where_inference_knows_none() -> None:
    types = types_of(RUNTIME_ONLY["fused_operators"](), ["g", "n"])
    assert {name: kind.tensor_type.elem_type for name, kind in types.items()} == dict.fromkeys("gn", onnx.TensorProto.FLOAT)
    assert [dim.dim_value or dim.dim_param for dim in types["n"].tensor_type.shape.dim] == ["N", 6]


def test_what_is_no_tensor_has_no_type_here() -> None:
    assert types_of(RUNTIME_ONLY["sequences"](), ["parts"]) == {}


def test_of_a_model_that_does_not_load_nothing_is_known() -> None:
    model = rows("h = com.example.Magic(x) y = MatMul(h, w2)", com__example=1)
    assert types_of(model, ["h"]) == {}
    assert "com.example:Magic" in (refusal(model) or "")


def test_the_checker_is_asked_apart_from_the_runtime() -> None:
    model = RUNTIME_ONLY["domain_not_imported"]()
    assert refusal(model) is None
    assert complaint(model) == "No opset import for domain 'com.microsoft'"
    assert complaint(RUNTIME_ONLY["unlisted_initializers"]()) is None


@pytest.mark.parametrize(
    "operator", ["MatMulBnb4", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QOrderedMatMul", "GatherBlockQuantized"]
)
def test_the_runtimes_own_quantized_operators_are_refused_as_such(operator: str) -> None:
    assert has_operator("com.microsoft", operator, 17)
    with pytest.raises(InvalidModelError, match=f"already quantized: node that makes 'h' is a {operator}"):
        check_supported(rows(f"h = com.microsoft.{operator}(x, w1) y = MatMul(h, w2)", com__microsoft=1))


@pytest.mark.parametrize("operator", ["Gelu", "QuickGelu", "FusedMatMul", "Attention", "SkipLayerNormalization"])
def test_its_float_operators_are_not(operator: str) -> None:
    check_supported(rows(f"h = com.microsoft.{operator}(x, w1) y = MatMul(h, w2)", com__microsoft=1))


@pytest.mark.parametrize("maker", [models.duplicate_node_names, models.bf16_inside])
def test_what_the_prepared_form_mends_is_no_objection_beside_the_checkers(maker: ModelMaker, tmp_path: Path) -> None:
    model = maker()
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert complaint(model) is not None
    assert refusal(model) is not None
    assert objection(model) is None
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert prepare(read_model(tmp_path / "model.onnx")).model.graph.node
