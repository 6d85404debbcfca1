from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy.metrics import Metric, OutputKind
from calibration.data.dataset import CalibrationSet, is_repeated
from calibration.sequences.step_sequences import StepSequences
from engine_builder.closed_loop.intake import (
    MOST_STEPS,
    judged_kinds,
    judged_steps,
    loop_notes,
    loop_of,
    pairs_in_words,
    some_steps,
    with_states,
    with_states_as_values,
)
from engine_builder.records.closed_loop import ClosedLoop

STEPS = CalibrationSet({"x": np.arange(6.0)[:, None], "h": np.zeros((6, 2))}, None)
SEQUENCES = StepSequences(STEPS, np.array([2, 3, 1]), {"hn": "h"})
LOOP = ClosedLoop({"h": 1}, (2, 3, 1), is_judged_last=False)
VALUES, LOGITS, IGNORE = OutputKind.VALUES, OutputKind.LOGITS, OutputKind.IGNORE


def test_sequences_have_a_loop_and_single_samples_have_none() -> None:
    assert loop_of(SEQUENCES, ["y", "hn"]) == LOOP
    assert loop_of(STEPS, ["y", "hn"]) is None


def test_a_loop_without_steps_is_none() -> None:
    with pytest.raises(ValueError, match="sequences of at least one step"):
        ClosedLoop({"h": 1}, (2, 0), is_judged_last=False)


def test_a_state_is_values_whatever_ends_it_unless_the_user_says_otherwise() -> None:
    assert with_states_as_values([LOGITS, LOGITS], LOOP, []) == (LOGITS, VALUES)
    assert with_states_as_values([LOGITS, LOGITS], LOOP, [1]) == (LOGITS, LOGITS)
    assert with_states_as_values([LOGITS, IGNORE], LOOP, []) == (LOGITS, IGNORE)
    assert with_states_as_values([LOGITS, LOGITS], None, []) == (LOGITS, LOGITS)


def test_a_state_is_judged_by_what_it_does_to_the_other_outputs() -> None:
    assert judged_kinds({0: LOGITS, 1: VALUES}, LOOP) == (LOGITS, IGNORE)
    assert judged_kinds({0: LOGITS, 1: VALUES}, None) == (LOGITS, VALUES)


def test_a_model_that_gives_nothing_else_is_judged_by_its_state() -> None:
    assert judged_kinds({1: VALUES}, LOOP) == (VALUES,)


def test_the_first_steps_to_calibrate_on_come_from_everywhere() -> None:
    many = CalibrationSet({"x": np.arange(2.0 * MOST_STEPS)[:, None]}, None)
    first = some_steps(many, None, seed=0)[:100]

    assert len(np.unique(some_steps(many, None, seed=0))) == MOST_STEPS
    assert abs(first.mean() / MOST_STEPS - 1.0) < 0.2  # of a uniform spread over 0..2: its deviation for 100 is 0.06
    assert np.array_equal(first, some_steps(many, 100, seed=0))


def test_steps_with_large_states_are_fewer() -> None:
    large = np.broadcast_to(np.zeros((1, 2**18), dtype=np.float32), (2 * MOST_STEPS, 2**18))  # 1 MiB each
    steps = CalibrationSet({"x": np.zeros((2 * MOST_STEPS, 1)), "h": large}, None)

    assert len(some_steps(steps, None, seed=0)) == 256
    assert len(some_steps(steps, 2000, seed=0)) == 2000  # as the user said


def test_one_state_for_all_steps_takes_no_room() -> None:
    given = with_states(STEPS, {"h": np.ones((1, 2))})

    assert given.inputs["h"].shape == (6, 2)
    assert (given.inputs["h"] == 1.0).all()
    assert is_repeated(given.inputs["h"])


def test_the_last_steps_count_where_labels_are_of_sequences() -> None:
    assert judged_steps(ClosedLoop({"h": 1}, (2, 3, 1), is_judged_last=True), 6).tolist() == [1, 4, 5]
    assert judged_steps(LOOP, 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_the_user_is_told_what_is_run_and_how_a_sequence_counts() -> None:
    (note,) = loop_notes(SEQUENCES, Metric.AGREEMENT, [np.zeros((6, 5))])

    assert "output 'hn' is the next step's 'h'" in note
    assert "3 validation sequences of 1 to 3 steps" in note
    assert "by the mean over its steps" in note
    assert "by its worst step" in loop_notes(SEQUENCES, Metric.CLOSENESS, [np.full((6, 1), 3.0)])[0]


def test_many_pairs_are_counted_not_listed() -> None:
    assert pairs_in_words({f"n{i}": f"s{i}" for i in range(6)}).endswith("output 'n3' is the next step's 's3', and 2 more")
