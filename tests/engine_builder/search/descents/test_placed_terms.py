from __future__ import annotations

import numpy as np
import pytest

from calibration.number_formats.precision import Precision
from engine_builder.search.descents import placed_terms
from engine_builder.search.descents.placed_terms import PlacedTerm, TermSums
from engine_builder.search.descents.set_sums import SetSums
from engine_builder.search.time_model import FLOATS, form_of
from tests.engine_builder.search.descents.encoder_world import BASELINE_MS, encoder_world

FORMS = (FLOATS, form_of(Precision.INT8))


@pytest.mark.parametrize("most_changes", [4, 1000])
def test_the_sums_are_what_each_step_adds_wherever_the_assignment_goes(most_changes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed_terms, "MOST_CHANGES", most_changes)
    rng = np.random.default_rng(0)
    world = encoder_world(1, 0)
    layers = {layer: place for place, layer in enumerate(dict.fromkeys(one.layer for one in world.layer_precisions))}
    terms = [PlacedTerm(term, [layers.get(layer, -1) for layer in term.layers], BASELINE_MS) for term in world.times.terms]
    count = len(layers)
    sets = [*((place,) for place in range(count)), (0, 1, 2), (3, 4), tuple(range(count))]
    sums = TermSums(SetSums(sets, count).members(), terms, FORMS)
    form = [FLOATS] * count
    for _ in range(12):
        for place in rng.choice(count, int(rng.integers(1, 4)), replace=False):
            form[place] = int(rng.choice(FORMS))
        sums.go_to(form)
        here = sum(term.share(form) for term in terms)
        for row, new in enumerate(FORMS):
            for at, one in enumerate(sets):
                then = [new if place in one else old for place, old in enumerate(form)]
                assert sums.added[row, at] == pytest.approx(sum(term.share(then) for term in terms) - here, abs=1e-12)  # rounding


def test_without_terms_no_step_adds_anything() -> None:
    sums = TermSums(SetSums([(0,), (0, 1)], 2).members(), [], FORMS)
    sums.go_to([FORMS[1], FLOATS])
    assert not sums.added.any()
