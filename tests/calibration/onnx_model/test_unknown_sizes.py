"""Sizes that are none are left open, each on its own."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from calibration.onnx_model.model_io import input_specs, output_specs, read_model, save_model
from calibration.onnx_model.unknown_sizes import clear_unknown_sizes
from tests.model_text import cnn


def with_size(size: int | str, axis: int = 0) -> onnx.ModelProto:
    model = cnn()
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if axis < len(dims):
            dims[axis].Clear()
            if isinstance(size, int):
                dims[axis].dim_value = size
            else:
                dims[axis].dim_param = size
    return model


@pytest.mark.parametrize("size", [-1, 0, "?", "", "-1", "None", "unknown"])
def test_a_size_that_is_none_is_open(size: int | str, tmp_path: Path) -> None:
    save_model(with_size(size), tmp_path / "model.onnx")
    model = read_model(tmp_path / "model.onnx")
    assert input_specs(model)[0].shape == (None, 1, 8, 8)
    assert output_specs(model)[0].shape == (None, 3)


@pytest.mark.parametrize("size", [4, "N", "batch"])
def test_real_sizes_and_names_stay(size: int | str) -> None:
    model = with_size(size)
    before = model.SerializeToString()
    clear_unknown_sizes(model)
    assert model.SerializeToString() == before
