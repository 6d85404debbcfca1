"""What ``import tensorrt`` gives where the stand-in is in place."""

from __future__ import annotations

from typing import Any

from tests.tensorrt_stand_in.building import (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    IOptimizationProfile,
    ITimingCache,
    OnnxParser,
    rtx,
)
from tests.tensorrt_stand_in.orders import orders
from tests.tensorrt_stand_in.refitting import OnnxParserRefitter, Refitter
from tests.tensorrt_stand_in.running import (
    EngineInspector,
    ICudaEngine,
    IExecutionContext,
    ISerializationConfig,
    LayerInformationFormat,
    Runtime,
    TensorIOMode,
    TensorLocation,
)

__version__ = orders().version

# NVIDIA's own classes, from the module that has the same ones.
OWN = (
    "BuilderFlag",
    "HardwareCompatibilityLevel",
    "IErrorRecorder",
    "ILogger",
    "IOutputAllocator",
    "IPluginRegistry",
    "IProfiler",
    "IProgressMonitor",
    "ITensor",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "ParserError",
    "ProfilingVerbosity",
    "SerializationFlag",
)


def init_libnvinfer_plugins(log: Any, namespace: str) -> bool:
    """Do nothing: the RTX builder registers its own."""
    return True


def get_plugin_registry() -> Any:
    """Return the real registry."""
    return rtx.get_plugin_registry()


globals().update({name: getattr(rtx, name) for name in OWN})

__all__ = [
    "Builder",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ISerializationConfig",
    "ITimingCache",
    "LayerInformationFormat",
    "OnnxParser",
    "OnnxParserRefitter",
    "Refitter",
    "Runtime",
    "TensorIOMode",
    "TensorLocation",
    "__version__",
    "get_plugin_registry",
    "init_libnvinfer_plugins",
    *OWN,
]
