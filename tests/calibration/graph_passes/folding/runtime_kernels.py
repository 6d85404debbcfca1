"""The operators that onnxruntime runs for a model, after its own fusions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime


def kernels_of(model: onnx.ModelProto) -> list[str]:
    """Return the operators of the graph that onnxruntime makes of ``model`` for any processor, sorted."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        options.log_severity_level = 4
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return sorted(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
