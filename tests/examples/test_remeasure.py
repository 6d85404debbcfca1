from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from examples.remeasure import measure

# The class with the largest input wins: the model passes its input through.
IDENTITY = """
<ir_version: 9, opset_import: ["" : 17]>
graph (float[N, 3] input) => (float[N, 3] logits) { logits = Identity(input) }
"""


def test_top1_is_the_share_of_right_samples_over_all_batches(tmp_path: Path) -> None:
    model = tmp_path / "identity.onnx"
    onnx.save(onnx.parser.parse_model(IDENTITY), model)
    labels = np.arange(1200, dtype=np.int64) % 3
    samples = np.eye(3, dtype=np.float32)[np.where(np.arange(1200) < 300, (labels + 1) % 3, labels)]  # the first 300 are wrong
    np.savez(tmp_path / "validation.npz", input=samples, labels=labels)
    measured = measure({"model": model}, tmp_path / "validation.npz", batch=4, rounds=3)
    assert measured["model"].top1 == 0.75
    assert measured["model"].median_ms > 0
    assert measured["model"].mad_ms >= 0
