"""What engines keep of detections in several outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from calibration.accuracy.kinds.evidence import Ending, Evidence
from calibration.accuracy.kinds.part import Doubles
from calibration.accuracy.kinds.rows.finding import joint_rows
from calibration.accuracy.kinds.rows.matching import joint_scores
from tests.calibration.accuracy.kinds.rows.test_finding import ORDERED, ROWS, SAMPLES, Array, some_boxes, some_classes, some_scores

FOUND = 5  # detections of a sample; the other rows have scores near 0


def export() -> dict[str, Array]:
    """Return boxes, scores and classes of sorted rows; five of a sample say something."""
    scores = some_scores()
    scores[:, :FOUND] = 0.5 + 0.5 * scores[:, :FOUND]
    scores[:, FOUND:] *= 1e-3
    return {"boxes": some_boxes(), "scores": scores, "classes": some_classes()}


def kept(reference: Mapping[str, Array], output: Mapping[str, Array], ending: Ending = ORDERED) -> Doubles:
    joint = joint_rows([Evidence(name, array, ending) for name, array in reference.items()], {})
    assert joint is not None
    return joint_scores(joint[0], reference, output)


def in_order(arrays: Mapping[str, Array], order: Array) -> dict[str, Array]:
    return {name: array[:, order] for name, array in arrays.items()}


def test_the_float_model_itself_is_perfect_and_nan_is_not() -> None:
    arrays = export()
    assert (kept(arrays, arrays) == 1.0).all()
    broken = {**arrays, "boxes": arrays["boxes"].copy()}
    broken["boxes"][3, 1] = np.nan
    assert kept(arrays, broken)[3] == 0.0
    assert (np.delete(kept(arrays, broken), 3) == 1.0).all()


def test_rows_that_swap_places_are_no_error() -> None:
    arrays = export()
    order = np.concatenate([[1, 0, 2, 4, 3], np.arange(FOUND, ROWS)[::-1]])
    assert kept(arrays, in_order(arrays, order)) == pytest.approx(np.ones(SAMPLES))


def test_ties_and_rows_that_are_there_twice_are_no_error() -> None:
    arrays = export()
    arrays["scores"][:, :FOUND] = 0.75
    arrays["boxes"][:, 1], arrays["classes"][:, 1] = arrays["boxes"][:, 0], arrays["classes"][:, 0]
    assert kept(arrays, in_order(arrays, np.roll(np.arange(ROWS), 3))) == pytest.approx(np.ones(SAMPLES))


def test_what_is_near_nothing_says_next_to_nothing() -> None:
    arrays = export()
    other = {**arrays, "boxes": arrays["boxes"].copy(), "classes": arrays["classes"].copy()}
    other["boxes"][:, FOUND:] += 50.0
    other["classes"][:, FOUND:] += 1
    assert kept(arrays, other).min() > 0.99


@pytest.mark.parametrize("change", ["lost", "class", "far", "paler", "more"])
def test_detections_that_are_lost_or_changed_count(change: str) -> None:
    arrays = export()
    other = {name: array.copy() for name, array in arrays.items()}
    if change == "lost":
        other["scores"][:, 1] = 0.0
    elif change == "class":
        other["classes"][:, 1] += 1
    elif change == "far":
        other["boxes"][:, 1] += 40.0
    elif change == "paler":
        other["scores"][:, :FOUND] *= 0.6
    else:
        other["scores"][:, FOUND] = 0.9
    assert kept(arrays, other).max() < 0.93


def test_boxes_count_by_their_overlap() -> None:
    arrays = export()
    other = {**arrays, "boxes": arrays["boxes"].copy()}
    width = other["boxes"][..., 2] - other["boxes"][..., 0]
    other["boxes"][..., 2] -= 0.2 * width  # overlap 0.8
    assert kept(arrays, other) == pytest.approx(np.full(SAMPLES, (0.8 - 0.5) / 0.45))
    other["boxes"][..., 2] = arrays["boxes"][..., 2] - 0.04 * width
    assert kept(arrays, other) == pytest.approx(np.ones(SAMPLES))


def test_rows_behind_the_number_of_detections_do_not_count_and_the_number_does() -> None:
    arrays = {**export(), "num_detections": np.full(SAMPLES, FOUND, np.int32)}
    arrays["scores"] = some_scores()
    other = {**arrays, "boxes": arrays["boxes"].copy()}
    other["boxes"][:, FOUND:] += 50.0
    assert kept(arrays, other) == pytest.approx(np.ones(SAMPLES))
    assert kept(arrays, {**arrays, "num_detections": np.full(SAMPLES, FOUND - 1, np.int32)}).max() < 1.0


def test_samples_in_which_nothing_is_found_keep_their_scores() -> None:
    arrays = export()
    arrays["scores"] = np.where(np.arange(ROWS) < FOUND, arrays["scores"], -1.0)
    arrays["classes"] = np.where(arrays["scores"] < 0, -1, arrays["classes"])
    arrays["boxes"] = np.where(arrays["scores"][..., None] < 0, -1.0, arrays["boxes"])
    for name in arrays:
        arrays[name][0] = -1
    assert (kept(arrays, arrays) == 1.0).all()
    other = {name: array.copy() for name, array in arrays.items()}
    other["scores"][0, 0], other["classes"][0, 0], other["boxes"][0, 0] = 0.9, 1, np.array([1.0, 1.0, 9.0, 9.0])
    found = kept(arrays, other)
    assert found[0] == 0.0
    assert found[1:] == pytest.approx(np.ones(SAMPLES - 1))


def test_other_outputs_of_the_rows_are_judged_with_them() -> None:
    arrays = {**export(), "keypoints": np.random.default_rng(8).normal(size=(SAMPLES, ROWS, 10))}
    order = np.roll(np.arange(ROWS), 3)
    assert kept(arrays, in_order(arrays, order)) == pytest.approx(np.ones(SAMPLES))
    assert kept(arrays, {**arrays, "keypoints": arrays["keypoints"] + 0.5}).max() < 0.7


def test_scores_of_several_classes_are_detections_each() -> None:
    rng = np.random.default_rng(6)
    arrays = export()
    each = arrays["scores"][..., None] * np.append(np.ones((SAMPLES, ROWS, 1)), rng.uniform(size=(SAMPLES, ROWS, 3)), axis=2)
    reference = {"boxes": arrays["boxes"], "scores": each}
    assert kept(reference, in_order(reference, np.roll(np.arange(ROWS), 7))) == pytest.approx(np.ones(SAMPLES))
    assert kept(reference, {**reference, "scores": each[..., ::-1]}).max() < 0.95


def test_boxes_of_no_known_form_are_compared_by_columns() -> None:
    arrays = {**export(), "boxes": np.random.default_rng(1).normal(size=(SAMPLES, ROWS, 4))}
    assert kept(arrays, in_order(arrays, np.roll(np.arange(ROWS), 3))) == pytest.approx(np.ones(SAMPLES))
    assert kept(arrays, {**arrays, "boxes": arrays["boxes"] + 0.5}).max() < 0.95
