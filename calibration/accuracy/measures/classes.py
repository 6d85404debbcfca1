"""How far scores of classes are from the float model's, and how good they are: pure functions with one value per sample.

Divergence (0 is perfect), with r the reference and x the output of one sample:

    KL(p || q) = sum_k p_k (log p_k - log q_k),  p = softmax(r), q = softmax(x)

Classes lie on the last axis that is longer than one (who knows another one moves it there, ``kinds/classes.py``); axes between it and the
samples are averaged over. A sample with a NaN in it scores worst, so a broken engine can never look good. A class that is masked alike in
both, by -inf, is left out; where one alone is infinite the sample scores worst, unless the class was next to impossible in either case.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.sample_blocks import by_sample, sample_slices
from calibration.accuracy.measures.softmax import log_softmax, without_classes
from calibration.accuracy.measures.values import WORST_LOSS, as_rows
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError
from calibration.nonfinite import with_far_as_infinite


def kl_divergence(reference: NDArray[np.generic], output: NDArray[np.generic], *, probabilities: bool = False) -> NDArray[np.float64]:
    """Return KL(reference || output) of each sample, at least 0.

    Args:
        reference: (samples, ..., classes), the float model's logits or probabilities.
        output: The same shape.
        probabilities: Both hold probabilities already, else logits.

    Returns:
        (samples,) float64, nats.
    """
    logs = _log_probabilities if probabilities else log_softmax

    def of_samples(some_reference: NDArray[np.generic], some_output: NDArray[np.generic]) -> NDArray[np.float64]:
        log_p, log_q = logs(by_class(some_reference)), logs(by_class(some_output))
        p = np.exp(log_p)
        with np.errstate(invalid="ignore"):
            terms = np.where(p > 0, p * (log_p - log_q), 0.0)
            terms[np.isnan(log_q) | np.isnan(log_p)] = WORST_LOSS
            terms[without_classes(log_p) != without_classes(log_q)] = WORST_LOSS
        return np.asarray(np.clip(terms.sum(axis=-1).mean(axis=-1), 0.0, WORST_LOSS), dtype=np.float64)

    return by_sample(of_samples, reference, output)


def kl(reference: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return KL(reference || output) of each sample, at least 0, in nats.

    Values are probabilities where those of each prediction of the reference are at least 0 and add up to 1, else logits; a prediction of
    nothing but zeros, as padding leaves, may be among them.

    Args:
        reference: (samples, ..., classes), the float model's.
        output: The same shape.

    Raises:
        InvalidConfigError: The outputs are no distributions: one value per sample, or whole numbers.
    """
    if reference.dtype.kind != "f" or by_class(reference[:1]).shape[-1] == 1:
        raise InvalidConfigError(
            f"accuracy.metric: kl needs a score for each of several classes, found {reference.dtype} of shape {reference.shape}",
            fix="Set accuracy.metric to agreement." if reference.dtype.kind != "f" else _WITHOUT_CLASSES,
        )
    are_probabilities = all(_are_probabilities(by_class(reference[part])) for part in sample_slices(reference))
    return kl_divergence(reference, output, probabilities=are_probabilities)


def agreement(reference: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return how often the best class of each sample is the reference's: 0 or 1, a fraction where several predictions make a sample.

    Integer outputs (a model that ends in ArgMax) are compared as they are.

    Raises:
        InvalidConfigError: The outputs hold one value per sample, so that there is no class to agree on.
    """
    if np.issubdtype(reference.dtype, np.integer) or reference.dtype == np.bool_:
        return np.asarray((as_rows(reference) == as_rows(output)).mean(axis=1), dtype=np.float64)
    if by_class(reference[:1]).shape[-1] == 1:
        raise InvalidConfigError(
            f"accuracy.metric: agreement needs a score for each of several classes, found an output of shape {reference.shape}",
            fix=_WITHOUT_CLASSES,
        )

    def of_samples(some_reference: NDArray[np.generic], some_output: NDArray[np.generic]) -> NDArray[np.float64]:
        r, x = by_class(some_reference), by_class(some_output)
        same = (r.argmax(axis=-1) == x.argmax(axis=-1)) & ~np.isnan(x).any(axis=-1)
        return np.asarray(same.mean(axis=-1), dtype=np.float64)

    return by_sample(of_samples, reference, output)


def top1(labels: NDArray[np.generic], scores: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return 1 where the best class is the label, else 0."""
    return topk(labels, scores, k=1)


def top5(labels: NDArray[np.generic], scores: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return 1 where the label is among the five best classes, else 0."""
    return topk(labels, scores, k=5)


def topk(labels: NDArray[np.generic], scores: NDArray[np.generic], *, k: int) -> NDArray[np.float64]:
    """Return 1 where the label is among the ``k`` best classes, else 0; of equal scores the lower class index is the better.

    Args:
        labels: (samples,) integers.
        scores: (samples, classes) floats, or (samples,) integers: the class itself.
        k: How many classes may be named, at least 1.

    Raises:
        InvalidConfigError: The scores are not one row of classes per sample.
        InvalidCalibrationSetError: A label is not a class of the model.
    """
    if labels.size != len(labels):
        raise InvalidCalibrationSetError(
            f"labels: shape {labels.shape} found, ({len(labels)},) expected: one class index per sample, as top1 and top5 compare",
            fix="Give exactly one label per sample (no one-hot rows); for labels of tokens choose the metric token_f1 or span_f1.",
        )
    wanted = np.asarray(labels).reshape(len(labels)).astype(np.int64)
    if np.issubdtype(scores.dtype, np.integer) and scores.size == len(scores):
        return np.asarray(scores.reshape(-1) == wanted, dtype=np.float64)
    rows = by_class(scores)
    if rows.shape[1] != 1 or rows.shape[2] == 1:
        raise InvalidConfigError(
            f"accuracy.metric: top1 and top5 need one row of class scores per sample, found an output of shape {scores.shape}",
            fix=_WITHOUT_CLASSES if rows.shape[2] == 1 else "Set accuracy.metric to agreement or cosine, or accuracy.max_nmse.",
        )
    rows = rows[:, 0]
    classes = rows.shape[1]
    if wanted.size and (wanted.min() < 0 or wanted.max() >= classes):
        raise InvalidCalibrationSetError(
            f"labels: found values {wanted.min()} to {wanted.max()}, expected 0 to {classes - 1}, the classes of the model's first output",
            fix="Number the classes as the model does, from 0" + (": give labels - 1." if wanted.min() == 1 else "."),
        )
    own = np.take_along_axis(rows, wanted[:, None], axis=1)
    before = np.arange(classes)[None, :] < wanted[:, None]
    better = (rows > own).sum(axis=1) + ((rows == own) & before).sum(axis=1)
    return np.asarray((better < k) & ~np.isnan(rows).any(axis=1), dtype=np.float64)


def by_class(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the values as (samples, predictions per sample, classes): (n, 1000, 1, 1) becomes (n, 1, 1000)."""
    longer = [size for size in values.shape[1:] if size > 1]
    return with_far_as_infinite(values.astype(np.float64)).reshape(len(values), -1, longer[-1] if longer else 1)


def _are_probabilities(rows: NDArray[np.float64]) -> bool:
    with np.errstate(invalid="ignore"):
        total = rows.sum(axis=-1)
        return bool((rows >= 0.0).all() and ((np.abs(total - 1.0) <= _SUM_TOLERANCE) | (total == 0.0)).all())


def _log_probabilities(values: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.maximum(values, _SMALLEST_PROBABILITY)
    return np.asarray(np.log(kept / kept.sum(axis=-1, keepdims=True)), dtype=np.float64)


_SMALLEST_PROBABILITY = 1e-12
_SUM_TOLERANCE = 1e-2  # of probabilities: those of float16 add up to 1 within it
_WITHOUT_CLASSES = "Set accuracy.metric to closeness or decisions, or send a metric model that compares the value with a threshold."
