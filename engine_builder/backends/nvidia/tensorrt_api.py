"""Every name of TensorRT that this package uses, and how the library is found.

``USED_API`` lets a machine without a GPU prove that the names exist in the versions we support; a test reads the sources and fails if the
list and they differ.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Mapping
from types import ModuleType

from engine_builder.backends.nvidia.libraries.plugins import plugin_libraries, register_plugins
from engine_builder.errors import UnsupportedTargetError

OLDEST = (10, 12)  # the first with everything below but build routes
OLDEST_WITH_ROUTES = (11, 1)

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
    "registry": "IPluginRegistry",
    "_runtime": "Runtime",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "refitter": "Refitter",
    "reader": "OnnxParserRefitter",
}

USED_API: tuple[str, ...] = (
    "Builder.build_serialized_network",
    "Builder.create_builder_config",
    "Builder.create_network",
    "Builder.create_optimization_profile",
    "Builder.error_recorder",
    "BuilderFlag.REFIT_IDENTICAL",
    "BuilderFlag.STRIP_PLAN",
    "BuilderFlag.TF32",
    "BuilderFlag.VERSION_COMPATIBLE",
    "BuilderFlag.WEIGHT_STREAMING",
    "EngineInspector.execution_context",
    "EngineInspector.get_engine_information",
    "HardwareCompatibilityLevel.AMPERE_PLUS",
    "IBuilderConfig.add_optimization_profile",
    "IBuilderConfig.all_build_routes",
    "IBuilderConfig.build_route",
    "IBuilderConfig.builder_optimization_level",
    "IBuilderConfig.clear_flag",
    "IBuilderConfig.create_timing_cache",
    "IBuilderConfig.hardware_compatibility_level",
    "IBuilderConfig.profiling_verbosity",
    "IBuilderConfig.progress_monitor",
    "IBuilderConfig.set_flag",
    "IBuilderConfig.set_memory_pool_limit",
    "IBuilderConfig.set_timing_cache",
    "ICudaEngine.create_engine_inspector",
    "ICudaEngine.create_execution_context",
    "ICudaEngine.get_tensor_dtype",
    "ICudaEngine.get_tensor_location",
    "ICudaEngine.get_tensor_mode",
    "ICudaEngine.get_tensor_name",
    "ICudaEngine.get_tensor_profile_shape",
    "ICudaEngine.get_tensor_shape",
    "ICudaEngine.num_io_tensors",
    "ICudaEngine.num_optimization_profiles",
    "ICudaEngine.streamable_weights_size",
    "ICudaEngine.weight_streaming_budget_v2",
    "IErrorRecorder.clear",
    "IErrorRecorder.get_error_code",
    "IErrorRecorder.get_error_desc",
    "IErrorRecorder.has_overflowed",
    "IErrorRecorder.num_errors",
    "IErrorRecorder.report_error",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.get_max_output_size",
    "IExecutionContext.get_tensor_shape",
    "IExecutionContext.infer_shapes",
    "IExecutionContext.profiler",
    "IExecutionContext.set_input_shape",
    "IExecutionContext.set_optimization_profile_async",
    "IExecutionContext.set_output_allocator",
    "IExecutionContext.set_tensor_address",
    "ILogger.Severity",
    "ILogger.log",
    "INetworkDefinition.get_input",
    "INetworkDefinition.num_inputs",
    "IOptimizationProfile.set_shape",
    "IOptimizationProfile.set_shape_input",
    "IOutputAllocator.notify_shape",
    "IOutputAllocator.reallocate_output",
    "IOutputAllocator.reallocate_output_async",
    "IPluginRegistry.load_library",
    "IProfiler.report_layer_time",
    "IProgressMonitor.phase_finish",
    "IProgressMonitor.phase_start",
    "IProgressMonitor.step_complete",
    "ITensor.is_shape_tensor",
    "ITensor.name",
    "ITensor.shape",
    "ITimingCache.serialize",
    "LayerInformationFormat.JSON",
    "MemoryPoolType.WORKSPACE",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "OnnxParser.get_error",
    "OnnxParser.num_errors",
    "OnnxParser.parse_from_file",
    "OnnxParserRefitter.get_error",
    "OnnxParserRefitter.num_errors",
    "OnnxParserRefitter.refit_from_file",
    "ParserError.desc",
    "ParserError.func",
    "ParserError.node_name",
    "ParserError.node_operator",
    "ProfilingVerbosity.DETAILED",
    "Refitter.get_missing_weights",
    "Refitter.refit_cuda_engine",
    "Runtime.deserialize_cuda_engine",
    "Runtime.engine_host_code_allowed",
    "TensorIOMode.INPUT",
    "TensorLocation.HOST",
    "get_plugin_registry",
    "init_libnvinfer_plugins",
)


def load_tensorrt() -> ModuleType:
    """Return the module ``tensorrt``, its plugins and those of the service's operator registered.

    Raises:
        UnsupportedTargetError: It is not installed, does not load, or is too old; or a plugin library does not load.
        BuildError: It does not start.
    """
    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError, RuntimeError) as exc:  # its libraries may be missing too
        raise UnsupportedTargetError(
            f"target 'tensorrt': the package does not load here: {exc}",
            fix="on a machine with an NVIDIA GPU: pip install 'onnx-trt-optimizer[gpu]'; without one use target 'tensorrt-rtx'",
        ) from exc
    check_version(str(trt.__version__))
    register_plugins(trt, plugin_libraries(os.environ))
    return trt


def require_tensorrt() -> None:
    """Refuse a machine that cannot run engines, without loading TensorRT or touching the GPU.

    Raises:
        UnsupportedTargetError: TensorRT is not installed, or there is no driver.
    """
    if importlib.util.find_spec("tensorrt") is None:
        missing, fix = "the package tensorrt is not installed", "pip install 'onnx-trt-optimizer[gpu]' on a machine with an NVIDIA GPU"
    else:
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError as exc:
            missing, fix = f"no NVIDIA driver was found ({exc})", "install the driver; in a container, run it with --gpus all"
        else:
            return
    raise UnsupportedTargetError(f"target 'tensorrt': {missing}", fix=f"{fix}; without a GPU use target 'tensorrt-rtx'")


def installed_version() -> tuple[int, int] | None:
    """Return major and minor version of the package, without loading it; of several the newest. None where no metadata tell it."""
    found = []
    for name in _DISTRIBUTIONS:
        try:
            major, minor, *_ = re.findall(r"\d+", importlib.metadata.version(name))
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
        found.append((int(major), int(minor)))
    return max(found, default=None)


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


_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")  # of which each has the module ``tensorrt``
