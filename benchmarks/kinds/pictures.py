"""Pictures with known content: scenes of real Fashion-MNIST items, and strips of digits in a bitmap font."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.fashion_mnist.prepare import PICTURES, network_input

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

SIDE = 64  # of a scene
BLANK = 0  # the class of a frame without a digit; digit d has d + 1
LONGEST = 6  # digits of a strip

_VISIBLE = 30  # of 255; darker pixels of an item are its background
_GLYPHS = (  # five by seven dots, a row a number
    (14, 17, 19, 21, 25, 17, 14),
    (4, 12, 4, 4, 4, 4, 14),
    (14, 17, 1, 2, 4, 8, 31),
    (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2),
    (31, 16, 30, 1, 1, 17, 14),
    (6, 8, 16, 30, 17, 17, 14),
    (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14),
    (14, 17, 17, 15, 1, 2, 12),
)
_HEIGHT, _WIDTH = 16, 80  # of a strip


@dataclass(frozen=True, slots=True)
class Items:
    """Pictures of single items."""

    pictures: NDArray[np.uint8]  # (n, 28, 28)
    labels: Integers  # (n,), 0 to 9

    def of(self, start: int, stop: int) -> Items:
        """Return the items [start, stop)."""
        return Items(self.pictures[start:stop], self.labels[start:stop])

    @property
    def inputs(self) -> Floats:
        """As the example networks take them: (n, 1, 28, 28)."""
        return network_input(self.pictures)


@dataclass(frozen=True, slots=True)
class Scenes:
    """Pictures of one to three items each."""

    inputs: Floats  # (n, 1, 64, 64)
    boxes: tuple[Floats, ...]  # of each, (items, 4): left, top, right, bottom, in pixels
    classes: tuple[Integers, ...]  # of each, (items,), places in the list of classes
    masks: Integers  # (n, 64, 64): 0 where nothing is, else class + 1


@dataclass(frozen=True, slots=True)
class Strips:
    """Pictures of rows of digits."""

    inputs: Floats  # (n, 1, 16, 80)
    strings: tuple[tuple[int, ...], ...]  # class of each digit, 1 to 10
    centres: tuple[tuple[int, ...], ...]  # column of each digit's centre


def items(split: str) -> Items:
    """Return all pictures of a split, train (2,048) or test (10,000)."""
    with np.load(PICTURES, allow_pickle=False) as arrays:
        return Items(arrays[f"{split}_images"], arrays[f"{split}_labels"])


def scenes(source: Items, classes: Sequence[int], count: int, rng: np.random.Generator) -> Scenes:
    """Return scenes whose items do not overlap, with noise and a background of changing brightness.

    Args:
        source: What items are taken from.
        classes: Labels of the items to take.
        count: Scenes.
        rng: Of what is where.
    """
    usable = np.flatnonzero(np.isin(source.labels, classes))
    pictures = np.zeros((count, SIDE, SIDE), np.float32)
    masks = np.zeros((count, SIDE, SIDE), np.int64)
    all_boxes, all_classes = [], []
    for index in range(count):
        boxes: list[tuple[int, int, int, int]] = []
        found: list[int] = []
        for _ in range(int(rng.integers(1, 4))):
            chosen = int(rng.choice(usable))
            item = _resized(source.pictures[chosen], int(rng.integers(20, 31)))
            visible = item > _VISIBLE
            rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
            item = item[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            top, left = (int(rng.integers(0, SIDE - side + 1)) for side in item.shape)
            box = (left, top, left + item.shape[1], top + item.shape[0])
            if any(box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in boxes):
                continue
            place = (index, slice(box[1], box[3]), slice(box[0], box[2]))
            pictures[place] = np.maximum(pictures[place], item)
            masks[place] = np.where(item > _VISIBLE, classes.index(int(source.labels[chosen])) + 1, masks[place])
            boxes.append(box)
            found.append(classes.index(int(source.labels[chosen])))
        all_boxes.append(np.asarray(boxes, dtype=np.float32))
        all_classes.append(np.asarray(found, dtype=np.int64))
    light = rng.uniform(0, 25, size=(count, 1, 1)) + rng.normal(0, 8, size=pictures.shape)
    shown = np.clip(pictures * rng.uniform(0.7, 1.0, size=(count, 1, 1)) + light, 0, 255).astype(np.uint8)
    return Scenes(network_input(shown), tuple(all_boxes), tuple(all_classes), masks)


def strips(count: int, rng: np.random.Generator) -> Strips:
    """Return strips of three to six digits with noise, of changing place, size of gaps and contrast."""
    pictures = np.zeros((count, 1, _HEIGHT, _WIDTH), np.float32)
    strings, centres = [], []
    for index in range(count):
        digits = [int(digit) for digit in rng.integers(0, 10, size=int(rng.integers(3, LONGEST + 1)))]
        left, places = int(rng.integers(0, 5)), []
        for digit in digits:
            glyph = np.asarray([[row >> bit & 1 for bit in range(4, -1, -1)] for row in _GLYPHS[digit]], dtype=np.float32)
            top = int(rng.integers(0, 3))
            pictures[index, 0, top : top + 14, left : left + 10] = glyph.repeat(2, axis=0).repeat(2, axis=1)
            places.append(left + 5)
            left += 10 + int(rng.integers(1, 4))
        strings.append(tuple(digit + 1 for digit in digits))
        centres.append(tuple(places))
    shown = pictures * rng.uniform(0.5, 1.0, size=(count, 1, 1, 1)) + rng.normal(0, 0.15, size=pictures.shape)
    return Strips(shown.astype(np.float32), tuple(strings), tuple(centres))


def _resized(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a square picture at another size, by the nearest pixel."""
    places = (np.arange(side) + 0.5) * len(picture) / side
    chosen = places.astype(np.int64)
    return picture[np.ix_(chosen, chosen)]
