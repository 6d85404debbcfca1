"""The question the other way round: not the fastest engine inside an accuracy budget, but the most accurate one that is fast enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calibration.accuracy.metrics import BudgetKey, Metric
from calibration.errors import InvalidConfigError

BUDGET_KEYS = (*BudgetKey, "confidence")  # of ``accuracy``: what an objective takes the place of


@dataclass(frozen=True, slots=True)
class Objective:
    """How fast an engine must be, in the place of an accuracy budget: one of ``min_speedup`` and ``max_latency_ms``."""

    min_speedup: float | None = field(
        default=None,
        metadata={"exclusiveMinimum": 1, "maximum": 1000, "description": "Least speedup over the baseline."},
    )
    max_latency_ms: float | None = field(
        default=None,
        metadata={"exclusiveMinimum": 0, "description": "Longest median latency of one call, at the batch size and shapes of the job."},
    )

    def __post_init__(self) -> None:
        """Refuse none and two."""
        if (self.min_speedup is None) is (self.max_latency_ms is None):
            found = "neither" if self.min_speedup is None else "both"
            raise InvalidConfigError(f"found {found} of min_speedup and max_latency_ms, expected one of them", fix="Keep one of them.")

    def largest_ratio(self, baseline_ms: float) -> float:
        """Return the largest latency that is fast enough, as a ratio to the baseline's, whose median is ``baseline_ms``."""
        return 1.0 / self.min_speedup if self.min_speedup is not None else (self.max_latency_ms or 0.0) / baseline_ms

    @property
    def in_words(self) -> str:
        """How fast, as it stands in a sentence behind "an engine that" or "no engine"."""
        if self.min_speedup is not None:
            return f"is at least {self.min_speedup:g}x as fast as the baseline"
        return f"takes at most {self.max_latency_ms:g} ms a call"


def refuse_two_questions(data: object) -> None:
    """Refuse an objective together with an accuracy budget, in a configuration as the user wrote it.

    Raises:
        InvalidConfigError: Both are there, or the objective comes with a metric that has no meaning without its budget.
    """
    if not isinstance(data, Mapping) or data.get("objective") is None or not isinstance(accuracy := data.get("accuracy"), Mapping):
        return
    found = [f"accuracy.{key}" for key in BUDGET_KEYS if accuracy.get(key) is not None]
    if found:
        raise InvalidConfigError(
            f"config: found objective together with {' and '.join(found)}: an objective asks for the most accurate engine that is fast "
            "enough, an accuracy budget for the fastest engine inside it; expected one of the two",
            fix=f"Leave out objective, or {' and '.join(found)}. With either, `offers` in the result say what other budgets would give.",
        )
    metric = next((metric for metric in Metric if metric == accuracy.get("metric")), None)
    if metric is not None and metric.spec.budget_key not in (None, BudgetKey.MIN_RELATIVE):
        raise InvalidConfigError(
            f"config: found objective together with the metric {metric}, which needs a budget; expected a metric of scores",
            fix="Leave accuracy.metric out, or name one that is a score: cosine for values.",
        )
