r"""Which steps of a descent may pay, found for all of them at once.

With e the layer precisions that a step brings and t those that it takes away, the loss changes by

    (e - t)'g + (e'De + t'Dt) / 2 - e'Dt,

where g are the marginal losses and D the extra losses of pairs. g is known wherever the descent stands; e'De never changes, and e'Dt and
t'Dt are kept up to date layer by layer, as are terms between layers (``placed_terms.py``). Sums over the layers of each step are those of
``set_sums.py``.

What comes out is as good as the rounding of these sums, so it only says where to look: the descent computes a step before it takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine_builder.search.descents.placed_terms import MOST_CHANGES, PlacedTerm, Places, TermSums
from engine_builder.search.descents.set_sums import Floats, SetSums

SLACK = 1e-10  # relative: rounding of sums that are kept up to date


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """Steps that may pay, by place and in order, (steps,), and the loss that each leads to at the least, (steps,)."""

    steps: Places
    loss: Floats

    def within(self, most_loss: float) -> Places:
        """Return those that may lose no more than ``most_loss``."""
        return self.steps if most_loss == np.inf else self.steps[self.loss <= most_loss * (1.0 + SLACK)]


class StepScreen:
    """Follows an assignment and tells which steps may lower an objective. Not thread-safe; deterministic."""

    def __init__(
        self,
        steps: Sequence[tuple[tuple[int, ...], int]],
        precisions: Places,
        forms: Sequence[int],
        interaction: Floats,
        cost: Floats,
        terms: Sequence[PlacedTerm],
    ) -> None:
        """Lay out the steps, with every layer at the baseline.

        Args:
            steps: The places of the layers of each, and the choice that they take.
            precisions: (choices, layers), the layer precision by place that a choice is; n for the baseline, and where there is none.
            forms: Of each choice.
            interaction: (n, n) extra loss of each pair of layer precisions, symmetric, zero on the diagonal.
            cost: (n,) what each adds to the latency by itself, as a share of the baseline's.
            terms: What depends on several layers.
        """
        count, layers = len(cost), precisions.shape[1]
        sets = {layers_of_step: index for index, layers_of_step in enumerate(dict.fromkeys(one for one, _ in steps))}
        self._steps = np.array([choice * len(sets) + sets[one] for one, choice in steps], dtype=np.intp)
        self._precisions = precisions
        self._sets = tuple(sets)
        self._sums = SetSums(self._sets, layers)
        self._around: dict[int, tuple[Places, SetSums]] = {}  # by layer: the sets that it is in, once they are asked for
        self._pairs = np.zeros((count + 1, count + 1))
        self._pairs[:count, :count] = interaction
        self._has_pairs = bool(np.any(interaction))
        self._cost = np.append(cost, 0.0)
        self._new_cost = self._sums.of(self._cost[precisions])
        self._new_pairs = np.array([self._inside(new) for new in precisions]).reshape(len(precisions), len(sets))
        self._mixed_pairs, self._old_pairs = np.zeros_like(self._new_pairs), np.zeros(len(sets))  # e'Dt and t'Dt / 2
        self._changes = 0
        self._taken = np.full(layers, count, dtype=np.intp)
        distinct = tuple(dict.fromkeys(forms))
        self._form_of_choice = np.array([distinct.index(form) for form in forms], dtype=np.intp)
        self._terms = TermSums(self._sums.members(), terms, distinct)

    def _inside(self, new: Places) -> Floats:
        """Return e'De / 2 of the steps of a choice, (sets,)."""
        return self._sums.of_own(self._sums.of(self._pairs[np.ix_(new, new)])) / 2.0

    def go_to(self, taken: Sequence[int], form: Sequence[int], marginal: Floats) -> None:
        """Follow the assignment.

        Args:
            taken: The layer precision of each layer by place, -1 for the baseline.
            form: Of each layer.
            marginal: (n,) loss that each layer precision adds there.
        """
        wanted = np.array(taken, dtype=np.intp)
        wanted[wanted < 0] = len(self._cost) - 1
        if self._has_pairs:
            self._follow_pairs(wanted)
        self._taken = wanted
        self._terms.go_to(form)
        self._add_up(np.append(marginal, 0.0))

    def _follow_pairs(self, wanted: Places) -> None:
        self._changes += int(np.count_nonzero(wanted != self._taken))
        if self._changes > MOST_CHANGES:
            self._changes = 0
            self._mixed_pairs, self._old_pairs = np.zeros_like(self._mixed_pairs), np.zeros_like(self._old_pairs)
            self._taken = np.full_like(self._taken, len(self._cost) - 1)
        for layer in np.flatnonzero(wanted != self._taken):
            apart = self._pairs[wanted[layer]] - self._pairs[self._taken[layer]]
            others = apart[self._taken]
            others[layer] = 0.0
            sets, sums_of_sets = self._with(int(layer))
            sums = sums_of_sets.of(np.vstack([apart[self._precisions], others]))
            self._mixed_pairs[:, sets] += sums[:-1]
            self._old_pairs[sets] += sums[-1]
            self._taken[layer] = wanted[layer]

    def _with(self, layer: int) -> tuple[Places, SetSums]:
        if layer not in self._around:
            sets = np.array([index for index, one in enumerate(self._sets) if layer in one], dtype=np.intp)
            around = SetSums([self._sets[index] for index in sets], len(self._taken), is_dense=self._sums.is_dense)
            self._around[layer] = sets, around
        return self._around[layer]

    def _add_up(self, gained: Floats) -> None:
        sums = self._sums.of(np.vstack([gained[self._precisions], gained[self._taken], self._cost[self._taken]]))
        self._added_loss = sums[:-2] - sums[-2]
        if self._has_pairs:
            self._added_loss += self._new_pairs - self._mixed_pairs + self._old_pairs
        self._added_ratio = self._new_cost - sums[-1] + self._terms.added[self._form_of_choice]
        self._change: NDArray[np.bool_] | None = None  # what changes anything, (choices, sets), once that is asked for
        self._largest = max(float(self._added_loss.max(initial=0.0)), -float(self._added_loss.min(initial=0.0)))

    def promising(self, loss: float, rate: float, least_gain: float) -> Looks:
        """Return the steps that may lower latency + rate * loss by more than a least gain.

        Args:
            loss: Where the assignment is.
            rate: Baseline latencies that one unit of loss is worth.
            least_gain: Of the objective.
        """
        after = np.maximum(loss + self._added_loss, 0.0)
        rounding = SLACK * (1.0 + rate * (abs(loss) + self._largest))
        pays = self._added_ratio + rate * after < rate * max(loss, 0.0) - least_gain + rounding
        if rounding > least_gain:  # steps that change nothing would all be worth a look
            pays &= self._steps_that_change()
        found = np.flatnonzero(pays.ravel()[self._steps])
        return Looks(found, after.ravel()[self._steps[found]] - SLACK * self._largest)

    def _steps_that_change(self) -> NDArray[np.bool_]:
        if self._change is None:
            self._change = self._sums.of((self._precisions != self._taken).astype(np.float64)) > 0.0
        return self._change
