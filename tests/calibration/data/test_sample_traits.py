"""Constant samples, copies and shared samples are found by content."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.data.sample_traits import constant_samples, copies, fingerprints, shared

Array = NDArray[np.generic]
PICTURES = np.random.default_rng(0).normal(size=(6, 1, 4, 4)).astype(np.float32)


def with_rows(value: float | Array, *rows: int) -> Array:
    pictures = PICTURES.copy()
    for row in rows:
        pictures[row] = value
    return pictures


@pytest.mark.parametrize(
    ("inputs", "count"),
    [
        ({"x": PICTURES}, 0),
        ({"x": with_rows(0.0, 1, 4)}, 2),
        ({"x": with_rows(0.0, 1), "ids": np.arange(12).reshape(6, 2)}, 0),  # the other input varies
        ({"x": with_rows(0.5, 1), "mask": np.ones((6, 2), np.int64)}, 1),
        ({"state": np.zeros((6, 16)), "token": np.arange(6).reshape(6, 1)}, 0),  # one token a sample, and they differ
        ({"state": np.zeros((6, 16)), "token": np.zeros((6, 1))}, 6),
        ({"x": np.zeros((6, 3))}, 0),  # too short to tell
    ],
)
def test_a_sample_is_constant_if_nothing_in_it_varies(inputs: dict[str, Array], count: int) -> None:
    assert constant_samples(inputs) == count


def test_copies_and_shared_samples_are_counted() -> None:
    twice = np.concatenate([PICTURES, PICTURES[:2], PICTURES[:1]])
    digests = fingerprints({"x": twice})
    assert copies(digests) == 3
    assert copies(fingerprints({"x": PICTURES})) == 0
    assert shared(fingerprints({"x": PICTURES[3:]}), digests) == 3
    assert shared(fingerprints({"x": PICTURES + 1}), digests) == 0


def test_samples_differ_if_one_input_does() -> None:
    assert copies(fingerprints({"x": np.zeros((2, 9)), "n": np.array([1, 2])})) == 0


def test_short_samples_repeat_by_nature() -> None:
    assert fingerprints({"x": np.zeros((4, 2))}) == ()
