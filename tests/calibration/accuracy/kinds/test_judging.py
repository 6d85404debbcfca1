"""The worst reading of each sample counts: what each measure sees, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy.kinds.evidence import Ending, Evidence
from calibration.accuracy.kinds.judging import output_scores
from calibration.accuracy.kinds.part import Array, Doubles, JudgedOutput
from calibration.accuracy.kinds.table import judged_output
from calibration.accuracy.measures.classes import agreement
from calibration.accuracy.measures.values import cosine
from calibration.accuracy.metrics import OutputKind
from tests.calibration.accuracy.kinds.test_table import LINEAR, detections, sigmoid, softmax

RNG = np.random.default_rng(5)
TOKENS = Ending("MatMul", 2, is_linear=True)
DETECTED = Ending("GatherElements", selects=True)


def scores(judged: JudgedOutput, reference: Array, output: Array, **inputs: Array) -> Doubles:
    return output_scores(judged, reference, output, inputs)


def leading(samples: int = 32, width: int = 96) -> Doubles:
    """Return vectors of which one number leads, as in a trained embedding."""
    rows = RNG.normal(size=(samples, width)) * 0.1
    rows[:, 5] += 3.0
    return rows


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_an_embedding_that_ends_in_a_linear_layer_is_not_judged_by_agreement_alone(scale: float) -> None:
    rows = leading() * scale
    changed = rows + RNG.normal(size=rows.shape) * 0.05 * scale
    assert (agreement(rows, changed) == 1.0).all()
    assert (cosine(rows, changed) > 0.97).all()  # which the large part in common holds up
    found = scores(judged_output(Evidence("y", rows, LINEAR, 1)), rows, changed)
    assert found.mean() < 0.9
    kept = rows + RNG.normal(size=rows.shape) * 1e-4 * scale
    assert scores(judged_output(Evidence("y", rows, LINEAR, 1)), rows, kept).min() > 0.99


def test_classes_that_end_in_a_linear_layer_are_not_judged_by_cosine_alone() -> None:
    rows = RNG.normal(size=(32, 400)) * 0.01
    rows[:, :2] += 5.0
    changed = rows.copy()
    changed[:, 0] += np.where(np.arange(32) < 8, rows[:, 1] - rows[:, 0] - 1e-3, 0) * (rows[:, 0] > rows[:, 1])
    flipped = (rows.argmax(1) != changed.argmax(1)).mean()
    assert flipped > 0
    assert cosine(rows, changed).min() > 0.9999
    assert scores(judged_output(Evidence("y", rows, LINEAR, 1)), rows, changed).mean() <= 1 - flipped


@pytest.mark.parametrize("evidence", [("logits", TOKENS), ("y", TOKENS)])
@pytest.mark.parametrize("moved", [False, True])
def test_tokens_are_judged_by_their_labels(evidence: tuple[str, Ending], moved: bool) -> None:
    rows = RNG.normal(size=(16, 20, 6)) + np.array([30.0, 30.0, 0, 0, 0, 0])  # a level in common is most of the cosine
    changed = rows.copy()
    changed[:, 3, :2] = changed[:, 3, 1::-1]
    reference, output = (np.moveaxis(values, 2, 1) if moved else values for values in (rows, changed))
    name, ending = evidence
    judged = judged_output(Evidence(name, reference, ending, 1 if moved else 2))
    assert cosine(rows, changed).min() > 0.99
    found = scores(judged, reference, output)
    assert found.max() <= 0.95 + 1e-12  # one label of twenty
    assert (found == pytest.approx(0.95)) is judged.is_certain  # where they may be values, these count too


def test_ctc_frames_behind_a_transpose_count_as_frames() -> None:
    frames = RNG.normal(size=(16, 25, 8)) * 4
    changed = frames.copy()
    changed[:4, 0] = -changed[:4, 0]
    judged = judged_output(Evidence("y", frames, Ending("MatMul", 2, is_linear=True, is_moved=True), 2))
    assert OutputKind.LOGITS in judged.kinds
    assert scores(judged, frames, changed)[:4].max() <= 0.96
    assert (scores(judged, frames, changed)[4:] == 1.0).all()


@pytest.mark.parametrize("name", ["attention_mask", "lengths"])
def test_positions_that_an_input_takes_out_do_not_count(name: str) -> None:
    rows = RNG.normal(size=(16, 20, 6)) * 3
    lengths = RNG.integers(5, 15, 16)
    given = (np.arange(20) < lengths[:, None]).astype(np.int64) if name == "attention_mask" else lengths
    beyond = rows.copy()
    beyond[np.arange(20) >= lengths[:, None]] *= -1
    judged = judged_output(Evidence("y", rows, TOKENS, 2))
    assert scores(judged, rows, beyond).max() < 0.8
    labels = judged_output(Evidence("logits", rows, TOKENS, 2))
    assert (scores(judged, rows, beyond, **{name: given}) == 1.0).all()
    inside = rows.copy()
    inside[:, 0] *= -1
    assert scores(labels, rows, inside, **{name: given}) == pytest.approx(1 - 1 / lengths, abs=1e-12)
    assert (scores(judged, rows, inside, **{name: given}) <= 1 - 1 / lengths + 1e-12).all()


@pytest.mark.parametrize("classed", [False, True])
def test_rows_that_swap_places_are_kept_and_lost_ones_are_not(classed: bool) -> None:
    rows = detections(12)
    rows[:, 4:, 4] = 1e-3 * rows[:, 4:, 4]  # four detections a sample
    if classed:
        rows = np.concatenate([rows, RNG.integers(0, 3, size=(12, 10, 1))], axis=2)
    judged = judged_output(Evidence("y", rows, DETECTED))
    swapped = rows.copy()
    swapped[:, 4:] = rows[:, :3:-1]
    assert cosine(rows, swapped).mean() < 0.95
    assert scores(judged, rows, swapped).min() > 0.999
    lost = rows.copy()
    lost[:, 1] = lost[:, 9]
    assert scores(judged, rows, lost).max() < 0.95
    paler = rows.copy()
    paler[:, :, 4] *= 0.6
    assert scores(judged, rows, paler).max() < 0.9


def test_a_detection_of_another_class_is_another_detection() -> None:
    rows = np.concatenate([detections(12), np.ones((12, 10, 1))], axis=2)
    rows[:, ::2, 5] = 2.0
    other = rows.copy()
    other[:, 0, 5] = 3.0 - other[:, 0, 5]
    judged = judged_output(Evidence("y", rows, DETECTED))
    assert scores(judged, rows, other).max() < 0.95


@pytest.mark.parametrize("bias", [(4.5, -1.0), (8.0, 0.0, 0.0)])
def test_samples_of_one_class_are_judged_by_the_change_of_the_score_too(bias: tuple[float, ...]) -> None:
    z = RNG.normal(size=(48, len(bias))) + np.array(bias)
    p, q = softmax(z, 1), softmax(z * 0.5, 1)
    assert (agreement(p, q) == 1.0).all()
    judged = judged_output(Evidence("y", p, Ending("Softmax", 1), 1))
    assert scores(judged, p, q) == pytest.approx(1 - np.abs(p - q).max(axis=1), abs=1e-12)
    named = judged_output(Evidence("logits", z, LINEAR, 1))
    assert scores(named, z, z * 0.5) == pytest.approx(1 - np.abs(p - q).max(axis=1), abs=1e-9)


def test_scores_beside_boxes_are_judged_by_themselves() -> None:
    rows = np.moveaxis(detections(16), 1, 2)
    judged = judged_output(Evidence("output0", rows))
    changed = rows.copy()
    changed[:, 4] *= 0.55
    assert cosine(rows, changed).min() > 0.9999
    assert scores(judged, rows, changed).max() < 0.7
    moved = rows.copy()
    moved[:, 0] += 6.0  # pixels of 64
    assert scores(judged, rows, moved) == pytest.approx(np.full(16, 1 - 6 / (rows[:, 0].max() - rows[:, 0].min())), abs=1e-9)


def test_boxes_are_judged_by_the_worst_column_in_its_own_unit() -> None:
    rows = RNG.uniform(size=(32, 4)) * np.array([640.0, 640.0, 1.0, 1.0])
    changed = rows + np.array([0.0, 0.0, 0.2, 0.0])
    assert cosine(rows, changed).min() > 0.99
    assert scores(judged_output(Evidence("boxes", rows, LINEAR, 1)), rows, changed).max() < 0.85
    assert scores(judged_output(Evidence("y", rows, LINEAR, 1)), rows, changed).max() < 0.85


@pytest.mark.parametrize("name", ["boxes", "y"])
def test_a_constant_column_is_judged_by_its_own_size_and_not_by_how_it_rounds(name: str) -> None:
    rows = np.concatenate([RNG.normal(size=(32, 3)), np.full((32, 1), 0.75)], axis=1)
    judged = judged_output(Evidence(name, rows, LINEAR, 1))
    rounded = rows + np.array([0.0, 0.0, 0.0, 1e-6])
    wrong = rows + np.array([0.0, 0.0, 0.0, 0.25])
    assert scores(judged, rows, rounded).min() > 0.99999
    assert scores(judged, rows, wrong).max() < 0.9


def test_a_map_is_judged_by_its_spread_and_not_by_the_level_that_all_have() -> None:
    depth = 10.0 + RNG.normal(size=(16, 1, 12, 12)) * 0.2
    changed = depth + RNG.normal(size=depth.shape) * 0.1
    assert cosine(depth, changed).min() > 0.9999
    assert scores(judged_output(Evidence("depth", depth, Ending("Relu"))), depth, changed).max() < 0.95


def test_a_quiet_channel_is_judged_beside_a_loud_one() -> None:
    both = RNG.normal(size=(16, 2, 300)) * np.array([100.0, 0.1])[:, None]
    changed = both.copy()
    changed[:, 1] = 0
    assert scores(judged_output(Evidence("y", both, Ending("Tanh"))), both, changed).max() < 0.6


def test_a_silent_sample_is_judged_by_the_spread_of_all() -> None:
    audio = RNG.normal(size=(16, 400))
    audio[3] *= 1e-4
    changed = audio + RNG.normal(size=audio.shape) * 1e-3
    assert scores(judged_output(Evidence("audio", audio, Ending("Tanh"))), audio, changed).min() > 0.9999


def test_decisions_of_several_labels_count() -> None:
    p = sigmoid(RNG.normal(size=(32, 6)) * 4)
    q = np.where((p > 0.5) & (np.arange(6) == 0), 0.49, p)
    found = scores(judged_output(Evidence("y", p, Ending("Sigmoid"))), p, q)
    assert (found[p[:, 0] > 0.5] < 0.9).all()
    assert (found[p[:, 0] <= 0.5] == 1.0).all()


def test_one_number_on_both_sides_of_zero_may_be_a_decision() -> None:
    z = np.linspace(-3, 3, 31)[:, None]
    z[15] = 0.05
    changed = z.copy()
    changed[15] = -0.05
    found = scores(judged_output(Evidence("y", z, LINEAR, 1)), z, changed)
    assert found[15] == 0.0
    assert np.delete(found, 15).min() == 1.0


def test_what_is_masked_alike_is_not_judged() -> None:
    values = RNG.normal(size=(8, 12, 3))
    values[:, 7:] = -np.inf
    changed = values + np.where(np.isinf(values), 0.0, 1e-6)
    assert scores(judged_output(Evidence("y", values, Ending("Add"))), values, changed).min() > 0.999
    changed[2, 7] = 0.0
    assert scores(judged_output(Evidence("y", values, Ending("Add"))), values, changed)[2] < 0.5
