from __future__ import annotations

import dataclasses
import itertools

from hypothesis import given
from hypothesis import strategies as st

from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Accuracy, Latency, Trial, failed_trial
from engine_builder.search.measured_front import MAX_FINALISTS, finalists, pareto_front


def trial(index: int, ratio: float, slack: float, loss: float | None = 0.1, low_layers: int = 1) -> Trial:
    accuracy = Accuracy(0.9, 0.9, slack, 0.01, binary=True, samples=100)
    latency = Latency(ratio, ratio, 0.01, 50, 1.0, 0.01, ratio)
    quantized = {f"l{layer}": Precision.INT8 for layer in range(low_layers)}
    return Trial(index, f"f{index}", quantized, "loss", low_layers, accuracy, accuracy, loss, latency, 100, None, 1.0, None)


def on_all(item: Trial) -> Accuracy | None:
    return item.on_all


VALUES = st.tuples(st.integers(1, 12), st.integers(-6, 6), st.integers(0, 12))
TRIALS = st.lists(VALUES, max_size=25).map(
    lambda rows: [trial(index, ratio / 8, slack / 100, loss / 10) for index, (ratio, slack, loss) in enumerate(rows)]
)


def numbers(item: Trial) -> tuple[float, float]:
    assert item.latency is not None
    assert item.on_all is not None
    return item.latency.ratio, item.on_all.excess


@given(TRIALS)
def test_no_member_of_the_front_beats_another(trials: list[Trial]) -> None:
    front = pareto_front(trials)
    for one in front:
        for other in front:
            if one is not other:
                (ratio, slack), (other_ratio, other_slack) = numbers(one), numbers(other)
                assert not (ratio <= other_ratio and slack >= other_slack)


@given(TRIALS)
def test_whatever_is_not_on_the_front_is_beaten_or_equalled_by_a_member(trials: list[Trial]) -> None:
    front = pareto_front(trials)
    for one in trials:
        ratio, slack = numbers(one)
        assert any(numbers(other)[0] <= ratio and numbers(other)[1] >= slack for other in front)


@given(TRIALS)
def test_the_front_comes_fastest_first(trials: list[Trial]) -> None:
    ratios = [numbers(item)[0] for item in pareto_front(trials)]
    assert ratios == sorted(ratios)


def test_of_equal_trials_the_earliest_is_on_the_front() -> None:
    assert [item.index for item in pareto_front([trial(3, 0.5, 0.0), trial(1, 0.5, 0.0)])] == [1]


def test_failed_and_untimed_trials_are_not_on_the_front() -> None:
    untimed = dataclasses.replace(trial(1, 0.1, 1.0), latency=None)
    assert pareto_front([failed_trial(0, "f", {}, "loss", "crash"), untimed]) == ()


@given(TRIALS)
def test_finalists_come_safest_first_and_each_is_faster_than_all_before(trials: list[Trial]) -> None:
    chosen = finalists(trials, on_all)
    assert len(chosen) <= MAX_FINALISTS
    losses = [item.loss or 0.0 for item in chosen]
    ratios = [numbers(item)[0] for item in chosen]
    assert losses == sorted(losses)
    assert all(later < earlier for earlier, later in itertools.pairwise(ratios))


@given(TRIALS)
def test_every_finalist_meets_the_budget_and_beats_the_baseline_and_the_fastest_such_is_among_them(trials: list[Trial]) -> None:
    chosen = finalists(trials, on_all)
    worthy = [item for item in trials if item.met and numbers(item)[0] < 1.0]
    assert all(item in worthy for item in chosen)
    if worthy:
        assert numbers(chosen[-1])[0] == min(numbers(item)[0] for item in worthy)


def test_of_many_finalists_the_fastest_are_kept() -> None:
    trials = [trial(index, 0.9 - index / 20, 0.0, loss=index / 10) for index in range(9)]
    assert [item.index for item in finalists(trials, on_all)] == [3, 4, 5, 6, 7, 8]


def test_the_baseline_is_no_finalist() -> None:
    assert finalists([trial(0, 0.99, 0.0, low_layers=0)], on_all) == ()


def test_finalists_are_picked_by_the_samples_that_the_search_saw_alone() -> None:
    """Were they picked by the samples kept for the verdict too, those would no longer be untouched."""
    good, bad = trial(0, 0.5, 0.0).on_all, trial(0, 0.5, -1.0).on_all
    kept_apart_looks_bad = dataclasses.replace(trial(0, 0.5, 0.0), on_search=good, on_all=bad)
    kept_apart_looks_good = dataclasses.replace(trial(1, 0.4, 0.0), on_search=bad, on_all=good)
    assert finalists([kept_apart_looks_bad, kept_apart_looks_good], lambda item: item.on_search) == (kept_apart_looks_bad,)
