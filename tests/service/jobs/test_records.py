from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import IllegalMoveError
from service.jobs.records import MOVES, JobState, check_move

STATES = st.sampled_from(JobState)


@given(STATES, STATES)
def test_exactly_the_moves_of_the_diagram_are_accepted(old: JobState, new: JobState) -> None:
    drawn = {("queued", "running"), ("queued", "failed"), ("queued", "cancelled")}
    drawn |= {("running", "succeeded"), ("running", "failed"), ("running", "cancelled")}
    drawn |= {("on_hold", "running"), ("on_hold", "failed"), ("on_hold", "cancelled")}
    if (old.value, new.value) in drawn:
        check_move(old, new)
    else:
        with pytest.raises(IllegalMoveError, match=f"from {old} to {new}"):
            check_move(old, new)


@given(st.lists(STATES, max_size=8))
def test_no_sequence_of_moves_leaves_a_finished_state(wishes: list[JobState]) -> None:
    state = JobState.QUEUED
    was_finished = False
    for wish in wishes:
        if wish in MOVES[state]:
            assert not was_finished
            state = wish
        was_finished = state.is_finished
