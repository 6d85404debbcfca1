from __future__ import annotations

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.search.time_model import FLOATS, form_of
from engine_builder.search.times.kernel_sites import NeighbourTerm, SiteTerm, corner_shares

LOW = form_of(Precision.INT8)
POOL = SiteTerm(("a",), ("b",), {(False, False): 1.0, (True, True): 0.5, (False, True): 9.0})


@pytest.mark.parametrize(
    ("forms", "expected"),
    [((FLOATS, FLOATS), 0.0), ((LOW, LOW), -0.5), ((FLOATS, LOW), 8.0), ((LOW, FLOATS), (1.0 + 0.5) / 2 - 1.0)],
)
def test_a_kernel_takes_what_it_took_between_such_layers_and_the_mean_where_none_had_it_so(forms: tuple[int, ...], expected: float) -> None:
    assert POOL.milliseconds(forms) == pytest.approx(expected)


def test_in_between_it_is_in_proportion() -> None:
    joined = SiteTerm(("a", "b"), ("c",), {(False, False): 1.0, (True, False): 3.0, (True, True): 1.0, (False, True): 1.0})
    assert joined.milliseconds((LOW, FLOATS, FLOATS)) == pytest.approx(1.0)  # half of the 2 more


def test_a_layer_takes_longer_in_proportion_to_the_neighbours_that_are_not_as_it_is() -> None:
    term = NeighbourTerm("a", ("b", "c"), float_ms=4.0, quantized_ms=2.0)
    found = [term.milliseconds(forms) for forms in ((FLOATS, FLOATS, FLOATS), (FLOATS, LOW, FLOATS), (FLOATS, LOW, LOW))]
    assert found == [0.0, 2.0, 4.0]
    assert [term.milliseconds((LOW, *rest)) for rest in ((LOW, LOW), (LOW, FLOATS), (FLOATS, FLOATS))] == [0.0, 1.0, 2.0]


def test_where_there_is_no_layer_on_one_side_the_other_side_counts() -> None:
    assert corner_shares((), ("a", "b"), {"a"}) == (0.5, 0.5)
    assert corner_shares(("a",), (), {"a"}) == (1.0, 1.0)
    assert corner_shares((), (), {"a"}) == (0.0, 0.0)


def test_what_a_term_adds_can_be_scaled() -> None:
    assert POOL.scaled(2.0).milliseconds((FLOATS, LOW)) == pytest.approx(16.0)
    assert NeighbourTerm("a", ("b",), 4.0, 2.0).scaled(0.5).milliseconds((FLOATS, LOW)) == pytest.approx(2.0)
