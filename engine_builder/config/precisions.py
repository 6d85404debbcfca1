"""Refuses precisions that a target does not have."""

from __future__ import annotations

from collections.abc import Iterable

from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import Precision
from engine_builder.config.config import Config


def require_precisions(config: Config, supported: Iterable[Precision]) -> None:
    """Refuse precisions that the target does not have.

    Args:
        config: The configuration.
        supported: What the target can build, its baseline among them.

    Raises:
        InvalidConfigError: ``precisions`` names another one.
    """
    known = tuple(supported)
    for index, precision in enumerate(config.precisions or ()):
        if precision not in known:
            raise InvalidConfigError(
                f"precisions[{index}]: found {precision}, expected one of {', '.join(known)}, which {config.target} supports"
                f"{f' on {config.gpu}' if config.gpu else ''}",
                fix=f"Remove it, or choose another {'GPU or target' if config.gpu else 'target'}.",
            )


def require_assignable(config: Config, baseline: Precision, low: Iterable[Precision]) -> None:
    """Refuse an assignment with precisions that the target does not have.

    Args:
        config: The configuration.
        baseline: The target's; layers in a wider float type are taken for those that the target keeps in one by itself.
        low: The target's low precisions.

    Raises:
        InvalidConfigError: A layer asks for another one.
    """
    known = tuple(low)
    for name, precision in config.assignment.items():
        if precision in known or (not precision.is_quantized and precision.bits >= baseline.bits):
            continue
        raise InvalidConfigError(
            f"assignment: layer {name!r} asks for {precision}, expected one of {', '.join((baseline, *known))}, which {config.target} has"
            f"{f' on {config.gpu}' if config.gpu else ''}",
            fix=f"Write {baseline} for layers that stay in floats, or choose another target.",
        )
