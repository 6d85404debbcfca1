"""Takes the mean off the logits of a network of random weights, which else answers the same class whatever it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper


def centre_logits(path: Path, feeds: Mapping[str, NDArray[np.generic]]) -> None:
    """Change the last bias so that the mean of each logit over some samples is 0.

    Args:
        path: A model without external data, whose one output is a Gemm's; written anew.
        feeds: The samples.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, dict(feeds))
    del session
    model = onnx.load_model(path)
    last = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == last.input[2])
    centred = numpy_helper.to_array(bias) - logits.mean(axis=0)
    bias.CopyFrom(numpy_helper.from_array(centred.astype(np.float32), bias.name))
    onnx.save_model(model, path)
