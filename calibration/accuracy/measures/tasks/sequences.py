r"""Whether a sequence of symbols is still the same: of readers of text and speech (CTC), and of models that give a class for each token.

Decoding is greedy: the best class of each frame. In CTC frames, equal neighbours are one symbol and the blank is none; a token sequence is
taken as it is. With d the edit distance (Levenshtein: symbols put in, left out or replaced) of two sequences a and b,

    exact match:      1 where a = b, else 0
    edit similarity:  1 - d(a, b) / max(|a|, |b|), and 1 where both are empty
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.token_classes import IGNORED
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError
from calibration.process.lazy_import import deferred

levenshtein = deferred("rapidfuzz.distance.Levenshtein")

Array = NDArray[np.generic]
Scores = NDArray[np.float64]
Symbols = list[int]
BROKEN = -1  # a symbol that no sequence of the float model has: of a frame with NaN


def exact_match(wanted: Sequence[Symbols], found: Sequence[Symbols]) -> Scores:
    """Return 1 for each sample whose sequence is just as wanted, else 0, (samples,)."""
    return np.array([float(a == b) for a, b in zip(wanted, found, strict=True)])


def edit_similarity(wanted: Sequence[Symbols], found: Sequence[Symbols]) -> Scores:
    """Return 1 less the normalized edit distance of each sample, (samples,), 0..1."""
    return np.array([float(levenshtein.normalized_similarity(a, b)) for a, b in zip(wanted, found, strict=True)])


def ctc_sequences(reference: Array, outputs: Sequence[Array], blank: int | None = None) -> list[list[Symbols]]:
    """Return the greedy decoding of CTC frames, for each of the outputs.

    Args:
        reference: (samples, frames, classes), the float model's, from which the blank is found.
        outputs: Of the same form.
        blank: Class of the blank, -1 for the last one; None: the first or the last class, whichever has more frames.

    Raises:
        InvalidConfigError: These are no frames of classes, or the blank is none of the classes.
    """
    if reference.ndim != 3 or reference.dtype.kind != "f" or reference.shape[2] < 2:
        raise InvalidConfigError(
            f"accuracy.metric: CTC metrics need scores of classes for each frame, (samples, frames, classes), found an output of shape "
            f"{reference.shape}",
            fix="Choose exact_match or edit_similarity where the model gives the symbols themselves, or another metric.",
        )
    none = blank_of(reference, blank)
    return [[_collapsed(row, none) for row in _best(output)] for output in outputs]


def blank_of(reference: Array, blank: int | None) -> int:
    """Return the class of CTC frames, (samples, frames, classes), that is the blank."""
    classes = int(reference.shape[2])
    if blank is None:
        best = reference.argmax(axis=2)
        return 0 if np.count_nonzero(best == 0) >= np.count_nonzero(best == classes - 1) else classes - 1
    if blank >= classes:
        raise InvalidConfigError(
            f"accuracy.measure.blank: found {blank}, expected a class of the output, 0 to {classes - 1}, or -1 for the last",
            fix="Leave it out to have it found.",
        )
    return blank % classes


def token_sequences(output: Array, is_counted: NDArray[np.bool_] | None = None) -> list[Symbols]:
    """Return the class of each token that counts.

    Args:
        output: (samples, tokens, classes) scores, or (samples, tokens) whole numbers, the classes themselves.
        is_counted: (samples, tokens); None: all count.

    Raises:
        InvalidConfigError: It is of another form.
    """
    is_class = output.dtype.kind in "iub"
    if output.ndim != (2 if is_class else 3):
        raise InvalidConfigError(
            f"accuracy.metric: exact_match and edit_similarity need a class for each token, found an output of shape {output.shape}",
            fix="Export the model so that this output is (samples, tokens, classes), or (samples, tokens) of whole numbers.",
        )
    rows = output.astype(np.int64) if is_class else _best(output)
    if is_counted is None:
        return [row.tolist() for row in rows]
    return [row[counts].tolist() for row, counts in zip(rows, is_counted, strict=True)]


def labelled_sequences(labels: Array) -> list[Symbols]:
    """Return the wanted sequences without the padding.

    Args:
        labels: (samples, symbols) whole numbers, with IGNORED behind the last symbol of a sample.

    Raises:
        InvalidCalibrationSetError: They are of another form.
    """
    check_sequences(labels)
    return [[int(symbol) for symbol in row if symbol != IGNORED] for row in labels]


def counted_tokens(labels: Array, output: Array) -> NDArray[np.bool_]:
    """Return which tokens are labelled, (samples, tokens).

    Raises:
        InvalidCalibrationSetError: The labels are not one for each token of the output.
    """
    check_sequences(labels)
    if labels.shape != output.shape[:2]:
        raise InvalidCalibrationSetError(
            f"labels: shape {labels.shape} found, {output.shape[:2]} expected: the samples and tokens of the model's output",
            fix=f"Pad the labels like the tokens, with {IGNORED}; for CTC frames choose ctc_exact_match or ctc_edit_similarity.",
        )
    return np.asarray(labels != IGNORED)


def check_sequences(labels: Array) -> None:
    """Refuse labels that are no sequences of symbols.

    Raises:
        InvalidCalibrationSetError: With what they should be.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InvalidCalibrationSetError(
            f"labels: {labels.dtype.name} of shape {labels.shape} found, whole numbers of shape (samples, symbols) expected",
            fix=f"Give the classes of the symbols in their order, and pad shorter rows with {IGNORED}.",
        )
    low = int(labels.min(initial=0, where=labels != IGNORED))
    if low < 0:
        raise InvalidCalibrationSetError(
            f"labels: {low} found, classes from 0 expected, or {IGNORED} behind the last symbol", fix=f"Pad with {IGNORED}."
        )


def _best(output: Array) -> NDArray[np.int64]:
    """Return the best class of each frame, (samples, frames); BROKEN where a score is NaN."""
    best = output.argmax(axis=2).astype(np.int64)
    return np.where(np.isnan(output.max(axis=2)), BROKEN, best)  # max hands NaN on


def _collapsed(frames: NDArray[np.int64], blank: int) -> Symbols:
    is_new = np.ones(len(frames), dtype=np.bool_)
    is_new[1:] = frames[1:] != frames[:-1]
    kept: Symbols = frames[is_new & (frames != blank)].tolist()
    return kept
