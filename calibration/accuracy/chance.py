"""Whether the float model's scores against labels are better than chance, and, where they are not, what the labels would fit.

*Chance* is the best constant answer: what always naming the class that these labels have most often would score (for top5 the five most
frequent ones, for token_f1 and span_f1 the best single class). With d the difference of the two scores on each of n samples, a model beats
chance if mean(d) > 3 s(d) / sqrt(n): three standard errors.

1. Where not even perfect scores would beat chance (labels of one class only, or too few of them), nothing can be told.
2. Where one class has most of the labels, or labels are few, a sound model may not beat that. It is told from a broken one by its hits
   against those of labels dealt out at random: with p and q the shares of a class among labels and answers, sum_c p_c q_c is expected.
   If no class has more than half of the labels, its score must be above the constant answer's as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.classes import by_class
from calibration.accuracy.measures.token_classes import IGNORED
from calibration.accuracy.metrics import Metric

STANDARD_ERRORS = 3.0
SURE_STANDARD_ERRORS = 4.0  # of a cause that is named: several are tried, so each must be surer
CONSTANT_CLASSES = 20  # most frequent classes of tokens that are tried as the constant answer
MARGIN = 0.25  # of a score, by which a cause must be better than one that says more

Array: TypeAlias = NDArray[np.generic]
Scores: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chance:
    """The float model's scores held against the best constant answer."""

    score: float  # of the float model, 0..1
    constant: float  # of the best constant answer, 0..1
    answer: int  # the class that it names (for top5 the most frequent of the five)
    error: float  # standard error of the difference
    beaten: bool  # by STANDARD_ERRORS
    decidable: bool  # False: not even perfect scores would beat it (rule 1)
    follows_labels: bool  # the answers go with the labels although they do not beat the constant one (rule 2)


def chance_of(metric: Metric, scores: Scores, labels: Array, output: Array, label_names: tuple[str, ...] = ()) -> Chance:
    """Return how the scores compare with chance.

    Args:
        metric: One that compares with labels.
        scores: (samples,), the float model's own.
        labels: (samples,) or (samples, tokens) class indices.
        output: The output that the metric reads, (samples, ...).
        label_names: Names of the classes, for the metrics of tokens.
    """
    known = np.asarray(labels, dtype=np.int64)
    answer, constant = _constant_answer(metric, known, label_names)
    decidable = beats(1.0 - constant, STANDARD_ERRORS)
    difference = scores - constant
    beaten, follows = beats(difference, STANDARD_ERRORS), False
    top = metric.spec.top
    if not beaten and top is not None and (constant.mean() > 0.5 or scores.mean() > constant.mean()):  # rule 2
        follows = _follows(known.reshape(len(known)), scores, output, top)
    return Chance(
        score=float(scores.mean()),
        constant=float(constant.mean()),
        answer=answer,
        error=_standard_error(difference),
        beaten=beaten,
        decidable=decidable,
        follows_labels=follows,
    )


def beats(differences: Scores, errors: float) -> bool:
    """Return whether the mean of the differences, (samples,), is above zero by so many standard errors."""
    return bool(differences.mean() > errors * _standard_error(differences))


def fitting_labels(
    metric: Metric, labels: Array, output: Array, score: Callable[[Array, Array], Scores], label_names: tuple[str, ...] = ()
) -> tuple[str, float] | None:
    """Return what would make the labels fit the model's answers, in the user's words, and the score that it would give; None if unknown.

    Tried are labels that are one too high or too low (classes counted from 1, a background class), classes in another order, and labels
    that belong to the sample before or after. The one with the best score counts.

    Args:
        metric: One that compares with labels.
        labels: (samples,) or (samples, tokens) class indices.
        output: The output that the metric reads, (samples, ...).
        score: Scores (labels, output), both cut to the same samples.
        label_names: Names of the classes, for the metrics of tokens.
    """
    known = np.asarray(labels, dtype=np.int64)
    classes = None if np.issubdtype(output.dtype, np.integer) else by_class(output).shape[2]
    found: list[tuple[str, float]] = []

    def attempt(words: str, labels: Labels, output: Array) -> None:
        if len(labels) > 1:
            scores = score(labels, output)
            if beats(scores - _constant_answer(metric, labels, label_names)[1], SURE_STANDARD_ERRORS):
                found.append((words, float(scores.mean())))

    for shift, words in ((-1, "labels - 1"), (1, "labels + 1")):
        moved = np.where(known == IGNORED, known, known + shift)
        outside = (moved < 0) & (known != IGNORED) | (moved >= (np.iinfo(np.int64).max if classes is None else classes))
        if known.ndim == 2:
            moved = np.where(outside, IGNORED, moved)
            outside = np.zeros(len(known), dtype=np.bool_)
        attempt(words, moved[~outside], output[~outside])
    if len(known) > 2:
        attempt("the labels one sample earlier (labels[i - 1] for sample i)", known[:-1], output[1:])
        attempt("the labels one sample later (labels[i + 1] for sample i)", known[1:], output[:-1])
    best = max(found, key=lambda item: item[1], default=None)
    if not metric.is_per_token and classes is not None:
        renumbered = _renumbered(known.reshape(len(known)), output)
        if renumbered is not None and (best is None or renumbered[1] > best[1] * (1.0 + MARGIN)):  # a shift renumbers too
            return renumbered
    return best


def _renumbered(labels: Labels, output: Array) -> tuple[str, float] | None:
    """Return the share of right answers if each class that the model names meant the label that goes with it most often.

    The meanings are found on every other sample and counted on the rest.
    """
    answers = by_class(output)[:, 0].argmax(axis=1)
    meaning: dict[int, int] = {}
    for answer in np.unique(answers[::2]):
        meaning[int(answer)] = int(np.bincount(labels[::2][answers[::2] == answer]).argmax())
    rest = labels[1::2]
    if len(rest) < 2:
        return None
    right = np.array([meaning.get(int(answer), -1) for answer in answers[1::2]]) == rest
    if not beats(right - _constant_answer(Metric.TOP1, rest, ())[1], SURE_STANDARD_ERRORS):
        return None
    return "the classes in the model's own order (they are numbered in another one here)", float(right.mean())


def _constant_answer(metric: Metric, labels: Labels, label_names: tuple[str, ...]) -> tuple[int, Scores]:
    """Return the class that always naming scores most, and the scores of that, (samples,)."""
    counted = labels[labels != IGNORED]
    if not counted.size:
        return 0, np.ones(len(labels))
    classes, counts = np.unique(counted, return_counts=True)
    frequent = classes[np.argsort(-counts, kind="stable")]
    if metric.spec.top is not None:
        return int(frequent[0]), np.isin(labels.reshape(len(labels)), frequent[: metric.spec.top]).astype(np.float64)
    measure = metric.spec.measure
    assert measure is not None  # labels are not compared by a user's own metric here
    tried = [(int(label), measure(labels, np.full(labels.shape, label), label_names)) for label in frequent[:CONSTANT_CLASSES]]
    return max(tried, key=lambda item: float(item[1].mean()))


def _follows(labels: Labels, scores: Scores, output: Array, k: int) -> bool:
    """Return whether the hits are more than those of labels dealt out at random, by STANDARD_ERRORS (rule 2)."""
    if np.issubdtype(output.dtype, np.integer):
        named = output.reshape(len(output), 1).astype(np.int64)
    else:
        rows = by_class(output)[:, 0]
        named = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    named = named[named >= 0]  # an output of integers may name no class
    most = int(max(named.max(initial=0), labels.max())) + 1
    answers, wanted = np.bincount(named, minlength=most), np.bincount(labels, minlength=most)
    expected = float(answers @ wanted) / len(labels) ** 2
    return bool(scores.mean() - expected > STANDARD_ERRORS * np.sqrt(expected * (1.0 - expected) / len(labels)))


def _standard_error(values: Scores) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.inf
