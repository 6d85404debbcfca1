"""The accuracy budget that a user may ask for, and what it is stated in."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibration.accuracy.budget import Budget
from calibration.accuracy.measures.options import MeasureOptions
from calibration.accuracy.metrics import BUDGETS_OF_SCORES, BudgetKey, Metric, names_in_words
from calibration.errors import InvalidConfigError

DEFAULT_MIN_RELATIVE = 0.99


@dataclass(frozen=True, slots=True)
class AccuracyConfig:
    """The accuracy budget: one of the keys of ``BudgetKey``; 0.99 of the float model's score if none is given."""

    metric: Metric | None = field(
        default=None,
        metadata={
            "description": "Default: top1 with labels, token_f1 with labels of tokens, decisions with labels of 0 and 1 for each score, "
            "regression with numbers for each value, agreement where outputs surely hold classes, "
            "closeness for single scores, else fidelity; custom where a metric model comes with the job. "
            + "".join(f"{metric}: {metric.spec.words}. " for metric in Metric).rstrip()
        },
    )
    min_relative: float | None = field(
        default=None,
        metadata={
            "minimum": 0,
            "maximum": 1,
            "description": f"Least share of the float model's score; {DEFAULT_MIN_RELATIVE} if no budget is given.",
        },
    )
    max_drop: float | None = field(
        default=None,
        metadata={"minimum": 0, "maximum": 1, "description": "Largest drop of the score: 0.005 from 0.762 is 0.757."},
    )
    min_score: float | None = field(
        default=None,
        metadata={"minimum": 0, "maximum": 1, "description": "Least score of the engine, which the float model must reach itself."},
    )
    max_nmse: float | None = field(
        default=None, metadata={"exclusiveMinimum": 0, "description": "Largest mean squared error, relative to the outputs' mean square."}
    )
    max_kl: float | None = field(
        default=None,
        metadata={
            "exclusiveMinimum": 0,
            "description": "Largest mean divergence KL(float model || engine) of distributions over classes or next tokens, in nats.",
        },
    )
    min_psnr: float | None = field(
        default=None,
        metadata={"exclusiveMinimum": 0, "maximum": 140, "description": "Least mean peak signal-to-noise ratio in decibels."},
    )
    min_si_snr: float | None = field(
        default=None,
        metadata={
            "exclusiveMinimum": 0,
            "maximum": 140,
            "description": "Least mean scale-invariant signal-to-noise ratio in decibels, of sounds.",
        },
    )
    confidence: float | None = field(
        default=None,
        metadata={
            "minimum": 0.5,
            "exclusiveMaximum": 1,
            "description": "Demand that the budget be met with this confidence; without it an engine that is more likely inside the budget "
            "than not is accepted.",
        },
    )
    label_names: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "minItems": 1,
            "uniqueItems": True,
            "description": "Names of the classes in the model's order, for token_f1 and span_f1: IOB2 names ('O', 'B-PER', 'I-PER') tell "
            "what a span is. Without them class 0 is outside and a span is a run of one class.",
        },
    )
    measure: MeasureOptions = field(
        default_factory=MeasureOptions,
        metadata={"description": "How the metric reads the outputs; a key that means nothing to the metric is refused."},
    )
    allow_chance: bool = field(
        default=False,
        metadata={"description": "Warn, not refuse, where the float model fits the labels no better than the best constant answer does."},
    )

    def __post_init__(self) -> None:
        """Fill in the default budget and the metric it implies, and refuse budgets that contradict each other."""
        given = [key for key in BudgetKey if getattr(self, key) is not None]
        if len(given) > 1:
            raise InvalidConfigError(f"found {' and '.join(given)}, expected one budget", fix="Keep one of them.")
        needed = self.metric.spec.budget_key if self.metric else None
        if needed and not given and needed is not BudgetKey.MIN_RELATIVE:
            raise InvalidConfigError(f"the metric {self.metric} needs `{needed}`", fix=f"Add accuracy.{needed}.")
        of_scores = bool(given) and given[0] in BUDGETS_OF_SCORES
        if needed and given and given[0] is not needed and not (of_scores and needed in BUDGETS_OF_SCORES):
            raise InvalidConfigError(
                f"found the metric {self.metric} with {given[0]}, expected {needed}",
                fix=f"Replace {given[0]} by {needed}, or leave metric out.",
            )
        if not given:
            object.__setattr__(self, "min_relative", DEFAULT_MIN_RELATIVE)
        if self.metric is None and given and not of_scores:
            object.__setattr__(self, "metric", next(metric for metric in Metric if metric.spec.budget_key is given[0]))
        if self.metric is not None:
            check_measure_options(self.metric, self.measure)
        if self.label_names is not None and self.metric is not None and not self.metric.is_per_token:
            per_token = names_in_words(lambda metric: metric.is_per_token)
            raise InvalidConfigError(
                f"found label_names with the metric {self.metric}, expected {per_token}",
                fix=f"Leave label_names out, or set metric to {per_token}.",
            )
        if self.metric is not None and self.metric.spec.check_label_names is not None:
            self.metric.spec.check_label_names(self.label_names or ())

    @property
    def budget(self) -> Budget:
        """The budget as the verdict takes it."""
        return Budget(**{key.value: getattr(self, key) for key in BudgetKey})


def check_measure_options(metric: Metric, options: MeasureOptions) -> None:
    """Refuse options that mean nothing to the metric.

    Raises:
        InvalidConfigError: With those that it reads.
    """
    known = metric.spec.joint.options if metric.spec.joint is not None else frozenset[str]()
    for name in options.given():
        if name not in known:
            readers = " or ".join(one for one in Metric if one.spec.joint is not None and name in one.spec.joint.options)
            raise InvalidConfigError(
                f"measure.{name}: found with the metric {metric}, expected {readers}", fix="Leave the key out, or set accuracy.metric."
            )
