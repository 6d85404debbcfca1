"""Adds corrections to the biases of a prepared model (calibration.algorithms.bias_correction says where and how much)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.algorithms.bias_correction import BiasLocation


def with_corrected_biases(
    prepared: onnx.ModelProto, locations: Sequence[BiasLocation], corrections: Mapping[str, NDArray[np.float32]]
) -> onnx.ModelProto:
    """Return the model with each correction, (channels,), by layer, added to the bias at its location; the argument stays."""
    added = {location.bias: corrections[location.layer] for location in locations if location.layer in corrections}
    model = onnx.ModelProto()
    model.CopyFrom(prepared)
    for tensor in model.graph.initializer:
        if tensor.name in added:
            bias = numpy_helper.to_array(tensor)
            corrected = np.asarray(bias + added[tensor.name].reshape(bias.shape), dtype=np.float32)
            tensor.CopyFrom(numpy_helper.from_array(corrected, tensor.name))
    return model
