"""Finds a baseline that meets the user's budget where the target's own does not: what floats lose is never credited to low precisions.

1. BF16 in the place of FP16, in the whole model, where the GPU has it.
2. FP32 *islands*: blocks (``engine_builder.float_blocks``) ordered by their measured loss alone in FP16 are given back to FP32, the most
   sensitive first; a bisection over how many finds the fewest that meet the budget, each step a real engine, built and scored.
3. The same blocks in BF16 rather than FP32.
4. FP32 everywhere, where nothing else meets it.

Of those that meet the budget the fastest is kept. An engine whose accuracy is that of a simulation counts only if the builder says that
every layer asked for in FP32 or BF16 has it. For n blocks that makes at most ceil(log2(n)) + 4 builds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.precision import Precision
from engine_builder.backends.base import Engine
from engine_builder.float_blocks import Block, ProbedBlock
from engine_builder.float_plan import BaselineRepair, BlockLoss, FloatAttempt, FloatPlan
from engine_builder.search.bisection import Bisection


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """An engine without low layers; none where it could not be built, and then no scores either."""

    plan: FloatPlan
    attempt: FloatAttempt
    engine: Engine | None = None
    scores: NDArray[np.float64] | None = None  # of each validation sample, (samples,)


@dataclass(frozen=True, slots=True)
class Tools:
    """What the repair asks of its surroundings."""

    try_plan: Callable[[FloatPlan], Tried]  # builds and scores; a plan that cannot be built is an attempt that does not fit
    probe: Callable[[], Sequence[ProbedBlock]]  # blocks, the most sensitive first
    times: Callable[[Sequence[Tried]], Sequence[float | None]]  # milliseconds of each engine, None where they cannot be told


def repaired(own: Tried, tools: Tools, *, has_bf16: bool) -> tuple[Tried, BaselineRepair]:
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
    islands, given = _islands(own.plan, blocks, tools.try_plan)
    tried += islands
    if given < len(blocks) and has_bf16:
        tried.append(tools.try_plan(_given_back(own.plan, blocks, given, Precision.BF16)))
    if not any(one.attempt.fits for one in tried):
        tried.append(tools.try_plan(FloatPlan("fp32", Precision.FP32)))
    fitting = [one for one in tried if one.attempt.fits]
    timed = [own, *fitting]
    times = dict(zip((one.plan.name for one in timed), tools.times(timed), strict=True)) if fitting else {}
    if fitting:
        kept = min(fitting, key=lambda one: _rank(times[one.plan.name]))
    else:
        kept = next(one for one in reversed(tried) if one.engine is not None)
    attempts = tuple(replace(one.attempt, latency_ms=times.get(one.plan.name)) for one in tried)
    losses = tuple(
        BlockLoss(one.block.layer, len(one.block.nodes), one.mean, one.error, kept.plan.nodes.get(one.block.layer, kept.plan.base))
        for one in probed
    )
    return kept, BaselineRepair(attempts, losses, kept.plan.name, kept.attempt.fits)


def _islands(own: FloatPlan, blocks: Sequence[Block], try_plan: Callable[[FloatPlan], Tried]) -> tuple[list[Tried], int]:
    """Bisect how many blocks have to be in FP32; return what was tried and that number, all where no fewer do."""
    tried: list[Tried] = []
    state = Bisection(0, max(len(blocks) - 1, 0))  # blocks that stay as they are: with none there is FP32 alone, which is tried last
    while (left := state.next()) is not None:
        tried.append(try_plan(_given_back(own, blocks, len(blocks) - left, Precision.FP32)))
        state = state.tell(left, met=tried[-1].attempt.fits)
    return tried, len(blocks) - state.low


def _given_back(own: FloatPlan, blocks: Sequence[Block], count: int, precision: Precision) -> FloatPlan:
    """Return the plan with the first ``count`` blocks in another precision."""
    nodes = {name: precision for block in blocks[:count] for name in block.nodes}
    return FloatPlan(f"{own.base} with {count} of {len(blocks)} blocks in {precision}", own.base, {**own.nodes, **nodes})


def _rank(milliseconds: float | None) -> float:
    return float("inf") if milliseconds is None else milliseconds
