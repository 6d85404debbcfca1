"""F1 over tokens and spans: against counts made by hand and against a plain loop over spans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.accuracy.measures.token_classes import IGNORED, span_f1, token_f1
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NONE, B_PER, I_PER, B_LOC, I_LOC = range(5)


def scores_for(classes: Sequence[Sequence[int]], count: int = 5) -> NDArray[np.float32]:
    """Return scores whose best class is the one given, (samples, tokens, classes)."""
    return np.asarray(np.eye(count, dtype=np.float32)[np.array(classes)])


def token(labels: Sequence[int], found: Sequence[int], names: Sequence[str] = ()) -> float:
    return float(token_f1(np.array([labels]), scores_for([found]), names)[0])


def span(labels: Sequence[int], found: Sequence[int], names: Sequence[str] = NAMES) -> float:
    return float(span_f1(np.array([labels]), scores_for([found]), names)[0])


@pytest.mark.parametrize(
    ("labels", "found", "expected"),
    [
        ([0, 1, 2, 0], [0, 1, 2, 0], 1.0),
        ([0, 1, 2, 0], [0, 1, 1, 0], 0.5),  # 1 right of 2 found and 2 labelled
        ([0, 1, 2, 0], [0, 1, 0, 0], 2 / 3),  # 1 right of 1 found and 2 labelled
        ([0, 1, 0, 0], [1, 1, 1, 0], 0.5),  # 1 right of 3 found and 1 labelled
        ([0, 0, 0, 0], [0, 0, 0, 0], 1.0),
        ([0, 0, 0, 0], [0, 2, 0, 0], 0.0),
    ],
)
def test_token_f1_counts_tokens_outside_class_0(labels: list[int], found: list[int], expected: float) -> None:
    assert token(labels, found) == pytest.approx(expected, abs=1e-15)


def test_the_outside_class_is_the_one_called_o() -> None:
    names = ("PER", "O", "LOC", "ORG", "MISC")
    assert token([1, 0, 2], [1, 0, 1], names) == pytest.approx(2 / 3)


def test_names_without_an_outside_class_make_token_f1_the_share_of_right_tokens() -> None:
    assert token([0, 1, 2, 3], [0, 1, 2, 4], ("NOUN", "VERB", "DET", "ADJ", "ADV")) == 0.75


@pytest.mark.parametrize(
    ("labels", "found", "expected"),
    [
        ([B_PER, I_PER, NONE, B_LOC], [B_PER, I_PER, NONE, B_LOC], 1.0),
        ([B_PER, I_PER, NONE, B_LOC], [B_PER, NONE, NONE, B_LOC], 0.5),  # the first span ends too early
        ([B_PER, I_PER, NONE, B_LOC], [B_LOC, I_LOC, NONE, B_LOC], 0.5),  # the first span has another type
        ([B_PER, B_PER, NONE, NONE], [B_PER, I_PER, NONE, NONE], 0.0),  # two spans of one token, one span of two
        ([B_PER, I_PER, NONE, NONE], [I_PER, I_PER, NONE, NONE], 1.0),  # an I- after nothing begins a span
        ([B_PER, I_LOC, NONE, NONE], [B_PER, B_LOC, NONE, NONE], 1.0),  # an I- of another type does too
        ([NONE, NONE, NONE, NONE], [NONE, NONE, NONE, NONE], 1.0),
        ([NONE, NONE, NONE, B_PER], [NONE, NONE, NONE, NONE], 0.0),
    ],
)
def test_span_f1_counts_spans_of_iob2_names(labels: list[int], found: list[int], expected: float) -> None:
    assert span(labels, found) == pytest.approx(expected, abs=1e-15)


def test_without_names_a_span_is_a_run_of_one_class() -> None:
    assert span([1, 1, 2, 0], [1, 1, 2, 0], ()) == 1.0
    assert span([1, 1, 2, 0], [1, 1, 1, 0], ()) == 0.0


def test_a_span_does_not_run_on_into_the_next_sample() -> None:
    labels = np.array([[NONE, B_PER], [I_PER, NONE]])
    assert span_f1(labels, scores_for([[NONE, B_PER], [B_PER, NONE]]), NAMES).tolist() == [1.0, 1.0]


def test_tokens_that_do_not_count_neither_score_nor_break_a_span() -> None:
    labels, found = [B_PER, IGNORED, I_PER, IGNORED], [B_PER, B_LOC, I_PER, B_PER]
    assert span(labels, found) == 1.0
    assert token(labels, found, NAMES) == 1.0
    assert span([IGNORED] * 4, found) == token([IGNORED] * 4, found) == 1.0  # nothing to find


def test_a_sample_with_nan_scores_worst() -> None:
    scores = scores_for([[0, 1], [0, 1]])
    scores[1, 0, 3] = np.nan
    for metric in (token_f1, span_f1):
        assert metric(np.array([[0, 1], [0, 1]]), scores, NAMES).tolist() == [1.0, 0.0]


def test_integer_outputs_are_classes() -> None:
    classes = np.array([[0, 1, 2], [0, 9, 2]])
    labels = np.array([[0, 1, 2], [0, 1, 2]])
    assert token_f1(labels, classes).tolist() == [1.0, 0.5]
    assert token_f1(labels, classes, NAMES).tolist() == [1.0, 0.0]  # 9 is no class


def spans_by_hand(classes: Sequence[int]) -> set[tuple[int, int, str]]:
    """Return the spans, (first, last + 1, type), found by walking over the tokens."""
    found: set[tuple[int, int, str]] = set()
    start, kind = 0, ""
    for place, name in enumerate([*(NAMES[item] for item in classes), "O"]):
        goes_on = kind and name == f"I-{kind}"
        if kind and not goes_on:
            found.add((start, place, kind))
            kind = ""
        if name != "O" and not goes_on:
            start, kind = place, name[2:]
    return found


tokens = st.lists(st.integers(0, 4), min_size=6, max_size=6)


@given(st.lists(st.tuples(tokens, tokens, st.lists(st.booleans(), min_size=6, max_size=6)), min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_span_f1_equals_a_plain_loop(samples: list[tuple[list[int], list[int], list[bool]]]) -> None:
    labels = np.array([[item if keep else IGNORED for item, keep in zip(wanted, kept, strict=True)] for wanted, _, kept in samples])
    expected = []
    for wanted, found, kept in samples:
        ours, theirs = (spans_by_hand([item for item, keep in zip(side, kept, strict=True) if keep]) for side in (wanted, found))
        named = len(ours) + len(theirs)
        expected.append(2 * len(ours & theirs) / named if named else 1.0)
    assert span_f1(labels, scores_for([found for _, found, _ in samples]), NAMES).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "scores", "names", "error", "words"),
    [
        (np.zeros(2), np.zeros((2, 3, 4)), (), InvalidCalibrationSetError, r"labels: shape \(2,\) found, \(samples, tokens\) expected"),
        (np.zeros((2, 5)), np.zeros((2, 3, 4)), (), InvalidCalibrationSetError, r"labels: shape \(2, 5\) found, \(2, 3\) expected"),
        (np.full((2, 3), 4), np.zeros((2, 3, 4)), (), InvalidCalibrationSetError, "found values 4 to 4, expected 0 to 3"),
        (np.zeros((2, 3)), np.zeros((2, 4)), (), InvalidConfigError, r"each class of every token, found an output of shape \(2, 4\)"),
        (np.zeros((2, 3)), np.zeros((2, 3, 1)), (), InvalidConfigError, r"found an output of shape \(2, 3, 1\)"),
        (np.zeros((2, 3)), np.zeros((2, 3, 4)), ("O", "B-X"), InvalidConfigError, "label_names: found 2 names, expected 4"),
    ],
)
@pytest.mark.parametrize("metric", [token_f1, span_f1])
def test_what_does_not_fit_is_refused(metric, labels, scores, names, error, words) -> None:  # type: ignore[no-untyped-def]  # any arrays
    with pytest.raises(error, match=words) as caught:
        metric(labels.astype(np.int64), scores, names)
    assert caught.value.fix


def test_names_that_are_not_iob2_are_refused_for_spans() -> None:
    with pytest.raises(InvalidConfigError, match=r"label_names\[1\]: found 'PER', expected 'O', or 'B-'"):
        span([0, 1], [0, 1], ("O", "PER", "LOC", "B-", "I-X"))
