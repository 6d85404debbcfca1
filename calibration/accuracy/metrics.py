"""What an accuracy budget may be stated in: one table, a row a metric, and what is asked of a row.

A new metric is a measure in ``calibration/accuracy/measures/`` and a row in ``Metric``; all else asks the row. A measure that needs a
library of its own loads it when it is first called (``calibration/process/lazy_import.py``), since this table is read by every command.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures import task_measures as tasks
from calibration.accuracy.measures.classes import agreement, kl, top1, top5
from calibration.accuracy.measures.joint import JointMeasure
from calibration.accuracy.measures.token_classes import check_iob2, span_f1, token_f1
from calibration.accuracy.measures.values import IDENTICAL_PSNR, closeness, cosine, nmse, psnr

Array: TypeAlias = NDArray[np.generic]
Scores: TypeAlias = NDArray[np.float64]
Measure: TypeAlias = Callable[[Array, Array, Sequence[str]], Scores]  # (truth, output, names of the classes) -> (samples,)


class OutputKind(enum.StrEnum):
    """What the values of a model's output are."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    VALUES = "values"
    LABELS = "labels"  # whole numbers or truth values that are decisions, such as those of an ArgMax
    SCORES = "scores"  # each in 0..1 by itself: sigmoids
    EMBEDDING = "embedding"
    REGRESSION = "regression"  # numbers in units of their own: boxes, keypoints
    DETECTIONS = "detections"  # rows without an order of their own
    IGNORE = "ignore"


class Truth(enum.StrEnum):
    """What a score compares an output with."""

    REFERENCE = "reference"  # the float model's output
    LABELS = "labels"  # one class index per sample
    TOKEN_LABELS = "token_labels"  # one class index per token
    GIVEN = "given"  # labels of a form of the measure's own where there are any, else the float model's output
    OWN = "own"  # whatever the user's own graph reads, see own_metrics/


class Better(enum.StrEnum):
    """Which of two scores is the better."""

    HIGHER = "higher"
    LOWER = "lower"


class BudgetKey(enum.StrEnum):
    """How a budget may be stated: the keys of the configuration."""

    MIN_RELATIVE = "min_relative"  # share of the float model's score
    MAX_DROP = "max_drop"  # of the score itself
    MIN_SCORE = "min_score"
    MAX_NMSE = "max_nmse"
    MAX_KL = "max_kl"
    MIN_PSNR = "min_psnr"
    MIN_SI_SNR = "min_si_snr"


# Of metrics whose row says MIN_RELATIVE: any of these.
BUDGETS_OF_SCORES = frozenset({BudgetKey.MIN_RELATIVE, BudgetKey.MAX_DROP, BudgetKey.MIN_SCORE})
CLASSES = frozenset({OutputKind.LOGITS, OutputKind.PROBABILITIES, OutputKind.LABELS})
SCORES_OF_CLASSES = CLASSES - {OutputKind.LABELS}


@dataclass(frozen=True, slots=True)
class LossOfDrop:
    """About how much loss (``calibration/sensitivity/task_losses.py``) a small drop from the perfect score is."""

    kinds: frozenset[OutputKind]  # of outputs that this holds for; all that are scored must be of these
    factor: float  # loss for each unit of the drop


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A row of the table: a metric and all that the rest of the code asks of it."""

    words: str  # what a score says, for people: "<metric>: <words>"
    truth: Truth
    measure: Measure | None  # one score a sample of one output; None where ``joint`` or the user's own graph is the measure
    kinds: frozenset[OutputKind] = frozenset(OutputKind)  # of the outputs that it reads, where there are any of these
    better: Better = Better.HIGHER
    perfect: float = 1.0  # the score of an output that is just as it should be
    unit: str = ""  # of a score; without one, scores are shares of 1 and a change of them is what people are told
    budget_key: BudgetKey = BudgetKey.MIN_RELATIVE
    is_real_valued: bool = False  # scores lie between worst and perfect by nature, whatever they are on a few samples
    is_perfect_by_definition: bool = False  # the float model itself scores 1 on every sample, since it is what is compared with
    top: int | None = None  # how many of the best classes the label of a sample may be among, at least 1
    of_single_values: Measure | None = None  # in place of ``measure``, for an output of one value a sample, of which that says nothing
    worst_step: bool = False  # a sequence of steps counts by its worst step, not by the mean of all, unless values are scores in 0..1
    judges_parts: bool = False  # parts of an output of another scale are measured apart, and the worst of them counts
    is_by_kind: bool = False  # each part of each output is measured by what fits its kind (``calibration/accuracy/kinds``)
    loss_of_drop: LossOfDrop | None = None
    check_label_names: Callable[[Sequence[str]], None] | None = None  # refuses names of classes that it cannot use
    joint: JointMeasure | None = None  # in place of ``measure``: one that sees all outputs at once, and takes options

    def __post_init__(self) -> None:
        """Refuse a row that contradicts itself."""
        if (self.truth is Truth.LABELS) != (self.top is not None):
            raise ValueError(f"top: found {self.top} with {self.truth}, expected for {Truth.LABELS} alone")
        if (self.truth is Truth.OWN or self.is_by_kind or self.joint is not None) != (self.measure is None):
            raise ValueError(
                f"measure: expected for all but {Truth.OWN}, joint measures and what is by kind, found {self.measure} with {self.truth}"
            )
        if self.truth is Truth.GIVEN and self.joint is None:
            raise ValueError(f"joint: expected with {Truth.GIVEN}, found none")
        if self.is_perfect_by_definition and self.perfect != 1.0:
            raise ValueError(f"perfect: found {self.perfect} where every score of the float model is 1")

    @property
    def worsening(self) -> str:
        """What scores do where an engine is worse: "drop" or "rise"."""
        return "drop" if self.better is Better.HIGHER else "rise"

    def score_after(self, drop: float) -> float:
        """Return the score that is worse than the perfect one by ``drop``, which is positive where the engine is worse."""
        return self.perfect - drop if self.better is Better.HIGHER else self.perfect + drop

    def worst(self, values: Array) -> Scores:
        """Return the worst score of each sample, (samples,), of those of several outputs or parts, (outputs, samples)."""
        return np.asarray(values.min(axis=0) if self.better is Better.HIGHER else values.max(axis=0), dtype=np.float64)


def unnamed(measure: Callable[[Array, Array], Scores]) -> Measure:
    """Return the measure as one that is told the names of the classes, and does not need them."""

    def measured(truth: Array, output: Array, label_names: Sequence[str]) -> Scores:
        return measure(truth, output)

    return measured


def _task(words: str, joint: JointMeasure, truth: Truth = Truth.GIVEN, *, is_real_valued: bool = True) -> MetricSpec:
    """Return the row of a measure of a whole task, 1 being perfect."""
    is_perfect = truth is Truth.REFERENCE
    return MetricSpec(words, truth, None, is_real_valued=is_real_valued, is_perfect_by_definition=is_perfect, joint=joint)


_BY_CLASS = LossOfDrop(SCORES_OF_CLASSES, 2.0)  # why 2: engine_builder/evaluation/loss_budget.py


class Metric(enum.StrEnum):
    """A score per sample that the accuracy budget is stated in: the name that users write, and its row."""

    spec: MetricSpec

    TOP1 = (
        "top1",
        MetricSpec("the label is the best class", Truth.LABELS, unnamed(top1), kinds=CLASSES, top=1, loss_of_drop=_BY_CLASS),
    )
    TOP5 = (
        "top5",
        MetricSpec("the label is one of the five best classes", Truth.LABELS, unnamed(top5), kinds=CLASSES, top=5, loss_of_drop=_BY_CLASS),
    )
    AGREEMENT = (
        "agreement",
        MetricSpec(
            "the best class is the float model's",
            Truth.REFERENCE,
            unnamed(agreement),
            kinds=CLASSES,
            is_perfect_by_definition=True,
            loss_of_drop=_BY_CLASS,
        ),
    )
    COSINE = (
        "cosine",
        MetricSpec(
            "cosine of the angle to the float model's output",
            Truth.REFERENCE,
            unnamed(cosine),
            is_real_valued=True,
            is_perfect_by_definition=True,
            of_single_values=unnamed(closeness),
            judges_parts=True,
            loss_of_drop=LossOfDrop(frozenset({OutputKind.VALUES}), 2.0),
        ),
    )
    CLOSENESS = (  # of single values: scores, regressions
        "closeness",
        MetricSpec(
            "1 less the largest change of a value, in units of what the float model's values span",
            Truth.REFERENCE,
            unnamed(closeness),
            is_real_valued=True,
            is_perfect_by_definition=True,
            worst_step=True,
        ),
    )
    FIDELITY = (
        "fidelity",
        MetricSpec(
            "the worst part of each sample's outputs, each by what fits its kind; 1 is the float model's own",
            Truth.REFERENCE,
            None,
            is_real_valued=True,
            is_perfect_by_definition=True,
            is_by_kind=True,
            loss_of_drop=LossOfDrop(frozenset(OutputKind), 2.0),
        ),
    )
    NMSE = (
        "nmse",
        MetricSpec(
            "squared error over the float model's squared norm",
            Truth.REFERENCE,
            unnamed(nmse),
            better=Better.LOWER,
            perfect=0.0,
            budget_key=BudgetKey.MAX_NMSE,
            is_real_valued=True,
            judges_parts=True,
            loss_of_drop=LossOfDrop(frozenset({OutputKind.VALUES}), 1.0),
        ),
    )
    PSNR = (
        "psnr",
        MetricSpec(
            "peak signal-to-noise ratio in decibels, the float model's output being the signal",
            Truth.REFERENCE,
            unnamed(psnr),
            perfect=IDENTICAL_PSNR,
            unit="dB",
            budget_key=BudgetKey.MIN_PSNR,
            is_real_valued=True,
        ),
    )
    KL = (
        "kl",
        MetricSpec(
            "divergence KL(float model || engine) of the distributions over classes or next tokens, in nats",
            Truth.REFERENCE,
            unnamed(kl),
            kinds=SCORES_OF_CLASSES,
            better=Better.LOWER,
            perfect=0.0,
            budget_key=BudgetKey.MAX_KL,
            is_real_valued=True,
            loss_of_drop=LossOfDrop(SCORES_OF_CLASSES, 1.0),
        ),
    )
    TOKEN_F1 = (
        "token_f1",
        MetricSpec("F1 over the tokens", Truth.TOKEN_LABELS, token_f1, kinds=CLASSES, is_real_valued=True, loss_of_drop=_BY_CLASS),
    )
    SPAN_F1 = (
        "span_f1",
        MetricSpec(
            "F1 over the spans that the classes of tokens name",
            Truth.TOKEN_LABELS,
            span_f1,
            kinds=CLASSES,
            is_real_valued=True,
            loss_of_drop=_BY_CLASS,
            check_label_names=check_iob2,
        ),
    )
    DECISIONS = (
        "decisions",
        _task("share of decisions at a threshold that are right", tasks.DECISIONS, is_real_valued=False),
    )
    AVERAGE_PRECISION = "average_precision", _task("average precision of a picture's detections", tasks.AVERAGE_PRECISION)
    DETECTIONS = "detections", _task("F1 of a picture's detections, the float model's being right", tasks.DETECTIONS, Truth.REFERENCE)
    MEAN_IOU = "mean_iou", _task("mean IoU of a picture's classes", tasks.MEAN_IOU)
    EXACT_MATCH = "exact_match", _task("the classes of all tokens are right", tasks.EXACT_MATCH, is_real_valued=False)
    EDIT_SIMILARITY = "edit_similarity", _task("1 less the edit distance of token sequences", tasks.EDIT_SIMILARITY)
    CTC_EXACT_MATCH = "ctc_exact_match", _task("the decoded text is right", tasks.CTC_EXACT_MATCH, is_real_valued=False)
    CTC_EDIT_SIMILARITY = "ctc_edit_similarity", _task("1 less the edit distance of decoded texts", tasks.CTC_EDIT_SIMILARITY)
    RETRIEVAL = "retrieval", _task("share of the float model's nearest neighbours that are found", tasks.RETRIEVAL, Truth.REFERENCE)
    REGRESSION = "regression", _task("1 less the error in units of the data's spread", tasks.REGRESSION)
    R2 = "r2", _task("coefficient of determination", tasks.R2)
    SSIM = "ssim", _task("structural similarity of pictures", tasks.SSIM)
    SI_SNR = (
        "si_snr",
        MetricSpec(
            "scale-invariant signal-to-noise ratio in decibels, the float model's output being the signal",
            Truth.REFERENCE,
            None,
            perfect=IDENTICAL_PSNR,
            unit="dB",
            budget_key=BudgetKey.MIN_SI_SNR,
            is_real_valued=True,
            joint=tasks.SI_SNR,
        ),
    )
    CUSTOM = "custom", MetricSpec("the metric model that comes with the job", Truth.OWN, None)

    def __new__(cls, value: str, *row: MetricSpec) -> Self:
        """Make a member of its name and its row; a name alone looks a member up, as for every enum."""
        member = str.__new__(cls, value)
        member._value_ = value
        (member.spec,) = row
        return member

    @property
    def needs_labels(self) -> bool:
        """Whether the score compares with labels, not with the float model's outputs."""
        return self.spec.truth in (Truth.LABELS, Truth.TOKEN_LABELS)

    @property
    def is_per_token(self) -> bool:
        """Whether the score compares with one label per token."""
        return self.spec.truth is Truth.TOKEN_LABELS

    @property
    def is_real_valued(self) -> bool:
        """Whether scores lie between 0 and 1 by nature, whatever they are on a few samples; a user's own metric may be either."""
        return self.spec.is_real_valued

    @property
    def is_perfect_by_definition(self) -> bool:
        """Whether the float model itself scores 1 on every sample, since it is what is compared with."""
        return self.spec.is_perfect_by_definition

    @property
    def reads_classes(self) -> bool:
        """Whether the score compares what an output says of classes with what the float model's says of them."""
        return self.spec.truth is Truth.REFERENCE and self.spec.kinds <= CLASSES

    @property
    def compares_classes(self) -> bool:
        """Whether the score compares classes with those of the float model."""
        return self.spec.truth is Truth.REFERENCE and self.spec.kinds == CLASSES


def metric_named(name: object) -> Metric | None:
    """Return the metric of that name; None for a name of another version of this program."""
    return next((metric for metric in Metric if metric == name), None)


def names_in_words(is_meant: Callable[[Metric], bool]) -> str:
    """Return the names of some metrics for a sentence: "token_f1 or span_f1"."""
    return " or ".join(metric for metric in Metric if is_meant(metric))
