"""What is no tensor of numbers: found by inference, and left out of what onnx_ir reads."""

from __future__ import annotations

import onnx
import pytest

from calibration.onnx_model.foreign_types import foreign_values, is_foreign, without_foreign_types
from tests.model_text import cnn
from tests.runtime_models import domain_not_imported, label_outputs, sequences


def test_text_and_maps_are_foreign_and_numbers_are_not() -> None:
    assert [is_foreign(value) for value in label_outputs().graph.output] == [True, False, True]


def test_inference_finds_sequences() -> None:
    assert foreign_values(sequences()) == {"parts", "same"}


def test_without_inference_the_file_is_believed() -> None:
    model = domain_not_imported()
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.shape_inference.infer_shapes(model)
    assert foreign_values(model) == frozenset()


def test_types_of_maps_are_left_out_of_a_copy() -> None:
    model = label_outputs()
    kinds = [value.type.WhichOneof("value") for value in without_foreign_types(model).graph.output]
    assert kinds == ["tensor_type", "tensor_type", None]
    assert model.graph.output[2].type.HasField("sequence_type")


def test_a_model_of_tensors_is_not_copied() -> None:
    model = cnn()
    assert without_foreign_types(model) is model
