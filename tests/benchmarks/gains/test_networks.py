"""The networks have the layers and the weights of those that they are named after."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gains.networks import NETWORKS
from calibration.graph.layers import LayerKind, find_layers
from calibration.graph_passes.normalize import prepare
from tests.engine_builder.fake_quantized import run

# Layers that multiply with a weight, and millions of weights, as published (weights of normalizations and embeddings apart).
PUBLISHED = {
    "ResNet50": (54, 25.5),
    "MobileNetV2": (53, 3.47),
    "EfficientNet-B0": (82, 5.25),
    "ViT-S/16": (74, 21.9),
    "BERT, 6 layers": (37, 42.5),
}


@pytest.mark.long
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_has_the_layers_and_weights_of_its_namesake_and_runs(name: str) -> None:
    make, sample = NETWORKS[name]
    model = prepare(make()).model
    layers = [layer for layer in find_layers(model) if layer.kind is LayerKind.WEIGHTED]
    count, millions = PUBLISHED[name]
    assert len(layers) == count
    assert sum(layer.weight_count for layer in layers) / 1e6 == pytest.approx(millions, rel=0.01)
    (given,) = (value.name for value in model.graph.input)
    (logits,) = run(model, {given: np.random.default_rng(1).standard_normal((1, *sample)).astype(np.float32)}, optimized=True).values()
    assert np.isfinite(logits).all()
    assert 1e-3 < np.abs(logits).max() < 1e3  # FP16 holds what lies between
