"""The score and the loss of outputs: pure functions with one value per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.kinds.classes import classes_last
from calibration.accuracy.kinds.judging import scores_by_kind
from calibration.accuracy.kinds.part import JudgedOutput
from calibration.accuracy.measures.classes import kl_divergence
from calibration.accuracy.measures.options import MeasureOptions
from calibration.accuracy.measures.parts import parts_of
from calibration.accuracy.measures.values import as_rows, nmse
from calibration.accuracy.metrics import SCORES_OF_CLASSES, Metric, MetricSpec, OutputKind, Truth
from calibration.errors import InvalidCalibrationSetError


def score(
    metric: Metric,
    outputs: Sequence[NDArray[np.generic]],
    reference_outputs: Sequence[NDArray[np.generic]],
    labels: NDArray[np.generic] | None,
    *,
    weights: Sequence[float] = (),
    label_names: Sequence[str] = (),
    judged: Sequence[JudgedOutput] = (),
    inputs: Mapping[str, NDArray[np.generic]] | None = None,
    options: MeasureOptions | None = None,
) -> NDArray[np.float64]:
    """Return the score of each sample, in the unit of the metric's row, which says what is perfect and whether more is better.

    Args:
        metric: What to score; a user's own metric is not scored here but by ``MetricModel``.
        outputs: One array (samples, ...) per output of the model; those that compare with labels read the first. For the others the worst
            output of each sample counts: an average would hide one bad output among good ones. Cosine takes the closeness of an output
            of one value a sample, which has no direction.
        reference_outputs: The float model's, in the same order.
        labels: (samples,) integers for top1 and top5, (samples, tokens) for token_f1 and span_f1; no other metric needs
            them, and those with the truth GIVEN take them in a form of their own.
        weights: Of each output, above 0; where they differ, their weighted mean counts in the place of the worst.
        label_names: Names of the classes, for token_f1 and span_f1.
        judged: How each output is judged, for a metric that measures each by its kind; one that compares classes with the float model's
            takes the axis of the classes from it, where it is given.
        inputs: Of the samples, each (samples, ...), for the same: they may take positions out.
        options: How a joint measure reads the outputs; it looks at all of them at once, and weights mean nothing to it.

    Returns:
        (samples,) float64.

    Raises:
        InvalidConfigError: The metric does not apply to outputs of this form.
        InvalidCalibrationSetError: Labels are missing or name a class that the model does not have.
    """
    spec = metric.spec
    if spec.joint is not None:
        truth = labels if spec.truth is Truth.GIVEN else None
        return spec.joint.score(truth, reference_outputs, outputs, options or MeasureOptions())
    if spec.measure is None and not spec.is_by_kind:
        raise ValueError(f"the metric {metric} is a graph of its own: MetricModel scores it")
    if metric.needs_labels:
        if labels is None:
            raise InvalidCalibrationSetError(
                f"accuracy.metric: {metric} compares with labels, found a set without any",
                fix=f"Add an array `labels` with one class index per {'token' if metric.is_per_token else 'sample'}, "
                "or choose the metric agreement, cosine or nmse.",
            )
        assert spec.measure is not None  # what is by kind needs no labels
        return spec.measure(labels, outputs[0], label_names)
    if spec.is_by_kind:
        values = scores_by_kind(judged, reference_outputs, outputs, inputs or {})
    else:
        if metric.reads_classes and judged:
            outputs, reference_outputs = (
                [classes_last(*pair) for pair in zip(judged, arrays, strict=True)] for arrays in (outputs, reference_outputs)
            )
        values = np.stack(
            [_of_output(spec, reference, output, label_names) for reference, output in zip(reference_outputs, outputs, strict=True)]
        )
    if len(set(weights)) <= 1:  # none, or all alike
        return spec.worst(values)
    same = np.all(values == values[0], axis=0)  # as it is, where a rounded sum would leave 1 - 2^-53
    return np.where(same, values[0], np.average(values, axis=0, weights=weights))


def _of_output(
    spec: MetricSpec, reference: NDArray[np.generic], output: NDArray[np.generic], label_names: Sequence[str]
) -> NDArray[np.float64]:
    """Return the score of each sample by one output; where that has parts of another scale, of its worst part.

    A part is measured by how it differs from its mean over the samples: scores around one half would else be alike whatever they say.
    """
    if spec.of_single_values is not None and reference.size == len(reference):
        return spec.of_single_values(reference, output, label_names)
    assert spec.measure is not None  # score() refused a user's own metric
    parts = parts_of(reference) if spec.judges_parts and reference.dtype.kind == "f" else ()
    if not parts:
        return spec.measure(reference, output, label_names)
    mean = reference.mean(axis=0)
    apart = [spec.measure(np.where(part, reference - mean, 0.0), np.where(part, output - mean, 0.0), label_names) for part in parts]
    return spec.worst(np.stack(apart))


def divergence(kind: OutputKind, reference: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the loss of each sample that fits the kind of output.

    That is KL for logits and probabilities, the share that differs for labels, zero if ignored, NMSE for all else.
    """
    if kind is OutputKind.IGNORE:
        return np.zeros(len(reference))
    if kind is OutputKind.LABELS:
        return np.asarray((as_rows(reference) != as_rows(output)).mean(axis=1), dtype=np.float64)
    if kind in SCORES_OF_CLASSES:
        return kl_divergence(reference, output, probabilities=kind is OutputKind.PROBABILITIES)
    return nmse(reference, output)
