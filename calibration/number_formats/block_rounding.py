"""The rounding of a layer's input in blocks of each row, in standard operators (``calibration.number_formats.block_grids``)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.execution.partition import Graph
from calibration.graph.layers import Layer
from calibration.graph.opset import opset_version
from calibration.number_formats.block_grids import LEAST_PEAK, TOP
from calibration.number_formats.precision import Precision
from calibration.number_formats.weight_scales import reduction_axis

_AXES_ARE_AN_INPUT = 18  # opset of ReduceMax


def rounding_in_blocks(
    graph: Graph, layer: Layer, source: str, target: str, precision: Precision, constants: dict[str, TensorProto]
) -> list[onnx.NodeProto]:
    """Return nodes that write the tensor ``source``, (..., n), to ``target`` after the round trip of ``fake_quantize_in_blocks``.

    Args:
        graph: The model's.
        layer: A product with a constant matrix, which reads the tensor.
        source: Its name.
        target: A name that is free.
        precision: One that ``rounds_blocks``.
        constants: What the nodes read is added here.
    """
    dims = graph.initializer(str(layer.weight)).dims
    length, block = dims[reduction_axis(layer.weight_axis or 0, len(dims))], precision.weight_block or 1
    rest = -length % block
    nodes: list[onnx.NodeProto] = []

    def constant(part: str, value: object, kind: type[np.generic]) -> str:
        name = graph.free_name(f"{target}__{part}")
        constants[name] = numpy_helper.from_array(np.asarray(value, dtype=kind), name)
        return name

    def add(operator: str, inputs: list[str], part: str = "", **attributes: int | list[int]) -> str:
        output = graph.free_name(f"{target}__{part}") if part else target
        node = helper.make_node(operator, inputs, [output])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        nodes.append(node)
        return output

    rows = add("Shape", [source], "rows", end=-1)
    padded = source
    if rest:
        shape = add("Concat", [rows, constant("rest", [rest], np.int64)], "rest_shape", axis=0)
        zeros = add("Expand", [constant("zero", 0.0, np.float32), shape], "zeros")
        padded = add("Concat", [source, zeros], "padded", axis=-1)
    shape = add("Concat", [rows, constant("blocks", [(length + rest) // block, block], np.int64)], "block_shape", axis=0)
    blocks = add("Reshape", [padded, shape], "in_blocks")
    magnitudes = add("Abs", [blocks], "magnitudes")
    if opset_version(graph.model) >= _AXES_ARE_AN_INPUT:
        peak = add("ReduceMax", [magnitudes, constant("last", [-1], np.int64)], "peak", keepdims=1)
    else:
        peak = add("ReduceMax", [magnitudes], "peak", axes=[-1], keepdims=1)
    positive = add("Max", [peak, constant("least", LEAST_PEAK, np.float32)], "positive")
    scale = add("Mul", [positive, constant("step", 1 / TOP, np.float32)], "scale")
    levels = add("Round", [add("Div", [blocks, scale], "quotient")], "levels")
    rounded = add("Mul", [levels, scale], "dequantized")
    whole = add("Concat", [rows, constant("length", [length + rest], np.int64)], "whole_shape", axis=0)
    if not rest:
        add("Reshape", [rounded, whole])
        return nodes
    flat = add("Reshape", [rounded, whole], "flat")
    add("Slice", [flat, constant("start", [0], np.int64), constant("stop", [length], np.int64), constant("axis", [-1], np.int64)])
    return nodes
