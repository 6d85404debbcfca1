"""NVIDIA's own parser and builder take what the rewriter writes, and the layers get the precisions that they were given.

One thing is the builder's: TensorRT-RTX 1.7 runs some float32 layers between FP16 ones in FP16 (25 of 129 in twelve random mixtures of four
networks), so float32 is asserted where a whole network is in it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from calibration.graph.layers import LayerKind
from calibration.number_formats.precision import Precision
from engine_builder.qdq.checks.validator import validate_tensorrt
from engine_builder.qdq.rules.eligibility import Eligibility
from engine_builder.qdq.rules.legalize import legalize
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from tests.engine_builder.qdq.networks import TEXTS, Network, network

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")

WORDS = {
    Precision.FP32: "Float",
    Precision.FP16: "Half",
    Precision.BF16: "BFloat16",
    Precision.INT8: "Int8",
    Precision.FP8: "FP8",
    Precision.INT4: "Int4",
}
ONE_FORMAT = (Precision.FP16, Precision.BF16, Precision.INT8, Precision.FP8, Precision.INT4, Precision.FP32)
MIXED = tuple(f"mixed{seed}" for seed in range(3))
CASES = [(kind, choice) for kind in TEXTS for choice in (*(precision.value for precision in ONE_FORMAT), *MIXED)]
Build = dict[str, Any]  # what rtx_build.py writes of one: its error and its kernels
Builds = dict[tuple[str, str, str], Build]  # by network, choice and compute capability


def assignment_of(found: Network, choice: str) -> dict[str, Precision]:
    if choice not in MIXED:
        return found.all_in(Precision(choice))
    rng = np.random.default_rng(MIXED.index(choice))
    eligibility = Eligibility(found.model, found.layers)
    offered = {layer.name: [p for p in ONE_FORMAT if eligibility.can_take(layer, p)] for layer in found.layers}
    return {name: precisions[rng.integers(len(precisions))] for name, precisions in offered.items()}


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    return {kind: network(text) for kind, text in TEXTS.items()}


@pytest.fixture(scope="module")
def builds(networks: dict[str, Network], tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """Every case built for compute capability 8.9, and FP8 for 8.6, in one child."""
    folder = tmp_path_factory.mktemp("explicit")
    wanted = [(*case, "SM89") for case in CASES] + [("blocks", "fp8", "SM86")]
    requests = []
    for kind, choice, capability in wanted:
        found = networks[kind]
        explicit = rewrite_tensorrt(found.model, found.layers, assignment_of(found, choice), found.ranges)
        onnx.checker.check_model(explicit, full_check=True)
        validate_tensorrt(explicit, compute_capability=(8, 9))
        path = folder / f"{kind}_{choice}_{capability}.onnx"
        onnx.save(explicit, path)
        (value,) = found.model.graph.input
        axes = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        requests.append({"path": str(path), "capability": capability, "shapes": {value.name: [[count, *axes] for count in (1, 4, 8)]}})
    script = Path(__file__).with_name("rtx_build.py")
    child = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(requests), capture_output=True, text=True, check=False, timeout=300
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return dict(zip(wanted, json.loads(child.stdout.splitlines()[-1]), strict=True))


def kernels_of(build: Build, node: str) -> list[dict[str, Any]]:
    """Return the kernels that compute a product or convolution, rather than cast or move for it."""
    return [
        kernel
        for kernel in build["kernels"]
        if node in kernel["nodes"] and (kernel["kind"] in ("correlation", "gemm", "deconv", "runtime_fusion") or "mha" in kernel["name"])
    ]


@pytest.mark.parametrize(("kind", "choice"), CASES)
def test_every_assignment_parses_and_builds_and_reaches_the_plan(
    builds: Builds, networks: dict[str, Network], kind: str, choice: str
) -> None:
    build, found = builds[kind, choice, "SM89"], networks[kind]
    assert build["error"] is None
    given = legalize(found.model, found.layers, assignment_of(found, choice)).precisions
    for layer in found.layers:
        word = WORDS[given[layer.name]]
        if layer.kind is LayerKind.RESIDUAL_ADD:  # it has no kernel of its own
            continue
        if given[layer.name] is Precision.FP32 and choice in MIXED:  # a lone float32 layer is the builder's to narrow: module docstring
            continue
        kernels = kernels_of(build, layer.name)
        if given[layer.name] in (Precision.INT8, Precision.FP8):
            assert any(kernel["inputs"][:1] == [word] for kernel in kernels), (layer.name, word, kernels)
        else:
            assert any(word in (*kernel["inputs"], *kernel["constants"]) for kernel in kernels), (layer.name, word, kernels)


@pytest.mark.parametrize("choice", ["fp8", "fp16"])
def test_attention_stays_one_kernel(builds: Builds, choice: str) -> None:
    (kernel,) = kernels_of(builds["attention", choice, "SM89"], "scores")
    assert "mha" in kernel["name"]
    assert {"scores", "softmax", "context"} <= set(kernel["nodes"])
    assert set(kernel["inputs"]) == {WORDS[Precision(choice)]}


def test_both_operands_of_int8_attention_products_are_int8(builds: Builds) -> None:
    for name in ("scores", "context"):
        for kernel in kernels_of(builds["attention", "int8", "SM89"], name):
            assert kernel["inputs"][:2] == ["Int8", "Int8"]


def test_an_8_bit_block_input_is_stored_once(builds: Builds) -> None:
    writers = [kernel for kernel in builds["blocks", "int8", "SM89"]["kernels"] if "relu1" in kernel["nodes"]]
    assert [kernel["outputs"] for kernel in writers if "Int8" in kernel["outputs"]] == [["Int8"]]
    assert all("Half" not in kernel["outputs"] for kernel in writers)


def test_fp8_is_refused_by_a_gpu_without_it(builds: Builds) -> None:
    assert "fp8" in builds["blocks", "fp8", "SM86"]["error"]
