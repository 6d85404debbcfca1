"""What the pipeline asks of a dialect of explicit graphs: which choices it has a form for, the graph, its check and its simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import onnx

from calibration.algorithms.gptq import Levels
from calibration.algorithms.smooth_quant import SmoothQuantScaling
from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision, Scheme


@dataclass(frozen=True, slots=True, eq=False)
class ExplicitPlan:
    """What an explicit graph is written from."""

    prepared: onnx.ModelProto  # result of ``calibration.graph_passes.normalize.prepare``; left as it is
    layers: Sequence[Layer]  # ``find_layers(prepared)``
    precisions: Mapping[str, Precision]  # by layer name; a layer that is missing has the baseline's
    ranges: Mapping[str, tuple[float, float]]  # (lowest, highest) by tensor name, for the inputs and outputs of every layer
    scheme: Scheme  # how the target quantizes
    baseline: Precision  # of what is not quantized, a float type
    smooth_quants: Sequence[SmoothQuantScaling] = ()  # tensors to smooth for the layers that read them
    levels: Levels | None = None  # integer weights in the place of the nearest
    floats: Mapping[str, Precision] = field(default_factory=dict)  # by node name, of nodes in another float type than the baseline's


class Eligibility(Protocol):
    """Which precisions the layers of one prepared model may take."""

    def can_take(self, layer: Layer, precision: Precision) -> bool:
        """Return whether the layer may take the precision."""


class Dialect(Protocol):
    """How the explicit graphs of a target say what is quantized. Has no state; every method leaves its models as they are."""

    @property
    def has_float_types(self) -> bool:
        """Whether the graph says the float type of each node; else everything that is not quantized is float32."""

    def eligibility(self, prepared: onnx.ModelProto, layers: Sequence[Layer]) -> Eligibility:
        """Return which precisions each layer may take by itself."""

    def groups(self, prepared: onnx.ModelProto, layers: Sequence[Layer]) -> tuple[tuple[str, ...], ...]:
        """Return the names of layers that only pay together."""

    def legalized(
        self,
        prepared: Callable[[], onnx.ModelProto],
        layers: Sequence[Layer],
        quantized: Mapping[str, Precision],
        baseline: Precision,
    ) -> dict[str, Precision]:
        """Return the quantized layers as an engine can have them: some choices are made together or not at all.

        Args:
            prepared: Reads the prepared model, where the dialect looks at it.
            layers: Its layers.
            quantized: Precision of each quantized layer, as asked.
            baseline: Of the other layers.

        Raises:
            BuildError: A layer is unknown, or may not take its precision.
        """

    def explicit(self, plan: ExplicitPlan) -> onnx.ModelProto:
        """Return the explicit graph.

        Raises:
            BuildError: The dialect has no form for the plan.
        """

    def check(self, explicit: onnx.ModelProto, *, compute_capability: tuple[int, int] | None) -> None:
        """Refuse an explicit graph that the target's builder would misread.

        Args:
            explicit: The graph, its data loaded.
            compute_capability: Of the GPU that is built for; None where there is none, or it is not known.

        Raises:
            BuildError: Naming the node, what was found, what is needed and what to do.
        """

    def simulated(self, explicit: onnx.ModelProto) -> onnx.ModelProto:
        """Return what ONNX Runtime must run to compute what the engine does; the explicit graph itself where that is it."""

    def float32_nodes(self, prepared: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], *, baseline: Precision) -> dict[str, str]:
        """Return the reason of each node that stays in float32 where it would have the baseline's type, by node name."""
