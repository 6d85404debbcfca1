"""What the pipeline asks of a target: capabilities, a build, and a runner for the engine built."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.precision import Precision, Scheme
from engine_builder.backends.engine_tensors import EngineTensors
from engine_builder.backends.kernels import Kernel, KernelTime
from engine_builder.backends.triton_platform import TritonPlatform
from engine_builder.config.builder_options import BuilderSupport
from engine_builder.config.config import ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.qdq.dialects.base import Dialect
from engine_builder.records.build_route import Knob
from engine_builder.timing import MIN_GAIN, Timing, TimingPlan


class Source(enum.StrEnum):
    """Where a time comes from."""

    MEASURED = "measured"  # on this machine
    PREDICTED = "predicted"  # from what is known of the hardware


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Sizes of a convolution in a timed call."""

    read: tuple[int, ...]
    weight: tuple[int, ...]
    written: tuple[int, ...]


# Returns milliseconds of each of a model's convolutions where all have one precision; None where that is not known.
ExpectedTimes = Callable[[Sequence[LayerSizes], Precision], tuple[float, ...] | None]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a target can do: all that code may ask of one, instead of its name."""

    target: str
    baseline: Precision  # of layers without a lower precision, and of the engine that latencies are compared with
    low_precisions: tuple[Precision, ...]  # precisions that a layer may take instead
    scheme: Scheme  # how the low precisions round
    dialect: Dialect  # how its explicit graphs are written
    latency_source: Source  # of whole engines
    kernel_times: Source = Source.MEASURED  # of single kernels
    parallel_runs: bool = False  # whether threads may share a runner
    runs_on_cpu: bool = False  # whether engines run on the processor, by whose integer kernels
    has_own_parser: bool = False  # whether another parser than onnxruntime's reads its models: then they keep to the ONNX standard
    builds_are_dear: bool = False  # whether a build takes so long that what a simulation tells is not asked of an engine
    has_plugins: bool = False  # whether its parser may know operators beyond the standard, from libraries of the service's operator
    engine_name: str = "engine.onnx"  # what an engine's file is called
    triton: TritonPlatform | None = None  # what loads its engines in Triton; None: nothing does
    builder: BuilderSupport = field(default_factory=BuilderSupport)  # what a user may ask of its builder
    is_own_baseline: bool = True  # whether the user's own file is the baseline engine; else the baseline is built
    is_repeatable: bool = True  # whether two builds of one explicit model give the same engine
    compute_capability: tuple[int, int] | None = None  # of the GPU that is built for, where it is known
    names_conversions: bool = False  # whether ``kernel_times`` tells the kernels that only bring a tensor into another form, and all others
    profiles_layers: bool = False  # whether ``kernel_times`` times the layers of an engine by the names that its inspector has
    conversion_ms: float | None = None  # of bringing one element into another form, as the memory's bandwidth has it; None: a processor's
    int8_costs: Mapping[str, str] = field(default_factory=dict)  # what INT8 costs beside its kernel, by operator, in words for a reader
    expected_ms: ExpectedTimes | None = None  # by what is known of the compiler, before any build; None: nothing is
    has_build_routes: bool = False  # whether its builder may have knobs, which a build tells
    least_gain: float = MIN_GAIN  # of the baseline's latency, for an engine to count as faster


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine on disk."""

    path: Path
    data_files: tuple[Path, ...]  # files that must lie beside it (external data, the list of kernels), empty for most
    size_bytes: int  # of all of its files that are needed to run it
    kernels: tuple[Kernel, ...] = ()  # of the engine, empty where the runtime does not list them; dynamic sizes are -1
    kernels_at_opt: tuple[Kernel, ...] = ()  # what the builder makes of the same model at the sizes opt: what a prediction is made from
    layers: Path | None = None  # what the runtime itself says of the engine's layers, in its own form; None where it says nothing
    knobs: tuple[Knob, ...] = ()  # of the builder, that build routes are made of; empty where it has none


@dataclass(frozen=True, slots=True)
class RefusedNode:
    """A node that a target's builder does not take."""

    name: str  # in the model that it was shown; empty where the builder does not say
    operator: str
    reason: str  # in the builder's words


class Runner(Protocol):
    """An open engine. One thread at a time may use it unless the target has ``parallel_runs``; it shares no memory with other runners."""

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        """Return the outputs, in the model's order, for one batch of inputs by name.

        Raises:
            EngineError: The runtime failed.
        """

    def close(self) -> None:
        """Free the engine's memory; running it afterwards is an error. May be called twice."""


class Backend(Protocol):
    """A target that engines are built for."""

    @property
    def capabilities(self) -> Capabilities:
        """What the target can do."""

    def refused(self, explicit: Path) -> tuple[RefusedNode, ...]:
        """Return the nodes that the target's builder does not take, as far as it tells without building; empty where it takes all.

        Args:
            explicit: A model in the target's dialect, its data beside it.

        Raises:
            EngineError: The builder does not start.
        """

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
        """Build the engine of an explicit model and write it to ``output``; on failure nothing is left there.

        Args:
            explicit: The model, its data beside it.
            output: The engine's file.
            shapes: Sizes of each dynamic input; a target whose engines take any size ignores them.
            values: Of each small input of integers; a target takes those of inputs that set sizes, where it has to know them.
            profiles: Sizes as in ``shapes`` of each optimization profile, in their order; empty: one profile, of ``shapes``. Only for
                targets whose builder has the key ``profiles``.
            on_progress: Is told the share done (0 to 1) and what is being done, by targets whose builds take time; what it raises ends
                the build. A job's build is cancelled from outside: its process is ended.

        Raises:
            RefusedModelError: The runtime refused the model; its message is in the detail.
            BuildError: It could not be built for another reason.
        """

    def open(self, engine: Path, *, threads: int) -> Runner:
        """Return a runner for an engine file.

        Args:
            engine: What ``build`` wrote, or the user's own model where that is the baseline engine.
            threads: CPU threads for one run, at least 1; a target that runs elsewhere ignores it.

        Raises:
            BuildError: The runtime cannot load it.
        """

    def timings(self, runners: Mapping[str, Runner], feeds: Mapping[str, NDArray[np.generic]], plan: TimingPlan) -> Mapping[str, Timing]:
        """Return the latency of open engines by name: timed in turns, or predicted.

        Args:
            runners: What ``open`` returned.
            feeds: Inputs of one run.
            plan: How long and with what; a target with a clock of its own, or with predictions, does without the timer.

        Raises:
            EngineError: An engine failed.
        """

    def tensors(self, engine: Path) -> EngineTensors | None:
        """Return what a plan takes and gives, as it says itself; None for an engine that Triton has no plan backend for.

        Args:
            engine: What ``build`` wrote.

        Raises:
            EngineError: The runtime cannot load it.
        """

    def environment(self) -> dict[str, object]:
        """Return what, besides the processor and this program's libraries, the engines and their latencies depend on."""

    def kernel_times(
        self, engine: Path, feeds: Mapping[str, NDArray[np.generic]], *, threads: int, scratch: Path
    ) -> tuple[KernelTime, ...]:
        """Return what each kernel takes in one run.

        Empty where the runtime does not resolve kernels.

        Args:
            engine: What ``open`` takes.
            feeds: Inputs of one run.
            threads: As for ``open``.
            scratch: A folder for temporary files.
        """
