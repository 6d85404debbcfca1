"""What is said of an engine whose layers round their inputs with the range of a call."""

from __future__ import annotations

from collections.abc import Mapping

from calibration.number_formats.precision import Precision


def neighbours_warning(precisions: Mapping[str, Precision], batch: int) -> tuple[str, ...]:
    """Return a warning where an answer depends on the other samples of its call, else nothing.

    Args:
        precisions: Of the engine's quantized layers.
        batch: Samples in a call, as the engine is timed and was scored.
    """
    dynamic = sum(precision.is_dynamic for precision in precisions.values())
    if not dynamic or batch == 1:
        return ()
    layers = "1 layer rounds its input" if dynamic == 1 else f"{dynamic} layers round their inputs"
    return (
        f"{layers} with the range of the whole call (int8_dynamic): what a sample gets depends a little on the others of its call. The "
        f"engine was scored in calls of {batch} samples, in the order of the validation set; precisions without int8_dynamic avoid it",
    )
