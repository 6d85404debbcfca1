"""Which outputs are detections together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.accuracy.kinds.evidence import Ending, Evidence
from calibration.accuracy.kinds.part import SAID, JointRows
from calibration.accuracy.kinds.rows.finding import joint_rows
from calibration.accuracy.measures.options import BoxFormat
from calibration.accuracy.metrics import OutputKind

Array = NDArray[Any]
SAMPLES, ROWS = 16, 20
PLAIN = Ending()
ORDERED = Ending("GatherElements", selects=True)
DETECTIONS = OutputKind.DETECTIONS


def some_boxes() -> Array:
    """Return corners in pixels, (samples, rows, 4)."""
    rng = np.random.default_rng(2)
    middle, half = rng.uniform(20, 80, (SAMPLES, ROWS, 2)), rng.uniform(4, 15, (SAMPLES, ROWS, 2))
    return np.concatenate([middle - half, middle + half], axis=2)


def some_scores(*, are_sorted: bool = True) -> Array:
    """Return scores in 0..1, (samples, rows)."""
    scores = np.random.default_rng(3).uniform(size=(SAMPLES, ROWS))
    return -np.sort(-scores, axis=1) if are_sorted else scores


def some_classes() -> Array:
    """Return whole numbers, (samples, rows)."""
    return np.random.default_rng(4).integers(0, 3, (SAMPLES, ROWS))


def outputs(arrays: Mapping[str, Array], ending: Ending = PLAIN) -> list[Evidence]:
    return [Evidence(name, array, ending) for name, array in arrays.items()]


def found(arrays: Mapping[str, Array], ending: Ending = PLAIN, said: Mapping[str, OutputKind] | None = None) -> JointRows | None:
    joint = joint_rows(outputs(arrays, ending), said or {})
    return None if joint is None else joint[0]


EXPORT = {"num_dets": np.full((SAMPLES, 1), 7, np.int32), "boxes": some_boxes(), "scores": some_scores(), "classes": some_classes()}


def test_the_common_export_is_one_detector() -> None:
    rows = found(EXPORT)
    assert rows is not None
    assert (rows.names, rows.count, rows.forms) == (("boxes", "scores", "classes"), "num_dets", (BoxFormat.X1Y1X2Y2,))
    assert set(rows.members) == set(EXPORT)


@pytest.mark.parametrize("order", [("classes", "scores", "boxes"), ("scores", "classes", "boxes")])
def test_names_and_order_of_the_outputs_do_not_matter(order: tuple[str, ...]) -> None:
    named = {f"output_{place}": EXPORT[name] for place, name in enumerate(order)}
    rows = found(named)
    assert rows is not None
    assert rows.names == tuple(f"output_{order.index(name)}" for name in ("boxes", "scores", "classes"))


@pytest.mark.parametrize("shape", [(SAMPLES, 1, ROWS), (SAMPLES, ROWS, 1)])
def test_axes_of_one_and_classes_in_floats_are_taken(shape: tuple[int, ...]) -> None:
    arrays = {"boxes": some_boxes()[:, None], "scores": some_scores().reshape(shape), "labels": some_classes().reshape(shape).astype(float)}
    rows = found(arrays)
    assert rows is not None
    assert rows.names == ("boxes", "scores", "labels")


def test_padding_of_minus_one_and_scores_alone_are_taken() -> None:
    scores = some_scores()
    nothing = scores < 0.4
    arrays = {"boxes": np.where(nothing[..., None], -1.0, some_boxes()), "scores": np.where(nothing, -1.0, scores)}
    rows = found(arrays)
    assert rows is not None
    assert (rows.names, rows.head.is_logits, rows.forms) == (("boxes", "scores"), False, (BoxFormat.X1Y1X2Y2,))


def test_rows_in_places_of_their_own_are_not_taken_together() -> None:
    arrays = {"boxes": some_boxes(), "scores": some_scores(are_sorted=False), "classes": some_classes()}
    assert found(arrays) is None
    assert found(arrays, ORDERED) is not None
    assert found(arrays, Ending(chosen=(ROWS,))) is not None
    assert found(arrays, Ending(chosen=(ROWS + 1,))) is None


def test_few_rows_may_be_in_order_by_chance() -> None:
    arrays = {"boxes": some_boxes()[:3, :3], "scores": some_scores()[:3, :3]}
    assert found(arrays) is None
    assert found(arrays, ORDERED) is not None


def test_scores_of_several_classes_are_sorted_by_the_best() -> None:
    rng = np.random.default_rng(6)
    each = some_scores()[..., None] * np.append(np.ones((SAMPLES, ROWS, 1)), rng.uniform(size=(SAMPLES, ROWS, 3)), axis=2)
    rows = found({"boxes": some_boxes(), "scores": each})
    assert rows is not None
    assert (rows.names, rows.head.classes) == (("boxes", "scores"), None)
    logits = found({"boxes": some_boxes(), "pred_logits": np.log(each / (1.001 - each))})
    assert logits is not None
    assert logits.head.is_logits


def test_the_users_word_puts_them_together_or_apart() -> None:
    arrays = {"boxes": some_boxes(), "scores": some_scores(are_sorted=False)}
    joint = joint_rows(outputs(arrays), {"boxes": DETECTIONS})
    assert joint is not None
    assert joint[1] == SAID
    assert found(EXPORT, said={"boxes": OutputKind.REGRESSION}) is None
    apart = found(EXPORT, said={"classes": OutputKind.LABELS})
    assert apart is not None
    assert apart.names == ("boxes", "scores")


def test_what_is_no_detector_is_left_alone() -> None:
    scores = some_scores()
    assert found({"tokens": np.random.default_rng(1).normal(size=(SAMPLES, ROWS, 9)), "scores": scores}, ORDERED) is None
    assert found({"boxes": some_boxes(), "scores": scores[:, :9]}, ORDERED) is None
    assert found({"boxes": some_boxes()}, ORDERED) is None


def test_other_outputs_of_ordered_rows_belong_to_them() -> None:
    points = np.random.default_rng(8).normal(size=(SAMPLES, ROWS, 10))
    rows = found({**EXPORT, "keypoints": points}, ORDERED)
    assert rows is not None
    assert rows.others == ("keypoints",)
    apart = found({**EXPORT, "keypoints": points})
    assert apart is not None
    assert apart.others == ()
