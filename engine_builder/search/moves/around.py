"""Engines one step from a measured one: a layer, a run of neighbours or a block given back, taken, or given another precision.

What a step changes is predicted, where it starts is measured: latency and loss of the new engine are the old one's, times what the models
say of the two. The loss is the sum of those of single layers: pairs whose terms cancel are where a model of pairs is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from calibration.number_formats.precision import Precision
from engine_builder.search.search_space import QuantizedLayers, choices_of
from engine_builder.search.time_model import TimeModel

MOST_STEPS = 24  # that are proposed at once


@dataclass(frozen=True, slots=True)
class Start:
    """A measured engine."""

    quantized: QuantizedLayers
    ratio: float  # of the baseline's latency
    loss: float


@dataclass(frozen=True, slots=True)
class StepTaken:
    """An engine one step away."""

    quantized: Mapping[str, Precision]
    ratio: float  # predicted
    loss: float  # predicted


def steps_around(
    starts: Sequence[Start],
    sets: Iterable[Sequence[str]],
    eligible: Mapping[str, Sequence[Precision]],
    times: TimeModel,
    loss: Callable[[QuantizedLayers], float],
    *,
    most_loss: float,
    below: float,
) -> tuple[StepTaken, ...]:
    """Return the engines that are predicted to be faster than ``below`` and to lose no more than ``most_loss``.

    First come those that win most time for the loss that they add; those that add none come before all others, fastest first. At most
    ``MOST_STEPS``.

    Args:
        starts: The engines that steps start from.
        sets: Layers that change together.
        eligible: The precisions that each layer may take.
        times: Predicts latency.
        loss: Predicts the loss of an assignment.
        most_loss: Beyond which an engine is not proposed.
        below: Ratio to the baseline's latency.
    """
    found: dict[tuple[tuple[str, Precision], ...], tuple[tuple[float, float], StepTaken]] = {}
    known = {_key(start.quantized) for start in starts}
    for start in starts:
        ratio, said = times.ratio(start.quantized), loss(start.quantized)
        for layers in sets:
            for choice in (None, *choices_of(layers, eligible)):
                quantized = _changed(start.quantized, layers, choice)
                key = _key(quantized)
                if key in known or not quantized:
                    continue
                lost = loss(quantized)
                lost *= start.loss / said if said > 0.0 and start.loss > 0.0 else 1.0
                step = StepTaken(quantized, start.ratio * times.ratio(quantized) / ratio, lost)
                if step.ratio >= below or step.loss > most_loss:
                    continue
                rank = _rank(step, below, min(one.loss for one in starts))
                if key not in found or rank < found[key][0]:
                    found[key] = rank, step
    ordered = sorted(found.items(), key=lambda item: (item[1][0], item[0]))
    return tuple(step for _, (_, step) in ordered[:MOST_STEPS])


def _rank(step: StepTaken, below: float, least_loss: float) -> tuple[float, float]:
    added = step.loss - least_loss
    return (0.0, step.ratio) if added <= 0.0 else (1.0, -(below - step.ratio) / added)


def _changed(quantized: QuantizedLayers, layers: Sequence[str], choice: Precision | None) -> dict[str, Precision]:
    left = {layer: precision for layer, precision in quantized.items() if layer not in layers}
    return left if choice is None else left | dict.fromkeys(layers, choice)


def _key(quantized: QuantizedLayers) -> tuple[tuple[str, Precision], ...]:
    return tuple(sorted(quantized.items()))
