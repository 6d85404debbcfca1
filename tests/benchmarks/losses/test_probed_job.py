from __future__ import annotations

from pathlib import Path

from benchmarks.losses.__main__ import Case, engines_of
from benchmarks.losses.probed_job import ProbedJob
from calibration.graph.layers import LayerKind
from tests.model_text import cnn, samples_for


def case() -> Case:
    return Case(cnn(), samples_for(cnn(), 64), samples_for(cnn(), 32, seed=1), {"outputs": {"logits": "logits"}})


def test_every_engine_of_a_network_has_two_predictions_and_one_measured_loss(tmp_path: Path) -> None:
    found = engines_of("cnn", case(), tmp_path)
    assert [one.assignment for one in found[:2]] == ["all low", "products"]
    assert (found[0].low, found[0].layers) == (4, 4)
    assert all(one.measured > 0.0 and one.said > 0.0 for one in found)
    assert any(one.said != one.plain for one in found)


def test_products_are_all_layers_but_sums(tmp_path: Path) -> None:
    given = case()
    job = ProbedJob(tmp_path, given.model, given.calibration, given.validation, given.config)
    sums = {layer.name for layer in job.layers if layer.kind is LayerKind.RESIDUAL_ADD}
    assert {item.layer for item in job.products} == {item.layer for item in job.layer_precisions} - sums
    assert sums
