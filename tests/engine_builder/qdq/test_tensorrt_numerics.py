"""The TensorRT dialect run by ONNX Runtime agrees with fake quantization: with the probes layer by layer, and as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.graph.layers import LayerKind
from calibration.number_formats.precision import TENSORRT_SCHEME, Precision
from calibration.sensitivity.perturbed_model import ReferenceModel
from engine_builder.qdq.rules.eligibility import Eligibility
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from tests.engine_builder.fake_quantized import Tensors, interpret, run, run_node
from tests.engine_builder.qdq.networks import ATTENTION, BLOCKS, FLOATS, TEXTS, Network, network
from tests.probed_models import probe_of

LOW_PRECISIONS = (Precision.INT8, Precision.FP8, Precision.INT4)
NETWORKS = {kind: network(text) for kind, text in TEXTS.items()}
LAYER_PRECISIONS = [
    (kind, layer.name, precision)
    for kind, found in NETWORKS.items()
    for layer in found.layers
    for precision in LOW_PRECISIONS
    if layer.kind is LayerKind.WEIGHTED and Eligibility(found.model, found.layers).can_take(layer, precision)
]


def reference_of(found: Network) -> ReferenceModel:
    return ReferenceModel(found.model, found.layers, found.ranges, TENSORRT_SCHEME)


def explicit_outputs(found: Network, quantized: dict[str, Precision], baseline: Precision) -> list[NDArray[np.generic]]:
    model = rewrite_tensorrt(found.model, found.layers, quantized, found.ranges, baseline=baseline)
    return list(run(model, found.feeds, optimized=False).values())


def off_and_moved(found: Sequence[np.ndarray], expected: Sequence[np.ndarray], plain: Sequence[np.ndarray]) -> tuple[float, float]:
    x, y, z = (np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts]) for parts in (found, expected, plain))
    return float(np.linalg.norm(x - y)), float(np.linalg.norm(y - z))


@pytest.mark.parametrize(("kind", "layer", "precision"), LAYER_PRECISIONS)
def test_one_quantized_layer_of_the_dialect_gives_what_its_probe_gives(kind: str, layer: str, precision: Precision) -> None:
    found = NETWORKS[kind]
    reference = reference_of(found)
    probe = probe_of(reference, found.feeds, found.layer(layer))
    probed = probe.outputs_from(probe.quantized_output(precision))
    plain = list(run(found.model, found.feeds, optimized=False).values())
    expected = explicit_outputs(found, {layer: precision}, Precision.FP32)
    off, moved = off_and_moved(probed, expected, plain)
    assert moved > 0
    # A sum in another order turns a value between two levels either way.
    assert off <= 0.2 * moved


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_the_products_of_an_attention_give_what_their_probes_give(precision: Precision) -> None:
    found = NETWORKS["attention"]
    scores, context = found.layer("scores"), found.layer("context")
    probe = probe_of(reference_of(found), found.feeds, scores)
    probed = probe.outputs_with(probe.quantized_output(precision), context, precision)
    plain = list(run(found.model, found.feeds, optimized=False).values())
    expected = explicit_outputs(found, {"scores": precision, "context": precision}, Precision.FP32)
    off, moved = off_and_moved(probed, expected, plain)
    assert moved > 0
    assert off <= 0.2 * moved  # as above


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_a_sum_that_reads_a_stored_input_gives_what_its_probe_gives(precision: Precision) -> None:
    found = NETWORKS["blocks"]
    probe = probe_of(reference_of(found), found.feeds, found.layer("conv2"))
    probed = probe.outputs_with(probe.quantized_output(precision), found.layer("sum1"), precision)
    plain = list(run(found.model, found.feeds, optimized=False).values())
    quantized = {"conv2": precision, "sum1": precision}
    off, moved = off_and_moved(probed, explicit_outputs(found, quantized, Precision.FP32), plain)
    without, _ = off_and_moved(probed, explicit_outputs(found, {"conv2": precision}, Precision.FP32), plain)
    assert off <= 0.2 * moved  # as above
    assert off < 0.5 * without  # that the sum reads the stored tensor is seen


@pytest.mark.parametrize("kind", ["blocks", "attention", "floats"])
def test_the_whole_dialect_in_fp16_agrees_with_fake_quantization_by_divergence_and_flips(kind: str) -> None:
    found = NETWORKS[kind]
    quantized = {name: precision for name, precision in found.all_in(Precision.INT8).items() if not name.startswith(("sum", "skip"))}
    tensors = interpret(found.model, found.feeds, [found.layer(name) for name in quantized], found.ranges, TENSORRT_SCHEME)
    (expected,) = (tensors[value.name] for value in found.model.graph.output if value.name == "y")
    half = explicit_outputs(found, quantized, Precision.FP16)[-1]
    plain = run(found.model, found.feeds, optimized=False)["y"]
    scale = float(np.std(plain))  # logits of the size that classifiers have
    p, q, r = (log_softmax(np.asarray(rows, dtype=np.float64) / scale) for rows in (expected, half, plain))
    caused, again, between = kl(r, p), kl(r, q), kl(p, q)
    flips = np.mean(p.argmax(axis=-1) != q.argmax(axis=-1))
    # FP16 rounds scales and sums by 2^-11, up to a sixteenth of an 8-bit step, which turns values near a tie either way: other errors of
    # the same size, not more of them.
    assert again == pytest.approx(caused, rel=0.25)
    assert between <= caused
    assert flips <= 0.05


def log_softmax(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = rows.reshape(-1, rows.shape[-1])
    shifted = rows - rows.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    return float(np.mean(np.sum(np.exp(p) * (p - q), axis=-1)))


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
@pytest.mark.parametrize(("kind", "name"), [("blocks", "conv4"), ("blocks", "gemm"), ("attention", "q"), ("attention", "context")])
def test_a_layer_in_half_precision_rounds_what_it_reads_and_writes(kind: str, name: str, precision: Precision) -> None:
    """Against numpy: ONNX Runtime, which computes halves in float32 on a CPU, leaves out Casts there and back, and their rounding."""
    found = NETWORKS[kind]
    tensors = interpret(found.model, found.feeds)
    (node,) = (node for node in found.model.graph.node if node.name == name)
    inputs: Tensors = {tensor: precision.grid.round_weight(np.asarray(tensors[tensor], dtype=np.float32)) for tensor in node.input}
    expected = precision.grid.round_weight(np.asarray(run_node(node, inputs)[0], dtype=np.float32))
    probed = probe_of(reference_of(found), found.feeds, found.layer(name)).quantized_output(precision)
    off, moved = off_and_moved([probed], [expected], [tensors[node.output[0]]])
    assert moved > 0
    assert off <= 0.2 * moved  # a sum in another order turns a value between two halves either way


@pytest.mark.parametrize("text", [BLOCKS, ATTENTION, FLOATS])
def test_bf16_rounds_more_than_fp16(text: str) -> None:
    found = network(text)
    plain = list(run(found.model, found.feeds, optimized=False).values())
    layer = found.layers[0]
    probe = probe_of(reference_of(found), found.feeds, layer)
    moved = [off_and_moved(probe.outputs_from(probe.quantized_output(p)), plain, plain)[0] for p in (Precision.FP16, Precision.BF16)]
    assert 0 < 4 * moved[0] < moved[1] < 16 * moved[0]  # three bits less: eight times the rounding
