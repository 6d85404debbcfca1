"""One ahead-of-time build with TensorRT-RTX: parse, size the dynamic inputs, compile for a compute capability, read the layer report.

No GPU is needed. Where sizes are dynamic, the same network is compiled a second time with every size fixed to ``opt``, and that plan thrown
away: only a report of fixed sizes tells what a run at ``opt`` computes and moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from engine_builder.backends.kernels import Kernel
from engine_builder.backends.layer_report import kernels_from_messages
from engine_builder.backends.tensorrt_rtx_session import Messages, new_monitor, session, tensorrt_rtx_module, without_driver_noise
from engine_builder.config import ShapeRange
from engine_builder.errors import BuildError, StageCancelledError

_SHOWN_ERRORS = 5


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build."""

    compute_capability: tuple[int, int] | None  # None builds for all that the builder targets by default
    shapes: Mapping[str, ShapeRange]  # of each dynamic input
    workspace_bytes: int  # most scratch memory that a kernel may ask for
    on_step: Callable[[str], bool]  # called with the name of a phase of the build; returns whether to go on


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build gives."""

    data: bytes
    kernels: tuple[Kernel, ...]  # of the plan; dynamic sizes are -1
    kernels_at_opt: tuple[Kernel, ...]  # of the same network at the sizes opt


def build_plan(explicit: Path, options: BuildOptions) -> Plan:
    """Return the plan of an explicit model.

    Raises:
        BuildError: The parser or the builder refused it: node and message are in the detail.
        StageCancelledError: ``on_step`` returned False.
    """
    process = session()
    messages = process.messages
    with messages.lock:
        messages.clear()
        trt = tensorrt_rtx_module()
        builder = trt.Builder(process.logger)
        network = builder.create_network()
        parser = trt.OnnxParser(network, process.logger)
        if not parser.parse_from_file(str(explicit)):
            raise BuildError(
                f"{explicit.name}: tensorrt-rtx {trt.__version__} cannot parse it: {_parser_errors(parser)}",
                fix="see the node named; leave it in the baseline precision, or replace the operator",
            )
        builder.error_recorder = process.recorder  # tensorrt-rtx 1.7 crashes at the end if the network was made with it
        _require_shapes(network, options.shapes, explicit.name)
        data, kernels = _compiled(trt, builder, network, options, options.shapes, messages, explicit.name)
        fixed = {name: ShapeRange(sizes.opt, sizes.opt, sizes.opt) for name, sizes in options.shapes.items()}
        if fixed == dict(options.shapes) or not _dynamic_inputs(network):
            return Plan(data, kernels, kernels)
        return Plan(data, kernels, _compiled(trt, builder, network, options, fixed, messages, explicit.name)[1])


def _compiled(
    trt: ModuleType,
    builder: Any,
    network: Any,
    options: BuildOptions,
    shapes: Mapping[str, ShapeRange],
    messages: Messages,
    name: str,
) -> tuple[bytes, tuple[Kernel, ...]]:
    messages.clear()
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # without it there is no layer report
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is asked for where 16 bits lose too much: TF32 has no more of them than FP16
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, "SM{}{}".format(*options.compute_capability)), 0)
    if _dynamic_inputs(network):
        profile = builder.create_optimization_profile()
        for tensor, sizes in shapes.items():
            profile.set_shape(tensor, sizes.min, sizes.opt, sizes.max)
        if config.add_optimization_profile(profile) < 0:
            raise _refused(trt, messages, name, "the sizes of its inputs")
    monitor = new_monitor(options.on_step)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.failure is not None:
        raise monitor.failure
    if monitor.cancelled:
        raise StageCancelledError(f"{name}: the build was cancelled", fix="submit the job again to build it")
    if plan is None:
        raise _refused(trt, messages, name, "it")
    return bytes(plan), kernels_from_messages(messages.every)


def _refused(trt: ModuleType, messages: Messages, name: str, what: str) -> BuildError | MemoryError:
    text = "; ".join(list(dict.fromkeys(messages.errors))[-_SHOWN_ERRORS:]) or "no message"
    if "bad_alloc" in text:
        return MemoryError(text)
    return BuildError(f"{name}: tensorrt-rtx {trt.__version__} refused {what}: {text}", fix="see the builder's message")


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(
        f"node {error.node_name()!r} ({error.node_operator()}): {without_driver_noise(error.desc())}" for error in errors[:_SHOWN_ERRORS]
    )


def _dynamic_inputs(network: Any) -> dict[str, tuple[int, ...]]:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return {tensor.name: tuple(tensor.shape) for tensor in inputs if min(tensor.shape, default=0) < 0}


def _require_shapes(network: Any, shapes: Mapping[str, ShapeRange], name: str) -> None:
    known = {network.get_input(index).name: tuple(network.get_input(index).shape) for index in range(network.num_inputs)}
    for tensor, sizes in shapes.items():
        if tensor not in known:
            raise BuildError(f"{name}: found shapes of {tensor!r}, expected inputs among {', '.join(known)}", fix="remove it from shapes")
        shape = known[tensor]
        fits = len(shape) == len(sizes.opt) and all(
            dim < 0 or dim == low == high for dim, low, high in zip(shape, sizes.min, sizes.max, strict=True)
        )
        if not fits:
            raise BuildError(
                f"{name}: found shapes {list(sizes.min)} to {list(sizes.max)} of {tensor!r}, expected ones that fit {list(shape)}",
                fix="give every axis of the input, a fixed one as the model has it",
            )
    missing = {tensor: shape for tensor, shape in _dynamic_inputs(network).items() if tensor not in shapes}
    if missing:
        text = ", ".join(f"{tensor} {list(shape)}" for tensor, shape in missing.items())
        raise BuildError(
            f"{name}: found no shapes of the dynamic inputs {text}, expected min, opt and max of each", fix="add them to shapes"
        )
