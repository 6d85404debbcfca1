"""Small models that count samples in unusual places, each with its samples and with how one sample is fed to it from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from tests.model_text import Array, model_from_text

Feed = Callable[[Mapping[str, Array], int], dict[str, Array]]
SAMPLES = 30


@dataclass(frozen=True)
class AxesCase:
    """A model, samples for it, and how sample i alone is fed."""

    model: onnx.ModelProto
    arrays: Mapping[str, Array]
    feed: Feed
    words: str = ""  # of a note
    config: Mapping[str, object] | None = None


def _normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _with(model: onnx.ModelProto, **integers: list[int]) -> onnx.ModelProto:
    for name, values in integers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, dtype=np.int64), name))
    return model


def _first(arrays: Mapping[str, Array], index: int) -> dict[str, Array]:
    return {name: array[index : index + 1] for name, array in arrays.items()}


def frames_first() -> AxesCase:
    """(time, batch, classes), as CTC losses want it."""
    text = """g (float[N,8,6] x) => (float[T,N,4] y) {
        a = MatMul(x, w1) b = Relu(a) c = Transpose<perm=[1,0,2]>(b) y = MatMul(c, w2)
    }"""
    return AxesCase(model_from_text(text, {"w1": (6, 16), "w2": (16, 4)}), {"x": _normal(SAMPLES, 8, 6)}, _first)


def frames_first_of_one() -> AxesCase:
    """The same with the batch fixed to one."""
    text = """g (float[1,W,6] x) => (float[T,1,4] y) {
        a = MatMul(x, w1) b = Relu(a) c = Transpose<perm=[1,0,2]>(b) y = MatMul(c, w2)
    }"""
    return AxesCase(model_from_text(text, {"w1": (6, 16), "w2": (16, 4)}), {"x": _normal(SAMPLES, 8, 6)}, _first)


def frames_first_of_four() -> AxesCase:
    """The same with the batch fixed to four, and four frames."""
    text = """g (float[4,4,6] x) => (float[4,4,5] y) {
        a = MatMul(x, w1) b = Relu(a) c = Transpose<perm=[1,0,2]>(b) y = MatMul(c, w2)
    }"""
    model = model_from_text(text, {"w1": (6, 16), "w2": (16, 5)})
    return AxesCase(model, {"x": _normal(SAMPLES, 4, 6)}, lambda arrays, index: {"x": np.repeat(arrays["x"][index : index + 1], 4, axis=0)})


def recurrent_state() -> AxesCase:
    """A state of (layers, batch, hidden) goes in and comes out."""
    text = """g (float[batch,6] x, float[2,batch,5] h) => (float[batch,4] y, float[2,batch,5] next) {
        axes = Constant<value = int64[1] {0}>()
        u = MatMul(x, wx) v = MatMul(h, wh) s = Add(v, u) next = Tanh(s)
        m = ReduceSum<keepdims=0>(next, axes) y = MatMul(m, wy)
    }"""
    model = model_from_text(text, {"wx": (6, 5), "wh": (5, 5), "wy": (5, 4)})
    arrays = {"x": _normal(SAMPLES, 6), "h": _normal(SAMPLES, 2, 5, seed=1)}
    return AxesCase(model, arrays, lambda given, i: {"x": given["x"][i : i + 1], "h": given["h"][i][:, None]})


def recurrent_state_stacked() -> AxesCase:
    """The same with the batch fixed to one, from arrays of whole calls."""
    case = recurrent_state()
    for value in (*case.model.graph.input, *case.model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "batch":
                dim.dim_value = 1
    arrays = {"x": case.arrays["x"], "h": case.arrays["h"][:, :, None]}
    return AxesCase(case.model, arrays, lambda given, i: {"x": given["x"][i : i + 1], "h": given["h"][i]})


def sample_rate() -> AxesCase:
    """A setting without axes, on which an If with the layers hangs."""
    text = """g (float[N,6] x, int64 rate) => (float[N,3] y) {
        wide = Constant<value = int64 {16000}>()
        is_wide = Equal(rate, wide)
        y = If(is_wide) <
            then_branch = then () => (float[N,3] p) { a = MatMul(x, w1) b = Relu(a) p = MatMul(b, w2) },
            else_branch = other () => (float[N,3] q) { q = MatMul(x, w3) }
        >
    }"""
    model = model_from_text(text, {"w1": (6, 16), "w2": (16, 3), "w3": (6, 3)})
    arrays = {"x": _normal(SAMPLES, 6), "rate": np.array(16000)}
    words = "input 'rate' is 16000 for the whole job"
    return AxesCase(model, arrays, lambda given, i: {"x": given["x"][i : i + 1], "rate": given["rate"]}, words)


def one_equal_value_a_sample() -> AxesCase:
    """A threshold that is the same for every sample."""
    model = model_from_text("g (float[N,6] x, float t) => (float[N,3] y) { h = Max(x, t) y = MatMul(h, w) }", {"w": (6, 3)})
    arrays = {"x": _normal(SAMPLES, 6), "t": np.full(SAMPLES, -0.5, np.float32)}
    return AxesCase(
        model, arrays, lambda given, i: {"x": given["x"][i : i + 1], "t": np.asarray(given["t"][i])}, "input 't' is -0.5 for the whole job"
    )


def another_value_a_sample() -> AxesCase:
    """A scalar that differs from sample to sample: a call can take one sample only."""
    case = one_equal_value_a_sample()
    arrays = {**case.arrays, "t": _normal(SAMPLES, seed=3)}
    return AxesCase(case.model, arrays, case.feed)


def without_batch_axis() -> AxesCase:
    """One matrix a call, no axis of samples at all."""
    model = model_from_text(
        "g (float[5,6] x) => (float[5,3] y) { a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }", {"w1": (6, 8), "w2": (8, 3)}
    )
    return AxesCase(model, {"x": _normal(SAMPLES, 5, 6)}, lambda arrays, index: {"x": arrays["x"][index]})


def samples_last() -> AxesCase:
    """The only open axis is the last."""
    text = "g (float[6,N] x) => (float[N,3] y) { t = Transpose<perm=[1,0]>(x) a = MatMul(t, w1) b = Relu(a) y = MatMul(b, w2) }"
    model = model_from_text(text, {"w1": (6, 8), "w2": (8, 3)})
    return AxesCase(model, {"x": _normal(SAMPLES, 6)}, lambda arrays, index: {"x": arrays["x"][index : index + 1].T})


def tokens_flattened() -> AxesCase:
    """Rows of all tokens of all samples in one axis."""
    text = "g (float[N,5,6] x) => (float[M,3] y) { a = MatMul(x, w1) b = Relu(a) c = Reshape(b, rows) y = MatMul(c, w2) }"
    model = _with(model_from_text(text, {"w1": (6, 8), "w2": (8, 3)}), rows=[-1, 8])
    return AxesCase(model, {"x": _normal(SAMPLES, 5, 6)}, _first)


def anchors() -> AxesCase:
    """Priors beside the scores, as many as the probes take samples in a call."""
    text = "g (float[N,6] x) => (float[N,3] y, float[64,4] priors) { a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) priors = Add(p, p) }"
    model = model_from_text(text, {"w1": (6, 8), "w2": (8, 3), "p": (64, 4)})
    return AxesCase(model, {"x": _normal(SAMPLES, 6)}, _first, "output 'priors' is the same for all samples")


def baked_batch() -> AxesCase:
    """A Reshape holds the batch of the export."""
    text = """g (float[batch,4,6] x) => (float[one,4,3] y) {
        a = Reshape(x, flat) b = MatMul(a, w1) c = Relu(b) d = Reshape(c, unflat) y = MatMul(d, w2)
    }"""
    model = _with(model_from_text(text, {"w1": (6, 8), "w2": (8, 3)}), flat=[-1, 6], unflat=[1, 4, 8])
    words = "the model takes one sample at a time though its batch axis is dynamic (3 in a call fail at a Reshape node)"
    return AxesCase(model, {"x": _normal(SAMPLES, 4, 6)}, _first, words)


def normalized_over_the_batch() -> AxesCase:
    """The mean over the samples of a call is taken from each."""
    text = """g (float[N,6] x) => (float[N,3] y) {
        a = MatMul(x, w1) m = ReduceMean<axes=[0]>(a) half = Mul(m, h) c = Sub(a, half) b = Tanh(c) y = MatMul(b, w2)
    }"""
    model = model_from_text(text, {"w1": (6, 8), "w2": (8, 3)})
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.5, np.float32), "h"))
    return AxesCase(
        model, {"x": _normal(SAMPLES, 6)}, _first, "the answer for a sample depends on the other samples in its call (output 'y')"
    )


def squeezed() -> AxesCase:
    """Every axis of length 1 is dropped, the batch's too where a call has one sample."""
    text = "g (float[N,6] x) => (float[unk] y) { a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) y = Squeeze(c) }"
    model = model_from_text(text, {"w1": (6, 8), "w2": (8, 3)})
    return AxesCase(model, {"x": _normal(SAMPLES, 6)}, _first, "the model takes one sample at a time")


def decisions() -> AxesCase:
    """Labels of tokens from an ArgMax, batch fixed to one."""
    text = """g (int64[1,7] ids) => (int64[1,7] labels) {
        e = Gather(table, ids) a = MatMul(e, w1) b = Relu(a) c = MatMul(b, w2) labels = ArgMax<axis=2, keepdims=0>(c)
    }"""
    model = model_from_text(text, {"table": (20, 6), "w1": (6, 16), "w2": (16, 5)})
    return AxesCase(model, {"ids": np.random.default_rng(0).integers(0, 20, (SAMPLES, 7))}, _first)


def odd_interface() -> AxesCase:
    """An input that nothing reads, an output that is an input, one that is a constant, one tensor under two names."""
    text = """g (float[N,6] x, float[N,2] unused) => (float[N,3] y, float[N,3] again, float[N,6] echo, float[2] version) {
        a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) again = Identity(y) echo = Identity(x)
    }"""
    model = model_from_text(text, {"w1": (6, 8), "w2": (8, 3), "version": (2,)})
    return AxesCase(
        model, {"x": _normal(SAMPLES, 6), "unused": _normal(SAMPLES, 2)}, _first, "output 'echo' is the input 'x' handed through"
    )


def unknown_sizes() -> AxesCase:
    """Sizes of -1, and axes that are all called ``?`` though their sizes differ."""
    text = "g (float[N,A,B,6] x) => (float[N,A,B,3] y) { a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }"
    model = model_from_text(text, {"w1": (6, 8), "w2": (8, 3)})
    for value in (*model.graph.input, *model.graph.output):
        first, *others, _ = value.type.tensor_type.shape.dim
        first.dim_value = -1
        for dim in others:
            dim.dim_param = "?"
    return AxesCase(model, {"x": _normal(SAMPLES, 2, 3, 6)}, _first)


CASES: tuple[Callable[[], AxesCase], ...] = (
    frames_first,
    frames_first_of_one,
    frames_first_of_four,
    recurrent_state,
    recurrent_state_stacked,
    sample_rate,
    one_equal_value_a_sample,
    another_value_a_sample,
    without_batch_axis,
    samples_last,
    tokens_flattened,
    anchors,
    baked_batch,
    normalized_over_the_batch,
    squeezed,
    decisions,
    odd_interface,
    unknown_sizes,
)
