"""Every name of TensorRT that this package uses, and how the library is found.

``USED_API`` lets a machine without a GPU prove that the names exist in the versions we support; a test reads the sources and fails if the
list and they differ.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from types import ModuleType

from engine_builder.errors import UnsupportedTargetError

OLDEST = (10, 12)  # the first with everything below

# What the variables of tensorrt*.py hold, by which the names that follow them are told apart.
OBJECTS: Mapping[str, str] = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "tensor": "ITensor",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "inspector": "EngineInspector",
    "_runtime": "Runtime",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
}

USED_API: tuple[str, ...] = ()


def load_tensorrt() -> ModuleType:
    """Return the module ``tensorrt``.

    Raises:
        UnsupportedTargetError: It is not installed, does not load, or is too old.
    """
    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError, RuntimeError) as exc:  # its libraries may be missing too
        raise UnsupportedTargetError(
            f"target 'tensorrt': the package does not load here: {exc}",
            fix="on a machine with an NVIDIA GPU: pip install 'onnx-trt-optimizer[gpu]'; without one use target 'tensorrt-rtx'",
        ) from exc
    check_version(str(trt.__version__))
    return trt


def check_version(version: str) -> None:
    """Refuse a TensorRT older than 10.12.

    Raises:
        UnsupportedTargetError: It is, or the text is no version.
    """
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if len(found) < 2 or found < OLDEST:
        raise UnsupportedTargetError(
            f"target 'tensorrt': found TensorRT {version}, expected {OLDEST[0]}.{OLDEST[1]} or newer",
            fix="pip install --upgrade tensorrt-cu13",
        )
