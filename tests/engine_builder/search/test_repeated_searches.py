"""Whole searches by noisy clocks: two of one job choose engines that are equally fast, and time is spent where something is near."""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Sequence

import numpy as np
import pytest

from engine_builder.evaluation.measurement import latency_of
from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import BEYOND, CandidateSequence
from engine_builder.search.deciding import Proposal
from engine_builder.search.measured_front import fastest_of, finalists
from engine_builder.search.search import FRONTIER, Search
from engine_builder.search.shipping_rule import is_worth_it, safest_of_fastest
from engine_builder.timed_enough import EachKnown, FinalistsKnown, TrialKnown
from engine_builder.timing import MIN_GAIN, Enough, RelativeLatency, Timing, relative_latency, time_interleaved
from tests.engine_builder.noisy_machine import NOISES, NoisyMachine
from tests.engine_builder.search.fake_world import FakeWorld

BASELINE_SECONDS = 0.05
LAYERS = 24
SEEDS = range(7)


@pytest.fixture(autouse=True, scope="module")
def frozen_objects() -> None:
    """Leave what is there already out of the collections that each timing begins with."""
    gc.collect()
    gc.freeze()


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What a search ships."""

    true_ratio: float
    stated: RelativeLatency
    trials: tuple[Trial, ...]
    rounds: tuple[int, ...]  # that each trial took


def world_of(seed: int) -> FakeWorld:
    """Return layers of unlike cost and gain, about half of which fit."""
    rng = np.random.default_rng([77, seed])
    flips = rng.lognormal(0.0, 1.0, LAYERS)
    gains = rng.dirichlet(np.full(LAYERS, 2.0)) * 0.5
    return FakeWorld(tuple((0.01 * flips / flips.sum()).tolist()), budget=0.004, gains=tuple(gains.tolist()))


def timed(machine: NoisyMachine, world: FakeWorld, engines: dict[str, Trial], enough: Enough, seconds: float) -> dict[str, Timing]:
    calls = {name: machine.engine(BASELINE_SECONDS * world.ratio(trial.precisions)) for name, trial in engines.items()}
    return time_interleaved(
        calls, seconds=seconds, min_runs=9, max_runs=5000, enough=enough, warm_up=0.0, clock=machine.clock, compared_by=machine.cpu
    )


def tried(proposal: Proposal, machine: NoisyMachine, world: FakeWorld, known: Sequence[Trial], seconds: float) -> tuple[Trial, int]:
    """Return a trial as the stage makes it, timed by the machine's clocks, and the rounds that it took."""
    trial = world.trial(len(known), proposal.quantized, proposal.order)
    if not proposal.quantized:
        return trial, len(timed(machine, world, {"engine": trial}, EachKnown(0.02), 1.2)["engine"].block_ms)
    enough = TrialKnown(proposal.deciding.bounds, proposal.deciding.best if trial.met else None)
    found = timed(machine, world, {"engine": trial, "baseline": known[0]}, enough, seconds)
    return dataclasses.replace(trial, latency=latency_of(found)), len(found["engine"].block_ms)


def searched(world: FakeWorld, machine: NoisyMachine, seconds: float = 6.0) -> Chosen:
    """Search, time the finalists, and choose, as a job does; a trial is timed for so many seconds at most."""
    by_loss, by_worth = world.sequence(), sorted(world.layers, key=lambda name: world.true_drop([name]) / (1.0 - world.ratio([name])))
    frontier = world.sequence(by_worth, FRONTIER)
    frontier = CandidateSequence(FRONTIER, frontier.rungs, frontier.ratios, (0.02,) * len(frontier.rungs))
    search: Search = world.search([frontier, by_loss])
    rounds = []
    while (proposal := search.next()) is not None:
        trial, took = tried(proposal, machine, world, search.trials, seconds)
        rounds.append(took)
        search.tell(trial)
    last = fastest_of(finalists(search.trials, lambda trial: trial.on_search), 3)
    engines = {"baseline": search.trials[0]} | {trial.fingerprint: trial for trial in last}
    names = [trial.fingerprint for trial in last]
    timings = timed(machine, world, engines, FinalistsKnown(names, (0.97,)), 12.0)
    found = {name: relative_latency(timings[name], timings["baseline"]) for name in names}
    name = safest_of_fastest([name for name in names if is_worth_it(found[name], are_outputs_equal=False)], timings)
    assert name is not None
    return Chosen(world.ratio(engines[name].precisions), found[name], tuple(search.trials), tuple(rounds))


@pytest.mark.parametrize("noise", NOISES)
def test_two_searches_choose_engines_that_are_equally_fast_within_the_stated_error(noise: str) -> None:
    unequal = []
    for seed in SEEDS:
        world = world_of(seed)
        one, other = (searched(world, NoisyMachine(noise, 2 * seed + place)) for place in (0, 1))
        error = math.hypot(one.stated.error, other.stated.error)
        allowed = max(MIN_GAIN * one.true_ratio, 2.0 * error)
        unequal.append(abs(one.true_ratio - other.true_ratio) > allowed)
    assert sum(unequal) <= 1, unequal


def test_trials_near_the_best_engine_get_more_rounds_than_far_ones() -> None:
    near: list[int] = []
    far: list[int] = []
    for seed in range(14):
        found = searched(world_of(seed), NoisyMachine("jitter", seed, scale=2.0), seconds=60.0)
        best = 1.0
        for trial, took in zip(found.trials[1:], found.rounds[1:], strict=True):
            assert trial.latency is not None
            if trial.met and trial.latency.ratio < best:
                best = trial.latency.ratio  # what later engines are compared with is another matter
            elif trial.met:
                (near if trial.latency.ratio < best + 0.04 else far).append(took)
    assert min(len(near), len(far)) > 5, (near, far)
    assert np.mean(near) > 1.5 * np.mean(far)


def test_what_is_compared_is_what_the_search_has_found() -> None:
    world = FakeWorld((0.0001,) * 16, budget=0.00085)
    search = world.search([dataclasses.replace(world.sequence(), errors=(0.01,) * 15)])
    ratios: dict[int, float] = {}
    seen = []
    while (proposal := search.next()) is not None:
        seen.append(proposal)
        trial = world.trial(len(search.trials), proposal.quantized, proposal.order)
        best = min((ratios[index] for index, known in enumerate(search.trials) if known.met), default=1.0)
        if search.trials:
            assert proposal.deciding.best == best
        assert trial.latency is not None
        ratios[len(search.trials)] = trial.latency.ratio
        search.tell(trial)
    assert seen[0].deciding.bounds == seen[1].deciding.bounds == ()  # the baseline, and the first engine
    for proposal in seen[2:]:
        assert proposal.deciding.bounds == (world.ratio(proposal.quantized) + BEYOND * 0.01,)


def test_where_an_engine_must_be_fast_enough_that_decides() -> None:
    world = FakeWorld((0.0001,) * 16)
    search = world.search(largest_ratio=lambda baseline_ms: 0.7)
    while (proposal := search.next()) is not None:
        if proposal.order != "baseline":
            assert (proposal.deciding.best, proposal.deciding.bounds) == (None, (0.7,))
        search.tell(world.trial(len(search.trials), proposal.quantized, proposal.order))
