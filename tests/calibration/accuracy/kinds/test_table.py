"""What tells a kind: the operator behind an output, its name, its shape and its values."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy.kinds.evidence import Ending, Evidence
from calibration.accuracy.kinds.part import SAID, Doubles, Part
from calibration.accuracy.kinds.table import EVIDENCE, KINDS, judged_output, part_scores
from calibration.accuracy.metrics import OutputKind
from calibration.errors import InvalidConfigError

RNG = np.random.default_rng(3)
ROWS = RNG.normal(size=(24, 12))
LINEAR = Ending("Gemm", 1, is_linear=True)
LOGITS, EMBEDDING, REGRESSION, VALUES = OutputKind.LOGITS, OutputKind.EMBEDDING, OutputKind.REGRESSION, OutputKind.VALUES
SCORES, PROBABILITIES, DETECTIONS, LABELS = OutputKind.SCORES, OutputKind.PROBABILITIES, OutputKind.DETECTIONS, OutputKind.LABELS


def softmax(values: Doubles, axis: int) -> Doubles:
    raised = np.exp(values)
    return np.asarray(raised / raised.sum(axis=axis, keepdims=True))


def sigmoid(values: Doubles) -> Doubles:
    return np.asarray(1 / (1 + np.exp(-values)))


def detections(samples: int = 24) -> Doubles:
    """Return rows of boxes in pixels and a score, (samples, 10, 5), sorted by score."""
    boxes = RNG.uniform(0, 64, size=(samples, 10, 4))
    return np.concatenate([boxes, -np.sort(-RNG.uniform(size=(samples, 10, 1)), axis=1)], axis=2)


@pytest.mark.parametrize(
    ("evidence", "kinds"),
    [
        (Evidence("y", np.arange(24)), (LABELS,)),
        (Evidence("y", detections(), Ending("GatherElements", selects=True)), (DETECTIONS,)),
        (Evidence("y", np.concatenate([detections(), np.zeros((24, 10, 1))], axis=2), Ending("Concat", selects=True)), (DETECTIONS,)),
        (Evidence("boxes", RNG.uniform(size=(24, 10, 4)), Ending("GatherElements", selects=True)), (REGRESSION,)),
        (Evidence("y", detections()), (REGRESSION, SCORES)),
        (Evidence("y", np.moveaxis(detections(), 1, 2)), (REGRESSION, SCORES)),
        (Evidence("y", softmax(ROWS, 1), Ending("Softmax", 1), 1), (PROBABILITIES,)),
        (Evidence("y", softmax(RNG.normal(size=(8, 3, 5, 5)), 1)), (PROBABILITIES,)),
        (Evidence("y", np.log(softmax(ROWS, 1)), Ending("LogSoftmax", 1), 1), (LOGITS,)),
        (Evidence("y", ROWS, LINEAR, 1, is_labelled=True), (LOGITS,)),
        (Evidence("y", ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True), LINEAR, 1), (EMBEDDING,)),
        (Evidence("class_logits", ROWS, LINEAR, 1), (LOGITS,)),
        (Evidence("startLogits", ROWS, Ending("Squeeze")), (LOGITS,)),
        (Evidence("image_embeds", ROWS, LINEAR, 1), (EMBEDDING,)),
        (Evidence("bboxes", ROWS[:, :4], LINEAR, 1), (REGRESSION,)),
        (Evidence("landmarks", ROWS[:, :10], LINEAR, 1), (REGRESSION,)),
        (Evidence("y", RNG.normal(size=(8, 3, 5, 5)), Ending("Conv", 1, is_linear=True), 1, ((3, 5, 5),)), (VALUES,)),
        (Evidence("y", sigmoid(ROWS[:, :1]), Ending("Sigmoid")), (SCORES,)),
        (Evidence("y", sigmoid(ROWS[:, :1]), Ending("Mul")), (SCORES, REGRESSION)),
        (Evidence("y", sigmoid(ROWS - 6), Ending("Sigmoid")), (SCORES,)),
        (Evidence("y", sigmoid(ROWS), Ending("Sigmoid")), (SCORES, REGRESSION)),
        (Evidence("y", sigmoid(RNG.normal(size=(8, 1, 5, 5))), Ending("Sigmoid")), (SCORES, VALUES)),
        (Evidence("y", ROWS[:, :1], LINEAR, 1), (REGRESSION,)),
        (Evidence("label_scores", ROWS, LINEAR, 1), (LOGITS,)),
        (Evidence("y", ROWS, LINEAR, 1), (LOGITS, EMBEDDING, REGRESSION)),
        (Evidence("y", RNG.normal(size=(6, 300)), LINEAR, 1), (LOGITS, EMBEDDING)),
        (Evidence("y", RNG.normal(size=(6, 9, 5)), Ending("MatMul", 2, is_linear=True), 2), (LOGITS, VALUES)),
        (Evidence("y", RNG.normal(size=(6, 5, 9)), Ending("MatMul", 1, is_linear=True, is_moved=True), 1), (LOGITS, VALUES)),
        (Evidence("y", np.maximum(ROWS, 0), Ending("Relu")), (REGRESSION, VALUES)),
        (Evidence("depth", np.exp(RNG.normal(size=(6, 1, 9, 9))), Ending("Exp")), (VALUES,)),
        (Evidence("audio", RNG.normal(size=(6, 400)), Ending("Tanh")), (VALUES,)),
    ],
)
def test_evidence_tells_the_kinds(evidence: Evidence, kinds: tuple[OutputKind, ...]) -> None:
    found = judged_output(evidence)
    assert found.kinds == kinds
    assert found.is_certain is (len(kinds) == 1 or found.is_mixed)


@pytest.mark.parametrize("kind", [LOGITS, EMBEDDING, REGRESSION, VALUES])
def test_the_users_word_settles_what_a_linear_layer_leaves_open(kind: OutputKind) -> None:
    found = judged_output(Evidence("y", ROWS, LINEAR, 1), kind)
    assert (found.kinds, found.why, found.is_certain) == ((kind,), SAID, True)
    assert "says otherwise" not in found.sentence


def test_a_kind_that_an_output_cannot_be_is_refused() -> None:
    scores = Evidence("scores", np.random.default_rng(1).random((12, 4)))
    with pytest.raises(InvalidConfigError, match=r"outputs\.scores: found detections, expected a kind that it can be: \[4\] values"):
        judged_output(scores, OutputKind.DETECTIONS)


def test_a_line_says_the_kinds_why_and_the_key_that_changes_them() -> None:
    assert judged_output(Evidence("y", softmax(ROWS, 1))).sentence == (
        "output 'y' is taken for probabilities (its rows sum to 1); outputs: {\"y\": KIND} says otherwise"
    )
    mixed = judged_output(Evidence("y", detections())).sentence
    assert "is taken for regression beside scores (some of its columns lie in 0..1" in mixed
    assert (
        "both must keep the budget"
        in judged_output(Evidence("y", ROWS[:, :, None] * np.ones(4), Ending("Conv", 1, is_linear=True), 1)).sentence
    )


def test_classes_lie_on_the_axis_that_the_structure_or_the_values_tell() -> None:
    by_values = judged_output(Evidence("y", softmax(RNG.normal(size=(8, 3, 5, 5)), 1))).parts[0]
    by_structure = judged_output(Evidence("y", RNG.normal(size=(8, 3, 5, 5)), Ending("Conv", 1, is_linear=True), 1)).parts[0]
    assert (by_values.axis, by_structure.axis) == (1, 1)
    assert (
        judged_output(Evidence("y", RNG.normal(size=(8, 9, 3)), Ending("MatMul", 2, is_linear=True), 2)).parts[0].axis is None
    )  # the last


@pytest.mark.parametrize(("classes", "judged"), [(2, True), (5, False)])
def test_agreement_of_two_classes_is_not_all_that_counts(classes: int, judged: bool) -> None:
    (part,) = judged_output(Evidence("y", softmax(ROWS[:, :classes], 1))).parts
    assert part.judges_change is judged


def test_agreement_of_samples_of_one_class_is_not_all_that_counts() -> None:
    (part,) = judged_output(Evidence("y", softmax(ROWS[:, :5] + np.array([9.0, 0, 0, 0, 0]), 1))).parts
    assert part.judges_change


def test_every_kind_but_ignore_is_in_the_table_and_every_row_is_of_these() -> None:
    assert set(KINDS) == set(OutputKind) - {OutputKind.IGNORE}
    assert {kind for row in EVIDENCE for kind in row.kinds} <= set(KINDS)
    assert EVIDENCE[-1].holds(Evidence("y", ROWS))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (LABELS, DETECTIONS)])
@pytest.mark.parametrize("shape", [(6, 1), (6, 5), (6, 7, 5), (6, 3, 4, 4)])
def test_the_reference_itself_is_perfect_and_nan_is_not(kind: OutputKind, shape: tuple[int, ...]) -> None:
    values = softmax(RNG.normal(size=shape), -1) if kind in (PROBABILITIES, SCORES) else RNG.normal(size=shape)
    for part in KINDS[kind].parts(Evidence("y", values)):
        assert (part_scores(part, values, values) == 1.0).all()
        broken = values.copy()
        broken[2] = np.nan
        found = part_scores(part, values, broken)
        assert found[2] <= 0.0
        assert (np.delete(found, 2) == 1.0).all()


def test_a_part_of_some_places_reads_these_alone() -> None:
    part = Part(SCORES, 1, (1, 3))
    assert part.of(ROWS).shape == (24, 2)
    assert (part.in_columns(ROWS)[:, 0] == ROWS[:, [1, 3]]).all()
