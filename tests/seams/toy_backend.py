"""A target that nobody has: engines are files of its own kind, its graphs a dialect of its own, and its latencies predicted.

The chip has integer convolutions alone, rounds on symmetric grids, and reads the first convolution's pictures in float whatever was asked.
ONNX Runtime computes what it would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision, Scheme
from engine_builder.backends.base import Capabilities, Engine, RefusedNode, Runner, Source
from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.engine_tensors import EngineTensors
from engine_builder.backends.kernels import KernelTime
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.config.builder_options import BuilderSupport
from engine_builder.config.config import ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.errors import BuildError, UnsupportedTargetError
from engine_builder.qdq.dialects.base import ExplicitPlan
from engine_builder.qdq.onnxruntime_dialect import rewrite
from engine_builder.timing import Timing, TimingPlan

CHIP = "TOY 1"
MAGIC = b"TOY1"
FLOAT_MS, INT8_MS, OTHER_MS = 1.0, 0.25, 0.01  # of a kernel that multiplies, and of any other
SCHEME = Scheme(symmetric_activations=True, quantized_outputs=("Conv",))
_MULTIPLYING = ("Conv", "Gemm", "MatMul")
_MARK = "toy.dialect"


class ToyDialect:
    """Float32 with Q/DQ pairs at convolutions, marked as the toy's."""

    has_float_types = False

    def eligibility(self, prepared: onnx.ModelProto, layers: Sequence[Layer]) -> ToyDialect:
        return self

    def can_take(self, layer: Layer, precision: Precision) -> bool:
        return layer.op_type == "Conv" and precision.multiplies_integers

    def groups(self, prepared: onnx.ModelProto, layers: Sequence[Layer]) -> tuple[tuple[str, ...], ...]:
        return ()

    def legalized(
        self,
        prepared: Callable[[], onnx.ModelProto],
        layers: Sequence[Layer],
        quantized: Mapping[str, Precision],
        baseline: Precision,
    ) -> dict[str, Precision]:
        pictures = {value.name for value in prepared().graph.input}
        first = {layer.name for layer in layers if pictures & set(layer.inputs)}
        return {name: precision for name, precision in quantized.items() if name not in first}

    def explicit(self, plan: ExplicitPlan) -> onnx.ModelProto:
        model = rewrite(plan.prepared, plan.layers, plan.precisions, plan.ranges, plan.scheme, plan.smooth_quants, plan.levels)
        model.metadata_props.add(key=_MARK, value=CHIP)
        return model

    def check(self, explicit: onnx.ModelProto, *, compute_capability: tuple[int, int] | None) -> None:
        if _MARK not in {entry.key for entry in explicit.metadata_props}:
            raise BuildError("explicit model: found no mark of the toy's dialect", fix="write it with that dialect")

    def simulated(self, explicit: onnx.ModelProto) -> onnx.ModelProto:
        return explicit

    def float32_nodes(self, prepared: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], *, baseline: Precision) -> dict[str, str]:
        return {}


class ToyRunner(OrtCpuRunner):
    """Computes in ONNX Runtime; the chip's time is told from the graph."""

    def __init__(self, engine: Path, threads: int) -> None:
        path = engine.with_name(engine.name + ".onnx")
        path.write_bytes(_graph_of(engine).SerializeToString())
        super().__init__(path, threads=threads)
        self.milliseconds = sum(time.milliseconds for time in _kernel_times(engine))


class ToyBackend:
    """Builds engines of one kind of chip."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            "toy",
            Precision.FP32,
            (Precision.INT8,),
            SCHEME,
            ToyDialect(),
            Source.PREDICTED,
            kernel_times=Source.PREDICTED,
            parallel_runs=True,
            engine_name="engine.toy",
            builder=BuilderSupport(frozenset({"workspace_mb"}), "the chip has one way to build"),
            is_own_baseline=False,
            least_gain=0.1,
        )

    def refused(self, explicit: Path) -> tuple[RefusedNode, ...]:
        return ()

    def build(
        self,
        explicit: Path,
        output: Path,
        *,
        shapes: Mapping[str, ShapeRange] | None = None,
        values: Mapping[str, ValueRange] | None = None,
        profiles: Sequence[Mapping[str, ShapeRange]] = (),
        on_progress: Callable[[float, str], None] = lambda share, phase: None,
    ) -> Engine:
        output.write_bytes(MAGIC + explicit.read_bytes())
        on_progress(1.0, "wired")
        layers = output.with_name("layers.txt")
        layers.write_text(f"{len(_graph_of(output).graph.node)} layers", encoding="utf-8")
        return Engine(output, (), output.stat().st_size, layers=layers)

    def open(self, engine: Path, *, threads: int) -> Runner:
        return ToyRunner(engine, threads)

    def timings(self, runners: Mapping[str, Runner], feeds: Mapping[str, NDArray[np.generic]], plan: TimingPlan) -> Mapping[str, Timing]:
        times = {name: runner.milliseconds for name, runner in runners.items() if isinstance(runner, ToyRunner)}
        return {name: Timing(time, 0.0, 0.0, 0, (time,)) for name, time in times.items()}

    def tensors(self, engine: Path) -> EngineTensors | None:
        return None

    def environment(self) -> dict[str, object]:
        return {"chip": CHIP, "clock": "none: latencies are predicted"}

    def kernel_times(
        self, engine: Path, feeds: Mapping[str, NDArray[np.generic]], *, threads: int, scratch: Path
    ) -> tuple[KernelTime, ...]:
        return _kernel_times(engine)


def toy_backend(gpu: str | None, options: BuildOptions) -> ToyBackend:
    """Return the backend of a chip by its name."""
    if gpu not in (None, CHIP):
        raise UnsupportedTargetError(f"gpu: found {gpu!r}, expected {CHIP!r}", fix=f"use {CHIP!r}")
    return ToyBackend()


def _graph_of(engine: Path) -> onnx.ModelProto:
    data = engine.read_bytes()
    if not data.startswith(MAGIC):
        raise BuildError(f"{engine.name}: found no engine of the toy's", fix="build it first")
    return onnx.load_model_from_string(data.removeprefix(MAGIC))


def _kernel_times(engine: Path) -> tuple[KernelTime, ...]:
    graph = _graph_of(engine).graph
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    times = []
    for node in graph.node:
        spent = (INT8_MS if node.input[0] in dequantized else FLOAT_MS) if node.op_type in _MULTIPLYING else OTHER_MS
        times.append(KernelTime((node.name,), spent))
    return tuple(times)
