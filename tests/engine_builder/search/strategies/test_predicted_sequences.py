from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.strategies.predicted_sequences import PredictedSequences
from engine_builder.search.strategies.strategy import Evidence
from tests.engine_builder.search.fake_world import FakeWorld

WORLD = FakeWorld(flips=(0.1, 0.2))
TRIALS = [WORLD.trial(0, {}, "baseline"), WORLD.trial(1, WORLD.all_quantized, "all_low")]


def sequence(name: str) -> CandidateSequence:
    return CandidateSequence(name, ({"layer000": Precision.INT8},), (0.5,))


class Told:
    """Evidence that is told, and how many trials each prediction was asked with."""

    def __init__(self, *predicted: tuple[CandidateSequence, ...] | None) -> None:
        self.answers, self.asked = list(predicted), list[int]()

    @property
    def evidence(self) -> Evidence:
        return Evidence(self.rankings, self.predicted)

    def rankings(self) -> Iterator[CandidateSequence]:
        yield sequence("loss")

    def predicted(self, trials: Sequence[Trial]) -> tuple[CandidateSequence, ...] | None:
        self.asked.append(len(trials))
        return self.answers.pop(0)


def names(told: Told, trials: Sequence[Trial]) -> list[str]:
    return [found.name for found in PredictedSequences().propose(told.evidence, trials)]


def test_what_is_predicted_comes_first_and_what_all_trials_predict_last() -> None:
    told = Told((sequence("frontier"), sequence("hessian")), (sequence("refine"),))
    assert names(told, TRIALS) == ["frontier", "hessian", "refine"]


def test_models_are_fitted_again_only_when_the_first_sequences_are_done() -> None:
    trials, told = list(TRIALS), Told((sequence("frontier"),), (sequence("refine"),))
    proposed = PredictedSequences().propose(told.evidence, trials)
    assert next(proposed).name == "frontier"
    trials.append(WORLD.trial(2, {"layer000": Precision.INT8}, "frontier"))
    assert next(proposed).name == "refine"
    assert told.asked == [2, 3]


def test_the_rankings_are_followed_where_nothing_could_be_timed() -> None:
    untimed = [TRIALS[0], dataclasses.replace(TRIALS[1], latency=None)]
    told = Told()
    assert names(told, untimed) == ["loss"]
    assert told.asked == []


def test_the_rankings_are_followed_where_nothing_can_be_predicted() -> None:
    assert names(Told(None), TRIALS) == ["loss"]


def test_a_second_prediction_that_fails_leaves_the_first() -> None:
    assert names(Told((sequence("frontier"),), None), TRIALS) == ["frontier"]


def learned(name: str, ratio: float = 0.5) -> CandidateSequence:
    return dataclasses.replace(sequence(name), ratios=(ratio,), errors=(0.02,))


def test_where_predictions_have_errors_each_sequence_is_predicted_anew_after_trials() -> None:
    trials = list(TRIALS)
    again = (learned("refine"), learned("loss", 0.6), learned("hessian", 0.7))
    told = Told((learned("frontier"), learned("loss"), learned("hessian")), again, again)
    proposed = PredictedSequences().propose(told.evidence, trials)
    assert next(proposed) == learned("frontier")
    trials.append(WORLD.trial(2, {"layer000": Precision.INT8}, "frontier"))
    assert next(proposed) == learned("loss", 0.6)
    assert next(proposed) == learned("hessian", 0.7)  # no trial was added in between
    trials.append(WORLD.trial(3, {"layer001": Precision.INT8}, "hessian"))
    assert next(proposed) == learned("refine")
    assert told.asked == [2, 3, 4]


def test_the_refined_sequence_is_not_asked_for_twice_where_no_trial_was_added() -> None:
    trials = list(TRIALS)
    told = Told((learned("frontier"), learned("loss")), (learned("refine"), learned("loss")))
    proposed = PredictedSequences().propose(told.evidence, trials)
    next(proposed)
    trials.append(WORLD.trial(2, {"layer000": Precision.INT8}, "frontier"))
    assert [one.name for one in proposed] == ["loss", "refine"]
    assert told.asked == [2, 3]


def test_a_prediction_anew_that_fails_leaves_the_sequences_as_they_were() -> None:
    trials = list(TRIALS)
    told = Told((learned("frontier"), learned("loss")), None, None)
    proposed = PredictedSequences().propose(told.evidence, trials)
    next(proposed)
    trials.append(WORLD.trial(2, {"layer000": Precision.INT8}, "frontier"))
    assert list(proposed) == [learned("loss")]
