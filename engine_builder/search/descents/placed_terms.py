"""Terms between layers by places, and what steps change in them, summed over the layers of each step and kept up to date.

A term has a case for each way in which a step can touch it: which of its layers change, and to which form. What its cases give hangs on the
forms of its own layers alone, and is kept. Where a layer takes another form, only the cases of its terms change, and only the sums that
these are in. Terms of few layers are joined to those of more, so that there are fewer to follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine_builder.search.descents.set_sums import Floats
from engine_builder.search.time_model import FLOATS, Term

Places = NDArray[np.intp]
MOST_CHANGES = 2000  # of sums that are kept up to date, before they are added up anew


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

    def forms(self, form: Sequence[int]) -> tuple[int, ...]:
        """Return the form of each of its own layers, given that of every layer by place."""
        return tuple([form[place] if place >= 0 else FLOATS for place in self.places])

    def share(self, form: Sequence[int]) -> float:
        """Return its share, given the form of every layer by place."""
        return self.share_of(self.forms(form))

    def share_of(self, forms: tuple[int, ...]) -> float:
        """Return its share, given the form of each of its own layers."""
        if forms not in self._known:
            self._known[forms] = self._term.milliseconds(forms) / self._baseline_ms
        return self._known[forms]


class _Joined:
    """Terms whose layers are all among those of one of them, as one term of this one's layers."""

    def __init__(self, term: PlacedTerm) -> None:
        self.places = tuple(sorted(set(term.places) - {-1}))
        self._parts = [term]
        self._known: dict[tuple[int, ...], float] = {}

    def takes(self, term: PlacedTerm) -> bool:
        """Take the term in if its layers are among these."""
        if fits := set(term.places) <= {*self.places, -1}:
            self._parts.append(term)
        return fits

    def lay_out(self) -> None:
        """Find the layers of each part among these; the last stands for one that stays at the baseline."""
        at = {place: index for index, place in enumerate((*self.places, -1))}
        self._at = [[at[place] for place in part.places] for part in self._parts]

    def share_of(self, forms: tuple[int, ...]) -> float:
        """Return the share of all of them, given the form of each of its layers."""
        found = self._known.get(forms)
        if found is None:
            known = (*forms, FLOATS)
            found = sum([part.share_of(tuple([known[index] for index in at])) for part, at in zip(self._parts, self._at, strict=True)])
            self._known[forms] = found
        return found


def _joined(terms: Sequence[PlacedTerm]) -> tuple[_Joined, ...]:
    """Return the terms with those of few layers joined to one of more."""
    found: list[_Joined] = []
    around: dict[int, list[_Joined]] = {}  # by layer
    for term in sorted(terms, key=lambda term: -len(set(term.places) - {-1})):
        first = next((place for place in term.places if place >= 0), None)
        if first is None or any(one.takes(term) for one in around.get(first, ())):
            continue
        found.append(_Joined(term))
        for place in found[-1].places:
            around.setdefault(place, []).append(found[-1])
    for one in found:
        one.lay_out()
    return tuple(found)


class TermSums:
    """What each step adds in all terms together. Not thread-safe; deterministic.

    ``added``: (forms, sets), by the form that the layers of a set take, as a share of the baseline's latency.
    """

    def __init__(self, members: NDArray[np.bool_], terms: Sequence[PlacedTerm], forms: Sequence[int]) -> None:
        """Number the cases of each term, with every layer in floats.

        Args:
            members: (layers, sets), whether a layer is in a set that changes together.
            terms: What depends on several layers, at least one of them not at the baseline for good.
            forms: That a set may take, each once.
        """
        layers, self._sets = members.shape
        self._terms, self._forms, self._form = _joined(terms), tuple(forms), [FLOATS] * layers
        touched: list[list[int]] = [[] for _ in range(layers)]
        self._patterns: list[list[list[bool]]] = []  # of each term: which of its layers a step changes, by case
        self._cases: list[slice] = []
        self._used_by: list[Places] = []  # the sets that change some of its layers
        self._used: list[Places] = []  # and the case that each makes
        cases = 0
        for index, term in enumerate(self._terms):
            for place in term.places:
                touched[place].append(index)
            inside = members[list(term.places)]
            sets = np.flatnonzero(inside.any(axis=0))
            patterns, used = np.unique(inside[:, sets], axis=1, return_inverse=True)
            self._patterns.append(patterns.T.tolist())
            self._cases.append(slice(cases, cases + patterns.shape[1]))
            self._used_by.append(sets)
            self._used.append(used.reshape(-1) + cases)
            cases += patterns.shape[1]
        self._touched = touched
        self._known: dict[tuple[int, tuple[int, ...]], Floats] = {}
        self._shares = np.zeros((len(forms), cases))
        self._add_up()

    def go_to(self, form: Sequence[int]) -> None:
        """Follow the assignment.

        Args:
            form: Of each layer.
        """
        moved = [layer for layer, (new, old) in enumerate(zip(form, self._form, strict=True)) if new != old]
        terms = sorted({term for layer in moved for term in self._touched[layer]})
        self._form = list(form)
        self._changes += len(moved)
        if self._changes > MOST_CHANGES:
            self._add_up()
        elif terms:
            used = np.concatenate([self._used[index] for index in terms])
            before = self._shares[:, used]
            self._renew(terms)
            self._add(np.concatenate([self._used_by[index] for index in terms]), self._shares[:, used] - before)

    def _add_up(self) -> None:
        self._changes, self.added = 0, np.zeros((len(self._forms), self._sets))
        if self._terms:
            self._renew(range(len(self._terms)))
            self._add(np.concatenate(self._used_by), self._shares[:, np.concatenate(self._used)])

    def _add(self, sets: Places, shares: Floats) -> None:
        for added, share in zip(self.added, shares, strict=True):
            added += np.bincount(sets, share, self._sets)

    def _renew(self, terms: Iterable[int]) -> None:
        for index in terms:
            now = tuple([self._form[place] for place in self._terms[index].places])
            known = self._known.get((index, now))
            if known is None:
                known = self._known[index, now] = self._cases_of(index, now)
            self._shares[:, self._cases[index]] = known

    def _cases_of(self, index: int, now: tuple[int, ...]) -> Floats:
        """Return what each case of a term adds to its share, (forms, cases of the term)."""
        term = self._terms[index]
        share = term.share_of(now)
        return np.array(
            [
                [
                    term.share_of(tuple([form if is_changed else old for is_changed, old in zip(pattern, now, strict=True)])) - share
                    for pattern in self._patterns[index]
                ]
                for form in self._forms
            ]
        )
