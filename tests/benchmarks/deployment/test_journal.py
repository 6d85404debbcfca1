from __future__ import annotations

import pytest

from benchmarks.deployment.journal import Journal, Span, jain
from benchmarks.deployment.recorded import recorded_jobs
from engine_builder.pipeline.stage_table import STAGES


def test_jains_index_is_1_for_equals_and_one_nth_for_one_who_has_it_all() -> None:
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([5.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([0.0, 0.0]) == 1.0


def test_two_holders_of_one_job_are_noticed_and_for_how_long() -> None:
    journal = Journal()
    journal.takes("job", "one", 10.0)
    journal.takes("job", "two", 12.0)
    journal.leaves("job", "one", 15.0)
    journal.takes("other", "three", 15.0)
    assert (journal.held_twice, journal.longest_overlap) == (1, 3.0)


def test_a_finished_step_that_begins_again_is_noticed() -> None:
    journal, span = Journal(), Span("job", 2, "one", on_gpu=False, begun=0.0)
    journal.begins(span)
    journal.ends(span, 4.0, "L4", is_finished=False)
    journal.begins(span)
    journal.ends(span, 9.0, "L4", is_finished=True)
    assert (journal.finished_again, journal.lost_seconds) == (0, 4.0)
    journal.begins(span)
    assert journal.finished_again == 1


def test_a_turn_is_fair_where_nobody_who_waits_has_fewer_running() -> None:
    journal = Journal()
    journal.turn("a", {"a": 1, "b": 2}, {"a": 1, "b": 1})
    journal.turn("a", {"a": 1, "b": 0}, {"a": 4, "b": 1})
    assert journal.unfair_turns == 0
    journal.turn("a", {"a": 1, "b": 2}, {"a": 2, "b": 1})
    assert journal.unfair_turns == 1


def test_recorded_jobs_are_of_known_stages_and_have_trials_before_and_after_the_analysis() -> None:
    found = recorded_jobs()
    assert {step.stage for job in found for step in job.steps} <= set(STAGES)
    resnet = next(job for job in found if job.network == "resnet50")
    stages = [step.stage for step in resnet.steps]
    assert (stages.count("trial"), stages.index("sensitivity")) == (7, 5)
    assert (stages[0], stages[-1]) == ("inspect", "report")
    assert resnet.seconds(on_gpu=True) == pytest.approx(74.8, abs=0.05)  # recorded CPU seconds, rounded to milliseconds a step
