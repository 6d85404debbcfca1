"""A backend with two levels of building on ONNX Runtime: at the final one, engines with quantized layers come out as a test wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from engine_builder.backends.base import Backend, Capabilities, Engine, RefusedNode, Runner
from engine_builder.backends.engine_tensors import EngineTensors
from engine_builder.backends.kernels import KernelTime
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.config.config import Config, ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.timing import Timing, TimingPlan
from engine_builder.workspace.workspace import StageContext


@dataclass
class Levels:
    """A ``Building`` whose final engines with Q/DQ have their outputs negated where ``spoils`` says so."""

    spoils: bool = False
    built: list[str] = field(default_factory=list)  # "final" or "search", in order
    routes: list[str] = field(default_factory=list)  # that were asked for

    def __call__(self, config: Config, context: StageContext, *, final: bool = False, route: str = "", stripped: bool = False) -> Backend:
        self.routes.append(route)
        return LevelledBackend(self, final)


@dataclass(frozen=True)
class LevelledBackend:
    """ONNX Runtime's backend, which cannot build the same engine twice."""

    levels: Levels
    final: bool
    inner: OrtCpuBackend = field(default_factory=OrtCpuBackend)

    @property
    def capabilities(self) -> Capabilities:
        return dataclasses.replace(self.inner.capabilities, is_repeatable=False, is_own_baseline=False)

    def refused(self, explicit: Path) -> tuple[RefusedNode, ...]:
        return self.inner.refused(explicit)

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
        self.levels.built.append("final" if self.final else "search")
        on_progress(0.5, "choosing kernels")
        engine = self.inner.build(explicit, output, shapes=shapes)
        model = onnx.load_model(output)
        if self.final and self.levels.spoils and any(node.op_type == "QuantizeLinear" for node in model.graph.node):
            _negate_output(model)
        model.doc_string = "final" if self.final else "search"
        onnx.save_model(model, output)
        return dataclasses.replace(engine, size_bytes=output.stat().st_size)

    def open(self, engine: Path, *, threads: int) -> Runner:
        return self.inner.open(engine, threads=threads)

    def timings(self, runners: Mapping[str, Runner], feeds: Mapping[str, NDArray[np.generic]], plan: TimingPlan) -> Mapping[str, Timing]:
        return self.inner.timings(runners, feeds, plan)

    def tensors(self, engine: Path) -> EngineTensors | None:
        return self.inner.tensors(engine)

    def environment(self) -> dict[str, object]:
        return self.inner.environment()

    def kernel_times(
        self, engine: Path, feeds: Mapping[str, NDArray[np.generic]], *, threads: int, scratch: Path
    ) -> tuple[KernelTime, ...]:
        return self.inner.kernel_times(engine, feeds, threads=threads, scratch=scratch)


def _negate_output(model: onnx.ModelProto) -> None:
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["spoilt" if output == name else output for output in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", ["spoilt"], [name], name="spoiler"))
