from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.number_formats.precision import Precision
from engine_builder.records.trial import FOLDED, Trial, failed_trial, mean_seconds
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.search import DEFAULT_MAX_TRIALS, MAX_FAILURES, Search
from tests.engine_builder.search.fake_world import FakeWorld, fastest_met, rising, run

LOSSLESS = FakeWorld((0.0,) * 16)
HALFWAY = FakeWorld((0.0001,) * 16, budget=0.00085)  # 8 of 16 layers fit
HOPELESS = FakeWorld((0.01,) * 16)


def orders(trials: Sequence[Trial]) -> list[str]:
    return [trial.order for trial in trials]


def test_the_first_two_trials_are_the_baseline_and_everything_quantized() -> None:
    search = HALFWAY.search()
    first = search.next()
    assert first is not None
    assert (first.quantized, first.order) == ({}, "baseline")
    search.tell(HALFWAY.trial(0, first.quantized, first.order))
    second = search.next()
    assert second is not None
    assert (second.quantized, second.order) == (HALFWAY.all_quantized, "all_low")


def test_where_everything_quantized_loses_too_much_it_is_tried_without_residual_adds_before_any_sequence() -> None:
    without_residual_adds = HALFWAY.quantized(HALFWAY.layers[:8])
    trials = run(HALFWAY, HALFWAY.search(without_residual_adds=without_residual_adds))
    assert orders(trials)[:3] == ["baseline", "all_low", "products"]
    assert trials[2].precisions == without_residual_adds
    assert fastest_met(trials).low_layers == 8


def test_where_everything_quantized_keeps_the_budget_it_is_not_tried_without_residual_adds() -> None:
    assert "products" not in orders(run(LOSSLESS, LOSSLESS.search(without_residual_adds=LOSSLESS.quantized(LOSSLESS.layers[:8]))))


def test_asking_twice_gives_the_same_proposal() -> None:
    search = HALFWAY.search()
    assert search.next() == search.next()


def test_without_a_layer_that_may_be_quantized_the_baseline_is_the_only_trial() -> None:
    world = FakeWorld(())
    search = world.search([])
    assert orders(run(world, search)) == ["baseline"]
    assert search.ended == "nothing left to try"


def test_finds_the_longest_prefix_that_keeps_the_budget() -> None:
    assert fastest_met(run(HALFWAY, HALFWAY.search())).low_layers == 8


@settings(max_examples=60)
@given(st.integers(2, 60), st.floats(0.0, 1.0))
def test_finds_the_longest_prefix_of_any_monotone_world_in_about_log2_trials(count: int, share: float) -> None:
    world = FakeWorld(rising(count, 0.01), budget=0.01 * share)
    trials = run(world, world.search())
    drops = [world.true_drop(world.layers[:length]) for length in range(count + 1)]
    best = max(length for length, drop in enumerate(drops) if drop <= world.budget + 1e-12)
    assert fastest_met(trials).low_layers == best
    assert len(trials) <= 2 + int(np.ceil(np.log2(count))) + 3  # the first two, the bisection, the candidates around the boundary


def test_the_candidates_around_the_boundary_are_tried() -> None:
    lengths = {trial.low_layers for trial in run(HALFWAY, HALFWAY.search())}
    assert {7, 8, 9, 10} <= lengths


def test_a_hopeless_model_ends_with_the_baseline_after_about_log2_trials() -> None:
    trials = run(HOPELESS, HOPELESS.search())
    assert fastest_met(trials).low_layers == 0
    assert len(trials) <= 2 + 4 + 2


def test_sequences_share_trials() -> None:
    twice = run(HALFWAY, HALFWAY.search([HALFWAY.sequence(), HALFWAY.sequence(name="hessian")]))
    assert set(orders(twice)) == {"baseline", "all_low", "loss"}


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([100, 1000, None]))
def test_never_proposes_the_same_assignment_twice(count: int, seed: int, samples: int | None) -> None:
    rng = np.random.default_rng(seed)
    world = FakeWorld(tuple(rng.uniform(0.0, 0.004, count).tolist()), budget=0.005, beta=0.4, samples=samples, seed=seed)
    sequences = [world.sequence(list(rng.permutation(world.layers)), name=f"order{index}") for index in range(4)]
    trials = run(world, world.search(sequences, max_trials=500))
    assert max(Counter(trial.fingerprint for trial in trials).values()) == 1


def test_a_sequence_that_cannot_win_is_not_tried() -> None:
    """Once 8 of 16 layers are quantized, every candidate of a sequence that is predicted to be slower than that is left alone."""
    hopeful, late = HALFWAY.sequence(), HALFWAY.sequence(list(reversed(HALFWAY.layers)), name="slow")
    slow = CandidateSequence(late.name, late.rungs, tuple(0.9 for _ in late.rungs))
    assert "slow" not in orders(run(HALFWAY, HALFWAY.search([hopeful, slow])))


def test_a_sequence_that_may_win_is_tried() -> None:
    late = HALFWAY.sequence(list(reversed(HALFWAY.layers)), name="fast")
    assert "fast" in orders(run(HALFWAY, HALFWAY.search([HALFWAY.sequence(), late])))


def test_a_candidate_sequence_is_only_made_once_the_ones_before_it_are_done() -> None:
    seen: list[int] = []

    def sequences(trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
        for name in ("loss", "hessian"):
            seen.append(len(trials))
            yield HALFWAY.sequence(name=name)

    search = Search(
        {"all_low": HALFWAY.all_quantized},
        sequences,
        HALFWAY.fingerprint,
        max_trials=None,
        max_seconds=None,
        seconds=lambda: 0.0,
        view=lambda trials: lambda trial: trial.on_search,
    )
    trials = run(HALFWAY, search)
    assert seen == [2, len(trials)]


@pytest.mark.parametrize(("limit", "made"), [(1, 2), (2, 2), (3, 3), (5, 5)])
def test_ends_at_the_limit_of_trials_after_the_baseline_and_the_first_engine(limit: int, made: int) -> None:
    search = HALFWAY.search(max_trials=limit)
    assert len(run(HALFWAY, search)) == made
    assert search.ended == f"the limit of {made} trials was reached"


def test_ends_at_the_default_limit_of_trials() -> None:
    world = FakeWorld((0.0001,) * 60, budget=0.003)
    rng = np.random.default_rng(0)
    sequences = [world.sequence(list(rng.permutation(world.layers)), name=str(index)) for index in range(30)]
    assert len(run(world, world.search(sequences))) == DEFAULT_MAX_TRIALS


def test_ends_at_the_limit_of_seconds_but_not_before_the_first_two_trials() -> None:
    world = dataclasses.replace(HALFWAY, seconds=10.0)
    for limit in (1.0, 20.0):
        search = world.search(max_seconds=limit)
        assert len(run(world, search)) == 2
        assert search.ended == f"the limit of {limit:g} seconds was reached"


@pytest.mark.parametrize(("limit", "expected"), [(29.0, 2), (30.0, 3), (45.0, 4), (50.0, 5)])
def test_no_trial_is_begun_that_would_end_past_the_limit_of_seconds(limit: float, expected: int) -> None:
    world = dataclasses.replace(HALFWAY, seconds=10.0)
    search = world.search(max_seconds=limit)
    assert len(run(world, search)) == expected
    reached, no_time = (f"the limit of {limit:g} seconds {words}" for words in ("was reached", "leaves no time for another trial"))
    assert search.ended.startswith(reached if limit in (30.0, 50.0) else no_time)


def test_no_trial_is_begun_where_making_the_sequences_took_the_time_that_was_left() -> None:
    spent = [0.0]

    def sequences(trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
        spent[0] = 60.0
        yield HALFWAY.sequence()

    search = Search(
        {"all_low": HALFWAY.all_quantized},
        sequences,
        HALFWAY.fingerprint,
        max_trials=None,
        max_seconds=50.0,
        seconds=lambda: spent[0],
        view=lambda trials: lambda trial: trial.on_search,
    )
    assert len(run(HALFWAY, search)) == 2
    assert search.ended == "the limit of 50 seconds was reached"


def test_the_mean_is_over_engines_whose_time_is_known() -> None:
    world = dataclasses.replace(HALFWAY, seconds=10.0)
    baseline, one = world.trial(0, {}, "baseline"), world.trial(1, HALFWAY.all_quantized, "all_low")
    failed = failed_trial(2, "f", dict(HALFWAY.all_quantized), "loss", "too long", seconds=40.0)
    unknown = dataclasses.replace(failed, seconds=0.0)
    assert mean_seconds([baseline]) == 0.0
    assert mean_seconds([baseline, one, failed, unknown]) == 25.0


def test_three_failures_in_a_row_end_the_search() -> None:
    world = dataclasses.replace(HALFWAY, is_broken=lambda quantized: len(quantized) > 0)
    search = world.search()
    trials = run(world, search)
    assert len(trials) == 1 + MAX_FAILURES
    assert search.ended == "3 trials in a row failed"


def test_a_failure_counts_as_not_met_and_the_search_goes_on() -> None:
    world = dataclasses.replace(HALFWAY, is_broken=lambda quantized: len(quantized) in (16, 8))
    trials = run(world, world.search())
    assert fastest_met(trials).low_layers == 7
    assert [trial.low_layers for trial in trials if trial.failure] == [16, 8]


def test_failures_that_are_not_in_a_row_do_not_end_the_search() -> None:
    world = FakeWorld((0.0001,) * 64, budget=0.01, is_broken=lambda quantized: len(quantized) in (64, 62, 63, 61))
    search = world.search()
    trials = run(world, search)
    assert sum(trial.failure is not None for trial in trials) >= MAX_FAILURES
    assert search.ended == "nothing left to try"
    assert fastest_met(trials).low_layers == 60


def test_everything_quantized_failing_does_not_end_the_search() -> None:
    world = dataclasses.replace(LOSSLESS, is_broken=lambda quantized: len(quantized) == 16)
    assert fastest_met(run(world, world.search())).low_layers == 15


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_the_same_trials_give_the_same_proposals(seed: int) -> None:
    world = FakeWorld(rising(20, 0.02), budget=0.004, beta=0.4, samples=500, seed=seed)
    assert run(world, world.search()) == run(world, world.search())


def test_decides_on_the_samples_that_it_may_look_at() -> None:
    """On the samples kept for the verdict everything is fine; the search must not know."""

    def blind(trial: Trial) -> Trial:
        return dataclasses.replace(trial, on_all=dataclasses.replace(trial.on_all, excess=0.1)) if trial.on_all else trial

    search = HALFWAY.search()
    while (proposal := search.next()) is not None:
        search.tell(blind(HALFWAY.trial(len(search.trials), proposal.quantized, proposal.order)))
    plain = run(HALFWAY, HALFWAY.search())
    assert [trial.fingerprint for trial in search.trials] == [trial.fingerprint for trial in plain]


def test_a_candidate_sequence_has_a_prediction_for_every_candidate() -> None:
    with pytest.raises(ValueError, match="1 candidates and 0 predictions"):
        CandidateSequence("loss", ({"a": Precision.INT8},), ())


def test_in_noise_the_search_ships_no_worse_an_engine_than_one_that_takes_observed_drops_at_face_value() -> None:
    """Each world has one search on shrunk drops and one on observed ones; the fastest engine that met the budget ships."""
    worlds = [(samples, top, beta) for samples in (300, 1000, 3000, 10_000) for top in (0.002, 0.005, 0.02) for beta in (0.2, 0.5)]
    found: dict[bool, list[tuple[float, float, int]]] = {True: [], False: []}
    for samples, top, beta in worlds:
        for seed in range(6):
            for is_binary, results in found.items():  # real-valued scores are not shrunk
                world = FakeWorld(rising(24, top), 0.4 * beta * top, beta, samples, is_binary, seed=seed)
                trials = run(world, world.search())
                best = fastest_met(trials)
                is_over = world.true_drop(best.precisions) > world.budget
                results.append((is_over, world.ratio(best.precisions), len(trials)))
    shrunk, observed = (np.mean(np.array(found[key], dtype=np.float64), axis=0) for key in (True, False))
    # Found with these seeds, shrunk and observed: true drop over budget 73% and 75% of the time (a fastest engine that met a budget on the
    # samples that it was chosen by was lucky: that is what the verdict is for), latency ratio 0.614 and 0.611, trials 6.2 and 6.3.
    assert shrunk[0] <= observed[0] + 0.03
    assert shrunk[1] <= observed[1] + 0.01
    assert shrunk[2] <= observed[2] + 0.5


def test_the_folded_float_model_comes_right_after_the_baseline_and_takes_no_trial_of_the_limit() -> None:
    search = HALFWAY.search(max_trials=3, tries_folded=True)
    assert orders(run(HALFWAY, search)) == ["baseline", FOLDED, "all_low", "loss"]
    assert search.ended == "the limit of 3 trials was reached"


def test_the_folded_float_model_is_tried_where_no_layer_can_be_quantized() -> None:
    nothing = FakeWorld(())
    assert orders(run(nothing, nothing.search(tries_folded=True))) == ["baseline", FOLDED]
