"""Finds a baseline that meets the user's budget where the target's own does not: what floats lose is never credited to low precisions.

1. BF16 in the place of FP16, in the whole model, where the GPU has it.
2. *FP32 fallback regions*: blocks (``engine_builder.baseline.float_regions``) ordered by their measured loss alone in FP16 are given back
   to FP32, the most sensitive first; a bisection over how many finds the fewest that meet the budget, each step a real engine, built and
   scored.
3. The same blocks in BF16 rather than FP32.
4. FP32 everywhere, where nothing else meets it.

Of those that meet the budget the fastest is kept; of those as fast to within MIN_GAIN, the one that changes the fewest blocks.

An engine whose accuracy is that of a simulation counts only if the builder says that every layer asked for in FP32 or BF16 has it. Blocks
that it *refused* to give back are left in FP16 from then on, as it would have them anyway, and the step is tried once more without them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Engine
from engine_builder.baseline.float_regions import Block, ProbedBlock
from engine_builder.bisection import Bisection
from engine_builder.evaluation.measurement import EngineScores
from engine_builder.records.float_plan import BaselineFallback, BlockLoss, FloatAttempt, FloatPlan
from engine_builder.timing import MIN_GAIN


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """An engine without quantized layers; none where it could not be built, and then no scores either."""

    plan: FloatPlan
    attempt: FloatAttempt
    engine: Engine | None = None
    scores: EngineScores | None = None
    refused: tuple[str, ...] = ()  # layers that the builder gave another float type than the plan


@dataclass(frozen=True, slots=True)
class Tools:
    """What the fallback asks of its surroundings."""

    try_plan: Callable[[FloatPlan], Tried]  # builds and scores; a plan that cannot be built is an attempt that does not fit
    probe: Callable[[], Sequence[ProbedBlock]]  # blocks, the most sensitive first
    times: Callable[[Sequence[Tried]], Sequence[float | None]]  # milliseconds of each engine, None where they cannot be told


def with_float_fallback(own: Tried, tools: Tools, *, has_bf16: bool) -> tuple[Tried, BaselineFallback]:
    """Return the engine that is the baseline from now on, and how it was found.

    Args:
        own: The target's own baseline, which does not meet the budget.
        tools: How engines are built, scored and timed.
        has_bf16: Whether the GPU computes in BF16.
    """
    tried = [own]
    if has_bf16 and own.plan.base is not Precision.BF16:
        tried.append(tools.try_plan(FloatPlan("bf16", Precision.BF16)))
    probed = tools.probe()
    blocks = [one.block for one in probed]
    fallback_regions = _FallbackRegions(own.plan, blocks, tools.try_plan)
    given = fallback_regions.fewest()
    if given is not None and has_bf16:
        fallback_regions.attempt(given, Precision.BF16)
    tried += fallback_regions.tried
    if not any(one.attempt.fits for one in tried):
        tried.append(tools.try_plan(FloatPlan("fp32", Precision.FP32)))
    fitting = [index for index, one in enumerate(tried) if one.attempt.fits]
    timed = [0, *fitting]
    times = dict(zip(timed, tools.times([tried[index] for index in timed]), strict=True)) if fitting else {}
    if fitting:
        ranks = {index: _rank(times[index]) for index in fitting}
        as_fast = [index for index in fitting if ranks[index] <= min(ranks.values()) * (1.0 + MIN_GAIN)]
        kept = min(
            (tried[index] for index in as_fast), key=lambda one: sum(_type_of(block, one.plan) is not own.plan.base for block in blocks)
        )
    else:
        kept = next(one for one in reversed(tried) if one.engine is not None)  # FP32 at least: the caller saw that it builds
    attempts = tuple(replace(one.attempt, latency_ms=times.get(index)) for index, one in enumerate(tried))
    losses = tuple(BlockLoss(one.block.layer, len(one.block.nodes), one.mean, one.error, _type_of(one.block, kept.plan)) for one in probed)
    return kept, BaselineFallback(attempts, losses, kept.plan.name, kept.attempt.fits)


class _FallbackRegions:
    """Bisects how many blocks have to be given back, and keeps what it tried."""

    def __init__(self, own: FloatPlan, blocks: Sequence[Block], try_plan: Callable[[FloatPlan], Tried]) -> None:
        self._own, self._blocks, self._try_plan = own, blocks, try_plan
        self._refused: set[Block] = set()
        self.tried: list[Tried] = []

    def fewest(self) -> int | None:
        """Return the fewest blocks that do in FP32, None where only all do."""
        total = len(self._blocks)
        state = Bisection(0, max(total - 1, 0))  # blocks that stay: with none there is FP32 everywhere, which is tried last
        while (left := state.next()) is not None:
            state = state.tell(left, met=self.attempt(total - left, Precision.FP32))
        return total - state.low if state.low else None

    def attempt(self, count: int, precision: Precision) -> bool:
        """Try the first ``count`` blocks in another precision, and again without those that are refused; return whether that does."""
        one = self._tried(count, precision)
        refused = {block for block in self._blocks if set(one.refused) & set(block.nodes)}
        if refused and precision is Precision.FP32:
            self._refused |= refused
            one = self._tried(count, precision)
        return one.attempt.fits

    def _tried(self, count: int, precision: Precision) -> Tried:
        given = [block for block in self._blocks[:count] if block not in self._refused]
        nodes = {name: precision for block in given for name in block.nodes}
        name = f"{self._own.base} with {len(given)} of {len(self._blocks)} blocks in {precision}"
        plan = FloatPlan(name, self._own.base, {**self._own.nodes, **nodes})
        known = next((one for one in self.tried if one.plan == plan), None)
        if known is not None:
            return known
        self.tried.append(self._try_plan(plan))
        return self.tried[-1]


def _type_of(block: Block, plan: FloatPlan) -> Precision:
    """Return what a block's layer is computed in."""
    return plan.nodes.get(block.layer, plan.base)


def _rank(milliseconds: float | None) -> float:
    return float("inf") if milliseconds is None else milliseconds
