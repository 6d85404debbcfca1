"""Corrections that cost something are measured where the fastest engine misses the budget, and engines that may win get them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.records.corrections import ChangedLayers
from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.search import FASTEST, Search
from engine_builder.workspace.workspace import FileRef
from tests.engine_builder.search.fake_world import FakeWorld, fastest_met

LOSSY, CORRECTED = FakeWorld((0.001,) * 8), FakeWorld((0.0001,) * 8)  # of 0.001 that may be lost
BEFORE = FileRef("biases.json", "3" * 64)


@dataclasses.dataclass
class Bench:
    """A search in a world whose layers lose less once their corrections are known."""

    plain: FakeWorld = LOSSY
    corrected: FakeWorld = CORRECTED
    changed: Collection[str] = LOSSY.layers
    one_format: dict[str, dict[str, Precision]] = dataclasses.field(default_factory=lambda: {"all_low": LOSSY.all_quantized})
    guesses: Sequence[CandidateSequence] = ()
    last_resorts: Collection[str] = ()
    max_trials: int | None = None
    without_residual_adds: dict[str, Precision] | None = None
    asked_after: list[int] = dataclasses.field(default_factory=list)  # trials

    def run(self) -> tuple[Trial, ...]:
        guessed = iter(self.guesses)
        changed = frozenset(LayerPrecision(layer, Precision.INT8) for layer in self.changed)

        def correct() -> ChangedLayers | None:
            self.asked_after.append(len(search.trials))
            return ChangedLayers(changed, BEFORE) if changed else None

        search = Search(
            self.one_format,
            lambda trials: iter(()),
            self.plain.fingerprint,
            max_trials=self.max_trials,
            max_seconds=None,
            seconds=lambda: 0.0,
            view=lambda trials: lambda trial: trial.on_search,
            last_resorts=self.last_resorts,
            without_residual_adds=self.without_residual_adds,
            fastest=lambda trials: next(guessed, None),
            correct=correct,
        )
        while (proposal := search.next()) is not None:
            name = search.fingerprint(proposal.quantized)
            world = self.plain if name == self.plain.fingerprint(proposal.quantized) and not self.asked_after else self.corrected
            trial = world.trial(len(search.trials), proposal.quantized, proposal.order)
            search.tell(dataclasses.replace(trial, fingerprint=name))
        return tuple(search.trials)


def shown(trials: Sequence[Trial]) -> list[tuple[str, bool]]:
    return [(trial.order, trial.made_with is None) for trial in trials]


def test_where_the_fastest_engine_keeps_the_budget_no_correction_is_asked_for() -> None:
    bench = Bench(plain=CORRECTED)
    assert shown(bench.run()) == [("baseline", True), ("all_low", True)]
    assert bench.asked_after == []


def test_an_engine_that_misses_the_budget_is_built_again_with_corrections() -> None:
    bench = Bench()
    trials = bench.run()
    assert shown(trials) == [("baseline", True), ("all_low", False), ("all_low", True)]
    assert trials[1].made_with == BEFORE
    assert fastest_met(trials) == trials[2]
    assert len({trial.fingerprint for trial in trials}) == 3
    assert bench.asked_after == [2]


def test_where_no_correction_helped_nothing_is_built_again() -> None:
    bench = Bench(changed=())
    assert shown(bench.run()) == [("baseline", True), ("all_low", True)]
    assert bench.asked_after == [2, 2]  # after the first engines, and where time alone could not be searched for


def test_an_engine_whose_layers_have_no_correction_is_what_it_was() -> None:
    half = LOSSY.quantized(LOSSY.layers[:4])
    bench = Bench(one_format={"all_low": LOSSY.all_quantized, "all_int8_dynamic": half}, changed=LOSSY.layers[4:])
    trials = bench.run()
    assert shown(trials) == [("baseline", True), ("all_low", False), ("all_int8_dynamic", True), ("all_low", True)]


def test_an_engine_that_is_slower_than_one_inside_the_budget_is_not_built_again() -> None:
    plain = FakeWorld((0.0,) * 2 + (0.002,) * 6, gains=(0.2, 0.2, 0.1, -0.2, 0.01, 0.01, 0.01, 0.01))
    kept, slower, fastest = (plain.quantized(plain.layers[:count]) for count in (2, 4, 3))
    one_format = {"all_low": fastest, "all_int8_dynamic": kept, "all_int8_weights": slower}
    trials = Bench(plain, dataclasses.replace(plain, flips=(0.0,) * 8), plain.layers, one_format).run()
    assert [trial.order for trial in trials] == ["baseline", "all_low", "all_int8_dynamic", "all_int8_weights", "all_low"]


def test_an_engine_without_corrections_that_keeps_the_budget_may_still_be_the_fastest() -> None:
    slow = dataclasses.replace(CORRECTED, gains=(0.01,) * 8)  # what smooths takes time
    half = LOSSY.quantized(LOSSY.layers[:1])
    plain = dataclasses.replace(LOSSY, gains=(0.3, *(0.01,) * 7))
    trials = Bench(plain, slow, one_format={"all_low": LOSSY.all_quantized, "all_int8_dynamic": half}).run()
    assert fastest_met(trials).order == "all_int8_dynamic"


def test_an_engine_that_failed_is_not_built_again() -> None:
    plain = dataclasses.replace(LOSSY, is_broken=lambda quantized: len(quantized) == 8)
    products = LOSSY.quantized(LOSSY.layers[:4])
    trials = Bench(plain, dataclasses.replace(plain, flips=CORRECTED.flips), without_residual_adds=products).run()
    assert [trial.order for trial in trials] == ["baseline", "all_low", "products"]


def test_last_resorts_are_tried_where_corrected_engines_miss_the_budget_too() -> None:
    half = LOSSY.quantized(LOSSY.layers[:4])
    one_format = {"all_low": LOSSY.all_quantized, "all_int8_weights": half}
    helped = Bench(one_format=one_format, last_resorts=("all_int8_weights",))
    assert [trial.order for trial in helped.run()] == ["baseline", "all_low", "all_low"]
    lost = Bench(corrected=LOSSY, one_format=one_format, last_resorts=("all_int8_weights",))
    assert [trial.order for trial in lost.run()] == ["baseline", "all_low", "all_low", "all_int8_weights"]


def test_a_guess_of_the_fastest_that_misses_the_budget_is_built_again_with_corrections() -> None:
    plain = FakeWorld((*(0.0,) * 7, 0.002), gains=(*(0.04,) * 7, 0.06))
    one_format = {"all_low": plain.quantized(plain.layers[:7])}
    guess = CandidateSequence(FASTEST, (plain.all_quantized,), (plain.ratio(plain.layers),))
    bench = Bench(plain, CORRECTED, plain.layers, one_format, [guess, guess])
    trials = bench.run()
    assert [trial.order for trial in trials] == ["baseline", "all_low", FASTEST, FASTEST]
    assert bench.asked_after == [3]
    assert trials[3].met


def test_an_engine_without_corrections_does_not_count_as_a_trial() -> None:
    assert len(Bench(max_trials=3).run()) == 3
    bench = Bench(corrected=LOSSY, last_resorts=("all_int8_weights",), max_trials=3)
    bench.one_format = {"all_low": LOSSY.all_quantized, "all_int8_weights": LOSSY.quantized(LOSSY.layers[:4])}
    assert [trial.order for trial in bench.run()] == ["baseline", "all_low", "all_low", "all_int8_weights"]


def test_the_fastest_of_the_engines_that_missed_comes_first_and_slower_ones_are_left_out_once_it_keeps_the_budget() -> None:
    plain = FakeWorld((0.002,) * 8, gains=(0.1,) * 4 + (-0.05,) * 4)
    half = plain.quantized(plain.layers[:4])  # faster than all of them
    one_format = {"all_low": plain.all_quantized, "all_int8_dynamic": half}
    trials = Bench(plain, dataclasses.replace(plain, flips=CORRECTED.flips), plain.layers, one_format).run()
    assert [trial.order for trial in trials] == ["baseline", "all_low", "all_int8_dynamic", "all_int8_dynamic"]


def test_residual_adds_are_left_out_only_where_that_may_win() -> None:
    plain = FakeWorld((0.0,) * 4 + (0.002,) * 4, gains=(0.1,) * 4 + (-0.05,) * 4)
    kept, products = plain.quantized(plain.layers[:4]), plain.quantized(plain.layers[:7])
    slow = {"all_low": plain.all_quantized, "all_int8_dynamic": kept}
    trials = Bench(plain, plain, (), slow, without_residual_adds=products).run()
    assert [trial.order for trial in trials] == ["baseline", "all_low", "all_int8_dynamic"]
    fast = dataclasses.replace(plain, gains=(0.1,) * 4 + (0.01,) * 4)
    trials = Bench(fast, fast, (), slow, without_residual_adds=products).run()
    assert [trial.order for trial in trials] == ["baseline", "all_low", "all_int8_dynamic", "products"]
