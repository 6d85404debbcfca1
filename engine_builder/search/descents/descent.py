r"""Local minima of T(S) + lambda * L(S) over assignments S, with T from time_model.py and L from loss_model.py.

A move gives a set of layers one choice: a precision, or the baseline. Moves are taken one by one, in their order, whenever they lower the
objective, until none does. Only what a move changes is computed anew, and only of the moves that may pay (``step_screen.py``).

What a move does to an assignment hangs on neither lambda nor the loss that is allowed, and descents that start alike meet often: what was
found of an assignment is kept, and where a descent comes by again nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.descents.placed_terms import PlacedTerm
from engine_builder.search.descents.step_screen import Looks, StepScreen
from engine_builder.search.search_space import QuantizedLayers
from engine_builder.search.time_model import FLOATS, LEAST_RATIO, TimeModel, form_of

ROUNDING = 1e-9  # relative, of a sum of losses
SMALLEST_GAIN = 1e-9  # of the objective, for a move to count
MOST_KEPT = 4_000_000  # numbers of what was found of assignments, before all of it is dropped


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


@dataclass(slots=True, eq=False)
class _Assignment:
    """An assignment that a descent came by, and what was found of it."""

    taken: tuple[int, ...]  # the precision of each layer by place, -1 for the baseline
    loss: float
    ratio: float
    by_time: Looks | None = None  # the steps that may make it faster
    after: dict[int, tuple[float, float] | None] = field(default_factory=dict)  # loss and ratio by step; None: it changes nothing


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
        self._has_pairs = bool(np.any(interaction))
        self._pair: list[list[float]] = interaction.tolist() if self._has_pairs else []
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
        self._form_of = [*(form_of(layer_precision.precision) for layer_precision in layer_precisions), FLOATS]  # the last: of -1
        self._known: dict[tuple[int, ...], _Assignment] = {}
        self._kept = 0
        self._laid_out: tuple[int, ...] = (-1,) * len(self._layers)
        self._form, self._shares = at_baseline, [term.share(at_baseline) for term in self._terms]
        self._marginals = loss
        self._marginal: list[float] = loss.tolist()
        self._screen = self._screened(moves)
        self._screened_at: tuple[int, ...] | None = None
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
        taken = [-1] * len(self._layers)
        for layer, precision in quantized.items():
            if (place := self._place.get(LayerPrecision(layer, precision))) is not None:
                taken[self._layers[layer]] = place
        self._here = self._assignment(tuple(taken))

    def _assignment(self, taken: tuple[int, ...]) -> _Assignment:
        """Return what is known of an assignment."""
        if taken not in self._known:
            if self._kept > MOST_KEPT:
                self._known.clear()
                self._kept = 0
            self._kept += len(taken)
            self._lay_out(taken)
            chosen = [place for place in taken if place >= 0]
            mask = np.zeros(len(self._layer_precisions))
            mask[chosen] = 1.0
            loss = float(mask @ (self._loss_alone + self._marginals)) / 2.0
            ratio = 1.0 + self._constant + sum([self._cost[place] for place in chosen]) + sum(self._shares)
            self._known[taken] = _Assignment(taken, loss, ratio)
        return self._known[taken]

    def _lay_out(self, taken: tuple[int, ...]) -> None:
        """Compute the parts of the models for an assignment; sums anew, so that no error builds up from move to move."""
        if taken == self._laid_out:
            return
        moved = []
        for layer, (new, old) in enumerate(zip(taken, self._laid_out, strict=True)):
            if new != old and self._form[layer] != self._form_of[new]:
                self._form[layer] = self._form_of[new]
                moved.append(layer)
        for index in {term for layer in moved for term in self._touched[layer]}:
            self._shares[index] = self._terms[index].share(self._form)
        self._laid_out = taken
        if self._has_pairs:
            mask = np.zeros(len(self._layer_precisions))
            mask[[place for place in taken if place >= 0]] = 1.0
            self._marginals = self._loss_alone + self._interaction @ mask
            self._marginal = self._marginals.tolist()

    @property
    def quantized(self) -> frozenset[LayerPrecision]:
        """The layer precisions taken."""
        return frozenset(self._layer_precisions[place] for place in self._here.taken if place >= 0)

    @property
    def ratio(self) -> float:
        """Predicted latency over the baseline's."""
        return max(self._here.ratio, LEAST_RATIO)

    @property
    def loss(self) -> float:
        """Predicted loss."""
        return max(self._here.loss, 0.0)

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
        here = self._here
        enough = here.ratio + rate * max(here.loss, 0.0) - SMALLEST_GAIN
        for place in self._promising(at, rate, most_loss):
            if place not in here.after:
                here.after[place] = self._after(here, self._steps[place])
            found = here.after[place]
            if found is not None and max(found[0], 0.0) <= most_loss and found[1] + rate * max(found[0], 0.0) < enough:
                taken = list(here.taken)
                for layer, new in self._steps[place].changes:
                    taken[layer] = new
                self._here = self._assignment(tuple(taken))
                return place
        return None

    def _promising(self, at: int, rate: float, most_loss: float) -> Iterator[int]:
        """Yield the steps that are worth a look, from ``at`` on and then from the start."""
        here = self._here
        if not self._steps:
            return
        looks = here.by_time if rate == 0.0 else None
        if looks is None:
            self._lay_out(here.taken)
            if self._screened_at != here.taken:
                self._screen.go_to(here.taken, self._form, self._marginals)
                self._screened_at = here.taken
            looks = self._screen.promising(here.loss, rate, SMALLEST_GAIN)
            if rate == 0.0:
                here.by_time = looks
                self._kept += 2 * len(looks.steps)
        places = looks.within(most_loss)
        first = int(np.searchsorted(places, at))
        yield from places[first:].tolist()
        yield from places[:first].tolist()

    def _after(self, here: _Assignment, step: _Step) -> tuple[float, float] | None:
        """Return the loss and the ratio after a step, None where it changes nothing."""
        self._lay_out(here.taken)
        if all(here.taken[place] == new for place, new in step.changes):
            return None
        loss = here.loss + self._added_loss(step)
        ratio = here.ratio - sum([self._shares[term] for term in step.terms])
        for place, new in step.changes:
            old = here.taken[place]
            ratio += (self._cost[new] if new >= 0 else 0.0) - (self._cost[old] if old >= 0 else 0.0)
        form = list(self._form)
        for place, _ in step.changes:
            form[place] = step.form
        return loss, ratio + sum([self._terms[term].share(form) for term in step.terms])

    def _added_loss(self, step: _Step) -> float:
        """Return v'g + v'Dv / 2, with v the change and g the marginal losses where the assignment is now."""
        signed = [(new, 1.0) for _, new in step.changes if new >= 0]
        signed += [(old, -1.0) for place, _ in step.changes if (old := self._laid_out[place]) >= 0]
        added = sum([sign * self._marginal[index] for index, sign in signed])
        if self._has_pairs:
            for at, (one, sign) in enumerate(signed):
                row = self._pair[one]
                for other, other_sign in signed[:at]:
                    added += sign * other_sign * row[other]
        return added
