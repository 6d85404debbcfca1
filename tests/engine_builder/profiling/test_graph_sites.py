from __future__ import annotations

import pytest

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from engine_builder.backends.kernels import KernelTime
from engine_builder.profiling.graph_sites import Around, GraphSites
from tests.model_text import cnn, model_from_text

NORMALIZED = """g (float[N,8] x) => (float[N,8] y) {
    a = MatMul(x, w1)
    b = MatMul(a, w2)
    s = Add(a, b)
    n = LayerNormalization(s, scale)
    c = MatMul(n, w3)
    t = Add(n, c)
    y = LayerNormalization(t, scale2)
}"""
WEIGHTS = {"w1": (8, 8), "w2": (8, 8), "w3": (8, 8), "scale": (8,), "scale2": (8,)}


@pytest.fixture(scope="module")
def sites() -> GraphSites:
    model = prepare(model_from_text(NORMALIZED, WEIGHTS)).model
    return GraphSites(model, find_layers(model))


def test_a_kernel_is_of_the_node_or_of_the_tensor_that_it_names(sites: GraphSites) -> None:
    found = sites.times([KernelTime(("MatMul_a",), 1.0, "MatMul"), KernelTime(("b",), 2.0, "MatMul")])
    assert (found["MatMul_a"], found["MatMul_b"]) == (1.0, 2.0)


def test_a_fusion_without_a_name_is_of_the_layer_that_no_kernel_names(sites: GraphSites) -> None:
    """Each sum runs with the normalization behind it; both fusions hang together, and are told apart by when they run."""
    fused = [KernelTime(("Skip",), 5.0, "SkipLayerNormalization"), KernelTime(("Skip_token_1",), 7.0, "SkipLayerNormalization")]
    matmuls = [KernelTime((f"MatMul_{name}",), 1.0, "MatMul") for name in "abc"]
    found = sites.times([*matmuls[:2], fused[0], matmuls[2], fused[1]])
    assert (found["Add_s"], found["Add_t"]) == (5.0, 7.0)
    assert sum(found.values()) == pytest.approx(15.0)


def test_conversions_are_of_no_site(sites: GraphSites) -> None:
    assert set(sites.times([KernelTime(("a",), 3.0, "QuantizeLinear")]).values()) == {0.0}


def test_a_kernel_that_nothing_is_left_for_is_of_no_site(sites: GraphSites) -> None:
    everything = [KernelTime((name,), 1.0, "some") for name in sites.around]
    assert set(sites.times([*everything, KernelTime(("unknown",), 3.0, "Unknown")]).values()) == {1.0}


def test_a_site_knows_the_layers_around_it(sites: GraphSites) -> None:
    assert sites.around["LayerNormalization_n"] == Around(("Add_s",), ("MatMul_c", "Add_t"))
    assert sites.around["MatMul_a"] == Around((), ("MatMul_b", "Add_s"))


def test_a_layer_with_its_activation_is_one_site_by_the_name_of_any_of_its_tensors() -> None:
    model = prepare(cnn()).model
    layers = find_layers(model)
    sites = GraphSites(model, layers)
    relu = next(layer for layer in layers if len(layer.nodes) > 1)
    raw = next(node.output[0] for node in model.graph.node if node.name == relu.nodes[0])
    found = sites.times([KernelTime((raw,), 1.0, "Conv"), KernelTime((relu.nodes[1],), 2.0, "Relu")])
    assert found[relu.name] == 3.0
