"""The tables of predicted and measured losses, as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.results_files import environment_line, markdown_table

FACTOR = 1.5  # within which a prediction counts as right
BAR = 0.9  # share of engines that ought to be


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine of one network."""

    network: str
    assignment: str
    low: int  # layers
    layers: int
    plain: float  # predicted from layers without the correction of their biases
    said: float  # predicted from layers with it
    error: float  # of that
    measured: float


def is_within(said: float, measured: float, factor: float = FACTOR) -> bool:
    """Return whether a predicted loss is within a factor of the measured one."""
    return measured <= factor * said and said <= factor * measured


def page(engines: Sequence[Engine], where: Mapping[str, object]) -> str:
    """Return the Markdown page."""
    rows = [
        (
            *(one.network, one.assignment, f"{one.low} of {one.layers}"),
            *(f"{value:.3g}" for value in (one.plain, one.said, one.error, one.measured)),
            *(_ratio(value, one.measured) for value in (one.plain, one.said)),
        )
        for one in engines
    ]
    shares = [
        (name, str(len(some)), *(f"{_share(some, of):.0%}" for of in ("plain", "said")), *(_off(some, of) for of in ("plain", "said")))
        for name, some in {
            **{name: [one for one in engines if one.network == name] for name in dict.fromkeys(one.network for one in engines)},
            "all": list(engines),
        }.items()
    ]
    return "\n".join(
        (
            "# Predicted losses against measured ones\n",
            f"Of {len(engines)} engines, {_share(engines, 'said'):.0%} have a loss within a factor of {FACTOR} of what was predicted before"
            f" any was built (bar: {BAR:.0%}); {_share(engines, 'plain'):.0%} where layers are probed without the correction of their"
            " biases.\n",
            markdown_table(
                ("network", "engines", "plain, within 1.5", "corrected, within 1.5", "plain, usual factor", "corrected, usual factor"),
                shares,
            ),
            markdown_table(
                ("network", "engine", "low layers", "plain", "corrected", "+-", "measured", "plain / measured", "corrected / measured"),
                rows,
            ),
            environment_line(where) + "\n",
        )
    )


def _share(engines: Sequence[Engine], of: str) -> float:
    return float(np.mean([is_within(getattr(one, of), one.measured) for one in engines])) if engines else 0.0


def _ratio(said: float, measured: float) -> str:
    return f"{said / measured:.2f}" if measured > 0.0 else "-"


def _off(engines: Sequence[Engine], of: str) -> str:
    """Return the factor by which predictions are usually off: the median of |log ratio|."""
    logs = [abs(math.log(getattr(one, of) / one.measured)) for one in engines if one.measured > 0.0 < getattr(one, of)]
    return f"{math.exp(float(np.median(logs))):.2f}" if logs else "-"
