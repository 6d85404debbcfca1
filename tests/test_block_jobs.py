"""Whole jobs whose layers multiply blocks of integers: where users name them, where their kernels pay, and where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from calibration.number_formats.precision import Precision
from tests.driver import Array, Finished, plain_outputs, products_take, run_job, trials_of
from tests.model_text import model_from_text

LOOSE, TIGHT = {"max_nmse": 0.5}, {"max_nmse": 1e-5}
WEIGHTS = (Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS)


def perceptron() -> onnx.ModelProto:
    """Wide matrices, one row a sample; inputs of more than a block and not of whole blocks."""
    return model_from_text(
        """perceptron (float[N,200] x) => (float[N,12] y) {
            a = Gemm(x, w1, b1)
            b = Relu(a)
            c = Gemm<transB = 1>(b, w2, b2)
            d = Relu(c)
            y = MatMul(d, w3)
        }""",
        {"w1": (200, 160), "b1": (160,), "w2": (160, 160), "b2": (160,), "w3": (160, 12)},
    )


def samples(count: int, seed: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).normal(size=(count, 200)).astype(np.float32)}


def job(folder: Path, *, kernels: tuple[float, float, float] = (0.4, 1.2, 1.3), **config: object) -> Finished:
    return run_job(folder, perceptron(), samples(48, 1), samples(40, 2), config, kernels=products_take(*kernels))


def tried(finished: Finished) -> list[str]:
    return [trial.order for trial in trials_of(finished)]


@pytest.mark.parametrize("precision", WEIGHTS)
def test_a_job_that_names_blocks_ships_them_and_they_are_as_good_in_plain_onnxruntime_as_reported(
    tmp_path: Path, precision: Precision
) -> None:
    finished = job(tmp_path, precisions=["fp32", precision.value], accuracy=LOOSE)
    assert finished.chosen["precisions"] == {precision.value: 3}
    (found,), (expected,) = (plain_outputs(model, samples(40, 2), 1) for model in (finished.engine, perceptron().SerializeToString()))
    error = float((((found - expected) ** 2).sum(axis=1) / (expected**2).sum(axis=1)).mean())
    assert 1e-7 < error == pytest.approx(cast(float, finished.chosen["accuracy"]), rel=1e-3)
    assert error < {Precision.INT8_WEIGHTS: 1e-3, Precision.INT4_WEIGHTS: 0.05}[precision]
    engine = cast(Mapping[str, object], finished.result["engine"])
    assert engine["opsets"] == {"ai.onnx": 17, "com.microsoft": 1}
    assert str(engine["exact_on"]).startswith("any ")


@pytest.mark.long
def test_four_bits_are_rounded_by_gptq_unasked_and_biases_corrected(tmp_path: Path) -> None:
    finished = job(tmp_path, precisions=["fp32", "int4_weights"], accuracy=LOOSE, analysis="full")
    repairs = cast(list[Mapping[str, object]], finished.report["repairs"])
    found = [(str(one["what"]), cast(list[str], one["where"])) for one in repairs]
    assert sorted(where for what, where in found if what == "GPTQ") == [["Gemm_a"], ["Gemm_c"], ["MatMul_y"]]
    assert "bias correction" in {what for what, _ in found}


@pytest.mark.long
def test_a_layer_that_loses_too_much_in_few_bits_takes_more(tmp_path: Path) -> None:
    """One budget between those of the two uniform engines: the search gives each layer what the budget has room for."""
    finished = job(tmp_path, precisions=["fp32", "int8_weights", "int4_weights"], accuracy={"max_nmse": 0.003})
    assert cast(str, finished.result["outcome"]) == "improved"
    assert not {trial.order: trial for trial in trials_of(finished)}["all_int4_weights"].met
    assert cast(float, finished.chosen["accuracy"]) <= 0.003


@pytest.mark.long
def test_where_their_kernels_pay_uniform_engines_of_each_are_tried_and_what_loses_more_in_the_same_time_is_not(tmp_path: Path) -> None:
    orders = tried(job(tmp_path, kernels=(0.28, 0.27, 0.14), accuracy=LOOSE))
    assert orders[:4] == ["baseline", "all_low", "all_int8_weights", "all_int4_weights"]
    assert "all_int8_dynamic" not in orders


@pytest.mark.long
def test_where_their_kernels_do_not_pay_no_trial_and_no_probe_has_them(tmp_path: Path) -> None:
    finished = job(tmp_path, kernels=(0.4, 1.2, 1.3), accuracy=TIGHT)
    used = {precision for trial in trials_of(finished) for precision in trial.precisions.values()}
    assert used <= {Precision.INT8, Precision.INT8_DYNAMIC}
    assert "_weights" not in str(finished.report["layers"])


@pytest.mark.long
def test_blocks_that_are_slower_than_other_integers_are_tried_only_where_those_miss_the_budget(tmp_path: Path) -> None:
    loose = job(tmp_path / "loose", kernels=(0.4, 0.8, 0.9), accuracy=LOOSE)
    assert tried(loose)[:3] == ["baseline", "all_low", "all_int8_dynamic"]
    assert "all_int8_weights" not in tried(loose)
    orders = tried(job(tmp_path / "tight", kernels=(0.4, 0.8, 0.9), accuracy=TIGHT))
    assert orders[:4] == ["baseline", "all_low", "all_int8_dynamic", "all_int8_weights"]


def test_a_job_of_floats_and_static_integers_is_what_it_was(tmp_path: Path) -> None:
    finished = job(tmp_path, kernels=(0.28, 0.27, 0.14), precisions=["fp32", "int8"], accuracy=LOOSE)
    assert tried(finished) == ["baseline", "all_low"]
    assert set(cast(Mapping[str, int], finished.chosen["precisions"])) == {"int8"}
