from __future__ import annotations

import numpy as np
import pytest

from benchmarks.kinds.measures import (
    Boxes,
    average_precision,
    characters_kept,
    ctc_strings,
    decisions_kept,
    edit_distance,
    exact_matches,
    mean_iou,
    nearest_neighbours,
    regression_quality,
    suppressed,
)

SQUARE, SHIFTED, FAR = (0.0, 0.0, 10.0, 10.0), (1.0, 0.0, 11.0, 10.0), (50.0, 50.0, 60.0, 60.0)  # IoU of the first two is 9/11


def boxes(*found: tuple[tuple[float, ...], float, int]) -> Boxes:
    corners = np.asarray([corner for corner, _, _ in found], dtype=np.float32).reshape(-1, 4)
    return Boxes(
        corners, np.asarray([score for _, score, _ in found], dtype=np.float32), np.asarray([kind for _, _, kind in found], dtype=np.int64)
    )


def test_all_boxes_found_is_a_precision_of_one() -> None:
    truth = [boxes((SQUARE, 1, 0), (FAR, 1, 1)), boxes()]
    assert average_precision(truth, truth) == 1.0


def test_shifted_box_counts_up_to_its_overlap() -> None:
    # 9/11 = 0.818 is enough for the thresholds 0.5 to 0.8, seven of ten.
    assert average_precision([boxes((SHIFTED, 1, 0))], [boxes((SQUARE, 1, 0))]) == pytest.approx(0.7, abs=1e-12)


def test_surer_wrong_box_halves_precision() -> None:
    assert average_precision([boxes((FAR, 0.9, 0), (SQUARE, 0.8, 0))], [boxes((SQUARE, 1, 0))]) == pytest.approx(0.5, abs=1e-12)


def test_box_found_twice_is_a_hit_and_a_miss() -> None:
    twice = [boxes((SQUARE, 0.9, 0), (SQUARE, 0.8, 0)), boxes((SQUARE, 0.7, 0))]
    truth = [boxes((SQUARE, 1, 0)), boxes((SQUARE, 1, 0))]
    # Recall 0.5 at precision 1 (51 of 101 recalls), then 2 of 3.
    assert average_precision(twice, truth) == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)


def test_wrong_class_is_no_hit() -> None:
    assert average_precision([boxes((SQUARE, 1, 1))], [boxes((SQUARE, 1, 0))]) == 0.0


def test_suppression_keeps_the_surest_of_each_class() -> None:
    kept = suppressed(boxes((SQUARE, 0.5, 0), (SHIFTED, 0.9, 0), (SQUARE, 0.4, 1), (FAR, 0.1, 0)))
    assert sorted(float(score) for score in kept.scores) == pytest.approx([0.1, 0.4, 0.9], abs=1e-6)


def test_mean_iou_is_the_mean_over_classes_that_are_there() -> None:
    found, truth = np.asarray([[0, 0, 1, 1]]), np.asarray([[0, 0, 0, 1]])
    assert mean_iou(found, truth, 3) == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-12)


def test_ctc_merges_repeats_and_drops_blanks() -> None:
    frames = np.eye(4, dtype=np.float32)[[[1, 1, 0, 1, 2, 2, 0, 0]]]
    assert ctc_strings(frames) == [(1, 1, 2)]


@pytest.mark.parametrize(("first", "second", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("same", "same", 0), ("ab", "ba", 2)])
def test_edit_distance(first: str, second: str, edits: int) -> None:
    assert edit_distance([*map(ord, first)], [*map(ord, second)]) == edits


def test_strings_count_whole_and_by_their_characters() -> None:
    found, truth = [(1, 2, 3), (4,)], [(1, 2, 3), (5,)]
    assert (exact_matches(found, truth), characters_kept(found, truth)) == (0.5, 0.75)


def test_nearest_neighbour_is_by_direction() -> None:
    gallery = np.asarray([[100, 0], [1, 1], [0, 0.1]], dtype=np.float32)
    assert nearest_neighbours(np.asarray([[0, 5], [2, 1.9]], dtype=np.float32), gallery).tolist() == [2, 1]


def test_a_sample_keeps_its_decision_where_all_its_scores_do() -> None:
    truth = np.asarray([[0.9, 0.1], [0.6, 0.6]], dtype=np.float32)
    assert decisions_kept(np.asarray([[0.51, 0.49], [0.4, 0.6]], dtype=np.float32), truth) == 0.5


def test_regression_is_as_good_as_its_worst_column() -> None:
    truth = np.asarray([[0, 0], [2, 2000]], dtype=np.float32)
    found = truth + np.asarray([[0.1, 500], [-0.1, 500]], dtype=np.float32)
    assert regression_quality(found, truth) == pytest.approx(0.5, abs=1e-6)  # 500 of a deviation of 1000
