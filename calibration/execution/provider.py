"""What ONNX Runtime computes with."""

from __future__ import annotations

import enum


class Provider(enum.StrEnum):
    """What a session computes with, by the name that ONNX Runtime has for it."""

    CPU = "CPUExecutionProvider"
    CUDA = "CUDAExecutionProvider"
