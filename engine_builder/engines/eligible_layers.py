"""Which low precisions each layer of a job can take."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeTable
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
