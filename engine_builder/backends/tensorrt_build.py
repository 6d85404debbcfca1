"""Builds a plan with TensorRT's parser and builder: options, optimization profile, timing cache, progress and cancel.

Precision lives in the model, as Q/DQ and Cast; the network is strongly typed, which is all that TensorRT 11 has and what 10.12 has too.
The module is an argument, so that the same code runs on ``tensorrt_rtx``, whose builder needs no GPU; with ``tensorrt`` it has not yet run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from engine_builder.backends.tensorrt_hooks import DRIVER_FIX, Messages, process_logger, process_recorder, progress_monitor
from engine_builder.errors import BuildError, StageCancelledError

Shape = tuple[int, ...]
Shapes = Mapping[str, tuple[Shape, Shape, Shape]]  # input -> smallest, most used (timed) and largest shape


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How an engine is built."""

    workspace_bytes: int | None = None  # scratch memory that a layer may use; None: all that the GPU has
    optimization_level: int = 3  # 0 (quick to build) to 5 (tries most)
    hardware_compatible: bool = False  # runs on any GPU since Ampere, mostly slower
    version_compatible: bool = False  # runs on later TensorRT releases of the same major version, mostly slower

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.optimization_level <= 5:
            raise ValueError(f"optimization_level is {self.optimization_level}, expected 0 to 5")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise ValueError(f"workspace_bytes is {self.workspace_bytes}, expected at least 1")


@dataclass(frozen=True, slots=True)
class Plan:
    """A built engine in memory."""

    data: bytes
    timing_cache: bytes  # timings that speed up the next build on the same GPU and version; empty where the builder keeps none
    log: tuple[tuple[str, str], ...]  # (severity, text) of each message of the build


def build_plan(
    trt: ModuleType,
    model: Path,
    *,
    shapes: Shapes,
    options: BuildOptions,
    timing_cache: bytes = b"",
    on_progress: Callable[[float, str], None] = lambda share, phase: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Plan:
    """Return the engine of an explicit model.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        model: The model; its external data lies beside it.
        shapes: Of each input with a dynamic axis.
        options: How to build.
        timing_cache: What an earlier build on the same GPU and version gave; one of another GPU or version is ignored.
        on_progress: Is told the share done (0 to 1) and the builder's phase.
        is_cancelled: Asked often; True ends the build.

    Raises:
        BuildError: The model or the shapes are refused; the message has TensorRT's words and the node's name.
        StageCancelledError: ``is_cancelled`` said so.
    """
    log = process_logger(trt)
    messages = log.messages
    messages.clear()
    try:
        builder = trt.Builder(log)
    except TypeError as exc:  # the bindings' way to say that the library returned nothing
        raise BuildError(f"TensorRT {trt.__version__} did not start: {messages.complaints() or exc}", fix=DRIVER_FIX) from exc
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)  # owns the weights that the network points to, so it stays until the build is over
    _parse(trt, parser, model)
    builder.error_recorder = process_recorder(
        trt
    )  # not sooner: a parser made with a recorder crashes the process when it is freed (RTX 1.7)
    config = builder.create_builder_config()
    _configure(trt, config, options)
    monitor = progress_monitor(trt, on_progress, is_cancelled)
    config.progress_monitor = monitor
    cache = _attach_cache(config, timing_cache, messages)
    _add_profile(builder, network, config, model.name, shapes)
    data = builder.build_serialized_network(network, config)
    if data is None:
        if is_cancelled():
            raise StageCancelledError(f"{model.name}: the build was cancelled", fix="submit the job again to build it")
        raise BuildError(
            f"{model.name}: TensorRT {trt.__version__} could not build it: {messages.complaints() or 'no reason given'}",
            fix="see TensorRT's messages; report it if the model is valid",
        )
    timings = bytes(cache.serialize()) if cache is not None else b""
    return Plan(bytes(data), timings, tuple(messages.lines))


def _parse(trt: ModuleType, parser: Any, model: Path) -> None:
    if parser.parse_from_file(str(model)):
        return
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        found.append(f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()} [{error.code()}]")
    raise BuildError(
        f"{model.name}: TensorRT {trt.__version__} cannot read it: {'; '.join(found) or 'no reason given'}",
        fix="leave the node in a precision that TensorRT takes, or replace it in the model",
    )


def _configure(trt: ModuleType, config: Any, options: BuildOptions) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector does not say which precision was reached
    config.builder_optimization_level = options.optimization_level
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is asked for where 16 bits lose too much: TF32 has no more of them than FP16
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def _attach_cache(config: Any, saved: bytes, messages: Messages) -> Any:
    """Return the cache that the build fills, or None where the builder keeps none."""
    cache = config.create_timing_cache(saved)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache
    messages.clear()  # a cache of another GPU or version, or a damaged one, is no fault of the model
    cache = config.create_timing_cache(b"")
    return cache if cache is not None and config.set_timing_cache(cache, False) else None


def _add_profile(builder: Any, network: Any, config: Any, model: str, shapes: Shapes) -> None:
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    unknown = sorted(set(shapes) - {tensor.name for tensor in tensors})
    if unknown:
        known = ", ".join(tensor.name for tensor in tensors)
        raise BuildError(f"shapes: {model} has no input {unknown[0]!r}, expected one of {known}", fix="name an input of the model")
    dynamic = [tensor for tensor in tensors if -1 in tuple(tensor.shape)]
    for tensor in tensors:
        declared = tuple(tensor.shape)
        for shape in shapes.get(tensor.name, ()):
            fits = len(shape) == len(declared) and all(want in (-1, size) for want, size in zip(declared, shape, strict=True))
            if not fits:
                raise BuildError(
                    f"shapes: input {tensor.name!r} of {model} is declared {declared} (-1: any), found {shape}",
                    fix="give it a shape that fits",
                )
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        if tensor.name not in shapes:
            raise BuildError(
                f"shapes: input {tensor.name!r} of {model} has dynamic axes, {tuple(tensor.shape)}, and no shapes",
                fix="give its smallest, usual and largest shape",
            )
        profile.set_shape(tensor.name, *shapes[tensor.name])
    if cast(int, config.add_optimization_profile(profile)) < 0:
        given = {tensor.name: shapes[tensor.name] for tensor in dynamic}
        raise BuildError(f"shapes: TensorRT refuses {given} for {model}", fix="give smallest <= usual <= largest on every axis")
