"""What is said of an engine whose layers round their inputs with the range of a call."""

from __future__ import annotations

from collections.abc import Mapping

from calibration.accuracy.metrics import Better, Metric
from calibration.number_formats.precision import Precision
from engine_builder.stage_io.engines import OrderScores


def neighbours_warning(
    precisions: Mapping[str, Precision], batch: int, metric: Metric, orders: OrderScores | None = None
) -> tuple[str, ...]:
    """Return a warning where an answer depends on the other samples of its call, else nothing.

    Args:
        precisions: Of the engine's quantized layers.
        batch: Samples in a call, as the engine is timed and was scored.
        metric: What the scores are.
        orders: What it scored in two orders of the samples; None: it was run in the user's alone.
    """
    dynamic = sum(precision.is_dynamic for precision in precisions.values())
    if not dynamic or batch == 1:
        return ()
    layers = "1 layer rounds its input" if dynamic == 1 else f"{dynamic} layers round their inputs"
    by = "in the order of the validation set"
    if orders is not None:
        by += f" ({metric} {_score(orders.given, metric)}) and shuffled ({_score(orders.shuffled, metric)}); the worse counts"
    return (
        f"{layers} with the range of the whole call (int8_dynamic): what a sample gets depends a little on the others of its call. The "
        f"engine was scored in calls of {batch} samples, {by}; precisions without int8_dynamic avoid it",
    )


def _score(score: float, metric: Metric) -> str:
    return f"{score:.4g}" if metric.spec.better is Better.LOWER else f"{score:.4f}"
