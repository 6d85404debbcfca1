"""How a model is called is found by running it: axes of samples, fixed batches, samples that depend on each other."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from calibration.data.sample_axes import OutputAxis
from calibration.errors import InvalidConfigError
from engine_builder.config.config import config_from_json
from engine_builder.config.inspect_settings import inspect_settings
from engine_builder.errors import EngineError
from engine_builder.evaluation.model_calls import settled_batch
from tests.axes_models import baked_batch, frames_first, frames_first_of_four, normalized_over_the_batch, squeezed
from tests.called_models import calls_of
from tests.model_text import model_from_text, samples_for

BATCHES_OF_8 = inspect_settings(config_from_json({"batch_size": 8}))


def rows(nodes: str, output: str = "N,4") -> onnx.ModelProto:
    return model_from_text(f"g (float[N,6] x) => (float[{output}] y) {{ h = MatMul(x, w) {nodes} }}", {"w": (6, 4)})


@pytest.mark.parametrize(
    ("model", "axis", "shape"),
    [
        (rows("y = Relu(h)"), OutputAxis(), (1, 4)),
        (rows("y = Transpose<perm=[1,0]>(h)", "4,N"), OutputAxis(1), (1, 4)),
        (frames_first().model, OutputAxis(1), (1, 8, 4)),
        (rows("s = Constant<value = int64[2] {-1, 2}>() y = Reshape(h, s)", "M,2"), OutputAxis(0, 2), (1, 2, 2)),
    ],
)
def test_two_batches_tell_the_axis(model: onnx.ModelProto, axis: OutputAxis, shape: tuple[int, ...]) -> None:
    calls = calls_of(model)
    (found,) = calls.outputs
    assert (calls.batch, calls.notes) == (None, ())
    assert (found.axis, found.shape, found.unfit) == (axis, shape, None)


def test_entries_of_several_samples_in_turns_are_run_one_sample_at_a_time() -> None:
    calls = calls_of(rows("s = Constant<value = int64[2] {2, -1}>() t = Transpose<perm=[1,0]>(h) y = Reshape(t, s)", "2,M"))
    assert (calls.batch, calls.outputs[0].shape) == (1, (1, 2, 2))


def test_an_axis_of_the_length_of_a_batch_is_no_axis_of_samples() -> None:
    model = model_from_text(
        "g (float[N,6] x) => (float[N,4] y, float[8,2] z) { y = MatMul(x, w) m = ReduceMean<axes=[0,1], keepdims=0>(x) z = Add(p, m) }",
        {"w": (6, 4), "p": (8, 2)},
    )
    scores, priors = calls_of(model, most=8).outputs
    assert (scores.axis, scores.unfit) == (OutputAxis(), None)
    assert priors.unfit == "has the shape (8, 2) for one sample and for 3, so that it does not count samples"


def test_an_output_whose_size_depends_on_the_values_is_told() -> None:
    model = model_from_text(
        """g (float[N,6] x) => (float[N,4] y, int64[2,K] z) {
            y = MatMul(x, w) zero = Constant<value = float {0.0}>() m = Greater(y, zero) z = NonZero(m)
        }""",
        {"w": (6, 4)},
    )
    assert calls_of(model).outputs[1].unfit == (
        "has the shape (2, 2) for one sample and (2, 3) for another: its size depends on the values"
    )


def test_a_batch_that_was_exported_is_kept() -> None:
    calls = calls_of(baked_batch().model, baked_batch().arrays)
    assert calls.batch == 1
    assert calls.notes[0].startswith("the model takes one sample at a time though its batch axis is dynamic")


def test_a_batch_of_several_that_was_exported_is_found() -> None:
    model = model_from_text(
        "g (float[N,6] x) => (float[K,4] y) { s = Constant<value = int64[2] {4, 6}>() r = Reshape(x, s) y = MatMul(r, w) }", {"w": (6, 4)}
    )
    calls = calls_of(model)
    assert (calls.batch, calls.outputs[0].axis) == (4, OutputAxis())
    assert calls.notes == ("the model takes 4 samples a call though its batch axis is dynamic: every call has 4",)


def test_a_shape_that_changes_with_the_batch_means_one_sample_a_call() -> None:
    calls = calls_of(squeezed().model, squeezed().arrays)
    assert (calls.batch, calls.outputs[0].shape) == (1, (1, 3))
    assert "output 'y' has the shape (3,) for one and (3, 3) for 3" in calls.notes[0]


@pytest.mark.parametrize("timed", [1, 4])
def test_samples_that_depend_on_each_other_are_called_as_timed(timed: int) -> None:
    calls = calls_of(normalized_over_the_batch().model, normalized_over_the_batch().arrays, timed=timed)
    assert (calls.batch, calls.outputs[0].axis) == (timed, OutputAxis())
    assert f"the model is run as it is timed, {timed} in a call" in calls.notes[0]


def test_no_rarer_guess_takes_the_place_of_samples_that_depend_on_each_other() -> None:
    text = """g (float[R,S,6] x) => (float[R,S,4] y) {
        m = ReduceMean<axes=[0]>(x) d = Sub(x, m) f = Reshape(d, s) h = MatMul(f, w) y = Reshape(h, r)
    }"""
    model = model_from_text(text, {"w": (6, 4)})
    for name, values in (("s", [-1, 6]), ("r", [-1, 5, 4])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    calls = calls_of(model, {"x": np.random.default_rng(0).normal(size=(12, 5, 6)).astype(np.float32)})
    assert (calls.batch, calls.inputs) == (1, {})
    assert "depends on the other samples" in calls.notes[0]


def test_a_later_sample_that_changes_with_an_earlier_one_is_found() -> None:
    calls = calls_of(rows("a = Constant<value = int64 {0}>() y = CumSum(h, a)"))
    assert "output 'y'" in calls.notes[0]


def test_a_fixed_batch_finds_its_axis_by_exchanging_samples() -> None:
    case = frames_first_of_four()
    (found,) = calls_of(case.model, case.arrays).outputs
    assert (found.axis, found.shape) == (OutputAxis(1), (1, 4, 5))


def test_a_fixed_batch_whose_samples_depend_on_each_other_is_told() -> None:
    model = model_from_text(
        "g (float[4,6] x) => (float[4,4] y) { h = MatMul(x, w) m = ReduceMean<axes=[0]>(h) y = Sub(h, m) }", {"w": (6, 4)}
    )
    calls = calls_of(model)
    assert (calls.batch, calls.outputs[0].axis) == (4, OutputAxis())
    assert "depends on the other samples" in calls.notes[0]


@pytest.mark.parametrize("batch", ["N", "1", "4"])
def test_an_output_with_noise_is_told_from_samples_that_depend_on_each_other(batch: str) -> None:
    model = model_from_text(
        f"g (float[{batch},6] x) => (float[{batch},4] y, float[{batch},4] z) {{ y = MatMul(x, w) r = RandomNormalLike(y) z = Add(y, r) }}",
        {"w": (6, 4)},
    )
    calls = calls_of(model)
    mean, drawn = calls.outputs
    assert (mean.unfit, calls.notes) == (None, ())
    assert drawn.unfit == "changes from call to call on the same samples: the model draws random numbers"


def test_an_unnamed_axis_of_time_is_told_from_that_of_samples() -> None:
    model = model_from_text(
        "g (float[A,B,6] x) => (float[A,B,6] y) { h = MatMul(x, w) a = Constant<value = int64 {0}>() y = CumSum(h, a) }", {"w": (6, 6)}
    )
    for dims in (value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.output)):
        dims[0].Clear()
        dims[1].Clear()
    calls = calls_of(model, {"x": np.random.default_rng(0).normal(size=(12, 5, 6)).astype(np.float32)})
    assert (calls.batch, calls.inputs, calls.outputs[0].axis) == (None, {"x": 1}, OutputAxis(1))


def test_a_later_axis_that_is_named_like_a_batch_does_not_mislead() -> None:
    model = model_from_text("g (float[a,b] x) => (float[a,4] y) { y = MatMul(x, w) }", {"w": (6, 4)})
    calls = calls_of(model, {"x": np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)})
    assert (calls.batch, calls.inputs, calls.outputs[0].axis) == (None, {}, OutputAxis())


def test_a_model_that_never_runs_says_so() -> None:
    model = model_from_text("g (float[N,T] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": (8, 4)})
    with pytest.raises(EngineError, match="MatMul"):
        calls_of(model, {"x": np.ones((12, 6), np.float32)})


def test_a_batch_that_the_model_does_not_take_is_refused() -> None:
    calls = calls_of(baked_batch().model, baked_batch().arrays, timed=8)
    with pytest.raises(InvalidConfigError, match="batch_size: found 8 samples a call, expected 1: the model takes one sample at a time"):
        settled_batch(calls, BATCHES_OF_8, 8)
    assert settled_batch(calls_of(rows("y = Relu(h)")), BATCHES_OF_8, 8) == 8


def test_samples_may_be_fewer_than_a_call() -> None:
    model = rows("y = Relu(h)")
    assert calls_of(model, samples_for(model, 2)).batch is None
