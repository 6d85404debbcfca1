"""What rounding does to a model, measured on the model itself: a copy in which every weight and every tensor is off by one rounding."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def jittered(prepared: onnx.ModelProto, unit: float, seed: int) -> onnx.ModelProto:
    """Return a copy whose float weights and tensors are each off by a factor of 1 - ``unit`` or 1 + ``unit``, drawn at random.

    Args:
        prepared: A prepared model, which knows the types of its tensors.
        unit: Half the step of a float format, relative to the value.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    work = onnx.ModelProto()
    work.CopyFrom(prepared)
    for tensor in work.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.FLOAT and not np.array_equal(array, np.round(array)):  # a Resize counts on whole scales
            tensor.CopyFrom(numpy_helper.from_array(array * _factors(array.shape, max(unit, 2.0**-23), rng), tensor.name))
    known = {value.name: value.type.tensor_type for value in (*work.graph.value_info, *work.graph.output)}
    nodes = list(work.graph.node)
    del work.graph.node[:]
    for number, node in enumerate(nodes):
        place = work.graph.node.add()
        place.CopyFrom(node)
        for index, name in enumerate(node.output):
            kind = known.get(name)
            if kind is None or kind.elem_type != TensorProto.FLOAT or node.op_type in ("Shape", "Range", "ConstantOfShape"):
                continue
            factor, exact = f"jitter factor {number} {index}", f"without jitter {number} {index}"
            last = kind.shape.dim[-1].dim_value if kind.shape.dim else 0
            work.graph.initializer.append(numpy_helper.from_array(_factors((last,) if last > 0 else (), max(unit, 2.0**-23), rng), factor))
            place.output[index] = exact
            work.graph.node.append(helper.make_node("Mul", [exact, factor], [name]))
    return work


def _factors(shape: tuple[int, ...], unit: float, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(1 + rng.choice([-unit, unit], shape), dtype=np.float32)
