"""What the target has to say about a configuration, before anything is built."""

from __future__ import annotations

from calibration.errors import InvalidConfigError
from engine_builder.backends import backend_for
from engine_builder.config import Config, require_precisions
from engine_builder.errors import UnsupportedTargetError


def check_config(config: Config) -> None:
    """Refuse settings that the target cannot honour.

    Raises:
        UnsupportedTargetError: The target is unknown or not to be had here, has no GPU to name, or cannot build for the GPU.
        InvalidConfigError: The GPU is missing, or ``precisions`` names one that the target lacks, or none that is lower than its baseline.
    """
    if config.gpu is not None and config.target == "onnxruntime-cpu":
        raise UnsupportedTargetError(
            f"gpu: found {config.gpu!r}, expected none: {config.target} runs on the CPU",
            fix="Leave gpu out, or choose a target that runs on a GPU.",
        )
    if config.gpu is None and config.target == "tensorrt-rtx":
        raise InvalidConfigError(
            "gpu: found none, expected the name of the GPU that tensorrt-rtx plans are to be built for",
            fix='Give gpu, for example "RTX 4090"; GET /v1/targets lists those that are known.',
        )
    capabilities = backend_for(config.target, config.gpu).capabilities
    require_precisions(config, (capabilities.baseline, *capabilities.low))
    if config.precisions is not None and not set(config.precisions) & set(capabilities.low):
        raise InvalidConfigError(
            f"precisions: found only {capabilities.baseline}, the baseline of {config.target}; expected one of "
            f"{', '.join(capabilities.low)} too",
            fix="Add a lower precision, or leave precisions out.",
        )
