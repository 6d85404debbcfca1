"""Random small networks full of constant factors and offsets around layers, in numbers so short that folding them rounds nothing.

Weights are eighths, factors powers of two, offsets eighths: float32 holds every product and sum of a few layers of these exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.model_text import Array

_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass
class _Tensor:
    name: str
    shape: tuple[int, ...]  # channels on axis 1 of images, on the last axis of sequences and rows


@dataclass
class Network:
    """A model in the making."""

    rng: np.random.Generator
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    open: list[_Tensor] = field(default_factory=list)  # tensors that nothing reads yet, or that more may read

    def constant(self, array: Array) -> str:
        """Return the name of an initializer, or of a Constant node's output."""
        name = f"c{len(self.constants) + len(self.nodes)}"
        if self.rng.random() < 0.2:
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name)))
        else:
            self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> _Tensor:
        """Return the output of a new node; an Identity behind it now and then."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        if self.rng.random() < 0.1:
            self.nodes.append(helper.make_node("Identity", [name], [f"t{len(self.nodes)}"]))
            name = self.nodes[-1].output[0]
        return _Tensor(name, shape)

    def eighths(self, *shape: int) -> Array:
        """Return numbers between -1 and 1."""
        return (self.rng.integers(-8, 9, shape) / 8).astype(np.float32)

    def factors(self, *shape: int) -> Array:
        """Return powers of two, some of them negative, a few zero."""
        found = self.rng.choice(_FACTORS, shape)
        if self.rng.random() < 0.3:
            found = found * self.rng.choice((1.0, -1.0), shape)
        if self.rng.random() < 0.1:
            found = found * self.rng.choice((1.0, 0.0), shape, p=(0.8, 0.2))
        return np.asarray(found, dtype=np.float32)


def affine_network(seed: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a model and samples for it."""
    rng = np.random.default_rng(seed)
    net = Network(rng, int(rng.choice((9, 11, 13, 17))))
    shape = [(2, 4, 6, 6), (2, 4, 6), (2, 5, 4), (3, 4)][rng.integers(4)]
    is_image = shape in ((2, 4, 6, 6), (2, 4, 6))
    net.open.append(_Tensor("x", shape))
    outputs: list[_Tensor] = []
    for _ in range(rng.integers(4, 12)):
        at = int(rng.integers(len(net.open))) if rng.random() < 0.15 else len(net.open) - 1
        source = net.open[at]
        if rng.random() < 0.9 and at:  # mostly the last tensor, once
            net.open.pop(at)
        elif rng.random() < 0.1 and at:
            outputs.append(source)
        is_image = is_image and len(source.shape) > 2
        net.open.append(_next(net, source, is_image=len(source.shape) > 2 and is_image))
    outputs += [one for one in net.open if one.name != "x"]
    unique = {one.name: one for one in outputs}
    if not any(node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") for node in net.nodes):
        last = net.open[-1]
        unique = {"y": net.add("MatMul", [last.name, net.constant(net.eighths(last.shape[-1], 3))], (*last.shape[:-1], 3))}
    graph = helper.make_graph(
        net.nodes,
        "affine",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(one.name, onnx.TensorProto.FLOAT, one.shape) for one in unique.values()],
        net.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", net.opset)], ir_version=8)
    return model, {"x": (rng.integers(-16, 17, shape) / 8).astype(np.float32)}


def _next(net: Network, source: _Tensor, *, is_image: bool) -> _Tensor:
    draw = net.rng.random()
    if draw < 0.5:
        return _affine(net, source, is_image=is_image)
    if draw < 0.75:
        return _convolution(net, source) if is_image else _product(net, source)
    return _step(net, source, is_image=is_image)


def _affine(net: Network, source: _Tensor, *, is_image: bool) -> _Tensor:
    rng, shape, rank = net.rng, source.shape, len(source.shape)
    axis = 1 if is_image else rank - 1
    if rng.random() < 0.2 and (is_image or rank == 2):
        channels = shape[1]
        variance = np.asarray(rng.choice((0.25, 1.0, 4.0), channels), np.float32)
        names = [net.constant(array) for array in (net.factors(channels), net.eighths(channels), net.eighths(channels), variance)]
        return net.add("BatchNormalization", [source.name, *names], shape, epsilon=0.0)
    wide = [1] * rank
    kind = rng.random()
    if kind < 0.6:
        wide[axis] = shape[axis]
    elif kind < 0.7:
        wide[int(rng.integers(rank))] = -1
        wide = [shape[index] if size == -1 else size for index, size in enumerate(wide)]
    sizes = tuple(wide[int(rng.integers(axis + 1)) :] if kind < 0.6 else wide)
    if kind >= 0.8:
        sizes = ((), (1,))[int(rng.integers(2))]
    operator = str(rng.choice(("Mul", "Div", "Add", "Sub", "Add", "Mul")))
    array = net.factors(*sizes) if operator in ("Mul", "Div") else net.eighths(*sizes)
    if operator == "Div":
        array = np.where(array == 0, np.float32(2), array).astype(np.float32)
    inputs = [source.name, net.constant(array.reshape(sizes))]
    if operator != "Div" and rng.random() < 0.3:
        inputs.reverse()
    return net.add(operator, inputs, shape)


def _convolution(net: Network, source: _Tensor) -> _Tensor:
    rng, shape = net.rng, source.shape
    channels, spatial = shape[1], shape[2:]
    group = int(rng.choice([one for one in (1, 2, channels) if channels % one == 0]))
    wide = group * int(rng.integers(1, 3))
    size = int(rng.choice((1, 1, 3))) if min(spatial) >= 3 else 1
    weight = net.eighths(wide, channels // group, *(size,) * len(spatial))
    attributes: dict[str, Any] = {"group": group}
    kept = spatial if size == 1 else tuple(one - 2 for one in spatial)
    if size == 3 and rng.random() < 0.6:
        kept = spatial
        attributes |= {"auto_pad": "SAME_UPPER"} if rng.random() < 0.3 else {"pads": [1] * (2 * len(spatial))}
    inputs = [source.name]
    if rng.random() < 0.2 and len(spatial) == 2 and "auto_pad" not in attributes:
        weight = weight.reshape(wide // group, group, channels // group, size, size).transpose(1, 2, 0, 3, 4)
        weight = weight.reshape(channels, wide // group, size, size)
        kept = tuple(one + size - 1 for one in spatial) if "pads" not in attributes else spatial
        inputs.append(net.constant(np.ascontiguousarray(weight)))
        operator = "ConvTranspose"
    else:
        inputs.append(net.constant(weight))
        operator = "Conv"
    if rng.random() < 0.5:
        inputs.append(net.constant(net.eighths(wide)))
    return net.add(operator, inputs, (shape[0], wide, *kept), **attributes)


def _product(net: Network, source: _Tensor) -> _Tensor:
    rng, shape = net.rng, source.shape
    wide, inner = int(rng.integers(2, 5)), shape[-1]
    if len(shape) == 2 and rng.random() < 0.5:
        turned = bool(rng.random() < 0.5)
        inputs = [source.name, net.constant(net.eighths(wide, inner) if turned else net.eighths(inner, wide))]
        if rng.random() < 0.7 or net.opset < 11:  # a Gemm had to have a bias
            inputs.append(net.constant(net.eighths(*((wide,), (1, wide), (1,))[int(rng.integers(3))])))
        factors = {"alpha": 0.5, "beta": 2.0} if rng.random() < 0.3 else {}
        return net.add("Gemm", inputs, (shape[0], wide), transB=int(turned), **factors)
    if len(shape) == 3 and rng.random() < 0.2:
        return net.add("MatMul", [net.constant(net.eighths(wide, shape[-2])), source.name], (shape[0], wide, shape[-1]))
    return net.add("MatMul", [source.name, net.constant(net.eighths(inner, wide))], (*shape[:-1], wide))


def _step(net: Network, source: _Tensor, *, is_image: bool) -> _Tensor:
    rng, shape = net.rng, source.shape
    draw = rng.random()
    if draw < 0.35 or (not is_image and len(shape) == 2 and draw < 0.7):
        operator = str(rng.choice(("Relu", "LeakyRelu")))
        return net.add(operator, [source.name], shape, **({"alpha": 0.25} if operator == "LeakyRelu" else {}))
    if draw < 0.6 and is_image and min(shape[2:]) >= 2:
        operator = str(rng.choice(("MaxPool", "AveragePool")))
        pads = {"pads": [1] * (2 * len(shape[2:]))} if rng.random() < 0.4 else {}
        kept = tuple(one + 1 if pads else one - 1 for one in shape[2:])
        return net.add(operator, [source.name], (*shape[:2], *kept), kernel_shape=[2] * len(shape[2:]), **pads)
    axis = 1 if is_image else len(shape) - 1
    others = [one for one in net.open if len(one.shape) == len(shape) and one.name != source.name]
    others = [one for one in others if one.shape[:axis] + one.shape[axis + 1 :] == shape[:axis] + shape[axis + 1 :]]
    if others and draw < 0.8:
        other = others[int(rng.integers(len(others)))]
        wide = shape[axis] + other.shape[axis]
        return net.add("Concat", [other.name, source.name], (*shape[:axis], wide, *shape[axis + 1 :]), axis=axis)
    if is_image and len(shape) == 4:
        goal = (shape[0], shape[1], shape[2] * shape[3])
        flat = net.add("Reshape", [source.name, net.constant(np.array(goal, np.int64))], goal)
        if rng.random() < 0.5:
            return flat
        return net.add("Reshape", [flat.name, net.constant(np.array(shape, np.int64))], shape)
    if len(shape) == 3:
        back = net.add("Transpose", [source.name], (shape[0], shape[2], shape[1]), perm=[0, 2, 1])
        between = net.add("Mul", [back.name, net.constant(net.factors(shape[2], 1))], back.shape)
        return net.add("Transpose", [between.name], shape, perm=[0, 2, 1])
    return net.add("Relu", [source.name], shape)
