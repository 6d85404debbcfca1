from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from calibration.execution.onnxruntime_session import Array
from calibration.execution.tensorwise_run import TensorwiseRun
from tests.model_text import cnn, samples_for
from tests.probed_models import assert_close


def typed() -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(cnn())


def whole(name: str, batch: dict[str, Array]) -> Array:
    """Return a tensor of ``cnn`` as the whole model computes it."""
    model = cnn()
    model.graph.output.add().name = name
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run([name], batch)
    return np.asarray(found)


def batches() -> list[dict[str, Array]]:
    return [dict(samples_for(cnn(), 3, seed)) for seed in (1, 2)]


def test_each_tensor_is_that_of_the_whole_model_batch_by_batch() -> None:
    names = [node.output[0] for node in cnn().graph.node]
    tensorwise = TensorwiseRun(typed(), {"first": names[0], "later": names[2]})
    alive = batches()
    first = tensorwise.advance(alive, "first")
    later = tensorwise.advance(alive, "later")
    for index, batch in enumerate(batches()):
        assert_close(first[index], whole(names[0], batch))
        assert_close(later[index], whole(names[2], batch))


def test_only_what_is_still_needed_is_kept() -> None:
    last = cnn().graph.node[-1].output[0]
    alive = batches()
    values = TensorwiseRun(typed(), {"end": last}).advance(alive, "end")
    assert alive == [{}, {}]
    assert values[0].shape[0] == 3


def test_what_changed_before_the_next_stop_is_what_the_next_is_computed_from() -> None:
    names = [node.output[0] for node in cnn().graph.node]
    tensorwise = TensorwiseRun(typed(), {"first": names[0], "later": names[-1]})
    alive = batches()
    tensorwise.advance(alive, "first")
    for tensors in alive:
        tensors[names[0]] = np.zeros_like(tensors[names[0]])
    changed = tensorwise.advance(alive, "later")
    assert not np.allclose(changed[0], whole(names[-1], batches()[0]))


def test_a_tensor_that_the_model_does_not_compute_is_refused() -> None:
    with pytest.raises(KeyError):
        TensorwiseRun(typed(), {"none": "no_such_tensor"})
