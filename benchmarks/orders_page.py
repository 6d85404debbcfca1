"""The page of ``benchmarks.orders``, and the results that it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.order_budgets import BUDGETS, BudgetResult
from benchmarks.order_measurements import BATCH, Kind
from benchmarks.results_files import environment_line, markdown_table
from benchmarks.statistics import Difference

RANDOM, FRONTIER = "random", "frontier"
SCREEN, PAIRS = "hessian+dependency (screen)", "hessian+dependency (screen and pair tests)"
LOSS_SCREEN, LOSS_PAIRS = "conditional (screen)", "conditional (screen and pair tests)"
COMPARISONS = (
    ("hessian", "loss"),
    (SCREEN, "hessian"),
    (PAIRS, "hessian"),
    (PAIRS, SCREEN),
    (LOSS_SCREEN, "hessian"),
    (LOSS_PAIRS, "hessian"),
    (LOSS_SCREEN, "loss"),
    (LOSS_PAIRS, "loss"),
    (LOSS_PAIRS, LOSS_SCREEN),
)
KINDS = {
    Kind.INT8: "the explicit model in onnxruntime",
    Kind.INT4: "4-bit weights rounded to the nearest level, simulated",
    Kind.INT4_GPTQ: "4-bit weights rounded by GPTQ, simulated",
}


@dataclass(frozen=True, slots=True)
class OrderResult:
    """An order over all draws, or all seeds."""

    name: str
    qualities: tuple[float, ...]  # one a draw
    against_random: Difference | None
    forwards: int  # of one draw, each of one picture
    cpu_seconds: float  # of one draw, the mean

    @property
    def quality(self) -> float:
        """Mean over the draws."""
        return float(np.mean(self.qualities))


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the loss model said of a quantized network, beside what was measured."""

    measured: float
    said: float
    bar: float  # standard error of the difference, that of the measurement included
    within: bool  # two bars


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One network, quantized in one way."""

    network: str
    kind: Kind
    layer_precisions: int
    orders: tuple[OrderResult, ...]
    comparisons: tuple[tuple[str, str, Difference], ...]
    budgets: tuple[BudgetResult, ...]
    predictions: tuple[Predicted, ...]
    networks_run: int  # different networks, each one run on all held-out pictures
    cpu_seconds: float


def page(
    cases: Sequence[CaseResult],
    measured: Mapping[str, Mapping[str, tuple[float, float]]],
    sizes: Mapping[str, int],
    where: Mapping[str, object],
    took: Mapping[str, float],
) -> str:
    """Return the page of results.

    Args:
        cases: All results.
        measured: For each network, the latency ratio and its spread of each engine by name.
        sizes: ``draws``, ``samples`` and ``held_out``.
        where: The environment.
        took: ``wall_seconds`` and ``cpu_seconds``.
    """
    kinds = "; ".join(f"`{kind.value}` is {text}" for kind, text in KINDS.items())
    counts = "; ".join(f"{case.network} {case.kind.value} {case.layer_precisions} ({case.networks_run:,})" for case in cases)
    return (
        "# Orders\n\n"
        f"Quality is the mean over all prefixes of log10 of the loss (KL divergence from the float network) on {sizes['held_out']} "
        "held-out test pictures; lower is better, 0.1 less is a loss 21% smaller. Mean over "
        f"{sizes['draws']} disjoint calibration draws of {sizes['samples']} pictures; the random orders, one a seed, are judged on the "
        "first draw. Intervals are 95%: between two orders Student's on the differences paired by draw, against random Welch's between "
        "draws and seeds. They are about the choice of calibration pictures and seeds "
        "alone, and none is corrected for the number of comparisons.\n\n"
        f"{kinds}.\n\n"
        "A forward is one picture from the probed layer to the end, counted at the least: Hessian steps that took more than three tries "
        "are left out; at 4 bits the traces of activations, which the order does not read, are in it. CPU seconds are of one draw, one "
        "thread.\n\n"
        + markdown_table(["network", "precision", "order", "quality", "minus random", "forwards", "CPU s"], _order_rows(cases))
        + "\nOne order minus another:\n\n"
        + markdown_table(["network", "precision", "order", "minus", "difference", "the first is"], _compared_rows(cases))
        + "\n## Under a budget\n\n"
        "Layer precisions of the deepest prefix that agrees with the float network's first class on that share of the held-out pictures, "
        "as if "
        "every prefix had been tried: the mean over draws (for random over seeds), the fewest and the most. For the frontier, those of the "
        "network with the lowest predicted latency. At int8 then that network's latency over the float network's, by the time model, the "
        f"mean; and measured, of the first draw or seed, ± its spread: batch {BATCH}, one thread, all of a network's timed in turns.\n\n"
        + markdown_table(["network", "precision", "order", *(f"{budget:.2%}" for budget in BUDGETS)], _budget_rows(cases, measured))
        + "\n## Predicted losses\n\n"
        "The second-order model against the held-out loss of every prefix of the orders `loss` and random. *Within* is the share that lies "
        "within two error bars of what was said, the bar being the model's and the measurement's own together; 95% would be right if the "
        "second order were all there is. *Off* is the median of measured over said.\n\n"
        + markdown_table(
            ["network", "precision", "predictions", "within", "bar over said, median", "off"], [_predicted_row(case) for case in cases]
        )
        + f"\nDecisions (and networks run to judge): {counts}.\n\n"
        f"{environment_line(where)} Took {took['wall_seconds'] / 60:.1f} minutes, {took['cpu_seconds'] / 60:.1f} CPU minutes. "
        "Repeat with `python -m benchmarks.orders`.\n"
    )


def interval(difference: Difference) -> str:
    """Return a difference and its interval in words of one cell."""
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _order_rows(cases: Sequence[CaseResult]) -> list[list[str]]:
    return [
        [
            case.network,
            case.kind.value,
            order.name,
            f"{order.quality:.3f}",
            "" if order.against_random is None else interval(order.against_random),
            f"{order.forwards:,}",
            f"{order.cpu_seconds:.1f}",
        ]
        for case in cases
        for order in case.orders
    ]


def _compared_rows(cases: Sequence[CaseResult]) -> list[list[str]]:
    return [
        [case.network, case.kind.value, first, second, interval(difference), difference.word]
        for case in cases
        for first, second, difference in case.comparisons
    ]


def _budget_rows(cases: Sequence[CaseResult], measured: Mapping[str, Mapping[str, tuple[float, float]]]) -> list[list[str]]:
    rows = []
    for case in cases:
        for order in dict.fromkeys(item.order for item in case.budgets):
            of_order = [item for item in case.budgets if item.order == order]
            rows.append([case.network, case.kind.value, order, *(_deepest(item, measured[case.network]) for item in of_order)])
    return rows


def _deepest(item: BudgetResult, measured: Mapping[str, tuple[float, float]]) -> str:
    text = f"{np.mean(item.moves):.1f} ({min(item.moves)} to {max(item.moves)})"
    if item.predicted:
        text += f"; {np.mean(item.predicted):.3f}"
    if item.engine is not None:
        ratio, spread = measured[item.engine]
        text += f"; {ratio:.3f} ± {spread:.3f}"
    return text


def _predicted_row(case: CaseResult) -> list[str]:
    said = [item for item in case.predictions if item.said > 0.0]
    return [
        case.network,
        case.kind.value,
        str(len(case.predictions)),
        f"{np.mean([item.within for item in case.predictions]):.0%}",
        f"{np.median([item.bar / item.said for item in said]):.2f}",
        f"{np.median([item.measured / item.said for item in said]):.2f}",
    ]
