"""A whole job on a network whose channels are of very different size: they are evened out before anything is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.driver import run_job
from tests.model_text import model_from_text

CONFIG = {"accuracy": {"metric": "cosine", "min_relative": 0.999}, "search": {"max_trials": 2}}


def uneven(spread: float) -> onnx.ModelProto:
    """Return two convolutions; each channel between them is larger or smaller by up to 2 to the power of ``spread``, without effect."""
    model = model_from_text(
        """g (float[N,4,8,8] x) => (float[N,4,8,8] y) {
            c1 = Conv<pads=[1,1,1,1]>(x, w1) r1 = Relu(c1) y = Conv<pads=[1,1,1,1]>(r1, w2)
        }""",
        {"w1": (32, 4, 3, 3), "w2": (4, 32, 3, 3)},
    )
    factors = np.exp2(np.linspace(-spread, spread, 32)).round(3).astype(np.float32)
    for tensor, shaped in zip(model.graph.initializer, (factors[:, None, None, None], 1 / factors[None, :, None, None]), strict=True):
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * shaped, tensor.name))
    return model


def test_all_layers_in_int8_keep_the_accuracy(tmp_path: Path) -> None:
    finished = run_job(tmp_path, uneven(6.0), config=CONFIG)
    (all_low,) = (trial for trial in finished.driver.trials if trial["order"] == "all_low")
    accuracy = all_low["accuracy"]
    assert isinstance(accuracy, float)
    assert accuracy > 0.999  # 0.54 where the channels stay as they are
    assert "channels evened out behind one layer" in str(finished.report["notes"])


def test_even_channels_are_left_alone(tmp_path: Path) -> None:
    finished = run_job(tmp_path, uneven(0.0), config=CONFIG)
    assert "evened out" not in str(finished.report["notes"])
