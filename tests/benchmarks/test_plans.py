from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from benchmarks.plan_cases import CASES, PlanResult, assignment_of, fake_quantized, ranges_of, run_case
from benchmarks.plan_models import LISTED, Network, read_network
from benchmarks.plans import page
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from engine_builder.backends.achieved_precision import AchievedPrecision, Rule
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from tests.benchmarks.page_tables import table
from tests.engine_builder.fake_quantized import model_of, run, samples_of
from tests.engine_builder.qdq.networks import BLOCKS

WHERE = {
    "processor": "A",
    "integer_instructions": [],
    "processors_used": 2,
    "load_average": 0.0,
    "system": "Linux",
    "python": "3.11",
    "onnx": "1",
    "onnxruntime": "1",
    "numpy": "2",
    "tensorrt_rtx": "1.7",
    "gpu": "L4",
}


@pytest.fixture(scope="module")
def network() -> Network:
    model = prepare(model_of(BLOCKS)).model
    samples = samples_of(model, 32)
    return Network("blocks", model, find_layers(model), 4, samples, samples, "random")


def test_without_quantized_layers_the_fake_quantization_is_the_float_model(network: Network) -> None:
    assert network.validation is not None
    (expected,) = run(network.model, dict(network.calibration), optimized=False).values()
    got = fake_quantized(network, {}, ranges_of(network), network.validation)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-2)  # float32 sums of hundreds, in another order


def test_mixtures_are_seeded_differ_and_give_a_layer_only_what_it_may_take(network: Network) -> None:
    mixtures = [assignment_of(network, case) for case in CASES if case.startswith("mixed")]
    assert mixtures == [assignment_of(network, case) for case in CASES if case.startswith("mixed")]
    assert len({tuple(sorted(mixture.items())) for mixture in mixtures if mixture is not None}) == 3
    assert all(mixture["conv1"] is not Precision.INT4 for mixture in mixtures if mixture is not None)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
def test_a_case_is_built_compared_and_every_layer_accounted_for(network: Network) -> None:
    result = run_case(network, "all int8", ranges_of(network), TensorRtRtxBackend("RTX 4090"))
    assert isinstance(result, PlanResult)
    assert result.asked == {"int8": 6}
    assert result.differences == ()
    assert result.plan_bytes > 0
    assert result.predicted_ms > 0
    assert result.agreement is not None
    assert result.agreement.samples == 32
    # Ties round either way, in FP16 and float32: other errors of the same size, not more of them.
    assert result.agreement.between_kl <= max(result.agreement.fake_kl, result.agreement.explicit_kl)


def test_a_network_that_is_not_at_hand_is_left_out_with_the_reason(tmp_path: Path) -> None:
    missing = [read_network(listed, [tmp_path]) for listed in LISTED if listed.files]
    assert missing == [
        "efficientnet_lite0_imagenet.onnx is in none of the folders given with --models",
        "minilm_l6_fortunes8.onnx or minilm.onnx is in none of the folders given with --models",
    ]


def test_the_page_counts_achieved_precisions_and_shows_every_difference_with_its_rule() -> None:
    difference = AchievedPrecision("/conv/Conv", Precision.FP32, Precision.FP16, "kernel", Rule.OTHER_FLOAT)
    result = PlanResult("net", "mixed 0", {"fp32": 3, "int8": 2}, {}, (difference, difference), 2_500_000, 1.25, 0.125, None)
    text = page([result], {"net, all int4": "no layer of this network may take it"}, {"net": "batch 8; random"}, WHERE)
    (row,) = table(text, "plan MB")
    assert row == {
        "network": "net",
        "assignment": "mixed 0",
        "asked": "3 fp32, 2 int8",
        "layers": "5",
        "achieved": "3",
        "differ": "2",
        "plan MB": "2.50",
        "build s": "1.2",
        "predicted ms": "0.1250",
    }
    (told,) = table(text, "rule")
    assert (told["asked"], told["got"], told["layers"], told["for example"]) == ("fp32", "fp16", "2", "`/conv/Conv`")
    assert told["rule"] == f"OTHER_FLOAT: {Rule.OTHER_FLOAT.value}"
    assert "- net, all int4: no layer of this network may take it." in text.splitlines()
    assert "**latencies are predicted, not measured**" in text
