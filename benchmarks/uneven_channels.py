"""Makes the channels between convolutions very different in size, without changing what a network computes.

Trained networks get like this where BatchNorm is folded into filters of very different size: one scale for all channels of an activation
then leaves few levels to the small ones.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper


def with_uneven_channels(model: onnx.ModelProto, *, spread: int, seed: int) -> tuple[onnx.ModelProto, int]:
    """Return a copy whose channels are divided by powers of two behind one convolution, and its readers' weights multiplied by them.

    Only a Conv whose Relu is read by one ordinary Conv alone is taken: a Relu passes a positive factor through. Powers of two change no
    mantissa, so the float network answers as before.

    Args:
        model: Convolutions of floats with initializers as weights.
        spread: The largest exponent: channels get factors from 1 to ``2 ** -spread``.
        seed: Of the factors.

    Returns:
        The network, and how many activations were made uneven.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph, rng = changed.graph, np.random.default_rng(seed)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    reads = Counter(name for node in graph.node for name in node.input)
    outputs = {value.name for value in graph.output}
    found = 0
    for reader in graph.node:
        relu = makers.get(reader.input[0]) if reader.op_type == "Conv" else None
        maker = makers.get(relu.input[0]) if relu is not None and relu.op_type == "Relu" else None
        if relu is None or maker is None or maker.op_type != "Conv" or _groups(reader) != 1:
            continue
        between = (maker.output[0], relu.output[0])
        constants = (*maker.input[1:], reader.input[1])
        if any(reads[name] != 1 or name in outputs for name in between) or any(reads[name] != 1 for name in constants):
            continue
        channels = weights[maker.input[1]].dims[0]
        factors = np.exp2(-rng.integers(0, spread + 1, channels)).astype(np.float32)
        for name in maker.input[1:]:
            _multiply(weights[name], factors.reshape(-1, *(1,) * (len(weights[name].dims) - 1)))
        _multiply(weights[reader.input[1]], 1 / factors.reshape(1, -1, 1, 1))
        found += 1
    return changed, found


def _groups(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _multiply(tensor: onnx.TensorProto, factors: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factors, tensor.name))
