"""Latency of engines that are timed in turns, so that drift of the machine hits all of them alike.

One *round* gives every engine a *block* of consecutive runs; the order of the engines rotates from round to round, and the
first run of each block, which finds the caches full of another engine's data, is not counted. A block is worth its median.
Engines are compared by the ratio of their blocks of the same round: a load that comes and goes slows both. The ratio of two engines is
the mean of the middle half of the logarithms of these ratios (a mean trimmed by a quarter on each side): as safe from outliers as is
needed here, and more exact than a median of as many rounds. Its standard error is that of a trimmed mean (J. W. Tukey and
D. H. McLaughlin, Sankhya A 25, 1963, 331-352), s / ((1 - 2/4) sqrt(n)) with s the deviation of the Winsorized values, widened to the
deviation of Student's t with as many degrees of freedom, since few rounds may look alike by chance, and by sqrt((1 + c) / (1 - c)) where
rounds are like those before them (autocorrelation c > 0 of the Winsorized values), since such rounds tell less. In simulations that stop as
soon as this error is small enough, the truth is beyond two of it in 2 to 10% of cases (10 to 25% where c is 0.6); of the median and
its deviation it was 6 to 17% (36 to 40%).

Besides, rounds are dealt into nine groups, each worth the median of its ratios, and their median absolute deviation (MAD) is the spread
that readers are told: on a machine shared with other work (load 3 on 2 cores, 20-60 rounds) it was 0.01-0.05 where that of single
rounds was 0.07-0.13.

Latencies are told by the wall clock. What runs in the calling thread alone may be compared by another clock, the CPU time of that thread:
on a busy machine the wall clock counts what others took, too (with two processes beside 18 runs, the ratio of two engines of 20 to 40 ms
spread by 0.08 by the wall clock and by 0.007 by CPU time; on an idle machine both gave the same).

Rounds may end before the time is up, once more of them would tell nothing that matters (``timed_enough``).
"""

from __future__ import annotations

import gc
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

MIN_GAIN = 0.01  # a measured win below 1% is no win
SPREADS = 3.0  # a win must exceed this many median absolute deviations
ERRORS = 2.0  # a difference within so many standard errors is none
LEAST_ROUNDS = 9  # unless ``max_runs`` is smaller; fewer tell nothing of their own error

_BLOCK_SECONDS = 0.02
_MAX_BLOCK_RUNS = 50
_WARM_UP_RUNS = 3
WARM_UP_SHARE = 0.25  # of the time of the counted runs
_GROUPS = LEAST_ROUNDS
_TRIMMED = 4  # 1 / share of the rounds that is left out on each side
_UNKNOWN = 3.0  # widens an error of so few rounds that the deviation of Student's t is infinite
_MOST_ALIKE = 0.9  # largest autocorrelation that is believed

Clock = Callable[[], float]  # seconds from any origin
Blocks = Mapping[str, Sequence[float]]  # milliseconds of the blocks of each engine; the n-th of all are of one round
Enough = Callable[[Blocks], bool]  # told the blocks so far, returns whether more rounds would tell nothing that matters


def all_the_time(blocks: Blocks) -> bool:
    """Return that more rounds are wanted, whatever is known: the ``Enough`` of whoever takes all the time there is."""
    return False


@dataclass(frozen=True, slots=True)
class Timing:
    """Latency of one engine, in milliseconds a run."""

    median_ms: float  # of all counted runs
    p95_ms: float  # of all counted runs
    mad_ms: float  # median absolute deviation of the blocks
    runs: int  # counted runs; 0 where the median is a prediction, which has no spread
    block_ms: tuple[float, ...]  # median of each block, by the clock that compares; the n-th of every engine of a call is of one round
    # Share of the wall time of its runs that the clock that compares did not see: where that is the calling thread's CPU time, the thread
    # was waiting for a processor. None where there is one clock.
    waited: float | None = None


@dataclass(frozen=True, slots=True)
class RelativeLatency:
    """Latency of a candidate as a fraction of the baseline's."""

    ratio: float  # the mean of the middle half of the rounds
    mad: float  # median absolute deviation of the groups of rounds
    error: float = 0.0  # standard error of ``ratio``; 0 of a single round, which has none that is known


class Timer(Protocol):
    """Times engines in turns; ``time_interleaved`` is the one in use."""

    def __call__(
        self,
        calls: Mapping[str, Callable[[], object]],
        *,
        seconds: float,
        min_runs: int,
        max_runs: int,
        enough: Enough = all_the_time,
        warm_up: float | None = None,
        compared_by: Clock | None = None,
    ) -> Mapping[str, Timing]:
        """Return the timing of each call, by its name; arguments as for ``time_interleaved``."""


@dataclass(frozen=True, slots=True)
class TimingPlan:
    """How engines are timed against each other."""

    seconds: float  # for all of them together, warm-up apart, at most
    min_runs: int  # fewest counted runs of each
    max_runs: int  # most
    timer: Timer  # times calls on this machine's clock
    enough: Enough = all_the_time  # ends the rounds early
    warm_up: float | None = None  # seconds; None: a quarter of ``seconds``

    def __post_init__(self) -> None:
        """Check the numbers of runs."""
        if not 1 <= self.min_runs <= self.max_runs:
            raise ValueError(f"min_runs is {self.min_runs} and max_runs {self.max_runs}, expected 1 <= min_runs <= max_runs")


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    min_runs: int,
    max_runs: int,
    enough: Enough = all_the_time,
    warm_up: float | None = None,
    clock: Clock = time.perf_counter,
    compared_by: Clock | None = None,
) -> dict[str, Timing]:
    """Return the timing of each call, after a warm-up and with the garbage collector off.

    Args:
        calls: What to time, by name; each is one run of an engine.
        seconds: Time for all calls together, warm-up apart.
        min_runs: Counted runs of each call, even if that takes longer.
        max_runs: Counted runs of each call, even if time is left; at least ``min_runs``.
        enough: Asked after each round, by the blocks of the clock that compares, whether the rounds may end early.
        warm_up: Seconds of uncounted rounds; a quarter of ``seconds`` by default.
        clock: Seconds from any origin.
        compared_by: The clock by which blocks are compared; ``clock`` itself by default.
    """
    if not calls:
        raise ValueError("nothing to time")
    if not 1 <= min_runs <= max_runs:
        raise ValueError(f"min_runs is {min_runs} and max_runs {max_runs}, expected 1 <= min_runs <= max_runs")
    samples: dict[str, list[float]] = {name: [] for name in calls}
    blocks: dict[str, list[float]] = {name: [] for name in calls}
    compared: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    with _no_garbage_collection():
        sizes = {name: _block_runs(call, clock, max_runs) for name, call in calls.items()}
        order = deque(calls)
        _warm_up(calls, sizes, seconds * WARM_UP_SHARE if warm_up is None else warm_up, max_runs, clock)
        start = clock()
        while not _is_done(samples, clock() - start, seconds, min_runs, max_runs) and not (
            min(map(len, samples.values())) >= min_runs and enough(compared)
        ):
            for name in order:
                size = min(sizes[name], max_runs - len(samples[name]))
                block, by_other = _run_block(calls[name], size, clock, compared_by or clock)
                samples[name].extend(block)
                blocks[name].append(float(np.median(block)))
                compared[name].append(float(np.median(by_other)))
                spent[name] += sum(by_other)
            order.rotate(1)
    waited = {name: None if compared_by is None else max(0.0, 1.0 - spent[name] / sum(samples[name])) for name in calls}
    return {name: _timing(samples[name], blocks[name], compared[name], waited[name]) for name in calls}


def relative_latency(candidate: Timing, baseline: Timing) -> RelativeLatency:
    """Return candidate / baseline, paired by round.

    Raises:
        ValueError: The two were not timed by one call of ``time_interleaved``.
    """
    if not candidate.block_ms:
        raise ValueError("no rounds to compare")
    if len(candidate.block_ms) != len(baseline.block_ms):
        raise ValueError(
            f"{len(candidate.block_ms)} and {len(baseline.block_ms)} rounds: the timings are not of one call of time_interleaved"
        )
    return relative_of_rounds(candidate.block_ms, baseline.block_ms)


def relative_of_rounds(candidate_ms: Sequence[float], baseline_ms: Sequence[float]) -> RelativeLatency:
    """Return candidate / baseline from the blocks of the same rounds, at least one.

    Args:
        candidate_ms: Milliseconds of the candidate's block of each round.
        baseline_ms: Of the baseline's.
    """
    ratios = np.asarray(candidate_ms) / np.asarray(baseline_ms)
    groups = np.asarray([np.median(ratios[group::_GROUPS]) for group in range(min(_GROUPS, len(ratios)))])
    ratio, error = known_middle(ratios)
    return RelativeLatency(ratio, _mad(groups), error)


def known_middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the middle of positive values in the order in which they were measured, and its standard error.

    Args:
        values: (rounds,), at least one; what is not positive, by a clock too coarse, counts as next to nothing.
    """
    centre, count = float(np.median(values)), len(values)
    if count == 1 or centre <= 0.0:
        return centre, 0.0
    logs = np.log(np.maximum(values / centre, 1e-12))
    ordered, left_out = np.sort(logs), count // _TRIMMED
    middle = centre * math.exp(float(ordered[left_out : count - left_out].mean()))
    kept = np.clip(logs, ordered[left_out], ordered[count - left_out - 1])  # Winsorized
    error = float(kept.std(ddof=1)) * math.sqrt(count) / (count - 2 * left_out)
    free = count - 2 * left_out - 1
    error *= math.sqrt(free / (free - 2)) if free > 2 else _UNKNOWN
    alike = _autocorrelation(kept)
    return middle, middle * error * math.sqrt((1.0 + alike) / (1.0 - alike))


def is_tied(slower: Timing, faster: Timing) -> bool:
    """Return whether the timing cannot tell two engines apart: they differ by 1% or by two standard errors, at most."""
    relative = relative_latency(faster, slower)
    return 1.0 - relative.ratio <= max(MIN_GAIN, ERRORS * relative.error)


def _autocorrelation(values: NDArray[np.float64]) -> float:
    """Return how far each value is like the one before it, 0 to ``_MOST_ALIKE``."""
    off = values - values.mean()
    squares = float(off @ off)
    return min(max(float(off[1:] @ off[:-1]) / squares, 0.0), _MOST_ALIKE) if squares > 0.0 else 0.0


def _is_done(samples: Mapping[str, list[float]], elapsed: float, seconds: float, min_runs: int, max_runs: int) -> bool:
    fewest, most = min(map(len, samples.values())), max(map(len, samples.values()))
    return most >= max_runs or (fewest >= min_runs and elapsed >= seconds)


def _warm_up(calls: Mapping[str, Callable[[], object]], sizes: Mapping[str, int], seconds: float, max_runs: int, clock: Clock) -> None:
    """Run the calls in turns, uncounted: in a young process the first second of runs took up to 1.3 times as long as later ones."""
    start, rounds = clock(), 0
    while clock() - start < seconds and rounds * max(sizes.values()) < max_runs:
        for name, call in calls.items():
            _run_block(call, sizes[name], clock, clock)
        rounds += 1


def _block_runs(call: Callable[[], object], clock: Clock, max_runs: int) -> int:
    """Warm up, and return how many runs make a block: 20 ms worth, few enough for nine rounds."""
    fastest_seconds = min(_run_block(call, _WARM_UP_RUNS, clock, clock)[0]) / 1e3
    wanted = round(_BLOCK_SECONDS / fastest_seconds) if fastest_seconds > 0 else _MAX_BLOCK_RUNS
    return max(1, min(wanted, _MAX_BLOCK_RUNS, max_runs // _GROUPS))


def _run_block(call: Callable[[], object], size: int, clock: Clock, compared_by: Clock) -> tuple[list[float], list[float]]:
    """Return the milliseconds of ``size`` runs by both clocks, after one run that is not counted."""
    call()
    found, by_other = [], []
    for _ in range(size):
        start, other_start = clock(), compared_by()
        call()
        by_other.append((compared_by() - other_start) * 1e3)
        found.append((clock() - start) * 1e3)
    return found, by_other if compared_by is not clock else found


def _timing(samples: list[float], blocks: list[float], compared: list[float], waited: float | None) -> Timing:
    return Timing(
        median_ms=float(np.median(samples)),
        p95_ms=float(np.percentile(samples, 95)),
        mad_ms=_mad(np.asarray(blocks)),
        runs=len(samples),
        block_ms=tuple(compared),
        waited=waited,
    )


def _mad(values: NDArray[np.float64]) -> float:
    return float(np.median(np.abs(values - np.median(values))))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
