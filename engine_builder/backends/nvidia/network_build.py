"""Builds a plan with TensorRT's parser and builder: options, optimization profile, timing cache, progress, and the report of layers.

Precision lives in the model, as Q/DQ and Cast; the network is strongly typed, which is all that TensorRT 11 has and what 10.12 has too.
The module is an argument: ``tensorrt``, with which it has not yet run, or ``tensorrt_rtx``, whose builder needs no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.nvidia.hooks import Messages, process_logger, process_recorder, progress_monitor
from engine_builder.backends.nvidia.parser import REPLACE_FIX, new_builder, parse
from engine_builder.config.config import ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.errors import BuildError, RefusedModelError

Shapes = Mapping[str, ShapeRange]  # of each input with a dynamic axis
Values = Mapping[str, ValueRange]  # of inputs of integers
Log = tuple[tuple[str, str], ...]  # (severity, text) of each message of a build
_ROUTE_FIX = "use the TensorRT version that the route was found with: knobs differ from version to version"


@dataclass(frozen=True, slots=True)
class Plan:
    """A built engine in memory."""

    data: bytes
    timing_cache: bytes  # timings that speed up the next build on the same GPU and version; empty where the builder keeps none
    log: Log
    log_at_opt: Log  # of the same network with every size fixed to opt; the log where that was not asked for or sizes are fixed anyway
    knobs: str = ""  # the builder's, as its JSON has them; empty where it has none


def build_plan(
    trt: ModuleType,
    model: Path,
    options: BuildOptions,
    *,
    shapes: Shapes,
    values: Values | None = None,
    profiles: Sequence[Shapes] = (),
    timing_cache: bytes | None = None,
    configure: Callable[[Any], None] = lambda config: None,
    also_at_opt: bool = False,
    on_progress: Callable[[float, str], None] = lambda share, phase: None,
) -> Plan:
    """Return the engine of an explicit model.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        model: The model; its external data lies beside it.
        options: How to build.
        shapes: Of each input with a dynamic axis; an input without may have some that fit.
        values: Of each input whose values set sizes of tensors (a shape tensor); others may be among them.
        profiles: Shapes of each optimization profile, in the plan's order; empty: one profile, of ``shapes``.
        timing_cache: What an earlier build on the same GPU and version gave, empty for the first; one of another GPU or version is
            ignored. None where the builder has no use for one.
        configure: Is given the builder's configuration, for settings that only one of the two modules has.
        also_at_opt: Whether to compile the network a second time with every size fixed to opt, only for its report: only a report of
            fixed sizes tells what a run at opt computes and moves.
        on_progress: Is told the share done (0 to 1) and the builder's phase; what it raises ends the build and is raised here.

    Raises:
        RefusedModelError: TensorRT takes the model neither read nor built; the message has its words and the node's name.
        BuildError: The shapes do not fit, or TensorRT does not start.
        MemoryError: The builder had too little memory.
    """
    log = process_logger(trt)
    messages = log.messages
    with messages.lock:
        messages.clear()
        builder = new_builder(trt)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)  # owns the weights that the network points to, so it stays until the build is over
        parse(trt, parser, model)
        # Not sooner: a parser or network made with a recorder crashes the process when it is freed (RTX 1.7).
        builder.error_recorder = process_recorder(trt)
        ranges = tuple(profiles) or (shapes,)
        for one in (shapes, *ranges):
            _check_shapes(network, one, model.name)
        set_sizes = _values_of_shape_inputs(network, values or {}, model.name)
        compiler = _Compiler(trt, builder, network, messages, model.name, options, configure)
        fixed = {name: ShapeRange(sizes.opt, sizes.opt, sizes.opt) for name, sizes in shapes.items()}
        fixed_values = {name: ValueRange(one.opt, one.opt, one.opt) for name, one in set_sizes.items()}
        is_open = (_dynamic_inputs(network) and (len(ranges) > 1 or fixed != dict(ranges[0]))) or fixed_values != set_sizes
        if not also_at_opt or not is_open:
            return compiler.compile(ranges, set_sizes, timing_cache, on_progress)
        plan = compiler.compile(ranges, set_sizes, timing_cache, lambda share, phase: on_progress(share / 2, phase))
        at_opt = compiler.compile((fixed,), fixed_values, None, lambda share, phase: on_progress((1.0 + share) / 2, phase))
        return replace(plan, log_at_opt=at_opt.log)


@dataclass(frozen=True, slots=True)
class _Compiler:
    """A parsed network and how to compile it."""

    trt: ModuleType
    builder: Any
    network: Any
    messages: Messages
    name: str  # of the model
    options: BuildOptions
    configure: Callable[[Any], None]

    def compile(
        self, ranges: Sequence[Shapes], values: Values, timing_cache: bytes | None, on_progress: Callable[[float, str], None]
    ) -> Plan:
        """Return the plan, with its own log for the one at opt."""
        self.messages.clear()
        config = self.builder.create_builder_config()
        _configure(self.trt, config, self.options)
        knobs = _knobs(config)
        if self.options.build_route:
            self._take_route(config, self.options.build_route)
        self.configure(config)
        monitor = progress_monitor(self.trt, on_progress)
        config.progress_monitor = monitor
        cache = None if timing_cache is None else _attach_cache(config, timing_cache, self.messages)
        dynamic = _dynamic_inputs(self.network)
        for shapes in ranges if dynamic or values else ():
            profile = self.builder.create_optimization_profile()
            for name in dynamic:
                profile.set_shape(name, shapes[name].min, shapes[name].opt, shapes[name].max)
            for name, one in values.items():
                profile.set_shape_input(name, one.min, one.opt, one.max)
            if config.add_optimization_profile(profile) < 0:
                raise self._refused("the sizes of its inputs")
        data = self.builder.build_serialized_network(self.network, config)
        if monitor.failure is not None:
            raise monitor.failure
        if data is None:
            raise self._refused("it")
        lines = tuple(self.messages.lines)
        return Plan(bytes(data), b"" if cache is None else bytes(cache.serialize()), lines, lines, knobs)

    def _take_route(self, config: Any, route: str) -> None:
        try:
            config.build_route = route
        except (AttributeError, TypeError, ValueError, RuntimeError) as exc:  # an older version, or a knob that this one does not have
            raise BuildError(f"TensorRT {self.trt.__version__} takes no build route {route!r}: {exc}", fix=_ROUTE_FIX) from exc
        if config.build_route != route:
            said = self.messages.complaints() or "no reason given"
            raise BuildError(f"TensorRT {self.trt.__version__} does not take the build route {route!r}: {said}", fix=_ROUTE_FIX)

    def _refused(self, what: str) -> BuildError | MemoryError:
        said = self.messages.complaints() or "no reason given"
        if "bad_alloc" in said:
            return MemoryError(said)
        return RefusedModelError(f"{self.name}: TensorRT {self.trt.__version__} refused {what}: {said}", fix=REPLACE_FIX)


def _knobs(config: Any) -> str:
    """Return what the builder says of its knobs; older versions do not know the name, and TensorRT-RTX says nothing."""
    return str(config.all_build_routes or "") if hasattr(config, "all_build_routes") else ""


def _configure(trt: ModuleType, config: Any, options: BuildOptions) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else there is no report of which precision each layer achieved
    config.builder_optimization_level = options.optimization_level
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is asked for where 16 bits lose too much: TF32 has no more of them than FP16
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.weight_budget_bytes is not None:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)  # the budget itself is the runtime's
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)  # these very weights come back: constants are folded, and kernels chosen, for them


def _attach_cache(config: Any, saved: bytes, messages: Messages) -> Any:
    """Return the cache that the build fills, or None where the builder keeps none."""
    cache = config.create_timing_cache(saved)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache
    messages.clear()  # a cache of another GPU or version, or a damaged one, is no fault of the model
    cache = config.create_timing_cache(b"")
    return cache if cache is not None and config.set_timing_cache(cache, False) else None


def _dynamic_inputs(network: Any) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in _inputs(network).items() if min(shape, default=0) < 0}


def _values_of_shape_inputs(network: Any, values: Values, model: str) -> dict[str, ValueRange]:
    """Return the values of the inputs that set sizes; an input that only is an integer must have none in a profile."""
    tensors = (network.get_input(index) for index in range(network.num_inputs))
    names = [str(tensor.name) for tensor in tensors if tensor.is_shape_tensor]
    missing = next((name for name in names if name not in values), None)
    if missing is not None:
        raise BuildError(
            f"{model}: the values of input {missing!r} set sizes of tensors, and none are known",
            fix="give it a fixed size of at most 64 values, or compute these sizes outside of the model",
        )
    return {name: values[name] for name in names}


def _inputs(network: Any) -> dict[str, tuple[int, ...]]:
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    return {str(tensor.name): tuple(tensor.shape) for tensor in tensors}


def _check_shapes(network: Any, shapes: Shapes, model: str) -> None:
    declared = _inputs(network)
    for name, sizes in shapes.items():
        if name not in declared:
            raise BuildError(
                f"shapes: {model} has no input {name!r}, expected one of {', '.join(declared)}", fix="name an input of the model"
            )
        found = declared[name]
        fits = len(sizes.opt) == len(found) and all(
            size < 0 or size == low == high for size, low, high in zip(found, sizes.min, sizes.max, strict=True)
        )
        if not fits:
            raise BuildError(
                f"shapes: input {name!r} of {model} is declared {found} (-1: any), found {sizes.min} to {sizes.max}",
                fix="give every axis of the input, a fixed one as the model has it",
            )
    missing = [name for name in _dynamic_inputs(network) if name not in shapes]
    if missing:
        text = ", ".join(f"{name!r}, {declared[name]}" for name in missing)
        raise BuildError(
            f"shapes: {model} has dynamic inputs without shapes: {text}", fix="give the smallest, usual and largest shape of each"
        )
