from __future__ import annotations

import dataclasses
import itertools

from hypothesis import given
from hypothesis import strategies as st

from calibration.accuracy.budget import Budget
from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Accuracy, Latency, Trial, failed_trial
from engine_builder.search.measured_front import (
    MAX_FINALISTS,
    MAX_OFFERED,
    beaten,
    fast_enough,
    fastest_of,
    finalists,
    offered,
    pareto_front,
)
from engine_builder.timing import RelativeLatency
from engine_builder.workspace.workspace import FileRef


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


BUDGETS = tuple(Budget(min_relative=value) for value in (0.99, 0.999, 0.9999))


def at(index: int, ratio: float, lost: float, loss: float, low_layers: int = 1) -> Trial:
    """Return a trial that loses a share of the float model's score, at a budget of nothing."""
    found = trial(index, ratio, -0.9 * lost, loss, low_layers)
    accuracy = Accuracy(0.9 * (1 - lost), 0.9, -0.9 * lost, lost, binary=True, samples=1000)
    return dataclasses.replace(found, on_all=accuracy, on_search=accuracy)


def offers(trials: list[Trial], *, always: tuple[str, ...] = (), **latency: RelativeLatency) -> list[int]:
    return [one.index for one in offered(trials, on_all, latency, BUDGETS, always=always)]


def test_engines_over_the_jobs_own_budget_are_offered_safest_first() -> None:
    trials = [at(0, 1.0, 0.0, 0.0, low_layers=0), at(1, 0.5, 0.02, 0.3), at(2, 0.7, 0.001, 0.1)]
    assert offers(trials) == [2, 1]


def test_an_engine_that_another_beats_in_everything_is_not_offered() -> None:
    assert offers([at(1, 0.5, 0.001, 0.1), at(2, 0.6, 0.001, 0.2)]) == [1]


def test_of_equally_accurate_engines_the_one_that_diverges_less_is_offered_too() -> None:
    assert offers([at(1, 0.5, 0.001, 0.2), at(2, 0.6, 0.001, 0.1)]) == [2, 1]


def test_an_engine_that_is_no_faster_than_the_baseline_is_not_offered() -> None:
    assert offers([at(1, 0.995, 0.0, 0.1), at(2, 1.2, 0.0, 0.1)]) == []


def test_a_gain_within_the_spread_of_the_timing_is_none() -> None:
    assert offers([at(1, 0.9, 0.0, 0.1)], f1=RelativeLatency(0.9, 0.05)) == []
    assert offers([at(1, 0.9, 0.0, 0.1)], f1=RelativeLatency(0.9, 0.01)) == [1]


def test_the_final_timing_says_which_engine_is_fast() -> None:
    assert offers([at(1, 0.5, 0.001, 0.1)], f1=RelativeLatency(1.1, 0.0)) == []


def test_there_are_few_offers_and_the_fastest_inside_each_budget_is_among_them() -> None:
    trials = [at(index, 0.95 - 0.05 * index, 0.0004 * 2**index, 0.01 * index) for index in range(1, 12)]
    found = offers(trials)
    assert len(found) == MAX_OFFERED
    assert {1, 4} <= set(found)  # 0.0008 <= 0.001 < 0.0016; 0.0064 <= 0.01 < 0.0128
    assert found == sorted(found)


def test_the_engine_that_ships_is_among_the_offers_even_if_another_beats_it() -> None:
    trials = [at(1, 0.5, 0.001, 0.1), at(2, 0.505, 0.001, 0.2)]
    assert offers(trials, always=("f2",)) == [1, 2]


@given(TRIALS)
def test_no_offer_beats_another_in_everything(trials: list[Trial]) -> None:
    found = offered(trials, on_all, {}, BUDGETS)
    for one, other in itertools.permutations(found, 2):
        (ratio, slack), (other_ratio, other_slack) = numbers(one), numbers(other)
        assert not (ratio <= other_ratio and slack >= other_slack and (one.loss or 0.0) <= (other.loss or 0.0))


def test_a_riskier_engine_that_may_be_faster_as_far_as_the_timing_tells_is_a_finalist() -> None:
    def wide(one: Trial, error: float) -> Trial:
        assert one.latency is not None
        return dataclasses.replace(one, latency=dataclasses.replace(one.latency, ratio_error=error))

    safe, risky = trial(1, 0.700, 0.1, 0.1), trial(2, 0.705, 0.1, 0.2)
    for error, expected in ((0.0, [1]), (0.004, [1]), (0.02, [1, 2])):
        found = finalists([wide(safe, error), wide(risky, error)], on_all)
        assert [one.index for one in found] == expected


def test_the_fastest_keep_their_order() -> None:
    found = fastest_of([trial(0, 0.6, 0.1), trial(1, 0.9, 0.1), trial(2, 0.5, 0.1), trial(3, 0.7, 0.1)], 3)
    assert [one.index for one in found] == [0, 2, 3]


def with_file(item: Trial) -> Trial:
    return dataclasses.replace(item, engine=FileRef(f"trials/{item.fingerprint}.plan", "0" * 64))


@given(TRIALS)
def test_whatever_is_beaten_is_neither_a_finalist_nor_offered(trials: list[Trial]) -> None:
    kept = [with_file(item) for item in trials]
    lost = set(beaten(kept))
    assert not lost & {item.fingerprint for item in finalists(kept, on_all)}
    assert not lost & {item.fingerprint for item in fast_enough(kept, on_all, 0.9)}
    assert not lost & {item.fingerprint for item in offered(kept, on_all, {}, [Budget(min_relative=0.9)])}


def test_only_what_is_slower_beyond_the_errors_and_no_better_in_anything_is_beaten() -> None:
    best = with_file(trial(1, 0.5, 0.02, loss=0.1))
    assert beaten([best, with_file(trial(2, 0.7, 0.01, loss=0.2))]) == ("f2",)
    assert beaten([best, with_file(trial(2, 0.51, 0.01, loss=0.2))]) == ()  # within the errors of both timings
    assert beaten([best, with_file(trial(2, 0.7, 0.03, loss=0.2))]) == ()  # more accurate
    assert beaten([best, with_file(trial(2, 0.7, 0.01, loss=0.05))]) == ()  # diverges less
    assert beaten([best, dataclasses.replace(with_file(trial(2, 0.7, 0.01, loss=0.2)), order="all_low")]) == ()  # profiled later
    assert beaten([best, trial(2, 0.7, 0.01, loss=0.2)]) == ()  # it has no file
    sure = dataclasses.replace(best, on_search=Accuracy(0.9, 0.9, 0.02, 0.01, binary=True, samples=100, probability_over=0.3))
    assert beaten([sure, with_file(trial(2, 0.7, 0.01, loss=0.2))]) == ()  # the search is less sure of the faster one
