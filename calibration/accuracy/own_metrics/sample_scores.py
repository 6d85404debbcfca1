"""What holds for every metric of the user's own: a score from 0 to 1 for each sample, which depends on that sample alone.

A sample whose outputs are not finite, where the float model's are, scores 0 and is not shown, so that a broken engine can never look good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InvalidMetricError
from calibration.execution.onnxruntime_session import Array

CHECKED_SAMPLES = 8  # scored together and alone
ROUNDING = 1e-4  # by which a score may differ between two calls, and leave 0..1


# Outputs of an engine by name, the float model's, labels, each (samples, ...); returns the score of each sample, (samples,).
ScoreSamples: TypeAlias = Callable[[Mapping[str, Array], Mapping[str, Array], Array | None], NDArray[np.float64]]


def check_scores(score: ScoreSamples, outputs: Mapping[str, Array], labels: Array | None, what: str, fix: str) -> None:
    """Refuse a metric whose score of a sample changes with the other samples of its call, or from call to call.

    The samples are scored with the outputs of the sample beside them: their own give every metric of agreement the same perfect score.

    Args:
        score: Gives scores.
        outputs: The float model's, by name, each (samples, ...).
        labels: (samples, ...), if there are any.
        what: The metric, for messages: "metric model".
        fix: What to do about it.

    Raises:
        InvalidMetricError: The scores are not the samples' own.
    """
    count = min(CHECKED_SAMPLES, len(next(iter(outputs.values()))))
    few = {name: array[:count] for name, array in outputs.items()}
    moved = {name: np.roll(array, 1, axis=0) for name, array in few.items()}
    some = None if labels is None else labels[:count]
    together = score(moved, few, some)
    for index in range(count):
        one = slice(index, index + 1)
        alone = score(
            {name: array[one] for name, array in moved.items()},
            {name: array[one] for name, array in few.items()},
            None if some is None else some[one],
        )
        if abs(alone[0] - together[index]) > ROUNDING:
            raise InvalidMetricError(
                f"{what}: the score of sample {index} is {together[index]:.6g} in a call with {count} samples and {alone[0]:.6g} "
                "in a call of its own, expected the same",
                fix=fix,
            )


def sound_samples(values: Array, reference: Array) -> NDArray[np.bool_]:
    """Return which samples hold no NaN, and infinities only where the float model has the same, (samples,)."""
    is_sound: NDArray[np.bool_] = (np.isfinite(values) | (values == reference)).reshape(len(values), -1).all(axis=1)
    return is_sound


def with_reference(values: Array, is_sound: NDArray[np.bool_], reference: Array) -> Array:
    """Return the values with the float model's in the place of samples that are not sound."""
    if is_sound.all():
        return values
    return np.where(is_sound.reshape(-1, *(1,) * (values.ndim - 1)), values, reference)


def checked_scores(scores: NDArray[np.float64], is_sound: NDArray[np.bool_], what: str) -> NDArray[np.float64]:
    """Return scores between 0 and 1, and 0 for samples that are not sound.

    Args:
        scores: As the metric gave them, (samples,).
        is_sound: Which samples are.
        what: The metric, for messages.

    Raises:
        InvalidMetricError: A score is no number from 0 to 1.
    """
    is_right = np.isfinite(scores) & (scores >= -ROUNDING) & (scores <= 1.0 + ROUNDING)
    if not is_right.all():
        index = int(np.flatnonzero(~is_right)[0])
        raise InvalidMetricError(
            f"{what}: score {scores[index]:.6g} for sample {index} found, expected 0 to 1, where 1 is perfect",
            fix="Scale the score to 0..1 (Clip at the end keeps it there), and guard divisions and logarithms against 0.",
        )
    return np.where(is_sound, np.clip(scores, 0.0, 1.0), 0.0)
