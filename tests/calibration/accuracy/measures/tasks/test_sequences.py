from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.accuracy.measures.tasks.sequences import (
    Symbols,
    blank_of,
    counted_tokens,
    ctc_sequences,
    edit_similarity,
    exact_match,
    labelled_sequences,
    token_sequences,
)
from calibration.accuracy.measures.token_classes import IGNORED
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

SYMBOLS = st.lists(st.integers(0, 3), max_size=8)


def frames(*rows: list[int], classes: int = 4) -> np.ndarray:
    return np.asarray(np.eye(classes, dtype=np.float32)[np.array(rows)])


def distance(a: Symbols, b: Symbols) -> int:
    """Levenshtein's recursion, as it is defined."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def test_equal_neighbours_are_one_symbol_and_the_blank_is_none() -> None:
    output = frames([0, 1, 1, 0, 1, 2, 0], [3, 0, 0, 0, 0, 0, 3])
    assert ctc_sequences(output, (output,)) == [[[1, 1, 2], [3, 3]]]
    assert ctc_sequences(output, (output,), blank=-1) == [[[0, 1, 0, 1, 2, 0], [0]]]


def test_the_blank_is_the_first_or_the_last_class_by_its_frames() -> None:
    assert blank_of(frames([0, 0, 3, 1]), None) == 0
    assert blank_of(frames([3, 3, 0, 1]), None) == 3
    assert blank_of(frames([3, 3, 0, 1]), 1) == 1
    with pytest.raises(InvalidConfigError, match=r"blank: found 4, expected a class of the output, 0 to 3"):
        blank_of(frames([0, 1]), 4)


@given(SYMBOLS, SYMBOLS)
def test_similarity_is_one_less_the_normalized_edit_distance(a: Symbols, b: Symbols) -> None:
    wanted = 1.0 if not a and not b else 1.0 - distance(a[:5], b[:5]) / max(len(a[:5]), len(b[:5]), 1)
    assert edit_similarity([a[:5]], [b[:5]])[0] == pytest.approx(wanted, abs=1e-12)
    assert (exact_match([a], [b])[0] == 1.0) == (a == b)
    assert edit_similarity([a], [a])[0] == exact_match([a], [a])[0] == 1.0


def test_a_frame_that_is_no_number_matches_nothing() -> None:
    output = frames([1, 0, 0])
    broken = output.copy()
    broken[0, 2, 1] = np.nan
    wanted, found = ctc_sequences(output, (output, broken))
    assert exact_match(wanted, found).tolist() == [0.0]


def test_tokens_that_are_not_labelled_do_not_count() -> None:
    labels = np.array([[2, 1, IGNORED], [IGNORED, 3, 3]])
    output = frames([2, 1, 0], [0, 3, 1])
    found = token_sequences(output, counted_tokens(labels, output))
    assert (labelled_sequences(labels), found) == ([[2, 1], [3, 3]], [[2, 1], [3, 1]])
    assert token_sequences(np.array([[5, 6]])) == [[5, 6]]  # whole numbers are the classes themselves


def test_outputs_and_labels_of_another_form_are_refused() -> None:
    flat = np.zeros((2, 4), dtype=np.float32)
    with pytest.raises(InvalidConfigError, match=r"\(samples, frames, classes\), found an output of shape \(2, 4\)"):
        ctc_sequences(flat, (flat,))
    with pytest.raises(InvalidConfigError, match="need a class for each token"):
        token_sequences(flat)
    with pytest.raises(InvalidCalibrationSetError, match="whole numbers of shape"):
        labelled_sequences(flat)
    with pytest.raises(InvalidCalibrationSetError, match="-3 found"):
        labelled_sequences(np.array([[1, -3]]))
    with pytest.raises(InvalidCalibrationSetError, match=r"shape \(2, 3\) found, \(2, 4\) expected"):
        counted_tokens(np.zeros((2, 3), dtype=np.int64), np.zeros((2, 4, 5)))
