"""The dialect of TensorRT and TensorRT-RTX: strongly typed graphs, whose types are those of the kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision
from engine_builder.qdq.dialects.base import Eligibility, ExplicitPlan
from engine_builder.qdq.rules.target_placement import Placement

LOW_PRECISIONS = (Precision.INT8, Precision.FP8, Precision.INT4)  # that the dialect has a form for, the fastest arithmetic first


@dataclass(frozen=True, slots=True)
class TensorRtDialect:
    """See ``engine_builder.qdq.tensorrt_dialect``, which is imported when a graph is written: most processes write none."""

    placement: Placement = Placement.TENSORRT_RTX  # the target's rules of what is worth trying

    @property
    def has_float_types(self) -> bool:
        """True: the graph says the float type of each node."""
        return True

    def eligibility(self, prepared: onnx.ModelProto, layers: Sequence[Layer]) -> Eligibility:
        """Return what the builder has kernels for and the target may gain from (``engine_builder.qdq.rules.eligibility``)."""
        from engine_builder.qdq.rules import eligibility

        return eligibility.Eligibility(prepared, layers, self.placement)

    def groups(self, prepared: onnx.ModelProto, layers: Sequence[Layer]) -> tuple[tuple[str, ...], ...]:
        """Return the two products of each attention, which one kernel computes."""
        from engine_builder.qdq.rules.attention import attention_groups

        return attention_groups(prepared, layers)

    def legalized(
        self,
        prepared: Callable[[], onnx.ModelProto],
        layers: Sequence[Layer],
        quantized: Mapping[str, Precision],
        baseline: Precision,
    ) -> dict[str, Precision]:
        """Return the layers that are quantized by the rules of ``engine_builder.qdq.rules.legalize``.

        Raises:
            BuildError: A layer is unknown, or may not take its precision.
        """
        from engine_builder.qdq.rules.legalize import legalize

        precisions = legalize(prepared(), layers, quantized, baseline).precisions
        return {name: precisions[name] for name in quantized if precisions[name] is not baseline}

    def explicit(self, plan: ExplicitPlan) -> onnx.ModelProto:
        """Return the explicit graph.

        Raises:
            BuildError: The dialect has no form for the plan, or the model cannot be retyped.
        """
        from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt

        given = plan.prepared, plan.layers, plan.precisions, plan.ranges, plan.smooth_quants
        return rewrite_tensorrt(*given, baseline=plan.baseline, levels=plan.levels, floats=plan.floats)

    def check(self, explicit: onnx.ModelProto, *, compute_capability: tuple[int, int] | None) -> None:
        """Refuse what the parser or builder would pass over without a word (``engine_builder.qdq.checks.validator``).

        Raises:
            BuildError: See ``validate_tensorrt``.
        """
        from engine_builder.qdq.checks.validator import validate_tensorrt

        validate_tensorrt(explicit, compute_capability=compute_capability)

    def simulated(self, explicit: onnx.ModelProto) -> onnx.ModelProto:
        """Return the graph in float32 with every 16-bit tensor rounded (``engine_builder.qdq.checks.simulation``)."""
        from engine_builder.qdq.checks.simulation import simulated

        return simulated(explicit)

    def float32_nodes(self, prepared: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], *, baseline: Precision) -> dict[str, str]:
        """Return what 16 bits cannot hold, and what is taken in no other type (``engine_builder.qdq.rules.fp16_overflow``)."""
        from engine_builder.qdq.tensorrt_dialect import kept_in_float32

        return kept_in_float32(prepared, ranges, baseline=baseline)
