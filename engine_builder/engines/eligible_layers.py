"""Which low precisions a job may give to which layer."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from calibration.codec import value_from_json
from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeTable
from engine_builder.backends.base import Capabilities
from engine_builder.config.config import Config
from engine_builder.records.inspection import Inspection

RANGE_BATCH = 8


def low_precisions(config: Config, capabilities: Capabilities) -> tuple[Precision, ...]:
    """Return the low precisions that the search may use on the configured target, in the target's order."""
    low = capabilities.low
    return low if config.precisions is None else tuple(precision for precision in low if precision in config.precisions)


def wanted_decisions(found: Inspection, request: Mapping[str, object]) -> tuple[Decision, ...]:
    """Return the decisions of a job: each layer in each of the configured precisions that it can take."""
    able = value_from_json(dict[str, tuple[Precision, ...]], request["able"])
    return tuple(Decision(layer.name, precision) for layer in found.layers for precision in able.get(layer.name, ()))


def eligible_precisions(
    model: onnx.ModelProto, found: Inspection, config: Config, table: RangeTable, capabilities: Capabilities
) -> dict[str, list[str]]:
    """Return the low precisions that each layer can take, by name, in the target's order; a layer that can take none is missing.

    Args:
        model: The prepared model.
        found: The job's inspection.
        config: The job's settings.
        table: Ranges of the layers' tensors.
        capabilities: Of the target.
    """
    eligibility = capabilities.dialect.eligibility(model, found.layers)
    able: dict[str, list[str]] = {}
    for layer in found.layers:
        constants = {layer.weight, layer.bias} & table.specials.keys()
        if table.can_round((*layer.inputs, layer.output)) and not constants:
            taken = [one.value for one in low_precisions(config, capabilities) if eligibility.can_take(layer, one)]
            able |= {layer.name: taken} if taken else {}
    return able
