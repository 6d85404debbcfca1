from __future__ import annotations

import numpy as np

from benchmarks.kinds.pictures import SIDE, items, scenes, strips

CLASSES = (1, 8, 9)


def test_the_same_seed_gives_the_same_scenes() -> None:
    first, second = (scenes(items("train"), CLASSES, 4, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.inputs, second.inputs)


def test_boxes_are_tight_around_the_items() -> None:
    found = scenes(items("train"), CLASSES, 20, np.random.default_rng(0))
    for boxes, kinds, mask in zip(found.boxes, found.classes, found.masks, strict=True):
        assert len(boxes) == len(kinds) > 0
        assert np.count_nonzero(mask) > 0
        for (left, top, right, bottom), kind in zip(boxes.astype(int), kinds, strict=True):
            assert 0 <= left < right <= SIDE and 0 <= top < bottom <= SIDE  # noqa: PT018  # one thing: inside the scene
            inside = mask[top:bottom, left:right] == kind + 1
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()  # noqa: PT018  # one thing: tight


def test_digits_of_a_strip_do_not_share_a_column() -> None:
    found = strips(50, np.random.default_rng(0))
    for string, centres in zip(found.strings, found.centres, strict=True):
        assert 3 <= len(string) == len(centres) <= 6
        assert np.all(np.diff(centres) >= 11)
        assert centres[-1] + 5 <= found.inputs.shape[3]
