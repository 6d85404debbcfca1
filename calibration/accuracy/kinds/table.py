"""The table of kinds: in the order of how much their evidence settles, and how each is read, measured and named.

1. The user's word (``outputs``) settles it.
2. The first row with evidence settles it, but for rows that leave it open: there each kind named is judged, and the worst counts, since a
   wrong guess may cost speed, never truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from calibration.accuracy.kinds import classes, columns, embedding
from calibration.accuracy.kinds.classes import class_parts, class_scores, is_one_row
from calibration.accuracy.kinds.columns import column_parts, column_scores
from calibration.accuracy.kinds.detections import detection_parts, detection_scores
from calibration.accuracy.kinds.embedding import embedding_parts, embedding_scores
from calibration.accuracy.kinds.evidence import Evidence, of_rows
from calibration.accuracy.kinds.mixed import mixed_parts
from calibration.accuracy.kinds.part import SAID, Array, Booleans, Doubles, JointRows, JudgedOutput, Part, spread_of
from calibration.accuracy.kinds.scores import score_parts, score_scores
from calibration.accuracy.kinds.values import value_parts, value_scores
from calibration.accuracy.metrics import OutputKind
from calibration.errors import InvalidConfigError

Measure = Callable[[Part, Array, Array, Booleans | None], Doubles]

MOST_COLUMNS = 256  # of one row that may be numbers of units of their own
RARE = 0.25  # a score that is never above is that of a label which these samples do not have


@dataclass(frozen=True, slots=True)
class KindSpec:
    """How a kind is read and measured."""

    parts: Callable[[Evidence], tuple[Part, ...]]
    measure: Measure
    words: str  # of the measure


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """A row of evidence."""

    why: str  # in words that follow the kinds
    holds: Callable[[Evidence], bool]
    kinds: tuple[OutputKind, ...]  # several: the evidence leaves them open, or they are parts of one output

    def read(self, evidence: Evidence) -> tuple[Part, ...]:
        """Return the parts, none where the row does not hold."""
        return tuple(part for kind in self.kinds for part in KINDS[kind].parts(evidence)) if self.holds(evidence) else ()


def _label_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    same = (reference == output).reshape(len(reference), -1)
    weight = classes.weights_of(counted, same.shape[1], len(same))
    return np.asarray((same * weight).sum(axis=1) / weight.sum(axis=1), dtype=np.float64)


_CLASS_WORDS = "best class kept; of two classes, or samples of one, 1 - change of the probability too"
KINDS: Mapping[OutputKind, KindSpec] = {
    OutputKind.LABELS: KindSpec(lambda evidence: (Part(OutputKind.LABELS),), _label_scores, "share of labels kept"),
    OutputKind.PROBABILITIES: KindSpec(lambda evidence: class_parts(OutputKind.PROBABILITIES, evidence), class_scores, _CLASS_WORDS),
    OutputKind.LOGITS: KindSpec(lambda evidence: class_parts(OutputKind.LOGITS, evidence), class_scores, _CLASS_WORDS),
    OutputKind.DETECTIONS: KindSpec(detection_parts, detection_scores, "F1 of matched rows, each counted by its score"),
    OutputKind.SCORES: KindSpec(score_parts, score_scores, "decisions at 0.5 and 1 - change of the score"),
    OutputKind.REGRESSION: KindSpec(column_parts, column_scores, "1 - error of the worst column in units of what it spans"),
    OutputKind.EMBEDDING: KindSpec(embedding_parts, embedding_scores, "cosine, about zero and about the mean"),
    OutputKind.VALUES: KindSpec(value_parts, value_scores, "1 - squared error in units of the spread of each channel / 2, and cosine"),
}
_L, _E, _R, _V, _S = OutputKind.LOGITS, OutputKind.EMBEDDING, OutputKind.REGRESSION, OutputKind.VALUES, OutputKind.SCORES


def _is_like_an_input(one: Evidence) -> bool:
    is_picture = not one.is_within_one or 3 in (one.shape[0], one.shape[-1])
    return one.shape in one.input_shapes and of_rows(one.shape) >= (3 if one.ending.is_linear else 2) and is_picture


def _has_rows(one: Evidence) -> bool:
    """Whether there is a row of several values, which classes may be."""
    return one.last_axis is not None


EVIDENCE: tuple[EvidenceRow, ...] = (
    EvidenceRow("it holds whole numbers or truth values", lambda one: one.values.dtype.kind in "iub", (OutputKind.LABELS,)),
    EvidenceRow(
        "a TopK or NMS in the graph puts its rows in order",
        lambda one: one.ending.selects and bool(detection_parts(one)),
        (OutputKind.DETECTIONS,),
    ),
    EvidenceRow(
        "it ends in Softmax", lambda one: one.ending.op_type == "Softmax" and one.sum_axis is not None, (OutputKind.PROBABILITIES,)
    ),
    EvidenceRow("its rows sum to 1", lambda one: one.sum_axis is not None, (OutputKind.PROBABILITIES,)),
    EvidenceRow("it ends in LogSoftmax", lambda one: one.ending.op_type == "LogSoftmax" and _has_rows(one), (_L,)),
    EvidenceRow("it has one row of values for each label of the data", lambda one: one.is_labelled and _has_rows(one), (_L,)),
    EvidenceRow("the labels are numbers, one for each of its values", lambda one: one.has_targets, (_R,)),
    EvidenceRow("its vectors have norm 1", lambda one: one.unit_axis is not None, (_E,)),
    EvidenceRow("its name", lambda one: one.is_called(*classes.NAMES_OF_LOGITS) and _has_rows(one), (_L,)),
    EvidenceRow("its name", lambda one: one.is_called(*embedding.NAMES) and _has_rows(one), (_E,)),
    EvidenceRow("its name", lambda one: one.is_called(*columns.NAMES), (_R,)),
    EvidenceRow("it has the shape of an input", _is_like_an_input, (_V,)),
    EvidenceRow("it ends in Sigmoid, one value a sample", lambda one: one.is_single and one.ending.op_type == "Sigmoid", (_S,)),
    EvidenceRow("one value in 0..1 a sample", lambda one: one.is_single and one.is_within_one, (_S, _R)),
    EvidenceRow(
        "it ends in Sigmoid, and some scores stay below one quarter",
        lambda one: one.ending.op_type == "Sigmoid" and is_one_row(one) and bool(np.min(np.max(one.values, axis=0)) < RARE),
        (_S,),
    ),
    EvidenceRow("one row of values in 0..1 that do not sum to 1", lambda one: is_one_row(one) and one.is_within_one, (_S, _R)),
    EvidenceRow("values in 0..1 that do not sum to 1", lambda one: one.is_within_one and not one.is_single, (_S, _V)),
    EvidenceRow("one number a sample", lambda one: one.is_single, (_R,)),
    EvidenceRow(
        "it ends in a linear layer, and its name",
        lambda one: one.ending.is_linear and one.is_called(*classes.NAMES_OF_CLASSES) and _has_rows(one),
        (_L,),
    ),
    EvidenceRow(
        "a linear layer ends it, with one row a sample: class scores, an embedding or numbers",
        lambda one: one.ending.is_linear and is_one_row(one) and max(one.shape) <= MOST_COLUMNS,
        (_L, _E, _R),
    ),
    EvidenceRow(
        "a linear layer ends it, with one row a sample: class scores or an embedding",
        lambda one: one.ending.is_linear and is_one_row(one),
        (_L, _E),
    ),
    EvidenceRow(
        "a linear layer ends it, with several rows a sample: class scores of each or values",
        lambda one: one.ending.is_linear and _has_rows(one) and (one.class_axis is None or one.values.shape[one.class_axis] > 1),
        (_L, _V),
    ),
    EvidenceRow("few columns of numbers", lambda one: one.values.ndim <= 3 and _has_few_columns(one), (_R, _V)),
    EvidenceRow("nothing tells more", lambda one: True, (_V,)),
)


def _has_few_columns(one: Evidence) -> bool:
    return one.column_axis is not None and one.values.shape[one.column_axis] <= 16


def judged_output(evidence: Evidence, said: OutputKind | None = None) -> JudgedOutput:
    """Return how an output is judged.

    Args:
        evidence: All that is known of it.
        said: The kind that the user says it has, which settles it.

    Raises:
        InvalidConfigError: It cannot be what the user says.
    """
    if said is not None:
        parts = KINDS[said].parts(evidence)
        if not parts:
            raise InvalidConfigError(
                f"outputs.{evidence.name}: found {said}, expected a kind that it can be: {list(evidence.shape)} values a sample are no "
                "rows of columns with a score in 0..1 among them, and no other outputs hold boxes and scores of the same rows",
                fix="Leave it out, or say what the output holds.",
            )
        return JudgedOutput(
            evidence.name, (said,), parts, SAID, is_single=evidence.is_single, decisions=_decisions(evidence), words=KINDS[said].words
        )
    if evidence.values.dtype.kind == "f" and not evidence.ending.selects and (mixed := mixed_parts(evidence)):
        kinds = tuple(part.kind for part in mixed)
        why = "some of its columns lie in 0..1 and the others are far larger"
        return JudgedOutput(evidence.name, kinds, mixed, why, words="; ".join(KINDS[kind].words for kind in kinds))
    row, parts = next((row, parts) for row in EVIDENCE if (parts := row.read(evidence)))
    words = "; ".join(KINDS[kind].words for kind in row.kinds)
    return JudgedOutput(
        evidence.name,
        row.kinds,
        parts,
        row.why,
        is_certain=len(row.kinds) == 1,
        is_single=evidence.is_single,
        decisions=_decisions(evidence),
        words=words,
    )


def judged_together(evidence: Evidence, rows: JointRows, why: str, scores: Array) -> JudgedOutput:
    """Return how an output is judged whose rows are those of others.

    Args:
        evidence: All that is known of it.
        rows: The outputs of these rows, it among them.
        why: What tells it.
        scores: The float model's scores of the rows, (samples, ...).
    """
    parts = judged_output(evidence).parts  # the loss of probes, where rows are not matched in it
    samples = len(evidence.values)
    if evidence.name == rows.names[0] and scores.size * 4 == evidence.values.size:
        columns = np.concatenate([one.reshape(samples, scores.size // samples, -1) for one in (evidence.values, scores)], axis=2)
        parts = (Part(OutputKind.DETECTIONS, 2, (4,), tuple(map(float, spread_of(np.asarray(columns, dtype=np.float64))))),)
    *first, last = (f"'{name}'" for name in rows.members if name != evidence.name)
    others = f"{', '.join(first)} and {last}" if first else last
    return JudgedOutput(
        evidence.name,
        (OutputKind.DETECTIONS,),
        parts,
        why if why == SAID else f"with {others}: {why}",
        words="F1 of matched detections, each counted by its score: of one class, with boxes that overlap",
        together=rows,
    )


def _decisions(evidence: Evidence) -> int:
    """Return how many classes are decided for a sample, as far as it holds classes."""
    values = int(np.prod(evidence.shape))
    axis = evidence.sum_axis or evidence.class_axis or evidence.last_axis
    return values if evidence.values.dtype.kind != "f" or axis is None else values // evidence.values.shape[axis]


def part_scores(part: Part, reference: Array, output: Array, counted: Booleans | None = None) -> Doubles:
    """Return the score of each sample by one part, (samples,), at most 1, which is perfect."""
    return KINDS[part.kind].measure(part, reference, output, counted)
