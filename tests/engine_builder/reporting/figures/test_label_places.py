from __future__ import annotations

import itertools

from engine_builder.reporting.figures.label_places import MARK, Box, free_boxes

ROOM = Box(0.0, 0.0, 200.0, 100.0)
CROWD = [(100.0 + step, 50.0) for step in range(8)]
LABELS = [(index, str(10 + index)) for index in range(len(CROWD))]


def test_labels_of_a_crowd_cover_neither_each_other_nor_a_mark() -> None:
    boxes = [box for box in free_boxes(CROWD, LABELS, ROOM) if box is not None]
    marks = [Box(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in CROWD]
    assert len(boxes) == len(CROWD)
    assert not any(one.meets(other) for one, other in itertools.combinations([*boxes, *marks][: len(boxes)], 2))
    assert not any(box.meets(mark) for box in boxes for mark in marks)


def test_a_label_that_stands_alone_is_right_above_its_point() -> None:
    (box,) = free_boxes([(50.0, 50.0)], [(0, "7")], ROOM)
    assert box is not None
    assert box.left > 50.0
    assert box.bottom > 50.0


def test_a_label_stays_inside_the_axes() -> None:
    (box,) = free_boxes([(199.0, 99.0)], [(0, "12 (0.0975)")], ROOM)
    assert box is not None
    assert box.is_inside(ROOM)


def test_a_label_without_a_free_place_is_left_out_and_the_first_keeps_its_own() -> None:
    small = Box(40.0, 40.0, 60.0, 62.0)
    found = free_boxes([(50.0, 50.0)] * 9, [(index, "12") for index in range(9)], small)
    assert found[0] is not None
    assert found[-1] is None
