"""What the target has to say about a configuration, before anything is built."""

from __future__ import annotations

import dataclasses

from calibration.accuracy.metrics import Metric
from calibration.errors import InvalidConfigError
from engine_builder.backends.registry import BACKENDS, Targets, backend_for, target_row
from engine_builder.config.builder_options import check_builder
from engine_builder.config.config import Config, ExactOn
from engine_builder.config.precisions import require_assignable, require_precisions
from engine_builder.errors import UnsupportedTargetError


def check_config(config: Config, *, table: Targets = BACKENDS) -> None:
    """Refuse settings that the target cannot honour.

    Args:
        config: The configuration.
        table: The targets that there are.

    Raises:
        UnsupportedTargetError: The target is unknown or not to be had here, has no GPU to name, or cannot build for the GPU.
        InvalidConfigError: The GPU is missing, or ``precisions`` names one that the target lacks, or none that is lower than its baseline;
            or the builder is told what means nothing to it.
    """
    row = target_row(config.target, table)
    if config.gpus:
        if not row.takes_gpu:
            raise UnsupportedTargetError(
                f"gpus: found {', '.join(config.gpus)}, expected none: {config.target} runs on the CPU",
                fix="Leave gpus out, or choose a target that runs on a GPU.",
            )
        for gpu in config.gpus:
            check_config(dataclasses.replace(config, gpus=(), gpu=gpu), table=table)
        return
    if config.gpu is not None and not row.takes_gpu:
        raise UnsupportedTargetError(
            f"gpu: found {config.gpu!r}, expected none: {config.target} runs on the CPU",
            fix="Leave gpu out, or choose a target that runs on a GPU.",
        )
    if config.gpu is None and row.needs_gpu_name():
        raise InvalidConfigError(
            f"gpu: found none, expected the name of the GPU that {config.target} plans are to be built for",
            fix='Give gpu, for example "RTX 4090"; GET /v1/targets lists those that are known.',
        )
    capabilities = backend_for(config.target, config.gpu, table=table).capabilities
    if config.exact_on is not ExactOn.THIS_MACHINE and not capabilities.runs_on_cpu:
        raise InvalidConfigError(
            f"exact_on: found {config.exact_on}, but engines of {config.target} do not run on a processor's integer kernels",
            fix="Leave exact_on out, or choose the target onnxruntime-cpu.",
        )
    check_builder(config.builder, config.target, capabilities.builder, capabilities.compute_capability)
    require_precisions(config, (capabilities.baseline, *capabilities.low_precisions))
    require_assignable(config, capabilities.baseline, capabilities.low_precisions)
    if config.precisions is not None and not set(config.precisions) & set(capabilities.low_precisions):
        raise InvalidConfigError(
            f"precisions: found only {capabilities.baseline}, the baseline of {config.target}; expected one of "
            f"{', '.join(capabilities.low_precisions)} too",
            fix="Add a lower precision, or leave precisions out.",
        )


def require_one_type(config: Config) -> None:
    """Refuse several types of GPU, where one run makes one engine.

    Raises:
        InvalidConfigError: The configuration names several.
    """
    if config.gpus:
        raise InvalidConfigError(
            f"gpus: found {', '.join(config.gpus)}, but a run without a server makes an engine for one type",
            fix="Run once for each, with `gpu`: what they share is kept and not measured again. Or submit the job to a server.",
        )


def with_metric_model(config: Config, *, is_given: bool) -> Config:
    """Return the configuration with the metric ``custom`` where a metric model comes with the job and no metric is named.

    Args:
        config: The configuration.
        is_given: Whether a metric model comes with the job.

    Raises:
        InvalidConfigError: A metric model comes with another metric, or the metric ``custom`` without one.
    """
    metric = config.accuracy.metric
    if is_given and metric not in (None, Metric.CUSTOM):
        raise InvalidConfigError(
            f"accuracy.metric: found {metric} together with a metric model, expected custom",
            fix="Leave the metric model out, or replace the metric and its budget by accuracy.min_relative.",
        )
    if metric is Metric.CUSTOM and not is_given:
        raise InvalidConfigError(
            "accuracy.metric: found custom, but no metric model",
            fix="Send it as the file `metric` (on the command line: --metric-model FILE.onnx), or choose another metric.",
        )
    if not is_given or metric is Metric.CUSTOM:
        return config
    return dataclasses.replace(config, accuracy=dataclasses.replace(config.accuracy, metric=Metric.CUSTOM))
