"""The search for a baseline that meets the budget, against a world that says which plans do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Engine
from engine_builder.baseline.float_fallback import Tools, Tried, with_float_fallback
from engine_builder.baseline.float_regions import Block, ProbedBlock
from engine_builder.evaluation.measurement import EngineScores
from engine_builder.records.float_plan import BaselineFallback, FloatAttempt, FloatPlan
from engine_builder.reporting.baseline_words import fallback_in_words

FP16, BF16, FP32 = Precision.FP16, Precision.BF16, Precision.FP32
Rule = Callable[[FloatPlan], bool]


SCORES = EngineScores(np.zeros(1))


@dataclass
class World:
    """Builds any plan at once: a block is one node, ``fits`` says which plans meet the budget."""

    blocks: int
    fits: Rule
    built: list[str] = field(default_factory=list)
    unbuildable: Rule = lambda plan: False
    refused: tuple[str, ...] = ()
    block_ms: float = 1.0  # of each block in FP32, besides 10 ms for the whole

    def try_plan(self, plan: FloatPlan) -> Tried:
        self.built.append(plan.name)
        if self.unbuildable(plan):
            return Tried(plan, FloatAttempt(plan.name, {}, None, fits=False, failure="no such kernel"))
        off = tuple(name for name in self.refused if plan.nodes.get(name) is FP32)
        return Tried(plan, FloatAttempt(plan.name, {}, 0.5, self.fits(plan) and not off), Engine(Path("engine"), (), 1), SCORES, off)

    def probe(self) -> tuple[ProbedBlock, ...]:
        return tuple(ProbedBlock(Block(f"b{index}", (f"b{index}",)), np.array([1.0 / (1 + index)])) for index in range(self.blocks))

    def times(self, tried: Sequence[Tried]) -> list[float | None]:
        return [10.0 + self.block_ms * in_fp32(one.plan, self.blocks) for one in tried]

    def fall_back(self, *, has_bf16: bool = True) -> tuple[Tried, BaselineFallback]:
        own = Tried(FloatPlan("fp16", FP16), FloatAttempt("fp16", {}, 0.4, fits=False), Engine(Path("engine"), (), 1), SCORES)
        return with_float_fallback(own, Tools(self.try_plan, self.probe, self.times), has_bf16=has_bf16)


def in_fp32(plan: FloatPlan, blocks: int) -> int:
    return sum(plan.nodes.get(f"b{index}", plan.base) is FP32 for index in range(blocks))


def needs(count: int, blocks: int) -> Rule:
    """Return the rule that the first ``count`` blocks have to be in FP32."""
    return lambda plan: all(plan.nodes.get(f"b{index}", plan.base) is FP32 for index in range(min(count, blocks)))


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 16, 45])
def test_the_fewest_blocks_that_do_are_given_back(blocks: int) -> None:
    for count in range(1, blocks + 1):
        world = World(blocks, needs(count, blocks))
        kept, found = world.fall_back()
        assert in_fp32(kept.plan, blocks) == count
        assert found.fits
        assert len(world.built) <= (math.ceil(math.log2(blocks)) + 3 if blocks > 1 else 2)
        assert [block.precision for block in found.blocks] == [FP32] * count + [kept.plan.base] * (blocks - count)


def test_bf16_alone_is_kept_where_it_does_and_is_faster() -> None:
    kept, found = World(8, lambda plan: plan.base is BF16 or in_fp32(plan, 8) >= 2).fall_back()
    assert (kept.plan.name, found.kept) == ("bf16", "bf16")
    assert {block.precision for block in found.blocks} == {BF16}


def test_of_baselines_as_fast_the_one_that_changes_the_fewest_blocks_is_kept() -> None:
    world = World(8, lambda plan: plan.base is BF16 or in_fp32(plan, 8) >= 2, block_ms=1e-3)
    assert in_fp32(world.fall_back()[0].plan, 8) == 2


def test_the_same_blocks_in_bf16_are_kept_where_they_do_and_are_faster() -> None:
    kept, _ = World(8, lambda plan: plan.base is FP16 and plan.nodes.get("b0", FP16) in (BF16, FP32)).fall_back()
    assert kept.plan.nodes == {"b0": BF16}


def test_without_bf16_none_is_tried() -> None:
    world = World(8, needs(2, 8))
    kept, _ = world.fall_back(has_bf16=False)
    assert in_fp32(kept.plan, 8) == 2
    assert not any("bf16" in name for name in world.built)


def test_fp32_everywhere_is_the_last_resort_and_said_so_where_even_that_misses() -> None:
    world = World(8, lambda plan: False)
    kept, found = world.fall_back()
    assert kept.plan == FloatPlan("fp32", FP32)
    assert world.built[-1] == "fp32"
    assert not found.fits
    assert "so does every other that was tried: fp32 is the baseline" in fallback_in_words(found)


def test_plans_that_cannot_be_built_count_as_missing_the_budget() -> None:
    kept, found = World(4, needs(1, 4), unbuildable=lambda plan: bool(plan.nodes)).fall_back()
    assert kept.plan.base is FP32
    assert {attempt.failure for attempt in found.attempts if "with" in attempt.name} == {"no such kernel"}


def test_where_nothing_else_can_be_built_the_targets_own_baseline_stays() -> None:
    kept, found = World(4, needs(1, 4), unbuildable=lambda plan: True).fall_back()
    assert kept.plan.name == found.kept == "fp16"
    assert not found.fits


def test_blocks_that_the_builder_refuses_to_give_back_are_left_and_the_others_are_found() -> None:
    world = World(16, lambda plan: all(plan.nodes.get(name, plan.base) is FP32 for name in ("b0", "b2")), refused=("b1", "b5"))
    kept, found = world.fall_back(has_bf16=False)
    assert kept.plan.nodes == {"b0": FP32, "b2": FP32}
    assert found.fits
    assert len(world.built) == len(set(world.built)) <= 4 + 2  # a step more for what is refused, nothing twice


def test_where_the_block_that_loses_is_refused_fp32_is_left() -> None:
    kept, _ = World(8, needs(1, 8), refused=("b0",)).fall_back(has_bf16=False)
    assert kept.plan.base is FP32


def test_a_model_without_layers_goes_to_fp32() -> None:
    kept, _ = World(0, lambda plan: plan.base is FP32).fall_back(has_bf16=False)
    assert kept.plan.base is FP32


def test_what_the_targets_own_baseline_keeps_in_float32_stays_there() -> None:
    world = World(2, lambda plan: plan.nodes.get("b0") is FP32)
    own = Tried(FloatPlan("fp16", FP16, {"mask": FP32}), FloatAttempt("fp16", {}, 0.4, fits=False), Engine(Path("engine"), (), 1), SCORES)
    kept, _ = with_float_fallback(own, Tools(world.try_plan, world.probe, world.times), has_bf16=False)
    assert kept.plan.nodes == {"mask": FP32, "b0": FP32}


def test_the_note_names_the_blocks_and_what_they_cost() -> None:
    _, found = World(4, needs(2, 4)).fall_back()
    assert fallback_in_words(found) == (
        "the baseline in fp16 misses the accuracy budget by itself, with a score of 0.4: "
        "fp16 with 2 of 4 blocks in fp32 (from b0, b1 on) is the baseline, with a score of 0.5 and 1.20 times its latency; "
        "that is what low precisions have to beat"
    )
