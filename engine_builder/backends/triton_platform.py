"""What runs an engine in Triton Inference Server."""

from __future__ import annotations

import enum


class TritonPlatform(enum.StrEnum):
    """Triton's name of the backend that loads an engine's file."""

    TENSORRT = "tensorrt_plan"
    ONNXRUNTIME = "onnxruntime_onnx"
