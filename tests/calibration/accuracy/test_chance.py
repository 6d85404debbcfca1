"""Chance: the best constant answer, three standard errors, and what labels that do not fit would fit after all."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.accuracy.chance import Chance, chance_of, fitting_labels
from calibration.accuracy.measures.token_classes import IGNORED
from calibration.accuracy.metrics import Metric
from calibration.accuracy.scores import score

Integers = NDArray[np.int64]
Array = NDArray[np.generic]


def answers(labels: Integers, right: float, *, classes: int = 10, seed: int = 3) -> Array:
    """Return logits that name the label with this probability, else any class."""
    rng = np.random.default_rng(seed)
    named = np.where(rng.random(labels.shape) < right, labels, rng.integers(0, classes, labels.shape))
    return np.asarray(np.eye(classes, dtype=np.float32)[named] + rng.normal(0, 0.01, (*labels.shape, classes)).astype(np.float32))


def chance(metric: Metric, labels: Integers, output: Array, names: tuple[str, ...] = ()) -> Chance:
    return chance_of(metric, score(metric, [output], [output], labels, label_names=names), labels, output, names)


def fitting(metric: Metric, labels: Integers, output: Array) -> tuple[str, float] | None:
    return fitting_labels(metric, labels, output, partial(rescored, metric))


def rescored(metric: Metric, labels: Array, output: Array) -> NDArray[np.float64]:
    return score(metric, [output], [output], labels)


LABELS = np.random.default_rng(1).integers(0, 10, 400)


@pytest.mark.parametrize("metric", [Metric.TOP1, Metric.TOP5])
@pytest.mark.parametrize(("right", "is_beaten"), [(0.0, False), (0.6, True), (1.0, True)])
def test_chance_is_beaten_by_answers_that_follow_the_labels(metric: Metric, right: float, *, is_beaten: bool) -> None:
    found = chance(metric, LABELS, answers(LABELS, right))
    assert found.beaten is is_beaten
    assert found.decidable
    shares = np.sort(np.bincount(LABELS) / len(LABELS))[::-1]
    assert found.constant == pytest.approx(shares[0] if metric is Metric.TOP1 else shares[:5].sum(), abs=1e-12)  # counts by another sum


def test_labels_of_one_class_tell_nothing() -> None:
    labels = np.full(100, 4)
    assert not chance(Metric.TOP1, labels, answers(labels, 0.9)).decidable


@pytest.mark.parametrize(("right", "follows"), [(0.0, False), (0.8, True)])
def test_answers_to_unequal_classes_may_follow_them_without_beating_the_constant_one(right: float, *, follows: bool) -> None:
    labels = (np.random.default_rng(2).random(600) < 0.05).astype(np.int64)
    rng = np.random.default_rng(4)
    named = np.where(rng.random(600) < right, labels, rng.random(600) < 0.1).astype(np.int64)
    found = chance(Metric.TOP1, labels, np.eye(2, dtype=np.float32)[named])
    assert (found.beaten, found.decidable, found.follows_labels) == (False, True, follows)


@pytest.mark.parametrize("metric", [Metric.TOKEN_F1, Metric.SPAN_F1])
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_token_metrics_have_a_constant_answer_too(metric: Metric, right: float) -> None:
    labels = np.random.default_rng(5).choice([0, 1, 2, IGNORED], size=(80, 12), p=[0.6, 0.2, 0.1, 0.1])
    output = answers(np.maximum(labels, 0), right, classes=3)
    found = chance(metric, labels, output)
    assert found.beaten is (right == 1.0)
    constants = [score(metric, [np.full(labels.shape, label)], [], labels).mean() for label in range(3)]
    assert found.constant == max(constants)


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        (LABELS + 1, "labels - 1"),
        (LABELS - 1, "labels + 1"),
        (np.roll(LABELS, 1), "the labels one sample later"),
        (np.roll(LABELS, -1), "the labels one sample earlier"),
        (np.random.default_rng(6).permutation(10)[LABELS], "the classes in the model's own order"),
    ],
)
def test_labels_that_do_not_fit_are_found_out(moved: Integers, words: str) -> None:
    output = answers(LABELS + 1, 0.9, classes=12)  # so that classes moved by one stay classes
    found = fitting(Metric.TOP1, moved + 1, output)
    assert found is not None
    assert found[0].startswith(words)
    assert found[1] > 0.8


def test_shifted_labels_of_tokens_are_found_out() -> None:
    labels = np.random.default_rng(7).integers(1, 4, (60, 9))
    found = fitting(Metric.TOKEN_F1, labels + 1, answers(labels, 1.0, classes=5))
    assert found == ("labels - 1", 1.0)


@pytest.mark.parametrize("seed", range(10, 15))
def test_nothing_is_named_for_labels_at_random(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 10, 400)
    assert fitting(Metric.TOP1, labels, answers(LABELS, 0.9)) is None


def test_an_output_of_classes_may_name_none() -> None:
    labels = (np.random.default_rng(2).random(600) < 0.05).astype(np.int64)
    named = np.where(np.random.default_rng(4).random(600) < 0.03, -1, labels)
    assert chance(Metric.TOP1, labels, named).follows_labels
