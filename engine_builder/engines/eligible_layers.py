"""Which low precisions each layer of a job can take."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeTable
from engine_builder.backends.base import Capabilities
from engine_builder.qdq.dialects.base import Dialect
from engine_builder.records.inspection import PreparedModel

RANGE_BATCH = 8


def eligible_precisions(
    model: onnx.ModelProto, prepared: PreparedModel, precisions: Sequence[Precision], table: RangeTable, dialect: Dialect
) -> dict[str, tuple[Precision, ...]]:
    """Return the low precisions that each layer can take, by name, in the target's order; a layer that can take none is missing.

    Args:
        model: The prepared model.
        prepared: Its record.
        precisions: That the job may use, in the target's order.
        table: Ranges of the layers' tensors.
        dialect: How the target's explicit graphs are written.
    """
    eligibility = dialect.eligibility(model, prepared.layers)
    eligible: dict[str, tuple[Precision, ...]] = {}
    for layer in prepared.layers:
        constants = {layer.weight, layer.bias} & table.specials.keys()
        if table.can_round((*layer.inputs, layer.output)) and not constants:
            taken = tuple(one for one in precisions if eligibility.can_take(layer, one))
            eligible |= {layer.name: taken} if taken else {}
    return eligible


def may_round_by_call(model: onnx.ModelProto, layers: Sequence[Layer], capabilities: Capabilities) -> bool:
    """Return whether a layer may take a dynamic precision, whose rounding depends on which samples are in a call together.

    Args:
        model: The prepared model.
        layers: Its layers.
        capabilities: Of the target.
    """
    dynamic = [precision for precision in capabilities.low_precisions if precision.is_dynamic]
    if not dynamic:
        return False
    eligibility = capabilities.dialect.eligibility(model, layers)
    return any(eligibility.can_take(layer, precision) for layer in layers for precision in dynamic)
