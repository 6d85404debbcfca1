from __future__ import annotations

import onnxruntime
import pytest

from benchmarks.predictions.networks import NETWORKS, Timed, depthwise, example, gated, transformer
from calibration.graph.layers import LayerKind, find_layers
from calibration.graph_passes.normalize import prepare


def test_there_are_at_least_eight_networks() -> None:
    assert len(NETWORKS) >= 8


@pytest.mark.parametrize(
    ("network", "kinds"),
    [
        (depthwise(side=32), {LayerKind.WEIGHTED, LayerKind.RESIDUAL_ADD}),
        (gated(side=32), {LayerKind.WEIGHTED}),
        (transformer(blocks=1, tokens=8), set(LayerKind) - {LayerKind.RECURRENT}),
        (example("resnet20", 4), {LayerKind.WEIGHTED, LayerKind.RESIDUAL_ADD}),
    ],
)
def test_a_network_runs_on_its_samples_and_has_layers(network: Timed, kinds: set[LayerKind]) -> None:
    model = prepare(network.model).model
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    count = len(next(iter(network.samples.values())))
    assert len(session.run(None, dict(network.samples))[0]) == count
    assert {layer.kind for layer in find_layers(model)} == kinds
