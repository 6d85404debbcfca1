"""The loss of an output that is judged in parts: a sum, each part in units of its own spread."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy.kinds.evidence import Ending, Evidence
from calibration.accuracy.kinds.part import Array, Doubles, JudgedOutput
from calibration.accuracy.kinds.table import judged_output
from calibration.accuracy.measures.values import WORST_LOSS
from calibration.accuracy.metrics import OutputKind
from calibration.sensitivity.task_losses import losses, whitened
from tests.calibration.accuracy.kinds.test_table import LINEAR, detections, sigmoid

RNG = np.random.default_rng(7)


def loss(judged: JudgedOutput, reference: Array, output: Array) -> float:
    return float(losses([judged.parts], [reference], [output]).mean())


def heads(scale: float) -> Doubles:
    """Return boxes in pixels beside scores, (samples, 6, places)."""
    boxes, scores = RNG.normal(size=(16, 4, 30)) * scale, sigmoid(RNG.normal(size=(16, 2, 30)))
    return np.concatenate([boxes, scores], axis=1)


@pytest.mark.parametrize("scale", [100.0, 10_000.0])
def test_scores_are_not_drowned_by_boxes(scale: float) -> None:
    rows = heads(scale)
    judged = judged_output(Evidence("y", rows))
    units = rows.std(axis=(0, 2))[None, :, None]
    boxes, scores = (rows + 0.1 * units * RNG.normal(size=rows.shape) * mask for mask in np.eye(2)[:, [0, 0, 0, 0, 1, 1], None])
    assert loss(judged, rows, boxes) == pytest.approx(0.01, rel=0.2)  # 480 draws of a square
    assert loss(judged, rows, scores) == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize(
    "judged",
    [
        judged_output(Evidence("y", heads(100.0))),
        judged_output(Evidence("boxes", RNG.normal(size=(16, 4)) * np.array([1, 10, 100, 1000]), LINEAR, 1)),
        judged_output(Evidence("y", detections(16), Ending("GatherElements", selects=True))),
        judged_output(Evidence("y", sigmoid(RNG.normal(size=(16, 1))), Ending("Sigmoid"))),
    ],
    ids=["mixed", "boxes", "detections", "score"],
)
def test_the_whitened_difference_is_the_root_of_the_loss(judged: JudgedOutput) -> None:
    shapes = {4: (16, 4), 1: (16, 1)}
    reference = {OutputKind.DETECTIONS: detections(16)}.get(judged.kinds[0])
    if reference is None:
        reference = heads(100.0) if judged.is_mixed else RNG.uniform(size=shapes[4 if judged.name == "boxes" else 1])
    output = reference + 1e-4 * RNG.normal(size=reference.shape)
    e = whitened([judged.parts], [reference], [output]).astype(np.float64)
    # float32 keeps seven digits of each e
    assert (e**2).sum(axis=1) == pytest.approx(losses([judged.parts], [reference], [output]), rel=1e-5)


def test_readings_that_are_open_add_up() -> None:
    rows = RNG.normal(size=(16, 5))
    judged = judged_output(Evidence("y", rows, LINEAR, 1))
    changed = rows + 0.01 * RNG.normal(size=rows.shape)
    alone = [float(losses([(part,)], [rows], [changed]).mean()) for part in judged.parts]
    assert len(alone) == 3
    assert loss(judged, rows, changed) == pytest.approx(sum(alone), rel=1e-12)
    plain = float(losses([OutputKind.LOGITS], [rows], [changed]).mean())
    assert alone[0] == pytest.approx(plain, rel=1e-12)


def test_classes_on_another_axis_are_compared_along_it() -> None:
    maps = RNG.normal(size=(4, 3, 6, 6))
    changed = maps + 0.1 * RNG.normal(size=maps.shape)
    judged = judged_output(Evidence("seg_logits", maps, Ending("Conv", 1, is_linear=True), 1))
    last = [np.moveaxis(values, 1, -1) for values in (maps, changed)]
    assert losses([judged.parts], [maps], [changed]) == pytest.approx(losses([OutputKind.LOGITS], last[:1], last[1:]), rel=1e-12)


def test_rows_that_swap_places_are_no_loss_and_a_lost_detection_is() -> None:
    rows = detections(16)
    judged = judged_output(Evidence("y", rows, Ending("GatherElements", selects=True)))
    assert loss(judged, rows, rows[:, ::-1]) == pytest.approx(0.0, abs=1e-12)
    lost = rows.copy()
    lost[:, 0, 4] = 0.0
    assert loss(judged, rows, lost) > 0.01


def test_an_engine_that_is_not_finite_is_the_worst() -> None:
    rows = heads(100.0)
    broken = rows.copy()
    broken[3, 4, 2] = np.nan
    found = losses([judged_output(Evidence("y", rows)).parts], [rows], [broken])
    assert found[3] == WORST_LOSS
    assert (np.delete(found, 3) == 0.0).all()
