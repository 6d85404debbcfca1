r"""Scores of token classifiers against labels: F1 over tokens and over spans, one value per sample.

For one sample, with the tokens whose label is IGNORED left out,

    F1 = 2 correct / (predicted + labelled),

where *labelled* counts the tokens (or spans) that the labels name, *predicted* those that the model names, and *correct* those that are in
both. A sample in which neither names any scores 1. The mean of these scores is not the F1 of the corpus, which pools the three counts over
all samples before it divides: short samples weigh as much as long ones. It is a mean over independent samples, though, so an interval of
its drop can be given.

1. What names nothing is the *outside* class: the one called "O" where the classes have names, class 0 where they have none. Named classes
   without "O" have no outside class, and the token F1 is then the share of right tokens.
2. A span is a longest run of tokens of one class that is not outside. With IOB2 names ("B-PER", "I-PER", "O") it is a run of one type
   ("PER"), and a "B-" begins a new one; an "I-" that follows nothing of its type begins one too.
3. A span is correct if its first token, its last token and its type are. Tokens left out do not break a span.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

IGNORED = -100  # the label of a token that does not count: padding, or a piece of a word after its first
OUTSIDE = "O"

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]


def token_f1(labels: NDArray[np.generic], scores: NDArray[np.generic], label_names: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return the F1 over the tokens of each sample, (samples,), in 0..1.

    Args:
        labels: (samples, tokens) integers; IGNORED does not count.
        scores: (samples, tokens, classes) floats, or (samples, tokens) integers: the class itself.
        label_names: Name of each class, or none.

    Raises:
        InvalidConfigError: The scores are not one row of classes per token, or there are not as many names as classes.
        InvalidCalibrationSetError: There is not one label per token, or a label is not a class of the model.
    """
    wanted, found, is_counted, is_known = _checked(labels, scores, label_names)
    outside = _outside_class(label_names)
    is_wanted, is_found = is_counted & (wanted != outside), is_counted & (found != outside)
    correct = is_wanted & is_found & (wanted == found)
    return _f1(correct.sum(axis=1), is_found.sum(axis=1), is_wanted.sum(axis=1), is_known)


def span_f1(labels: NDArray[np.generic], scores: NDArray[np.generic], label_names: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return the F1 over the spans of each sample, (samples,), in 0..1.

    Args:
        labels: (samples, tokens) integers; IGNORED does not count.
        scores: (samples, tokens, classes) floats, or (samples, tokens) integers: the class itself.
        label_names: IOB2 name of each class, or none.

    Raises:
        InvalidConfigError: As for ``token_f1``, or a name is not IOB2.
        InvalidCalibrationSetError: As for ``token_f1``.
    """
    wanted, found, is_counted, is_known = _checked(labels, scores, label_names)
    if not wanted.size:
        return is_known.astype(np.float64)
    check_iob2(label_names)
    order = np.argsort(~is_counted, axis=1, kind="stable")  # tokens that count come first, in their order
    is_counted = np.take_along_axis(is_counted, order, axis=1)
    label_spans, found_spans = (_spans(np.take_along_axis(side, order, axis=1), is_counted, label_names) for side in (wanted, found))
    is_correct = (label_spans.last >= 0) & (label_spans.last == found_spans.last) & (label_spans.types == found_spans.types)
    return _f1(is_correct.sum(axis=1), (found_spans.last >= 0).sum(axis=1), (label_spans.last >= 0).sum(axis=1), is_known)


def check_iob2(label_names: Sequence[str]) -> None:
    """Refuse names of classes that do not tell where spans begin; no names at all are accepted.

    Raises:
        InvalidConfigError: A name is neither "O" nor begins with "B-" or "I-".
    """
    for index, name in enumerate(label_names):
        if name != OUTSIDE and not (name[:2] in ("B-", "I-") and name[2:]):
            raise InvalidConfigError(
                f"label_names[{index}]: found {name!r}, expected 'O', or 'B-' or 'I-' and a type, as span_f1 needs",
                fix="Give the IOB2 names in the order of the model's classes, or leave label_names out: class 0 is then outside.",
            )


class _Spans:
    """The spans of every sample, held at their first token. Read-only."""

    def __init__(self, last: Integers, types: Integers) -> None:
        self.last = last  # (samples, tokens): place in the flat array of the last token of the span that begins here, -1 where none does
        self.types = types  # (samples, tokens)


def _spans(classes: Integers, is_counted: Booleans, label_names: Sequence[str]) -> _Spans:
    types, is_begin = classes, np.zeros(classes.shape, dtype=np.bool_)
    if label_names:
        kinds = {name: index for index, name in enumerate(dict.fromkeys(_type(name) for name in label_names))}
        types = np.array([kinds[_type(name)] for name in label_names], dtype=np.int64)[classes]
        is_begin = np.array([name.startswith("B-") for name in label_names])[classes]
    is_inside = is_counted & (classes != _outside_class(label_names))
    continues = np.zeros(classes.shape, dtype=np.bool_)  # the span that the token before is in
    continues[:, 1:] = is_inside[:, 1:] & is_inside[:, :-1] & (types[:, 1:] == types[:, :-1]) & ~is_begin[:, 1:]
    is_first = is_inside & ~continues
    is_last = is_inside.copy()
    is_last[:, :-1] &= ~continues[:, 1:]
    last = np.full(classes.shape, -1, dtype=np.int64)
    last[is_first] = np.flatnonzero(is_last)  # first and last tokens alternate, so the k-th last one ends the k-th span
    return _Spans(last, types)


def _type(name: str) -> str:
    return name if name == OUTSIDE else name[2:]


def _outside_class(label_names: Sequence[str]) -> int:
    """Return the class that names nothing, -1 if there is none."""
    if not label_names:
        return 0
    return label_names.index(OUTSIDE) if OUTSIDE in label_names else -1


def _f1(correct: NDArray[np.int64], predicted: NDArray[np.int64], labelled: NDArray[np.int64], is_known: Booleans) -> NDArray[np.float64]:
    named = predicted + labelled
    f1 = np.divide(2.0 * correct, named, out=np.ones(len(named)), where=named > 0)
    return np.where(is_known, f1, 0.0)


def _checked(
    labels: NDArray[np.generic], scores: NDArray[np.generic], label_names: Sequence[str]
) -> tuple[Integers, Integers, Booleans, Booleans]:
    """Return the labels and the classes found, both (samples, tokens), which tokens count, and which samples hold no NaN."""
    if labels.ndim != 2:
        raise InvalidCalibrationSetError(
            f"labels: shape {labels.shape} found, (samples, tokens) expected: token_f1 and span_f1 compare every token",
            fix=f"Give one class index per token ({IGNORED} for those that do not count), or choose the metric top1.",
        )
    is_class = np.issubdtype(scores.dtype, np.integer)
    if scores.ndim != (2 if is_class else 3) or (not is_class and scores.shape[2] < 2):
        raise InvalidConfigError(
            f"accuracy.metric: token_f1 and span_f1 need a score for each class of every token, found an output of shape {scores.shape}",
            fix="Export the model so that this output is (samples, tokens, classes), or choose another metric.",
        )
    if scores.shape[:2] != labels.shape:
        raise InvalidCalibrationSetError(
            f"labels: shape {labels.shape} found, {scores.shape[:2]} expected: the samples and tokens of the model's output",
            fix=f"Pad the labels like the tokens, with {IGNORED}.",
        )
    wanted = labels.astype(np.int64)
    is_counted = wanted != IGNORED
    classes = None if is_class else scores.shape[2]
    if classes is not None and label_names and len(label_names) != classes:
        raise InvalidConfigError(
            f"accuracy.label_names: found {len(label_names)} names, expected {classes}, the classes of the model's output",
            fix="Name every class, in the model's order.",
        )
    most = (classes or len(label_names) or np.iinfo(np.int64).max) - 1
    used = wanted[is_counted]
    if used.size and (used.min() < 0 or used.max() > most):
        raise InvalidCalibrationSetError(
            f"labels: found values {used.min()} to {used.max()}, expected 0 to {most}, the classes of the model's output, or {IGNORED}",
            fix=f"Number the classes as the model does, from 0; label tokens that do not count {IGNORED}.",
        )
    found = scores.astype(np.int64) if is_class else scores.argmax(axis=2).astype(np.int64)
    is_known = np.ones(len(scores), dtype=np.bool_) if is_class else ~np.isnan(scores.max(axis=2)).any(axis=1)  # max hands NaN on
    if is_class and label_names:
        is_known &= ((found >= 0) & (found < len(label_names))).all(axis=1)
        found = np.clip(found, 0, len(label_names) - 1)
    return np.where(is_counted, wanted, 0), found, is_counted, is_known
