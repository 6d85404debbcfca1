"""The building half of the stand-in: TensorRT-RTX's own parser and builder behind the names of TensorRT, and a timing cache.

Only names that the product uses exist here, so that code which asks for another one fails as it would for a misspelt one.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf publishes no types

from engine_builder.backends.gpu.visible_gpu import first_visible_gpu
from tests.tensorrt_stand_in.inspector_json import tactics
from tests.tensorrt_stand_in.knobs import effects_of, knobs_text
from tests.tensorrt_stand_in.orders import Harm, NotedBuild, Step, harm, note_build, orders, suffered
from tests.tensorrt_stand_in.plan_file import PlanFile, PlanHeader, PlanTensor, is_quantized, milliseconds_of, weight_bytes, without_weights

rtx: Any = importlib.import_module("tensorrt_rtx")
_REPORT = "Layers:"


class Lines(rtx.ILogger):  # type: ignore[misc]  # a class of a module that need not be installed
    """Passes on what the real library says, and keeps the report of layers."""

    def __init__(self, log: Any) -> None:
        rtx.ILogger.__init__(self)
        self.log_of_caller = log
        self.layers: tuple[str, ...] = ()

    def log(self, severity: Any, text: str) -> None:
        """Take a message."""
        if text.startswith(_REPORT):
            self.layers = tuple(line for line in text.splitlines() if line.startswith("Name: "))
        self.log_of_caller.log(severity, text)


_LOGGERS: list[Lines] = []  # the real library keeps the first logger that it is given


def said_by(log: Any) -> Lines:
    """Return the process's one logger of the real library."""
    if not _LOGGERS:
        _LOGGERS.append(Lines(log))
    return _LOGGERS[0]


def device_name() -> str:
    """Return the name of the GPU that the stub driver shows."""
    found = first_visible_gpu()
    assert found is not None, "the stub driver is not there"
    return found.name


class ITimingCache:
    """Kernel times of one GPU type and version."""

    def __init__(self, device: str, version: str, times: dict[str, float]) -> None:
        self.device, self.version, self.times = device, version, times

    def serialize(self) -> bytes:
        """Return what ``create_timing_cache`` takes."""
        return json.dumps({"device": self.device, "version": self.version, "times": self.times}).encode()


class IBuilderConfig:
    """The real builder's configuration, and what only TensorRT has."""

    builder_optimization_level = 3
    hardware_compatibility_level: Any = None

    def __init__(self, real: Any) -> None:
        self.real = real
        self.cache: ITimingCache | None = None
        self.profiles: list[IOptimizationProfile] = []
        self.streams_weights = False
        self.strips = {rtx.BuilderFlag.STRIP_PLAN: False, rtx.BuilderFlag.REFIT_IDENTICAL: False}
        self._monitor: Any = None
        self._route = ""
        real.num_compute_capabilities = 1
        real.set_compute_capability(rtx.ComputeCapability.SM89, 0)

    @property
    def profiling_verbosity(self) -> Any:
        """How much the inspector will say."""
        return self.real.profiling_verbosity

    @profiling_verbosity.setter
    def profiling_verbosity(self, value: Any) -> None:
        self.real.profiling_verbosity = value

    @property
    def all_build_routes(self) -> str:
        """The knobs, which are new in version 11.1; empty text where there are none."""
        if tuple(map(int, orders().version.split(".")[:2])) < (11, 1):
            raise AttributeError("all_build_routes")
        return knobs_text(orders().knobs)

    @property
    def build_route(self) -> str:
        """What the next build does; a knob that there is not is refused."""
        return self._route

    @build_route.setter
    def build_route(self, value: str) -> None:
        self._route = value if effects_of(value, orders().knobs) is not None else ""

    @property
    def progress_monitor(self) -> Any:
        """Who watches."""
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, value: Any) -> None:
        self._monitor = value
        self.real.progress_monitor = value

    def set_flag(self, flag: Any) -> None:
        """Set a flag; the real builder takes those of plans without weights only where there is a driver."""
        if flag in self.strips:
            self.strips[flag] = True
            return
        self.real.set_flag(flag)
        self.streams_weights |= flag == rtx.BuilderFlag.WEIGHT_STREAMING

    def clear_flag(self, flag: Any) -> None:
        """Clear a flag."""
        self.real.clear_flag(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        """Limit a pool."""
        self.real.set_memory_pool_limit(pool, size)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Take the sizes of inputs."""
        self.profiles.append(profile)
        return int(self.real.add_optimization_profile(profile.real))

    def create_timing_cache(self, data: bytes) -> ITimingCache:
        """Return a cache; an unreadable one is of no device."""
        if not data:
            return ITimingCache(device_name(), orders().version, {})
        try:
            found = json.loads(data)
            return ITimingCache(found["device"], found["version"], found["times"])
        except (ValueError, KeyError, TypeError):
            return ITimingCache("", "", {})

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """Use a cache; False where it is another GPU's or version's."""
        if not ignore_mismatch and (cache.device, cache.version) != (device_name(), orders().version):
            return False
        self.cache = cache
        return True


class IOptimizationProfile:
    """Sizes of inputs."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, name: str, least: Any, usual: Any, greatest: Any) -> None:
        """Set the sizes of an input."""
        self.real.set_shape(name, least, usual, greatest)
        self.shapes[name] = (tuple(least), tuple(usual), tuple(greatest))

    def set_shape_input(self, name: str, least: Any, usual: Any, greatest: Any) -> None:
        """Set the values of an input that sets sizes."""
        self.real.set_shape_input(name, least, usual, greatest)


class INetworkDefinition:
    """A network, and the model that was read into it."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.model: Path | None = None

    @property
    def num_inputs(self) -> int:
        """How many inputs it has."""
        return int(self.real.num_inputs)

    def get_input(self, index: int) -> Any:
        """Return an input: the real ``ITensor``."""
        return self.real.get_input(index)


class OnnxParser:
    """The real parser."""

    def __init__(self, network: INetworkDefinition, log: Any) -> None:
        self._network = network
        self._real = rtx.OnnxParser(network.real, said_by(log))
        self._own: list[Any] = []

    def parse_from_file(self, path: str) -> bool:
        """Read a model."""
        self._network.model = Path(path)
        try:
            model = onnx.load_model(path, load_external_data=False)
        except DecodeError:  # of which the real parser says what is wrong
            return bool(self._real.parse_from_file(path))
        if harm(Step.PARSE, is_quantized=is_quantized(model)) is not None:
            node = model.graph.node[-1]
            said = {
                "node_name": node.name,
                "node_operator": node.op_type,
                "func": "parseNode",
                "desc": "Assertion failed: ordered: told to refuse it",
            }
            self._own.append(SimpleNamespace(**{name: lambda text=text: text for name, text in said.items()}))
            return False
        return bool(self._real.parse_from_file(path))

    @property
    def num_errors(self) -> int:
        """How many errors it found."""
        return len(self._own) or int(self._real.num_errors)

    def get_error(self, index: int) -> Any:
        """Return one: the real ``ParserError``, or one that was ordered."""
        return self._own[index] if self._own else self._real.get_error(index)


class Builder:
    """The real builder; what it gives is wrapped into a plan that can run here."""

    def __init__(self, log: Any) -> None:
        self._lines = said_by(log)
        self._real = rtx.Builder(self._lines)

    @property
    def error_recorder(self) -> Any:
        """Who is told of errors."""
        return self._real.error_recorder

    @error_recorder.setter
    def error_recorder(self, value: Any) -> None:
        self._real.error_recorder = value

    def create_network(self, flags: int) -> INetworkDefinition:
        """Return an empty network."""
        return INetworkDefinition(self._real.create_network(flags))

    def create_builder_config(self) -> IBuilderConfig:
        """Return a configuration."""
        return IBuilderConfig(self._real.create_builder_config())

    def create_optimization_profile(self) -> IOptimizationProfile:
        """Return sizes to set."""
        return IOptimizationProfile(self._real.create_optimization_profile())

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        """Return a plan, None where the build failed or was stopped."""
        assert network.model is not None
        model = onnx.load_model(network.model)
        told, low = orders(), is_quantized(model)
        data = model.SerializeToString()
        self._lines.layers = ()
        real = self._real.build_serialized_network(network.real, config.real)
        wanted = tactics(self._lines.layers)
        known = [] if config.cache is None else [tactic for tactic in wanted if tactic in config.cache.times]
        note_build(
            NotedBuild(
                low,
                config.builder_optimization_level,
                len(wanted) - len(known),
                len(known),
                hashlib.sha256(data).hexdigest(),
                config.build_route,
                all(config.strips.values()),
            )
        )
        is_stripped = config.strips[rtx.BuilderFlag.STRIP_PLAN]
        effects = [*(effects_of(config.build_route, told.knobs) or []), *([told.stripped] if is_stripped else [])]
        harmed = harm(Step.BUILD, is_quantized=low)
        time.sleep(told.build_seconds if low else 0.0)
        for effect in effects:
            harmed = harmed if effect.harm is None else suffered(effect.harm)
        if harmed is not None or real is None:
            if harmed is not None:
                self._lines.log(rtx.ILogger.Severity.ERROR, _WORDS[harmed])
            return None
        if config.cache is not None:
            config.cache.times.update(dict.fromkeys(wanted, 0.01))
        milliseconds = milliseconds_of(model, float_ms=told.float_ms, half_ms=told.half_ms, low_ms=told.low_ms)
        streamable = weight_bytes(model) if config.streams_weights else 0
        stripped = without_weights(model) if is_stripped and not told.keeps_weights else ()
        header = PlanHeader(
            told.version,
            device_name(),
            _tensors(network.real, model, [profile.shapes for profile in config.profiles]),
            self._lines.layers,
            milliseconds * math.prod(effect.times for effect in effects),
            low,
            max(len(config.profiles), 1),
            streamable,
            any(effect.is_wrong for effect in effects),
            stripped,
        )
        if stripped:
            return PlanFile(header, model.SerializeToString(), b"").serialized()
        return PlanFile(header, data, bytes(real)).serialized()


_WORDS = {
    Harm.ERROR: "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node {ordered}.)",
    Harm.OUT_OF_MEMORY: "IBuilder::buildSerializedNetwork: Error Code 1: std::exception (std::bad_alloc)",
    Harm.STICKY: "IBuilder::buildSerializedNetwork: Error Code 1: Cuda Runtime (an illegal memory access was encountered)",
}


def _tensors(network: Any, model: onnx.ModelProto, profiles: list[dict[str, tuple[tuple[int, ...], ...]]]) -> tuple[PlanTensor, ...]:
    declared = {value.name: value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.output)}
    inputs = [(network.get_input(index), True) for index in range(network.num_inputs)]
    outputs = [(network.get_output(index), False) for index in range(network.num_outputs)]
    return tuple(
        PlanTensor(
            tensor.name,
            is_input,
            tensor.dtype.name,
            tuple(tensor.shape),
            tuple(dim.dim_param for dim in declared[tensor.name]),
            bool(tensor.is_shape_tensor) and is_input,
            tuple(profile[tensor.name] for profile in profiles if tensor.name in profile),
        )
        for tensor, is_input in (*inputs, *outputs)
    )
