r"""Which steps of a descent may pay, found for all of them at once.

With e the layer precisions that a step brings and t those that it takes away, the loss changes by

    (e - t)'g + (e'De + t'Dt) / 2 - e'Dt,

where g are the marginal losses and D the extra losses of pairs. g is known wherever the descent stands; e'De never changes, and e'Dt and
t'Dt are kept up to date layer by layer. Of the terms between layers, each is computed anew only where one of its layers takes another form.
Sums over the layers of a step are sums over runs of one long array (``numpy.add.reduceat``).

What comes out is as good as the rounding of these sums, so it only says where to look: the descent computes a step before it takes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine_builder.search.time_model import FLOATS, Term

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
SLACK = 1e-10  # relative: rounding of sums that are kept up to date


class PlacedTerm:
    """A term by places, as a share of the baseline's latency; what it has given is kept."""

    def __init__(self, term: Term, places: Sequence[int], baseline_ms: float) -> None:
        """Know nothing yet.

        Args:
            term: The term.
            places: Of its layers; -1 for one that stays at the baseline.
            baseline_ms: The baseline's latency.
        """
        self._term, self._baseline_ms = term, baseline_ms
        self.places = tuple(places)  # -1 for a layer that stays at the baseline
        self._known: dict[tuple[int, ...], float] = {}

    def share(self, form: Sequence[int]) -> float:
        """Return its share, given the form of every layer by place."""
        return self.share_of(tuple(form[place] if place >= 0 else FLOATS for place in self.places))

    def share_of(self, forms: tuple[int, ...]) -> float:
        """Return its share, given the form of each of its own layers."""
        if forms not in self._known:
            self._known[forms] = self._term.milliseconds(forms) / self._baseline_ms
        return self._known[forms]


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
        self._precisions, self._choice_forms = precisions, list(forms)
        self._pairs = np.zeros((count + 1, count + 1))
        self._pairs[:count, :count] = interaction
        self._cost = np.append(cost, 0.0)
        self._layers = np.array([layer for one in sets for layer in one], dtype=np.intp)
        self._starts = np.cumsum([0, *(len(one) for one in sets)])[:-1]
        self._sets_of = [np.array([index for one, index in sets.items() if layer in one], dtype=np.intp) for layer in range(layers)]
        self._new_cost = self._sums(self._cost[precisions])
        self._new_pairs = np.array([[self._inside(choice, one) for one in sets] for choice in range(len(precisions))])
        self._mixed_pairs, self._old_pairs = np.zeros_like(self._new_pairs), np.zeros(len(sets))  # e'Dt and t'Dt / 2
        self._taken = np.full(layers, count, dtype=np.intp)
        self._form = [FLOATS] * layers
        self._place_terms(sets, terms)
        self._is_current = False

    def _inside(self, choice: int, layers: tuple[int, ...]) -> float:
        """Return e'De / 2 of a step."""
        if len(layers) == 1:
            return 0.0
        new = self._precisions[choice, list(layers)]
        return float(self._pairs[np.ix_(new, new)].sum()) / 2.0

    def _place_terms(self, sets: dict[tuple[int, ...], int], terms: Sequence[PlacedTerm]) -> None:
        """Number the cases of each term, by which of its layers a step changes; case 0 stands for no term at all."""
        self._terms = tuple(terms)
        touched: list[set[int]] = [set() for _ in self._form]
        for index, term in enumerate(terms):
            for place in term.places:
                if place >= 0:
                    touched[place].add(index)
        self._touched = [tuple(sorted(found)) for found in touched]
        self._cases: list[dict[tuple[bool, ...], int]] = [{} for _ in terms]
        cases = 1
        terms_of_sets: list[int] = []
        starts: list[int] = []
        used: list[int] = []
        for layers in sets:
            inside = frozenset(layers)
            starts.append(len(used))
            used.append(0)
            terms_of_sets.append(-1)
            for index in sorted({index for layer in layers for index in self._touched[layer]}):
                pattern = tuple(place in inside for place in terms[index].places)
                if pattern not in self._cases[index]:
                    self._cases[index][pattern] = cases
                    cases += 1
                used.append(self._cases[index][pattern])
                terms_of_sets.append(index)
        self._used_cases, self._used_terms = np.array(used, dtype=np.intp), np.array(terms_of_sets, dtype=np.intp)
        self._term_starts = np.array(starts, dtype=np.intp)
        self._distinct_forms = list(dict.fromkeys(self._choice_forms))
        self._form_of_choice = np.array([self._distinct_forms.index(form) for form in self._choice_forms], dtype=np.intp)
        self._case_shares, self._shares = np.zeros((len(self._distinct_forms), cases)), np.zeros(len(terms) + 1)
        self._renew(range(len(terms)))

    def _renew(self, terms: Sequence[int]) -> None:
        """Compute these terms anew, as they are and after every step that changes some of their layers."""
        for index in terms:
            term = self._terms[index]
            now = tuple(self._form[place] if place >= 0 else FLOATS for place in term.places)
            self._shares[index] = term.share_of(now)
            for pattern, case in self._cases[index].items():
                for row, form in enumerate(self._distinct_forms):
                    then = tuple(form if is_changed else old for is_changed, old in zip(pattern, now, strict=True))
                    self._case_shares[row, case] = term.share_of(then)

    def go_to(self, taken: Sequence[int], form: Sequence[int]) -> None:
        """Follow the assignment.

        Args:
            taken: The layer precision of each layer by place, -1 for the baseline.
            form: Of each layer.
        """
        wanted = np.array(taken, dtype=np.intp)
        wanted[wanted < 0] = len(self._cost) - 1
        for layer in np.flatnonzero(wanted != self._taken):
            self._change(layer, wanted[layer])
            self._is_current = False
        moved = [layer for layer, (new, old) in enumerate(zip(form, self._form, strict=True)) if new != old]
        self._form = list(form)
        self._renew(sorted({term for layer in moved for term in self._touched[layer]}))

    def _change(self, layer: np.intp, new: np.intp) -> None:
        apart = self._pairs[new] - self._pairs[self._taken[layer]]
        others = apart[self._taken]
        others[layer] = 0.0
        sets = self._sets_of[layer]
        self._mixed_pairs[:, sets] += self._sums(apart[self._precisions])[:, sets]
        self._old_pairs[sets] += self._sums(others)[sets]
        self._taken[layer] = new

    def promising(self, marginal: Floats, loss: float, rate: float, most_loss: float, least_gain: float) -> NDArray[np.intp]:
        """Return the steps, by place and in order, that may lower latency + rate * loss by more than a least gain.

        Args:
            marginal: (n,) loss that each layer precision adds where the assignment is.
            loss: There.
            rate: Baseline latencies that one unit of loss is worth.
            most_loss: That a step may lead to.
            least_gain: Of the objective.
        """
        if not self._is_current:
            self._refresh(marginal)
        after = np.maximum(loss + self._added_loss, 0.0)
        rounding = SLACK * (1.0 + rate * (abs(loss) + self._largest))
        pays = self._added_ratio + rate * after < rate * max(loss, 0.0) - least_gain + rounding
        if np.isfinite(most_loss):
            pays &= after <= most_loss + SLACK * (most_loss + self._largest)
        pays &= self._changes
        return np.flatnonzero(pays.ravel()[self._steps])

    def _refresh(self, marginal: Floats) -> None:
        gained = np.append(marginal, 0.0)
        old_loss, old_cost = self._sums(np.stack([gained[self._taken], self._cost[self._taken]]))
        self._added_loss = self._sums(gained[self._precisions]) - old_loss + self._new_pairs - self._mixed_pairs + self._old_pairs
        new_terms = np.add.reduceat(self._case_shares[:, self._used_cases], self._term_starts, axis=1)[self._form_of_choice]
        old_terms = np.add.reduceat(self._shares[self._used_terms], self._term_starts)
        self._added_ratio = self._new_cost - old_cost + new_terms - old_terms
        self._changes = self._sums((self._precisions != self._taken).astype(np.float64)) > 0.0
        self._largest = float(np.abs(self._added_loss).max(initial=0.0))
        self._is_current = True

    def _sums(self, values: Floats) -> Floats:
        """Return the sums over the layers of each set, (..., sets), of what each layer has, (..., layers)."""
        return np.asarray(np.add.reduceat(values[..., self._layers], self._starts, axis=-1))
