"""What the target has to say about a configuration, before anything is built."""

from __future__ import annotations

from calibration.errors import InvalidConfigError
from engine_builder.backends import backend_for
from engine_builder.config import Config, require_precisions
from engine_builder.errors import UnsupportedTargetError


def check_config(config: Config) -> None:
    """Refuse settings that the target cannot honour.

    Raises:
        UnsupportedTargetError: The target is unknown, or has no GPU to name.
        InvalidConfigError: ``precisions`` names one that the target lacks, or none that is lower than its baseline.
    """
    capabilities = backend_for(config.target).capabilities
    require_precisions(config, (capabilities.baseline, *capabilities.low))
    if config.precisions is not None and not set(config.precisions) & set(capabilities.low):
        raise InvalidConfigError(
            f"precisions: found only {capabilities.baseline}, the baseline of {config.target}; expected one of "
            f"{', '.join(capabilities.low)} too",
            fix="Add a lower precision, or leave precisions out.",
        )
    if config.gpu is not None and config.target == "onnxruntime-cpu":
        raise UnsupportedTargetError(
            f"gpu: found {config.gpu!r}, expected none: {config.target} runs on the CPU",
            fix="Leave gpu out, or choose a target that runs on a GPU.",
        )
