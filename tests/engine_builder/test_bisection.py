from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.bisection import Bisection


@given(data=st.data(), candidates=st.integers(0, 5000))
def test_finds_the_boundary_of_any_monotone_predicate_within_log2_questions(data: st.DataObject, candidates: int) -> None:
    boundary = data.draw(st.integers(0, candidates))
    state, questions = Bisection(0, candidates), 0
    while (candidate := state.next()) is not None:
        assert 1 <= candidate <= candidates
        state = state.tell(candidate, met=candidate <= boundary)
        questions += 1
    assert state.low == boundary
    assert questions <= math.ceil(math.log2(candidates + 1))


@given(candidates=st.integers(1, 300), answers=st.lists(st.booleans(), min_size=12, max_size=12))
def test_answers_that_are_not_monotone_still_end_at_a_boundary_as_it_was_answered(candidates: int, answers: list[bool]) -> None:
    state, told = Bisection(0, candidates), dict[int, bool]()
    while (candidate := state.next()) is not None:
        assert candidate not in told
        told[candidate] = answers[len(told)]
        state = state.tell(candidate, met=told[candidate])
    assert told.get(state.low, state.low == 0)
    assert not told.get(state.low + 1, state.low == candidates and told.get(candidates) is None)


@given(candidates=st.integers(1, 300), prefix=st.integers(1, 300), met=st.booleans())
def test_an_answer_from_elsewhere_keeps_the_bounds_in_order(candidates: int, prefix: int, met: bool) -> None:
    state = Bisection(min(2, candidates), candidates).tell(prefix, met=met)
    assert 0 <= state.low <= state.high
    assert state.low >= prefix if met else state.high < prefix


def test_nothing_to_ask_where_one_value_is_open() -> None:
    assert Bisection(4, 4).next() is None


@pytest.mark.parametrize(("low", "high"), [(-1, 3), (3, 2)])
def test_refuses_bounds_that_hold_no_value(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="0 <= low <= high"):
        Bisection(low, high)
