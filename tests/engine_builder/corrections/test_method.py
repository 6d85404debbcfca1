"""What every kind of correction does, whatever it tries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from calibration.algorithms.smooth_quant import SmoothQuantScaling
from calibration.data.dataset import load_saved
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import read_model
from calibration.ranges.range_table import RangeMethod
from engine_builder.backends.registry import backend_for
from engine_builder.corrections.method import Bench, CorrectionMethod, InUse
from engine_builder.corrections.range_choice import choose_ranges
from engine_builder.corrections.range_method import choose_range_method
from engine_builder.corrections.registry import CORRECTIONS
from engine_builder.corrections.rounding_choice import choose_rounding
from engine_builder.corrections.smooth_quant_choice import choose_smooth_quants
from engine_builder.engines.simulated_network import SimulatedNetwork
from engine_builder.records.calibrated import layer_precisions_of, read_ranges
from engine_builder.records.corrections import OF_NETWORKS, CorrectionKind
from engine_builder.stages.correct import split
from tests.driver import Json, inspection_of, ranged
from tests.model_text import model_from_text, samples_for

BEFORE = SmoothQuantScaling("elsewhere", ("none",), (1.0,) * 4, 0.0, 1.0)


def network() -> onnx.ModelProto:
    return model_from_text(
        "g (float[N,16] x) => (float[N,4] y) { a = MatMul(x, w1) r = Relu(a) y = Gemm(r, w2, b2) }",
        {"w1": (16, 8), "w2": (8, 4), "b2": (4,)},
    )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, InUse]:
    """A job whose samples hold lone large values, with every correction asked for, and what is in use before any."""
    calibration = samples_for(network(), 96)
    calibration["x"][::48, 3] *= 60.0
    config: Json = {"calibration": {"method": "best", "second_order": ["int8"]}, "outputs": {"y": "logits"}}
    folder = tmp_path_factory.mktemp("job")
    driver, job = ranged(folder, network(), calibration, samples_for(network(), 16), config)
    prepared, of = inspection_of(driver, job).model, job.calibrated
    data = load_saved(driver.workspace.path(of.calibration))
    model = read_model(driver.workspace.path(prepared.file))
    fitted, held_out = split(data.samples, 1, seed=0)
    layer_precisions = layer_precisions_of(prepared.layers, of.eligible)
    dialect = backend_for(job.config.target).capabilities.dialect
    whole = SimulatedNetwork(driver.workspace.path(prepared.file), prepared, data, dialect, folder)
    made = Bench(model, prepared, layer_precisions, data, fitted, held_out, RangeMethod.BEST, (Precision.INT8,), network=whole)
    return made, InUse(read_ranges(of, driver.workspace).ranges, smooth_quants=(BEFORE,))


class CorrectionMethodContract:
    """What a correction method keeps to. A subclass names the method and what it tries."""

    method: CorrectionMethod
    kinds: frozenset[CorrectionKind]
    is_judged_apart = True  # on samples that it was not fitted to

    def tried(self, bench: tuple[Bench, InUse]) -> tuple[InUse, list[tuple[float, str]], int]:
        told: list[tuple[float, str]] = []
        in_use, corrections = type(self).method(*bench, lambda share, what: told.append((share, what)))
        assert {correct.what for correct in corrections} <= self.kinds
        most = len(bench[0].held_out) if self.is_judged_apart else bench[0].samples.samples
        assert all(correct.where and correct.samples <= most for correct in corrections)
        return in_use, told, len(corrections)

    def test_says_what_it_tried_and_how_far_it_is(self, bench: tuple[Bench, InUse]) -> None:
        _, told, tried = self.tried(bench)
        assert tried > 0
        shares = [share for share, _ in told]
        assert shares == sorted(shares)
        assert all(0.0 <= share <= 1.0 and what for share, what in told)

    def test_keeps_the_model_and_finds_the_same_again(self, bench: tuple[Bench, InUse]) -> None:
        before = bench[0].model.SerializeToString()
        first, second = self.tried(bench)[0], self.tried(bench)[0]
        assert (first.ranges, first.chosen_ranges) == (second.ranges, second.chosen_ranges)
        assert first.levels.keys() == second.levels.keys()
        assert bench[0].model.SerializeToString() == before

    def test_without_layers_there_is_nothing_to_try(self, bench: tuple[Bench, InUse]) -> None:
        given, in_use = bench
        left, _, tried = self.tried((replace(given, layer_precisions=()), in_use))
        assert tried == 0
        assert left is in_use


class TestRanges(CorrectionMethodContract):
    method = staticmethod(choose_ranges)
    kinds = frozenset({CorrectionKind.RANGE})


class TestRangeMethods(CorrectionMethodContract):
    method = staticmethod(choose_range_method)
    kinds = frozenset(OF_NETWORKS)
    is_judged_apart = False

    def tried(self, bench: tuple[Bench, InUse]) -> tuple[InUse, list[tuple[float, str]], int]:
        return super().tried((replace(bench[0], method=RangeMethod.AUTO), bench[1]))


class TestSmoothQuantScaling(CorrectionMethodContract):
    method = staticmethod(choose_smooth_quants)
    kinds = frozenset({CorrectionKind.SMOOTH_QUANT})


class TestRounding(CorrectionMethodContract):
    method = staticmethod(choose_rounding)
    kinds = frozenset({CorrectionKind.GPTQ})

    def test_what_was_in_use_before_stays(self, bench: tuple[Bench, InUse], tmp_path: Path) -> None:
        assert self.tried(bench)[0].smooth_quants == (BEFORE,)


def test_every_kind_is_in_the_table_once() -> None:
    assert (choose_range_method, choose_ranges, choose_smooth_quants, choose_rounding) == CORRECTIONS
