from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from calibration.graph.weightless import big_weights, size_bytes, weightless_copy
from calibration.onnx_model.protobuf_checks import check_wellformed

BIG = 8 << 20  # bytes


def large_model() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.zeros(BIG // 4, np.float32), "w")
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (BIG // 4,))
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (BIG // 4,))
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "large", [value], [result], [weight])
    return helper.make_model(graph)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int64", "bool", "complex64", ml_dtypes.bfloat16, ml_dtypes.int4])
def test_size_of_raw_data_follows_from_the_shape(dtype: str) -> None:
    tensor = numpy_helper.from_array(np.zeros((3, 7), dtype=np.dtype(dtype)), "w")
    assert size_bytes(tensor) == len(tensor.raw_data)


def test_size_of_listed_data_is_that_of_the_tensor() -> None:
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.STRING, dims=(2,), string_data=(b"one", b"two"))
    assert size_bytes(tensor) == tensor.ByteSize()


@pytest.mark.parametrize("look", [weightless_copy, big_weights, check_wellformed], ids=lambda look: look.__name__)
def test_weights_are_not_copied_by_who_does_not_need_them(look: Callable[[onnx.ModelProto], object]) -> None:
    model = large_model()
    tracemalloc.start()
    try:
        look(model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < BIG // 8
