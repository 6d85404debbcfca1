"""Whole jobs on models that only onnxruntime takes: what cannot be lowered stays as it is, and every output is there."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from calibration.onnx_model.foreign_types import is_foreign
from tests.driver import run_job
from tests.model_text import one_batch, run
from tests.runtime_models import RUNTIME_ONLY, function_of_another_opset


@pytest.mark.parametrize("name", ["scaler", "fused_operators", "early_layer_norm", "sequences", "label_outputs"])
def test_a_job_lowers_what_it_can(name: str, tmp_path: Path) -> None:
    model = RUNTIME_ONLY[name]()
    finished = run_job(tmp_path, model, config={"accuracy": {"min_relative": 0.5}, "search": {"max_trials": 2}})
    assert finished.result["outcome"] == "improved"
    engine = onnx.load(finished.engine)
    kept = {(node.domain, node.op_type) for node in engine.graph.node}
    assert {(node.domain, node.op_type) for node in model.graph.node if node.domain} <= kept
    assert [(value.name, is_foreign(value)) for value in engine.graph.output] == [(v.name, is_foreign(v)) for v in model.graph.output]
    assert len(run(engine, one_batch(model))) == len(model.graph.output)


def test_a_label_is_handed_through_and_not_compared(tmp_path: Path) -> None:
    finished = run_job(tmp_path, RUNTIME_ONLY["label_outputs"](), config={"search": {"max_trials": 2}})
    assert finished.verdict["metric"] == "agreement"
    assert "output 'label' holds text, a sequence, a map or an optional value: it is not compared" in finished.notes


def test_a_model_that_loads_only_in_its_prepared_form_has_that_as_its_baseline(tmp_path: Path) -> None:
    finished = run_job(tmp_path, function_of_another_opset(), config={"search": {"max_trials": 2}})
    assert "the same model in its prepared form is the baseline" in finished.notes
