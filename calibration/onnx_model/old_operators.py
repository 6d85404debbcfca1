"""Operators that onnxruntime runs at old opsets and that no later opset has, written out in operators that all have.

BatchNormalization, spatial = 0   (x - mean) / sqrt(var + epsilon) * scale + b, with one value of each for every element of a sample
Affine                            alpha x + beta
ImageScaler                       scale x + bias, one bias for each channel
ScaledTanh                        alpha tanh(beta x)
ParametricSoftplus                alpha log(1 + exp(beta x))
Crop                              a slice of the last two axes
Hardmax before opset 13           over all axes from ``axis`` on, flattened; onnx's converter takes it for one over a single axis

Upsample, and Resize at opset 10, become a Resize of opset 11 in onnx's converter, which forgets that they count positions from the corner.
They are kept from it, and become a Resize that does; so is Pad, whose mode it loses:

    x_source = x_target / scale, cut off (rounded up where the scale is below 1)    nearest
    x_source = x_target / scale                                                     linear
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from calibration.graph.runtime_view import subgraphs

Floats = NDArray[np.floating]
_MISREAD = frozenset({"Upsample", "Resize", "Pad"})
_LAST_MISREAD_OPSET = 10  # later ones say how they count
_TO_THE_END = 2**31 - 1


def write_out_old_operators(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Replace the operators above in the graph and its subgraphs, in place, and return the names of those that were there.

    Args:
        graph: Of a model at opset 7 to 12.
    """
    found: list[str] = []
    nodes: list[onnx.NodeProto] = []
    for inner in subgraphs(graph):
        found += write_out_old_operators(inner)
    for node in graph.node:
        write = _WRITERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        written = write(_Writer(node)) if write is not None else None
        if written is None:
            nodes.append(node)
        else:
            found.append(node.op_type)
            nodes.extend(written)
    _replace_nodes(graph, nodes)
    return tuple(dict.fromkeys(found))


def is_misread(node: onnx.NodeProto, opset: int) -> bool:
    """Return whether onnx's converter would make something else of the node: an Upsample, Resize or Pad from before opset 11."""
    return node.op_type in _MISREAD and opset <= _LAST_MISREAD_OPSET


def write_out_misread(graph: onnx.GraphProto, domain: str) -> None:
    """Turn each Upsample, Resize and Pad of a domain, subgraphs' too, into the form of opset 11 that does the same, in place.

    Args:
        graph: Of a model at opset 11 or later.
        domain: In which these nodes were kept from the converter.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    nodes = []
    for node in graph.node:
        if node.domain == domain and node.op_type == "Pad":
            nodes.extend(_pad(_Writer(node)))
        elif node.domain == domain and node.op_type in _MISREAD:
            nodes.extend(_resize(_Writer(node), constants))
        else:
            nodes.append(node)
    _replace_nodes(graph, nodes)
    for inner in subgraphs(graph):
        write_out_misread(inner, domain)


def _resize(at: _Writer, constants: Mapping[str, onnx.TensorProto]) -> list[onnx.NodeProto]:
    scales = at.numbers("scales")
    name = at.node.input[1] if len(at.node.input) > 1 else at.constant("scales", np.array(scales, dtype=np.float32))
    if name in constants:
        scales = numpy_helper.to_array(constants[name]).tolist()
    mode = at.word("mode", "nearest")
    rounding = "ceil" if any(scale < 1.0 for scale in scales) else "floor"
    at.made(
        "Resize",
        [at.node.input[0], "", name],
        mode="nearest" if mode == "nearest" else "linear",
        coordinate_transformation_mode="asymmetric",
        nearest_mode=rounding,
    )
    return at.written


def _pad(at: _Writer) -> list[onnx.NodeProto]:
    pads = at.made("Constant", [], "pads", value=numpy_helper.from_array(np.array(at.integers("pads"), dtype=np.int64)))
    at.made("Pad", [at.node.input[0], pads, at.constant("value", at.number("value", 0.0))], mode=at.word("mode", "constant"))
    return at.written


def _replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    kept = onnx.GraphProto(node=nodes)
    del graph.node[:]
    graph.node.extend(kept.node)


class _Writer:
    """One old node, and the nodes that take its place; names derive from the tensor that it makes."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.node = node
        self.written: list[onnx.NodeProto] = []

    def number(self, name: str, default: float) -> float:
        return next((float(attribute.f) for attribute in self.node.attribute if attribute.name == name), default)

    def numbers(self, name: str) -> list[float]:
        return next((list(attribute.floats) for attribute in self.node.attribute if attribute.name == name), [])

    def integers(self, name: str) -> list[int]:
        return next((list(attribute.ints) for attribute in self.node.attribute if attribute.name == name), [])

    def word(self, name: str, default: str) -> str:
        return next((attribute.s.decode() for attribute in self.node.attribute if attribute.name == name), default)

    def constant(self, name: str, value: float | Floats) -> str:
        tensor = numpy_helper.from_array(np.asarray(value, dtype=np.float32))
        return self.made("Constant", [], name, value=tensor)

    def made(self, op_type: str, inputs: Sequence[str], name: str = "", **attributes: onnx.TensorProto | int | str | list[int]) -> str:
        output = str(self.node.output[0]) + (f"__{name}" if name else "")
        node = onnx.NodeProto(op_type=op_type, input=inputs, output=[output], name=f"{self.node.name or output}__{name or op_type}")
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.written.append(node)
        return output

    def scaled(self, source: str, factor: float | Floats, offset: float | Floats | None, name: str = "") -> str:
        """Return factor * source + offset."""
        if offset is None:
            return self.made("Mul", [source, self.constant(f"{name}factor", factor)], name)
        product = self.made("Mul", [source, self.constant(f"{name}factor", factor)], f"{name}product")
        return self.made("Add", [product, self.constant(f"{name}offset", offset)], name)


def _batch_norm(at: _Writer) -> list[onnx.NodeProto] | None:
    if next((attribute.i for attribute in at.node.attribute if attribute.name == "spatial"), 1):
        return None
    source, scale, bias, mean, variance = at.node.input[:5]
    deviation = at.made("Sqrt", [at.made("Add", [variance, at.constant("epsilon", at.number("epsilon", 1e-5))], "variance")], "deviation")
    normal = at.made("Div", [at.made("Sub", [source, mean], "centred"), deviation], "normal")
    at.made("Add", [at.made("Mul", [normal, scale], "scaled"), bias])
    return at.written


def _affine(at: _Writer) -> list[onnx.NodeProto]:
    at.scaled(at.node.input[0], at.number("alpha", 1.0), at.number("beta", 0.0))
    return at.written


def _image_scaler(at: _Writer) -> list[onnx.NodeProto]:
    at.scaled(at.node.input[0], at.number("scale", 1.0), np.array(at.numbers("bias"), dtype=np.float32).reshape(-1, 1, 1))
    return at.written


def _scaled(inner: str) -> Callable[[_Writer], list[onnx.NodeProto]]:
    def write(at: _Writer) -> list[onnx.NodeProto]:
        source = at.scaled(at.node.input[0], at.number("beta", 1.0), None, "inner")
        at.scaled(at.made(inner, [source], inner.lower()), at.number("alpha", 1.0), None)
        return at.written

    return write


def _hardmax(at: _Writer) -> list[onnx.NodeProto]:
    (source,) = at.node.input
    axis = next((attribute.i for attribute in at.node.attribute if attribute.name == "axis"), 1)
    flat = at.made("Flatten", [source], "flat", axis=axis)
    at.made("Reshape", [at.made("Hardmax", [flat], "row", axis=1), at.made("Shape", [source], "shape")])
    return at.written


def _crop(at: _Writer) -> list[onnx.NodeProto]:
    left, top, right, bottom = at.integers("border")
    height, width = at.integers("scale") or (None, None)
    ends = [
        start + size if size is not None else -border or _TO_THE_END
        for start, size, border in ((top, height, bottom), (left, width, right))
    ]
    at.made("Slice", [at.node.input[0]], axes=[2, 3], starts=[top, left], ends=ends)
    return at.written


_WRITERS: dict[str, Callable[[_Writer], list[onnx.NodeProto] | None]] = {
    "BatchNormalization": _batch_norm,
    "Affine": _affine,
    "Crop": _crop,
    "Hardmax": _hardmax,
    "ImageScaler": _image_scaler,
    "ScaledTanh": _scaled("Tanh"),
    "ParametricSoftplus": _scaled("Softplus"),
}
