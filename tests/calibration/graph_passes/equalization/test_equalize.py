"""Channels are evened out where they differ, exactly, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from calibration.graph.free_names import Names, names_in
from calibration.graph.layers import find_layers
from calibration.graph_passes.equalization.channel_statistics import channel_statistics
from calibration.graph_passes.equalization.equalize import equalize
from calibration.graph_passes.folding.plan import Plan
from calibration.graph_passes.normalize import prepare
from calibration.graph_passes.written_form import written
from tests.model_text import Array, model_from_text, run, samples_for

FACTORS = np.exp2([0.0, 5.0, -5.0, 2.0, -5.0, 0.0])
CONV = "float[N,8,8,8] x) => (float[N,4,8,8] y"
NETWORKS = {
    "convolutions": (CONV, "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) y = Conv<pads=[1,1,1,1]>(r, w2, b2)", (4, 6, 3, 3)),
    "leaky": (CONV, "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = LeakyRelu(a) y = Conv<pads=[1,1,1,1]>(r, w2, b2)", (4, 6, 3, 3)),
    "pooled": (
        "float[N,8,8,8] x) => (float[N,4,4,4] y",
        """a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        y = Conv<pads=[1,1,1,1]>(p, w2, b2)""",
        (4, 6, 3, 3),
    ),
    "depthwise": (
        "float[N,8,8,8] x) => (float[N,6,8,8] y",
        "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) y = Conv<group=6, pads=[1,1,1,1]>(r, w2, b6)",
        (6, 1, 3, 3),
    ),
    "grouped": (CONV, "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) y = Conv<group=2, pads=[1,1,1,1]>(r, w2, b2)", (4, 3, 3, 3)),
    "transposed": (
        CONV,
        "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) y = ConvTranspose<group=2, pads=[1,1,1,1]>(r, w2, b2)",
        (6, 2, 3, 3),
    ),
    "flattened": (
        "float[N,8,8,8] x) => (float[N,4] y",
        "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB=1>(f, w2, b2)",
        (4, 6),
    ),
    "two readers": (
        "float[N,8,8,8] x) => (float[N,4,8,8] y, float[N,4,6,6] z",
        "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) y = Conv<pads=[1,1,1,1]>(r, w2, b2) z = Conv(r, w2, b2)",
        (4, 6, 3, 3),
    ),
}
LEFT = {
    "clipped": (CONV, "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Clip(a, zero, six) y = Conv<pads=[1,1,1,1]>(r, w2, b2)"),
    "sigmoid": (CONV, "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Sigmoid(a) y = Conv<pads=[1,1,1,1]>(r, w2, b2)"),
    "given out": (
        "float[N,8,8,8] x) => (float[N,4,8,8] y, float[N,6,8,8] r",
        "a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) y = Conv<pads=[1,1,1,1]>(r, w2, b2)",
    ),
    "added": (
        CONV,
        """a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) d = Conv<pads=[1,1,1,1]>(x, w3, b1) s = Add(r, d)
        y = Conv<pads=[1,1,1,1]>(s, w2, b2)""",
    ),
}


def network(ends: str, body: str, reader: tuple[int, ...] = (4, 6, 3, 3)) -> onnx.ModelProto:
    """Return a prepared model whose first layer has six output channels, called w1 and b1."""
    shapes = {"w1": (6, 8, 3, 3), "b1": (6,), "w2": reader, "b2": (4,), "b6": (6,), "w3": (6, 8, 3, 3)}
    model = model_from_text(f"g ({ends}) {{ {body} }}", shapes)
    model.graph.initializer.extend(numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("zero", 0), ("six", 6)))
    prepared: onnx.ModelProto = prepare(model).model
    return prepared


def uneven(model: onnx.ModelProto, weight: str = "w1") -> onnx.ModelProto:
    """Return the model with a layer's output channels multiplied by FACTORS; the readers divide by them where they can."""
    work = ir.from_proto(model)
    first = next(node for node in work.graph if weight in {value.name for value in node.inputs if value is not None})
    if not Plan(work.graph, frozenset(), Names(names_in(work)), set()).rescale_between(first, 1 / FACTORS):
        for index, shape in ((1, (-1, 1, 1, 1)), (2, (-1,))):
            value = first.inputs[index]
            assert value is not None
            assert value.const_value is not None
            value.const_value = ir.Tensor(value.const_value.numpy() * FACTORS.reshape(shape).astype(np.float32), name=value.name)
    return written(work, model)


def batches(model: onnx.ModelProto) -> Iterator[dict[str, Array]]:
    yield samples_for(model, 4, seed=1)
    yield samples_for(model, 4, seed=2)


def spread(model: onnx.ModelProto) -> float:
    """Return how much larger the first layer's largest channel is than its smallest."""
    (weight,) = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "w1")
    sizes = np.abs(weight).max(axis=(1, 2, 3))
    return float(sizes.max() / sizes.min())


@pytest.mark.parametrize("name", NETWORKS)
def test_uneven_channels_become_even_and_no_bit_of_an_output_changes(name: str) -> None:
    model = uneven(network(*NETWORKS[name]))
    found, count = equalize(model, find_layers(model), batches(model))
    assert count == 1
    feeds = samples_for(model, 5, seed=3)
    for before, after in zip(run(model, feeds), run(found, feeds), strict=True):
        np.testing.assert_array_equal(after, before)
    assert spread(found) < spread(model) / 100
    onnx.checker.check_model(found)


# Averages of flattened ones differ; depthwise weights have a scale a channel, so that the tensor alone decides, and a factor of 2 is much.
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"flattened", "depthwise"}))
def test_even_channels_stay_as_they_are(name: str) -> None:
    model = network(*NETWORKS[name])
    assert equalize(model, find_layers(model), batches(model)) == (model, 0)


@pytest.mark.parametrize("name", LEFT)
def test_channels_that_something_else_sees_stay_as_they_are(name: str) -> None:
    model = uneven(network(*LEFT[name]))
    assert equalize(model, find_layers(model), batches(model)) == (model, 0)


def test_a_chain_is_evened_out_behind_every_layer() -> None:
    body = """a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) c = Conv<group=6, pads=[1,1,1,1]>(r, w4, b6) s = Relu(c)
        y = Conv<pads=[1,1,1,1]>(s, w2, b2)"""
    shapes = {"w1": (6, 8, 3, 3), "b1": (6,), "w2": (4, 6, 3, 3), "b2": (4,), "b6": (6,), "w4": (6, 1, 3, 3)}
    model = uneven(uneven(prepare(model_from_text(f"g ({CONV}) {{ {body} }}", shapes)).model), "w4")
    found, count = equalize(model, find_layers(model), batches(model))
    assert count == 2
    feeds = samples_for(model, 5, seed=3)
    np.testing.assert_array_equal(run(found, feeds)[0], run(model, feeds)[0])


def test_tensors_that_hold_other_values_have_other_names() -> None:
    model = uneven(network(*NETWORKS["convolutions"]))
    found, _ = equalize(model, find_layers(model), batches(model))
    names = {name for node in found.graph.node for name in node.output}
    assert "y" in names
    assert names.isdisjoint({"a", "r"})


def test_samples_are_only_read_where_factors_could_go_between() -> None:
    model = network(*LEFT["sigmoid"])

    unread = batches(model)
    assert equalize(model, find_layers(model), unread) == (model, 0)
    assert len(list(unread)) == 2


def test_factors_are_chosen_from_every_second_batch_and_judged_on_all() -> None:
    model = network(*NETWORKS["convolutions"])
    seen = channel_statistics(model, find_layers(model), {"x": -3}, batches(model))["x"]
    first, second = (np.abs(batch["x"]).max(axis=(0, 2, 3)) for batch in batches(model))
    np.testing.assert_array_equal(seen.chosen_from.largest, first)
    np.testing.assert_array_equal(seen.judged_on.largest, np.maximum(first, second))
