from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from benchmarks.uneven_channels import with_uneven_channels
from calibration.onnx_model.model_io import read_model
from examples.fashion_mnist.prepare import MODELS


def answers(model: onnx.ModelProto, pictures: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> object:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pictures})[0]


def test_every_block_becomes_uneven_and_no_bit_of_an_answer_changes() -> None:
    model = read_model(MODELS["resnet20"])
    uneven, count = with_uneven_channels(model, spread=7, seed=0)
    assert count == 9
    assert uneven.SerializeToString() != model.SerializeToString()
    pictures = np.random.default_rng(0).random((2, 1, 28, 28), dtype=np.float32)
    np.testing.assert_array_equal(answers(uneven, pictures), answers(model, pictures))


def test_a_bounded_activation_between_convolutions_is_left_alone() -> None:
    model = read_model(MODELS["mobilenetv2"])
    uneven, count = with_uneven_channels(model, spread=7, seed=0)
    assert count == 0
    assert uneven.SerializeToString() == model.SerializeToString()
