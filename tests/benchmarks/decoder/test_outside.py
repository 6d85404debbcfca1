from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.decoder.outside import measured
from tests.decoder_models import decoder, logits_of, texts


def test_a_decoder_agrees_with_itself_and_less_with_another(tmp_path: Path) -> None:
    model, other, given = tmp_path / "model.onnx", tmp_path / "other.onnx", texts(4, 12)
    onnx.save(decoder(), model)
    changed = decoder()
    head = next(tensor for tensor in changed.graph.initializer if tensor.name == "w3")
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) * np.float32(0.5), "w3"))
    onnx.save(changed, other)
    labels = np.stack([logits_of(model, text.tolist()).argmax(axis=-1) for text in given])

    same, half = (measured(model, one, given, labels, rounds=3) for one in (model, other))
    assert (same.agreement, same.divergence, same.right) == (1.0, 0.0, (1.0, 1.0))
    assert half.agreement == 1.0  # the order of the classes is the same
    truth = np.concatenate([logits_of(model, text.tolist()) for text in given]).astype(np.float64)
    p, q = (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True) for logits in (truth, truth / 2))
    assert half.divergence == pytest.approx(float((p * np.log(p / q)).sum(axis=-1).mean()), rel=1e-4)
    assert half.ratio > 0.0
