"""Which low precisions a job may use."""

from __future__ import annotations

from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Capabilities
from engine_builder.config.config import Config


def low_precisions(config: Config, capabilities: Capabilities) -> tuple[Precision, ...]:
    """Return the low precisions that the search may use on the configured target, in the target's order."""
    quantized = capabilities.low_precisions
    return quantized if config.precisions is None else tuple(precision for precision in quantized if precision in config.precisions)
