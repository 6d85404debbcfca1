"""What a report says of the search: what was predicted of its trials, the final timing, and what the probes took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine_builder.config.config import Order
from engine_builder.records.trial import FOLDED
from engine_builder.search.search import FASTEST, FRONTIER, GIVEN, MOVES, REFINED
from engine_builder.search.search_space import BASELINE, WITHOUT_RESIDUAL_ADDS
from engine_builder.stage_io.engines import FinalLatency
from engine_builder.stage_io.outcome import SearchSummary
from engine_builder.timing import RelativeLatency


def trials_in_words(search: SearchSummary) -> str:
    """Return how many trials there were, of which readers count the engines: "3 trials, the baseline among them"."""
    return f"{search.trials} trials, the baseline among them" if search.trials != 1 else "one trial, the baseline"


def order_in_words(order: str) -> str:
    """Return what proposed a trial, in words."""
    if order in _ORDERS:
        return _ORDERS[order]
    return f"all layers in {order.removeprefix('all_')}" if order.startswith("all_") else order


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said of a trial: its loss, and its latency when it was proposed."""

    index: int
    fingerprint: str
    loss: float | None  # None where nothing was probed
    loss_error: float | None  # standard error; None where it is not known
    refitted: float | None  # ``loss``, refitted to the trials
    refitted_error: float | None
    ratio: float | None  # latency / the baseline's; None of a trial that no prediction proposed


@dataclass(frozen=True, slots=True)
class FinalTiming:
    """The timing of the finalists in turns with the baseline."""

    latency_ms: Mapping[str, FinalLatency]  # by fingerprint, and of the baseline as "baseline"
    relative: Mapping[str, RelativeLatency]  # by fingerprint


@dataclass(frozen=True, slots=True)
class ProbeSummary:
    """What measuring the float model took."""

    samples: int  # behind each loss
    hessian_samples: int
    decisions: int
    forwards: float  # work, in forward passes of the whole model, each of one sample
    providers: tuple[str, ...]  # of ONNX Runtime
    parts: Mapping[str, int] = field(default_factory=dict)  # of the stages that probe, that each provider measured

    @property
    def ran_on(self) -> str:
        """The providers, in words: where there are several, with how many parts each measured."""
        if len(self.parts) < 2:
            return ", ".join(self.providers)
        return ", ".join(f"{name} ({count} part{'s' if count > 1 else ''})" for name, count in self.parts.items())


_ORDERS = {  # also in the page's words.js
    BASELINE: "the baseline",
    "all_low": "all layers quantized",
    WITHOUT_RESIDUAL_ADDS: "all but the residual adds",
    FOLDED: "constants folded",
    GIVEN: "the given assignment",
    FASTEST: "predicted to be the fastest",
    FRONTIER: "predicted frontier",
    REFINED: "frontier, predicted anew",
    MOVES: "a step from the best",
    Order.LOSS: "by measured loss",
    Order.HESSIAN: "by the Hessian",
    Order.HESSIAN_AND_DEPENDENCY: "by Hessian and dependencies",
    Order.CONDITIONAL: "by loss, layer after layer",
}
