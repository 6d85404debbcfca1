from __future__ import annotations

import numpy as np

from calibration.data.dataset import CalibrationSet
from calibration.sequences.step_sequences import StepSequences, as_wholes, first_steps, steps_of

LENGTHS = np.array([2, 3, 1], dtype=np.int64)


def sequences() -> StepSequences:
    state = np.broadcast_to(np.zeros((1, 2)), (6, 2))
    steps = CalibrationSet({"x": np.arange(6.0)[:, None], "h": state}, np.arange(6), starts={"h": np.arange(6.0).reshape(3, 2)})
    return StepSequences(steps, LENGTHS, {"hn": "h"})


def test_a_sequence_begins_where_the_one_before_ends() -> None:
    assert first_steps(LENGTHS).tolist() == [0, 2, 5]


def test_sequences_are_taken_whole_and_in_the_order_asked_for() -> None:
    taken = sequences().take(np.array([2, 1]))

    assert taken.samples == 2
    assert taken.lengths.tolist() == [1, 3]
    assert taken.steps.inputs["x"][:, 0].tolist() == [5.0, 2.0, 3.0, 4.0]
    assert taken.steps.starts["h"].tolist() == [[4.0, 5.0], [2.0, 3.0]]
    assert taken.steps.labels is not None
    assert taken.steps.labels.tolist() == [5, 2, 3, 4]


def test_sequences_are_compared_as_wholes_without_their_state() -> None:
    wholes = as_wholes(sequences())

    assert list(wholes.inputs) == ["x"]
    assert wholes.inputs["x"][..., 0].tolist() == [[0.0, 1.0, 0.0], [2.0, 3.0, 4.0], [5.0, 0.0, 0.0]]


def test_single_samples_are_what_they_are() -> None:
    single = sequences().steps

    assert steps_of(single) is single
    assert as_wholes(single) is single
    assert steps_of(sequences()).samples == 6
