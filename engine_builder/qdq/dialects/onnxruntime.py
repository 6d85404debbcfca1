"""The dialect of ONNX Runtime's CPU provider: float32 with Q/DQ pairs that the runtime fuses into integer kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision
from engine_builder.errors import BuildError
from engine_builder.qdq.dialects.base import Eligibility, ExplicitPlan


@dataclass(frozen=True, slots=True)
class OnnxRuntimeDialect:
    """See ``engine_builder.qdq.onnxruntime_dialect``, which is imported when a graph is written: most processes write none."""

    has_float_types = False

    def eligibility(self, prepared: onnx.ModelProto, layers: Sequence[Layer]) -> Eligibility:
        """Return what pays (``engine_builder.qdq.rules.dynamic_eligibility``): every layer takes integers on a grid chosen before."""
        from engine_builder.qdq.rules.dynamic_eligibility import OnnxRuntimeEligibility

        return OnnxRuntimeEligibility(prepared, layers)

    def groups(self, prepared: onnx.ModelProto, layers: Sequence[Layer]) -> tuple[tuple[str, ...], ...]:
        """Return none: layers are quantized one by one."""
        return ()

    def legalized(
        self,
        prepared: Callable[[], onnx.ModelProto],
        layers: Sequence[Layer],
        quantized: Mapping[str, Precision],
        baseline: Precision,
    ) -> dict[str, Precision]:
        """Return the layers as asked."""
        return dict(quantized)

    def explicit(self, plan: ExplicitPlan) -> onnx.ModelProto:
        """Return the explicit graph.

        Raises:
            BuildError: The baseline is not FP32, or a layer has a precision that the dialect has no form for.
        """
        if plan.baseline is not Precision.FP32:
            raise BuildError(
                f"baseline: {plan.baseline}, expected fp32: this target has no types of its own", fix="use the target's own baseline"
            )
        from engine_builder.qdq.onnxruntime_dialect import rewrite

        return rewrite(plan.prepared, plan.layers, plan.precisions, plan.ranges, plan.scheme, plan.smooth_quants, plan.levels)

    def check(self, explicit: onnx.ModelProto, *, compute_capability: tuple[int, int] | None) -> None:
        """Find nothing: the runtime loads the graph as its engine, and refuses what it does not take."""

    def simulated(self, explicit: onnx.ModelProto) -> onnx.ModelProto:
        """Return the explicit graph: it is the engine."""
        return explicit

    def float32_nodes(self, prepared: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], *, baseline: Precision) -> dict[str, str]:
        """Return none: all is float32."""
        return {}
