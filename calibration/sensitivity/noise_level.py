r"""How much noise the outputs of an engine hold, told from few samples.

The mean loss of a sample is mostly that of the few decisions that were nearly tied: where rounding turns one of a thousand frames of text,
that frame has ten nats and all others together less. The mean of a few samples then counts such frames. What rounding does to every
decision is told far more precisely by

    mean over decisions of ln(loss of the decision + floor).

Rounding with v times as much noise has v times the loss wherever losses are small, so that its level is ln v higher, in each decision, no
matter how much that one loses: of two engines the levels are compared decision by decision.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.classes import by_class
from calibration.accuracy.metrics import SCORES_OF_CLASSES, OutputKind
from calibration.execution.onnxruntime_session import Array
from calibration.sensitivity.task_losses import LossForm, losses

FLOOR = 1e-7  # nats; what float32 makes of two equal distributions is about that


def have_noise_levels(forms: Sequence[LossForm]) -> bool:
    """Return whether all compared outputs hold scores of classes: of values, the few that noise hardly moves may be what counts."""
    counted = [form for form in forms if form is not OutputKind.IGNORE]
    return bool(counted) and all(isinstance(form, OutputKind) and form in SCORES_OF_CLASSES for form in counted)


def noise_levels(
    forms: Sequence[LossForm], reference: Sequence[Array], perturbed: Sequence[Array], weights: Sequence[float] = ()
) -> NDArray[np.float64]:
    """Return the noise level of each sample.

    Args:
        forms: Kind of each output, that of ``have_noise_levels``. Each position of an output with classes at several ones is a decision.
        reference: The float model's outputs, each (n, ...); those that are ignored may have any shape.
        perturbed: The engine's, same shapes.
        weights: Of each output, above 0; none: all weigh the same.

    Returns:
        (n,) float64, natural logarithms; the mean of the outputs' levels.
    """
    given = list(weights) or [1.0] * len(forms)
    counted = [index for index, form in enumerate(forms) if form is not OutputKind.IGNORE]
    levels = [_levels(forms[index], reference[index], perturbed[index]) for index in counted]
    return np.asarray(np.average(levels, axis=0, weights=[given[index] for index in counted]), dtype=np.float64)


def _levels(form: LossForm, reference: Array, perturbed: Array) -> NDArray[np.float64]:
    one, other = by_class(reference), by_class(perturbed)
    flat = losses([form], [one.reshape(-1, one.shape[-1])], [other.reshape(-1, other.shape[-1])])
    return np.asarray(np.log(flat + FLOOR).reshape(one.shape[:-1]).mean(axis=-1))
