"""Timing takes turns, leaves out what a turn costs, and calls faster only what is."""

from __future__ import annotations

import gc
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.codec import json_from_value, value_from_json
from engine_builder.search.shipping_rule import is_worth_it
from engine_builder.timing import Blocks, Clock, Timer, Timing, TimingPlan, is_tied, relative_latency, time_interleaved
from tests.fake_timer import FakeTimer


class Machine:
    """A clock that engines move: each run takes its own time, times the load of the moment."""

    def __init__(self, load: Callable[[float], float] = lambda now: 1.0) -> None:
        self.now = 0.0
        self.turns: list[str] = []
        self._load = load

    def clock(self) -> float:
        return self.now

    def engine(self, name: str, seconds: float, *, cold: float = 0.0) -> Callable[[], None]:
        """Return a run of an engine; ``cold`` is what its first run after another engine's costs on top."""

        def run() -> None:
            is_cold = not self.turns or self.turns[-1] != name
            self.turns.append(name)
            self.now += (seconds + (cold if is_cold else 0.0)) * self._load(self.now)

        return run


def noisy(rng: np.random.Generator, scale: float) -> Machine:
    """Return a machine on which some runs take longer, by an exponential law."""
    return Machine(lambda now: float(1.0 + rng.exponential(scale)))


def timings(machine: Machine, seconds: float = 2.0, **calls: Callable[[], object]) -> dict[str, Timing]:
    return time_interleaved(calls, seconds=seconds, min_runs=5, max_runs=10_000, clock=machine.clock)


class TimerContract(ABC):
    """What the stages rely on of whatever times engines in turns."""

    @abstractmethod
    def timer(self) -> Timer:
        """Return it."""

    def times(self, *names: str, compared_by: Clock | None = None) -> tuple[Mapping[str, Timing], list[str]]:
        """Return the timings of engines, and which ran."""
        machine = Machine()
        calls = {name: machine.engine(name, 0.001) for name in names}
        return self.timer()(calls, seconds=0.02, min_runs=1, max_runs=20, compared_by=compared_by), machine.turns

    def test_every_engine_runs_and_gets_its_timing(self) -> None:
        found, ran = self.times("baseline", "a", "b")
        assert list(found) == ["baseline", "a", "b"]
        assert set(ran) == {"baseline", "a", "b"}
        assert all(timing.median_ms > 0 and timing.runs >= 1 for timing in found.values())

    def test_engines_of_one_call_can_be_compared(self) -> None:
        found, _ = self.times("baseline", "a")
        assert relative_latency(found["a"], found["baseline"]).ratio > 0

    def test_one_engine_can_be_timed_alone_and_by_another_clock(self) -> None:
        found, _ = self.times("baseline", compared_by=time.process_time)
        assert found["baseline"].median_ms > 0

    def test_an_error_of_an_engine_is_raised(self) -> None:
        def broken() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            self.timer()({"a": broken}, seconds=0.02, min_runs=1, max_runs=20)


class TestTimeInterleaved(TimerContract):
    def timer(self) -> Timer:
        return time_interleaved


class TestFakeTimer(TimerContract):
    def timer(self) -> Timer:
        return FakeTimer()


def timing_of(*block_ms: float) -> Timing:
    return Timing(float(np.median(block_ms)), max(block_ms), 0.0, len(block_ms), block_ms)


def test_what_the_thread_waited_is_what_the_comparing_clock_did_not_see() -> None:
    """The wall clock runs twice as fast as the other one: half of the time the thread had no processor."""
    machine = Machine()
    calls = {name: machine.engine(name, 0.004) for name in ("a", "b")}
    found = time_interleaved(calls, seconds=1.0, min_runs=9, max_runs=200, clock=machine.clock, compared_by=lambda: machine.clock() / 2.0)
    assert [timing.waited for timing in found.values()] == [pytest.approx(0.5), pytest.approx(0.5)]
    assert [timing.waited for timing in timings(machine, a=calls["a"], b=calls["b"]).values()] == [None, None]


def test_median_of_a_steady_engine_is_its_time_in_milliseconds() -> None:
    machine = Machine()
    found = timings(machine, a=machine.engine("a", 0.004))["a"]
    assert found.median_ms == pytest.approx(4.0)
    assert found.p95_ms == pytest.approx(4.0)
    assert found.mad_ms == pytest.approx(0.0, abs=1e-9)
    assert found.runs >= 100


def test_engines_take_turns_in_an_order_that_rotates() -> None:
    machine = Machine()
    timings(machine, seconds=0.5, a=machine.engine("a", 0.01), b=machine.engine("b", 0.01))
    runs = "".join(machine.turns)
    assert runs.startswith("aaaabbbb")  # the warm-up
    turns = runs[8 + 3 * 6 :]  # three uncounted rounds: a quarter of half a second at 0.06 s a round
    assert turns.startswith("aaabbb" + "bbbaaa" + "aaabbb")


def test_no_engine_is_favoured_by_its_place() -> None:
    machine = Machine()
    timings(machine, seconds=3.0, a=machine.engine("a", 0.02), b=machine.engine("b", 0.02), c=machine.engine("c", 0.02))
    runs = "".join(machine.turns)[12 + 7 * 6 :]  # seven uncounted rounds: a quarter of three seconds at 0.12 s a round
    openers = [runs[start] for start in range(0, 54, 6)]
    assert openers == list("acbacbacb")


def test_what_a_turn_costs_is_not_counted() -> None:
    machine = Machine()
    found = timings(machine, a=machine.engine("a", 0.002, cold=0.05), b=machine.engine("b", 0.001, cold=0.03))
    assert found["a"].p95_ms == pytest.approx(2.0)
    assert found["b"].p95_ms == pytest.approx(1.0)


def test_stops_when_time_is_up_but_not_before_the_fewest_runs() -> None:
    machine = Machine()
    found = time_interleaved({"slow": machine.engine("slow", 3.0)}, seconds=1.0, min_runs=7, max_runs=100, clock=machine.clock)
    assert found["slow"].runs == 7


def test_stops_at_the_most_runs() -> None:
    machine = Machine()
    found = time_interleaved({"fast": machine.engine("fast", 1e-6)}, seconds=60.0, min_runs=1, max_runs=90, clock=machine.clock)
    assert found["fast"].runs == 90


def test_a_clock_that_stands_still_still_ends() -> None:
    assert time_interleaved({"a": lambda: None}, seconds=1.0, min_runs=1, max_runs=20, clock=lambda: 0.0)["a"].runs == 20


def test_garbage_collection_is_off_during_timing_and_as_before_afterwards() -> None:
    seen: list[bool] = []
    machine = Machine()
    run = machine.engine("a", 0.01)

    def watched() -> None:
        seen.append(gc.isenabled())
        run()

    timings(machine, a=watched)
    assert not any(seen)
    assert gc.isenabled()


def test_an_error_in_a_run_leaves_garbage_collection_on() -> None:
    def broken() -> None:
        raise RuntimeError("no device")

    with pytest.raises(RuntimeError, match="no device"):
        time_interleaved({"a": broken}, seconds=1.0, min_runs=1, max_runs=1)
    assert gc.isenabled()


def test_nothing_to_time_and_crossed_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to time"):
        time_interleaved({}, seconds=1.0, min_runs=1, max_runs=1)
    with pytest.raises(ValueError, match="min_runs"):
        time_interleaved({"a": lambda: None}, seconds=1.0, min_runs=2, max_runs=1)


def is_faster(candidate: Timing, baseline: Timing) -> bool:
    """Return whether the timing tells that the candidate takes less time."""
    return is_worth_it(relative_latency(candidate, baseline), are_outputs_equal=True)


def test_ten_percent_is_seen_through_a_load_that_comes_and_goes() -> None:
    rng = np.random.default_rng(0)
    loads = 1.0 + np.repeat(rng.choice([0.0, 1.0], 4000), 1) * rng.uniform(0.5, 1.5, 4000)
    machine = Machine(lambda now: float(loads[int(now / 0.25) % len(loads)]))
    found = timings(machine, seconds=20.0, base=machine.engine("base", 0.005), small=machine.engine("small", 0.0045))
    assert relative_latency(found["small"], found["base"]).ratio == pytest.approx(0.9, abs=0.01)
    assert is_faster(found["small"], found["base"])
    assert not is_faster(found["base"], found["small"])


def test_an_equal_engine_is_not_faster_whatever_the_noise() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        machine = noisy(rng, 0.3)
        found = timings(machine, base=machine.engine("base", 0.005), same=machine.engine("same", 0.005))
        assert not is_faster(found["same"], found["base"])


def test_a_gain_below_one_percent_is_no_gain() -> None:
    assert not is_faster(timing_of(*[0.995] * 9), timing_of(*[1.0] * 9))
    assert is_faster(timing_of(*[0.98] * 9), timing_of(*[1.0] * 9))


def test_a_gain_within_three_spreads_is_no_gain() -> None:
    noisy = timing_of(0.8, 1.0, 0.85, 1.1, 0.9, 1.05, 0.95, 0.9, 0.9)
    assert not is_faster(noisy, timing_of(*[1.0] * 9))


def test_engines_within_one_percent_are_tied() -> None:
    assert is_tied(timing_of(*[1.009] * 9), timing_of(*[1.0] * 9))
    assert not is_tied(timing_of(*[1.02] * 9), timing_of(*[1.0] * 9))


def test_a_difference_within_two_standard_errors_is_a_tie() -> None:
    noise = np.array([0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 0.94, 1.0, 1.0])
    base = timing_of(*[1.0] * 9)
    error = relative_latency(timing_of(*noise), base).error
    assert error > 0.015
    assert is_tied(timing_of(*noise * (1.0 + 1.8 * error)), base)
    assert not is_tied(timing_of(*noise / (1.0 - 2.5 * error)), base)


def test_timings_of_different_calls_are_not_compared() -> None:
    with pytest.raises(ValueError, match="one call"):
        relative_latency(timing_of(1.0), timing_of(1.0, 1.0))


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60), st.floats(0.01, 100.0))
def test_relative_latency_of_a_scaled_engine_is_the_scale(blocks: list[float], scale: float) -> None:
    relative = relative_latency(timing_of(*(block * scale for block in blocks)), timing_of(*blocks))
    assert relative.ratio == pytest.approx(scale)
    assert relative.mad == pytest.approx(0.0, abs=1e-9 * scale)
    assert relative.error == pytest.approx(0.0, abs=1e-9 * scale)


def test_timing_survives_json() -> None:
    timing = timing_of(1.0, 2.0, 3.0)
    assert value_from_json(Timing, json.loads(json.dumps(json_from_value(timing)))) == timing


@pytest.mark.parametrize(("least", "most"), [(0, 5), (6, 5)])
def test_a_plan_needs_at_least_one_run_and_no_fewer_at_most(least: int, most: int) -> None:
    with pytest.raises(ValueError, match=f"min_runs is {least} and max_runs {most}"):
        TimingPlan(1.0, least, most, time_interleaved)


def test_rounds_end_early_where_they_tell_enough_and_not_before_the_fewest_runs() -> None:
    seen: list[list[int]] = []

    def enough(blocks: Blocks) -> bool:
        seen.append([len(blocks["a"]), len(blocks["b"])])
        return len(blocks["a"]) >= 12

    machine = Machine()
    calls = {"a": machine.engine("a", 0.02), "b": machine.engine("b", 0.01)}
    found = time_interleaved(calls, seconds=20.0, min_runs=5, max_runs=1000, enough=enough, clock=machine.clock)
    assert (len(found["a"].block_ms), len(found["b"].block_ms)) == (12, 12)
    assert seen[0] == [5, 5]  # a block of the slower engine is one run


def test_the_time_for_warming_up_can_be_told() -> None:
    ended = []
    for warm_up in (0.0, 3.0):
        machine = Machine()
        calls = {"a": machine.engine("a", 0.01)}
        time_interleaved(calls, seconds=2.0, min_runs=5, max_runs=10_000, warm_up=warm_up, clock=machine.clock)
        ended.append(machine.now)
    assert ended[1] - ended[0] == pytest.approx(3.0, abs=0.05)  # a round


def test_a_ratio_and_its_inverse_are_one_measurement() -> None:
    rng = np.random.default_rng(4)
    one, other = (timing_of(*rng.lognormal(0.0, 0.1, 31)) for _ in range(2))
    there, back = relative_latency(one, other), relative_latency(other, one)
    assert there.ratio * back.ratio == pytest.approx(1.0)
    assert there.error / there.ratio == pytest.approx(back.error / back.ratio)


def test_rounds_that_are_like_those_before_them_tell_less() -> None:
    """The same ratios, in an order in which neighbours are alike and in one in which they are not."""
    rng = np.random.default_rng(5)
    ratios = np.sort(rng.normal(1.0, 0.02, 40))
    slow, mixed = (relative_latency(timing_of(*order), timing_of(*[1.0] * 40)) for order in (ratios, rng.permutation(ratios)))
    assert slow.ratio == pytest.approx(mixed.ratio)
    assert slow.error > 2.0 * mixed.error


def test_one_round_in_six_that_takes_twice_as_long_moves_no_ratio() -> None:
    blocks = [2.0 if index % 6 == 5 else 1.0 + 0.001 * (index % 3) for index in range(48)]
    assert relative_latency(timing_of(*blocks), timing_of(*[1.0] * 48)).ratio == pytest.approx(1.001, abs=0.001)


def test_other_work_on_the_machine_changes_latencies_and_no_ratio_where_cpu_time_compares() -> None:
    rng = np.random.default_rng(0)
    machine = Machine(load=lambda now: float(rng.uniform(1.0, 5.0)))
    spent = [0.0]  # CPU time of the thread: what the runs take, without what others take meanwhile

    def engine(name: str, seconds: float) -> Callable[[], None]:
        run = machine.engine(name, seconds)

        def counted() -> None:
            run()
            spent[0] += seconds

        return counted

    calls = {"baseline": engine("baseline", 0.004), "engine": engine("engine", 0.003)}
    found = time_interleaved(calls, seconds=2.0, min_runs=5, max_runs=10_000, clock=machine.clock, compared_by=lambda: spent[0])
    relative = relative_latency(found["engine"], found["baseline"])
    assert relative.ratio == pytest.approx(0.75)
    assert relative.mad == pytest.approx(0.0, abs=1e-9)
    assert found["baseline"].median_ms > 6.0  # the wall clock's
