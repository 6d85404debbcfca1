"""The standard operator set: the names of its domain, and which version a model imports."""

from __future__ import annotations

import onnx

STANDARD_DOMAINS = ("", "ai.onnx")


def opset_version(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set that the model imports, the newest of several, 0 without one."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)
