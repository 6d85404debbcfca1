"""A generated model as plain onnxruntime runs it, where the model itself is more than that takes: the reference that laws compare with.

1. Node names are left out: ONNX allows one name for several nodes, onnxruntime does not.
2. BF16 becomes float32: the CPU provider has no kernels for it. Models with BF16 have inputs and outputs in other types.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return it; the model is left as it is."""
    work = onnx.ModelProto()
    work.CopyFrom(model)
    _rewrite(work.graph)
    for function in work.functions:
        for node in function.node:
            node.name = ""
    return work


def _rewrite(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        node.name = ""
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rewrite(attribute.g)
            elif attribute.HasField("t"):
                _widen(attribute.t)
            elif attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.BFLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
