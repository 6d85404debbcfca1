r"""Local minima of T(S) + lambda * L(S) over assignments S, with T from time_model.py and L from loss_model.py.

A move gives a set of layers one choice: a precision, or the baseline. Moves are taken one by one, in their order, whenever they lower the
objective, until none does. Only what a move changes is computed anew, and only of the moves that may pay (``step_screen.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.descents.step_screen import PlacedTerm, StepScreen
from engine_builder.search.search_space import QuantizedLayers
from engine_builder.search.time_model import FLOATS, LEAST_RATIO, TimeModel, form_of

ROUNDING = 1e-9  # relative, of a sum of losses
SMALLEST_GAIN = 1e-9  # of the objective, for a move to count


@dataclass(frozen=True, slots=True)
class Move:
    """Layers that take a choice together."""

    layers: tuple[str, ...]
    choice: Precision | None  # None: the baseline


@dataclass(frozen=True, slots=True)
class _Step:
    """A move by places: each layer's precision afterwards, -1 for the baseline, and the terms that it may change."""

    changes: tuple[tuple[int, int], ...]
    form: int
    terms: tuple[int, ...]


class Descent:
    """An assignment that goes downhill. Not thread-safe; deterministic."""

    def __init__(
        self,
        layer_precisions: Sequence[LayerPrecision],
        loss: NDArray[np.float64],
        interaction: NDArray[np.float64],
        times: TimeModel,
        moves: Sequence[Move],
    ) -> None:
        """Lay out the models over the layers of the layer precisions, all at the baseline.

        Args:
            layer_precisions: (n,) what a layer may choose; every choice of a move is among them.
            loss: (n,) each one's loss alone.
            interaction: (n, n) extra loss of each pair, symmetric, zero on the diagonal.
            times: Predicts latency.
            moves: What may be done, in the order in which it is tried.
        """
        self._layer_precisions = tuple(layer_precisions)
        self._layers = {
            layer: place for place, layer in enumerate(dict.fromkeys(layer_precision.layer for layer_precision in layer_precisions))
        }
        self._place = {layer_precision: place for place, layer_precision in enumerate(layer_precisions)}
        self._loss_alone, self._interaction = loss, interaction
        self._pair: list[list[float]] = interaction.tolist()
        self._cost = [times.cost_ms(layer_precision) / times.baseline_ms for layer_precision in layer_precisions]
        placed = [PlacedTerm(term, [self._layers.get(layer, -1) for layer in term.layers], times.baseline_ms) for term in times.terms]
        at_baseline = [FLOATS] * len(self._layers)
        self._terms = [term for term in placed if max(term.places, default=-1) >= 0]
        self._constant = sum(term.share(at_baseline) for term in placed if max(term.places, default=-1) < 0)
        touched: list[list[int]] = [[] for _ in self._layers]
        for index, term in enumerate(self._terms):
            for place in {*term.places} - {-1}:
                touched[place].append(index)
        self._touched = touched
        self._steps = [self._step(move.layers, move.choice) for move in moves]
        self._screen = self._screened(moves)
        self.start({})

    def _step(self, layers: Iterable[str], choice: Precision | None) -> _Step:
        places = [self._layers[layer] for layer in layers]
        changes = tuple(
            (place, -1 if choice is None else self._place[LayerPrecision(layer, choice)])
            for place, layer in zip(places, layers, strict=True)
        )
        terms = tuple(sorted({term for place in places for term in self._touched[place]}))
        return _Step(changes, form_of(choice), terms)

    def _screened(self, moves: Sequence[Move]) -> StepScreen:
        count, choices = len(self._layer_precisions), tuple(dict.fromkeys(move.choice for move in moves))
        precisions = np.full((len(choices), len(self._layers)), count, dtype=np.intp)
        for row, choice in enumerate(choices):
            for layer, place in self._layers.items():
                if choice is not None:
                    precisions[row, place] = self._place.get(LayerPrecision(layer, choice), count)
        steps = [(tuple(self._layers[layer] for layer in move.layers), choices.index(move.choice)) for move in moves]
        forms = [form_of(choice) for choice in choices]
        return StepScreen(steps, precisions, forms, self._interaction, np.array(self._cost), self._terms)

    def start(self, quantized: QuantizedLayers) -> None:
        """Go to an assignment; layers without such a layer precision stay at the baseline."""
        self._taken = [-1] * len(self._layers)
        for layer, precision in quantized.items():
            if (place := self._place.get(LayerPrecision(layer, precision))) is not None:
                self._taken[self._layers[layer]] = place
        self._form = [form_of(self._layer_precisions[place].precision) if place >= 0 else FLOATS for place in self._taken]
        self._shares = [term.share(self._form) for term in self._terms]
        self._refresh()

    def _refresh(self) -> None:
        """Add up the models anew, so that no error builds up from move to move."""
        mask = np.zeros(len(self._layer_precisions))
        mask[[place for place in self._taken if place >= 0]] = 1.0
        marginal = self._loss_alone + self._interaction @ mask
        self._marginals = marginal
        self._marginal: list[float] = marginal.tolist()
        self._loss = float(mask @ (self._loss_alone + marginal)) / 2.0
        self._ratio = 1.0 + self._constant + sum(self._cost[place] for place in self._taken if place >= 0) + sum(self._shares)

    @property
    def state(self) -> tuple[int, ...]:
        """The precision of each layer by place, -1 for the baseline."""
        return tuple(self._taken)

    @property
    def quantized(self) -> frozenset[LayerPrecision]:
        """The layer precisions taken."""
        return frozenset(self._layer_precisions[place] for place in self._taken if place >= 0)

    @property
    def ratio(self) -> float:
        """Predicted latency over the baseline's."""
        return max(self._ratio, LEAST_RATIO)

    @property
    def loss(self) -> float:
        """Predicted loss."""
        return max(self._loss, 0.0)

    def descend(self, rate: float) -> None:
        """Go to a local minimum.

        Args:
            rate: lambda, baseline latencies that one unit of loss is worth.
        """
        self._take_steps(rate, np.inf)

    def descend_within(self, most_loss: float) -> None:
        """Go to a local minimum of the latency among what loses no more than ``most_loss``."""
        self._take_steps(0.0, most_loss * (1.0 + ROUNDING))

    def _take_steps(self, rate: float, most_loss: float) -> None:
        at = 0  # the step that is looked at next; after the last one the first comes again
        while (taken := self._next_step(at, rate, most_loss)) is not None:
            at = taken + 1

    def _next_step(self, at: int, rate: float, most_loss: float) -> int | None:
        """Take the first step that lowers the objective, from ``at`` on and then from the start; return its place, None where none does."""
        if not self._steps:
            return None
        self._screen.go_to(self._taken, self._form)
        found = self._screen.promising(self._marginals, self._loss, rate, most_loss, SMALLEST_GAIN)
        for place in np.roll(found, -int(np.searchsorted(found, at))):
            if self._improves(self._steps[place], rate, most_loss):
                return int(place)
        return None

    def _improves(self, step: _Step, rate: float, most_loss: float) -> bool:
        """Take the step if it lowers the objective."""
        loss = self._loss + self._added_loss(step)
        if max(loss, 0.0) > most_loss:
            return False
        ratio = self._ratio - sum([self._shares[term] for term in step.terms])
        for place, new in step.changes:
            old = self._taken[place]
            ratio += (self._cost[new] if new >= 0 else 0.0) - (self._cost[old] if old >= 0 else 0.0)
        enough = self._ratio + rate * max(self._loss, 0.0) - SMALLEST_GAIN
        forms = [self._form[place] for place, _ in step.changes]
        for place, _ in step.changes:
            self._form[place] = step.form
        shares = [self._terms[term].share(self._form) for term in step.terms]
        if ratio + sum(shares) + rate * max(loss, 0.0) < enough:
            for place, new in step.changes:
                self._taken[place] = new
            for term, share in zip(step.terms, shares, strict=True):
                self._shares[term] = share
            self._refresh()
            return True
        for (place, _), form in zip(step.changes, forms, strict=True):
            self._form[place] = form
        return False

    def _added_loss(self, step: _Step) -> float:
        """Return v'g + v'Dv / 2, with v the change and g the marginal losses where the assignment is now."""
        signed = [(new, 1.0) for _, new in step.changes if new >= 0]
        signed += [(old, -1.0) for place, _ in step.changes if (old := self._taken[place]) >= 0]
        added = sum([sign * self._marginal[index] for index, sign in signed])
        for at, (one, sign) in enumerate(signed):
            row = self._pair[one]
            for other, other_sign in signed[:at]:
                added += sign * other_sign * row[other]
        return added
