"""A backend in one file and one row of the table of targets: a whole job runs on it, and nothing else had to be told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from calibration.errors import InvalidConfigError
from engine_builder.backends.registry import BACKENDS, Target, backend_for
from engine_builder.backends.target_checks import check_config
from engine_builder.config.config import config_from_json
from engine_builder.errors import UnsupportedTargetError
from tests.driver import Finished, run_job, trials_of
from tests.model_text import model_from_text, run, samples_for
from tests.seams.toy_backend import CHIP, INT8_MS, MAGIC, ToyDialect, toy_backend

TARGETS = {
    **BACKENDS,
    "toy": Target(toy_backend, takes_gpu=True, needs_gpu_name=lambda: True, gpus=lambda: (CHIP,)),
}
CONFIG = {"target": "toy", "gpu": CHIP, "accuracy": {"min_relative": 0.8}, "builder": {"workspace_mb": 1}}


def convolutions() -> onnx.ModelProto:
    """Three convolutions and a product, which the chip has in float alone."""
    return model_from_text(
        """g (float[N,2,6,6] x) => (float[N,3] y) {
            c1 = Conv<pads=[1,1,1,1]>(x, w1)
            r1 = Relu(c1)
            c2 = Conv<pads=[1,1,1,1]>(r1, w2)
            r2 = Relu(c2)
            c3 = Conv<pads=[1,1,1,1]>(r2, w3)
            pooled = GlobalAveragePool(c3)
            flat = Flatten(pooled)
            y = MatMul(flat, w4)
        }""",
        {"w1": (4, 2, 3, 3), "w2": (4, 4, 3, 3), "w3": (4, 4, 3, 3), "w4": (4, 3)},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_job(tmp_path_factory.mktemp("toy"), convolutions(), config=CONFIG, targets=TARGETS)


def first_and_other_convolutions(finished: Finished) -> tuple[str, list[str]]:
    named = [str(layer["name"]) for layer in cast(list[Mapping[str, object]], finished.report["layers"]) if layer["op_type"] == "Conv"]
    return named[0], named[1:]


def test_the_search_picks_an_engine_of_the_target(finished: Finished) -> None:
    assert finished.result["outcome"] == "improved", finished.result["reason"]
    assert cast(Mapping[str, object], finished.result["engine"])["name"] == "engine.toy"
    assert finished.engine.read_bytes().startswith(MAGIC)


def test_layers_are_quantized_as_the_dialect_says(finished: Finished) -> None:
    first, others = first_and_other_convolutions(finished)
    tried = [set(trial.precisions) for trial in trials_of(finished)]
    assert set(others) in tried
    assert all(layers <= set(others) for layers in tried)  # never the product, which is not eligible, nor what is made legal by leaving it
    assert not any(first in layers for layers in tried)


def test_the_explicit_model_is_in_the_dialect(finished: Finished) -> None:
    explicit = onnx.load(finished.path(finished.outcome.artifacts["model.explicit.onnx"]))
    ToyDialect().check(explicit, compute_capability=None)
    assert MAGIC + explicit.SerializeToString() == finished.engine.read_bytes()


def test_what_the_target_says_of_the_engines_layers_is_kept_as_it_is(finished: Finished) -> None:
    explicit = onnx.load(finished.path(finished.outcome.artifacts["model.explicit.onnx"]))
    said = finished.path(finished.outcome.artifacts["engine.layers.json"]).read_text(encoding="utf-8")
    assert said == f"{len(explicit.graph.node)} layers"


def test_latencies_are_those_that_the_target_predicts(finished: Finished) -> None:
    first, others = first_and_other_convolutions(finished)
    assert "speedup" not in finished.result
    assert cast(Mapping[str, Mapping[str, float]], finished.result)["predicted_speedup"]["value"] > 1.1
    fastest = min(trials_of(finished), key=lambda trial: trial.latency.ratio if trial.latency is not None else 1.0)
    assert fastest.latency is not None
    assert set(fastest.precisions) == set(others)
    assert fastest.latency.median_ms == pytest.approx(2 + 2 * INT8_MS, rel=0.2)  # and the small kernels
    assert first not in fastest.precisions


def test_the_engine_is_as_good_as_the_verdict_says(finished: Finished, tmp_path: Path) -> None:
    samples = samples_for(convolutions(), 40)
    engine = tmp_path / "engine.toy"
    engine.write_bytes(finished.engine.read_bytes())
    runner = backend_for("toy", CHIP, table=TARGETS).open(engine, threads=1)
    [found] = runner.run(samples)
    runner.close()
    [expected] = run(convolutions(), samples)
    assert finished.verdict["answer"] in ("met", "met_on_sample")
    assert np.mean(np.argmax(found, axis=1) == np.argmax(expected, axis=1)) >= 0.8  # the budget


def test_the_report_says_what_the_target_is(finished: Finished) -> None:
    assert json.loads(json.dumps(finished.result["environment"]))["chip"] == CHIP
    assert "Triton loads no plans of this target" in finished.notes
    assert cast(Mapping[str, object], finished.report["config"])["target"] == "toy"


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"gpu": None}, InvalidConfigError, "expected the name of the GPU that toy plans are to be built for"),
        ({"gpu": "TOY 2"}, UnsupportedTargetError, "expected 'TOY 1'"),
        ({"builder": {"optimization_level": 5}}, InvalidConfigError, "none for toy: the chip has one way to build"),
        ({"precisions": ["fp32", "fp8"]}, InvalidConfigError, "expected one of fp32, int8, which toy supports"),
    ],
)
def test_settings_are_checked_by_its_capabilities(changed: Mapping[str, object], error: type[Exception], words: str) -> None:
    check_config(config_from_json(CONFIG), table=TARGETS)
    with pytest.raises(error, match=words):
        check_config(config_from_json({**CONFIG, **changed}), table=TARGETS)


def test_without_its_row_there_is_no_such_target() -> None:
    with pytest.raises(UnsupportedTargetError, match="'toy' is unknown here"):
        check_config(config_from_json(CONFIG))
