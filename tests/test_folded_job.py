"""Whole jobs on models with constants around layers: the folded float model is an engine, and quantized ones are made of it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from engine_builder.records.trial import FOLDED
from tests.driver import QUANTIZED_IS_SLOWER, Finished, plain_outputs, run_job
from tests.model_text import cnn, model_from_text, samples_for

CONFIG = {"accuracy": {"metric": "cosine", "min_relative": 0.5}, "search": {"max_trials": 2}}


def scaled(behind: str = "Mul(c1, scale)") -> onnx.ModelProto:
    """Two convolutions, a constant behind the first."""
    model = model_from_text(
        f"""g (float[N,4,8,8] x) => (float[N,4,8,8] y) {{
            c1 = Conv<pads=[1,1,1,1]>(x, w1) m1 = {behind} r1 = Relu(m1) y = Conv<pads=[1,1,1,1]>(r1, w2)
        }}""",
        {"w1": (4, 4, 3, 3), "w2": (4, 4, 3, 3)},
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.5, np.float32), "scale"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full((4, 1, 1), 0.25, np.float32), "bias"))
    return model


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def orders(finished: Finished) -> list[object]:
    return [trial["order"] for trial in finished.driver.trials]


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Every engine takes half of the baseline's time, so that the safest is kept."""
    return run_job(tmp_path_factory.mktemp("folded"), scaled(), config=CONFIG, is_folding_faster=True)


def test_the_folded_float_model_is_tried_right_after_the_baseline(folded: Finished) -> None:
    assert orders(folded) == ["baseline", FOLDED, "all_low"]
    trials = folded.driver.trials
    assert [trial["low_layers"] for trial in trials] == [0, 0, 2]
    assert len({trial["fingerprint"] for trial in trials}) == 3
    assert trials[1]["accuracy"] == pytest.approx(1.0, abs=1e-6)  # cosine, off by float32 rounding


def test_the_folded_float_model_can_ship(folded: Finished) -> None:
    assert folded.result["outcome"] == "improved"
    assert folded.report["chosen"] == folded.driver.trials[1]["fingerprint"]
    assert folded.chosen["precisions"] == {"fp32": 2}
    assert cast(str, folded.result["reason"]).startswith("The float model with its constants folded into the layers, the best of 2 engines")
    assert operators(folded.engine) == {"Conv", "Relu"}
    samples = samples_for(scaled(), 4)
    expected, found = (plain_outputs(file, samples, 4)[0] for file in (folded.model_bytes, folded.engine.read_bytes()))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)  # float32 rounding


def test_what_was_folded_is_said_in_words_and_counted(folded: Finished) -> None:
    assert folded.result["folded"] == "1 Mul behind layers"
    assert folded.report["folded"] == [{"operator": "Mul", "place": "behind", "count": 1, "saved": 1}]
    assert "folded into weights and biases: 1 Mul behind layers" in folded.notes
    assert "1 Mul behind layers" in folded.path(folded.outcome.artifacts["report.html"]).read_text(encoding="utf-8")


def test_the_folded_float_model_is_not_kept_where_it_is_slower(tmp_path: Path) -> None:
    finished = run_job(tmp_path, scaled(), config=CONFIG, timer=QUANTIZED_IS_SLOWER)
    assert FOLDED in orders(finished)
    assert finished.result["outcome"] == "baseline_kept"
    assert finished.engine.read_bytes() == finished.model_bytes


@pytest.mark.parametrize("model", [cnn(), scaled("Add(c1, bias)")], ids=["nothing", "what the runtime folds by itself"])
def test_the_float_model_is_no_engine_of_its_own_where_nothing_was_saved(tmp_path: Path, model: onnx.ModelProto) -> None:
    finished = run_job(tmp_path, model, config=CONFIG)
    assert orders(finished) == ["baseline", "all_low"]


def test_quantized_engines_are_made_of_the_folded_model(tmp_path: Path) -> None:
    finished = run_job(tmp_path, scaled(), config=CONFIG)
    assert finished.chosen["precisions"] == {"int8": 2}
    assert operators(finished.engine) == {"Conv", "Relu", "QuantizeLinear", "DequantizeLinear"}
