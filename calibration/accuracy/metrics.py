"""What an accuracy budget may be stated in, and the score and the loss of outputs by it: pure functions with one value per sample."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.parts import parts_of
from calibration.accuracy.measures.token_classes import span_f1, token_f1
from calibration.accuracy.measures.values import agreement, as_rows, closeness, cosine, kl_divergence, nmse, psnr, topk
from calibration.errors import InvalidCalibrationSetError

Measure = Callable[[NDArray[np.generic], NDArray[np.generic]], NDArray[np.float64]]  # (reference, output) -> (samples,)


class OutputKind(enum.StrEnum):
    """What the values of a model's output are."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    VALUES = "values"
    LABELS = "labels"  # whole numbers or truth values that are decisions, such as those of an ArgMax
    IGNORE = "ignore"


class Metric(enum.StrEnum):
    """A score per sample that the accuracy budget is stated in."""

    TOP1 = "top1"
    TOP5 = "top5"
    AGREEMENT = "agreement"
    COSINE = "cosine"
    CLOSENESS = "closeness"  # of single values: scores, regressions
    NMSE = "nmse"
    PSNR = "psnr"
    TOKEN_F1 = "token_f1"
    SPAN_F1 = "span_f1"
    CUSTOM = "custom"  # a graph of the user's own, see metric_model.py

    @property
    def needs_labels(self) -> bool:
        """Whether the score compares with labels, not with the float model's outputs."""
        return self in (Metric.TOP1, Metric.TOP5) or self.is_per_token

    @property
    def is_per_token(self) -> bool:
        """Whether the score compares with one label per token."""
        return self in (Metric.TOKEN_F1, Metric.SPAN_F1)

    @property
    def is_real_valued(self) -> bool:
        """Whether scores lie between 0 and 1 by nature, whatever they are on a few samples; a user's own metric may be either."""
        return self in (Metric.COSINE, Metric.CLOSENESS, Metric.NMSE, Metric.PSNR) or self.is_per_token

    @property
    def is_perfect_by_definition(self) -> bool:
        """Whether the float model itself scores 1 on every sample, since it is what is compared with."""
        return self in (Metric.AGREEMENT, Metric.COSINE, Metric.CLOSENESS)


def score(
    metric: Metric,
    outputs: Sequence[NDArray[np.generic]],
    reference_outputs: Sequence[NDArray[np.generic]],
    labels: NDArray[np.generic] | None,
    *,
    weights: Sequence[float] = (),
    label_names: Sequence[str] = (),
) -> NDArray[np.float64]:
    """Return the score of each sample: 0 is perfect for nmse, psnr is in decibels, 1 is perfect for all others.

    Args:
        metric: What to score; a user's own metric is not scored here but by ``MetricModel``.
        outputs: One array (samples, ...) per output of the model; those that compare with labels read the first. For the others the worst
            output of each sample counts: an average would hide one bad output among good ones. Cosine takes the closeness of an output
            of one value a sample, which has no direction.
        reference_outputs: The float model's, in the same order.
        labels: (samples,) integers for top1 and top5, (samples, tokens) for token_f1 and span_f1; no other metric needs them.
        weights: Of each output, above 0; where they differ, their weighted mean counts in the place of the worst.
        label_names: Names of the classes, for token_f1 and span_f1.

    Returns:
        (samples,) float64.

    Raises:
        InvalidConfigError: The metric does not apply to outputs of this form.
        InvalidCalibrationSetError: Labels are missing or name a class that the model does not have.
    """
    if metric.needs_labels:
        if labels is None:
            raise InvalidCalibrationSetError(
                f"accuracy.metric: {metric} compares with labels, found a set without any",
                fix=f"Add an array `labels` with one class index per {'token' if metric.is_per_token else 'sample'}, "
                "or choose the metric agreement, cosine or nmse.",
            )
        if metric.is_per_token:
            return (token_f1 if metric is Metric.TOKEN_F1 else span_f1)(labels, outputs[0], label_names)
        return topk(labels, outputs[0], k=1 if metric is Metric.TOP1 else 5)
    if metric is Metric.CUSTOM:
        raise ValueError("the metric custom is a graph of its own: MetricModel scores it")
    measures = {Metric.AGREEMENT: agreement, Metric.COSINE: cosine, Metric.CLOSENESS: closeness, Metric.NMSE: nmse, Metric.PSNR: psnr}
    values = np.stack(
        [
            closeness(reference, output)
            if metric is Metric.COSINE and reference.size == len(reference)
            else _of_the_worst_part(metric, measures[metric], reference, output)
            for reference, output in zip(reference_outputs, outputs, strict=True)
        ]
    )
    if len(set(weights)) <= 1:  # none, or all alike
        return np.asarray(values.max(axis=0) if metric is Metric.NMSE else values.min(axis=0))
    same = np.all(values == values[0], axis=0)  # as it is, where a rounded sum would leave 1 - 2^-53
    return np.where(same, values[0], np.average(values, axis=0, weights=weights))


def _of_the_worst_part(
    metric: Metric, measure: Measure, reference: NDArray[np.generic], output: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Return the measure of each sample; where cosine or NMSE meets parts of another scale, that of its worst part.

    A part is measured by how it differs from its mean over the samples: scores around one half would else be alike whatever they say.
    """
    parts = parts_of(reference) if metric in (Metric.COSINE, Metric.NMSE) and reference.dtype.kind == "f" else ()
    if not parts:
        return measure(reference, output)
    mean = reference.mean(axis=0)
    values = np.stack([measure(np.where(part, reference - mean, 0.0), np.where(part, output - mean, 0.0)) for part in parts])
    return np.asarray(values.max(axis=0) if metric is Metric.NMSE else values.min(axis=0))


def divergence(kind: OutputKind, reference: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the loss of each sample that fits the kind of output.

    That is KL for logits and probabilities, NMSE for values, the share that differs for labels, zero if ignored.
    """
    if kind is OutputKind.IGNORE:
        return np.zeros(len(reference))
    if kind is OutputKind.LABELS:
        return np.asarray((as_rows(reference) != as_rows(output)).mean(axis=1), dtype=np.float64)
    if kind is OutputKind.VALUES:
        return nmse(reference, output)
    return kl_divergence(reference, output, probabilities=kind is OutputKind.PROBABILITIES)
