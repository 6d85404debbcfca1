"""Whole jobs for the target tensorrt-rtx: plans by NVIDIA's own builder, accuracy from the explicit model, latency predicted."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from calibration.errors import InvalidConfigError
from engine_builder.backends.target_checks import check_config
from engine_builder.config.config import config_from_json
from engine_builder.errors import UnsupportedTargetError
from service.cli.summary import summary_lines
from tests.driver import Finished, plain_outputs, run_job, trials_of
from tests.model_text import ModelMaker, cnn, fixed_batch, model_from_text, samples_for
from tests.models import attention, fp16, input_called_labels, several_outputs

needs_builder = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
SMALL_CACHE = {"target": "tensorrt-rtx", "gpu": "RTX 3060", "accuracy": {"min_relative": 0.5}}
ADA = {**SMALL_CACHE, "gpu": "NVIDIA GeForce RTX 4090"}


def wide() -> onnx.ModelProto:
    """Three products whose weights, even in 16 bits, do not fit the cache of a small GPU: reading them is what takes the time."""
    return model_from_text(
        """g (float[N,2048] x) => (float[N,2048] y) {
            h1 = MatMul(x, w1)
            a1 = Relu(h1)
            h2 = MatMul(a1, w2)
            a2 = Relu(h2)
            y = MatMul(a2, w3)
        }""",
        {f"w{index}": (2048, 2048) for index in range(1, 4)},
    )


@pytest.fixture(scope="module")
def improved(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    config = {**SMALL_CACHE, "precisions": ["int8"], "accuracy": {"metric": "cosine", "min_relative": 0.9}}
    return run_job(tmp_path_factory.mktemp("wide"), wide(), config=config, is_drawn=True)


@pytest.mark.long
@needs_builder
def test_a_faster_plan_is_chosen_and_called_predicted(improved: Finished) -> None:
    result = improved.result
    assert (result["outcome"], result["latency_source"]) == ("improved", "predicted")
    assert "speedup" not in result
    gain = cast(Mapping[str, object], result["predicted_speedup"])
    low, high = cast(Sequence[float], gain["range"])
    assert 1.0 < low < cast(float, gain["value"]) < high
    assert cast(float, gain["value"]) > 1.25  # a fifth of the baseline's latency is the least that counts
    assert cast(Mapping[str, object], improved.chosen["latency_ms"])["p95"] is None
    assert cast(Mapping[str, object], improved.chosen["latency_ms"])["runs"] == 0
    assert "predicted, not measured" in "\n".join(summary_lines(result))
    assert improved.baseline["precisions"] == {"fp16": 3}


@pytest.mark.long
@needs_builder
def test_the_engine_is_a_plan_smaller_than_the_baselines(improved: Finished) -> None:
    assert cast(Mapping[str, object], improved.result["engine"])["name"] == "engine.plan"
    assert improved.engine.stat().st_size == improved.chosen["size_bytes"]
    assert cast(float, improved.chosen["size_bytes"]) < 0.7 * cast(float, improved.baseline["size_bytes"])


@pytest.mark.long
@needs_builder
def test_every_quantized_layer_achieved_its_precision_in_the_plan(improved: Finished) -> None:
    achieved_precisions = cast(Sequence[Mapping[str, object]], improved.report["reached"])
    assert {row["asked"] for row in achieved_precisions} >= {"int8"}
    assert all(row["asked"] == row["got"] for row in achieved_precisions)


@pytest.mark.long
@needs_builder
def test_accuracy_is_that_of_the_explicit_model(improved: Finished) -> None:
    artifacts = improved.outcome.artifacts
    explicit = improved.path(artifacts["model.explicit.onnx"])
    samples = samples_for(wide(), 40)
    (got,), (reference,) = plain_outputs(explicit, samples, 8), plain_outputs(wide().SerializeToString(), samples, 8)
    cosine = (got * reference).sum(axis=1) / np.linalg.norm(got, axis=1) / np.linalg.norm(reference, axis=1)
    chosen = next(trial for trial in trials_of(improved) if trial.fingerprint == improved.report["chosen"])
    assert chosen.on_all is not None
    assert abs(cosine.mean() - chosen.on_all.score) < 0.01  # other samples of the same kind


@pytest.mark.long
@needs_builder
def test_the_page_says_predicted_and_what_each_layer_got(improved: Finished) -> None:
    artifacts = improved.outcome.artifacts
    page = improved.path(artifacts["report.html"]).read_text(encoding="utf-8")
    assert "predicted latency of one call, not measured" in page
    assert "in turns" not in page
    assert "Profiled" not in page
    assert "Predicted for the kernels of the baseline engine" in page
    assert "Asked for and got" in page
    assert "triton.zip" not in artifacts  # Triton cannot load such a plan


@needs_builder
def test_where_no_prediction_beats_its_own_error_the_fp16_plan_is_kept(tmp_path: Path) -> None:
    finished = run_job(tmp_path, cnn("N,1,8,8"), config={**ADA, "precisions": ["int8"]})
    assert finished.result["outcome"] == "baseline_kept"
    explicit = onnx.load_model(finished.path(finished.outcome.artifacts["model.explicit.onnx"]))
    assert not any(node.op_type == "QuantizeLinear" for node in explicit.graph.node)  # it is the baseline's
    assert finished.baseline["precisions"] == {"fp16": 4}
    assert finished.chosen == finished.baseline
    assert cast(Mapping[str, object], finished.result["predicted_speedup"])["value"] == 1.0
    assert finished.engine.name == "engine.plan"


@pytest.mark.long
@needs_builder
@pytest.mark.parametrize("maker", [attention, fixed_batch, fp16, input_called_labels, several_outputs])
def test_awkward_models_end_with_a_plan(maker: ModelMaker, tmp_path: Path) -> None:
    finished = run_job(tmp_path, maker(), config=ADA)
    assert finished.engine.stat().st_size > 0
    assert all(trial.failure is None for trial in trials_of(finished)), [trial.failure for trial in trials_of(finished)]
    assert json.loads(json.dumps(finished.result))["latency_source"] == "predicted"


@needs_builder
@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"target": "tensorrt-rtx"}, InvalidConfigError, "gpu: found none"),
        ({"target": "tensorrt-rtx", "gpu": "H100"}, UnsupportedTargetError, "H100"),
        ({"target": "tensorrt-rtx", "gpu": "RTX 4099"}, UnsupportedTargetError, "RTX 4099"),
        ({"target": "tensorrt-rtx", "gpu": "RTX 3060", "precisions": ["fp8"]}, InvalidConfigError, "precisions"),
    ],
)
def test_what_the_gpu_cannot_do_is_refused_before_any_build(config: Mapping[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check_config(config_from_json(config))


@pytest.mark.long
@needs_builder
def test_convolutions_that_are_predicted_to_be_slower_are_left_out_before_anything_is_built(tmp_path: Path) -> None:
    def tried(config: Mapping[str, object]) -> tuple[set[str], str]:
        finished = run_job(tmp_path / str(len(config)), cnn(), config=config)
        layers = {layer for trial in trials_of(finished) for layer in trial.precisions}
        return layers, " ".join(cast(Sequence[str], finished.report["notes"]))

    layers, notes = tried(ADA)
    assert not any(layer.startswith("Conv") for layer in layers)
    assert "left out before anything was built" in notes
    assert "follows every INT8 convolution with a second kernel" in notes
    layers, notes = tried({**ADA, "precisions": ["int8"]})  # what is named is tried
    assert any(layer.startswith("Conv") for layer in layers)
    assert "left out before anything was built" not in notes
