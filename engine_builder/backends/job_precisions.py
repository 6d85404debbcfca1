"""Which low precisions a job may use."""

from __future__ import annotations

from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Capabilities
from engine_builder.config.config import Config


def low_precisions(config: Config, capabilities: Capabilities) -> tuple[Precision, ...]:
    """Return the low precisions that the search may use on the configured target, in the target's order.

    Those that were named; else those of the user's own assignment, where it has any; else all.
    """
    quantized = capabilities.low_precisions
    named = set(config.precisions or ()) or {precision for precision in config.assignment.values() if precision.is_quantized}
    return tuple(precision for precision in quantized if precision in named) if named else quantized
