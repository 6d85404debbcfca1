"""What products of rows with constant matrices take in each form that their kernels round in, measured on this machine in milliseconds.

No engine needs to be built to see that a form does not pay: that depends on the processor, the rows of a call and the matrices' sizes.
A model of the products alone is run in each form, each product with an input of its own: together they take the caches as they do in the
network, where a matrix has left them by the time it is read again. The values are made up, since a kernel's time does not depend on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration.number_formats.precision import Precision
from engine_builder.backends.onnxruntime.cpu import session_options
from engine_builder.qdq.emit.block_layers import DOMAIN, DOMAIN_VERSION, OPERATOR, block_attributes

LARGEST = 1 << 22  # elements of all matrices together: of larger models some of the products are timed, or some of their columns
MIN_ROUNDS, SECONDS = 5, 0.05
FORMS = (Precision.FP32, Precision.INT8_DYNAMIC, Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS)


@dataclass(frozen=True, slots=True)
class ProductShape:
    """A product of (rows, inputs) with a constant (inputs, outputs)."""

    rows: int
    inputs: int
    outputs: int


Shapes = Mapping[ProductShape, int]  # how many products have each
Times = Mapping[Precision, float]  # milliseconds in each of ``FORMS``; FP32 is the float form


def product_times(shapes: Shapes, *, threads: int) -> Times:
    """Return the median milliseconds of products in each form, timed in turns; of a share of them where they are large.

    Args:
        shapes: At least one.
        threads: Of a run; with one, the thread's own time counts.
    """
    products = some_products(shapes)
    runs = {precision: _runner(products, precision, threads) for precision in FORMS}
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    found: dict[Precision, list[int]] = {precision: [] for precision in runs}
    for run in runs.values():
        run()
    end = time.perf_counter() + SECONDS
    while len(found[Precision.FP32]) < MIN_ROUNDS or time.perf_counter() < end:
        for precision, run in runs.items():
            start = clock()
            run()
            found[precision].append(clock() - start)
    return {precision: float(np.median(spent)) * 1e-6 for precision, spent in found.items()}


def some_products(shapes: Shapes) -> tuple[ProductShape, ...]:
    """Return the products, or about the same share of those of each shape, so that all matrices have about ``LARGEST`` elements."""
    total = sum(shape.inputs * shape.outputs * count for shape, count in shapes.items())
    share = min(LARGEST / total, 1.0)
    found: list[ProductShape] = []
    for shape, count in shapes.items():
        columns = max(int(shape.outputs * min(share * count, 1.0)), 1)
        found += [replace(shape, outputs=columns)] * max(int(share * count), 1)
    return tuple(found)


def _runner(products: tuple[ProductShape, ...], precision: Precision, threads: int) -> Callable[[], object]:
    model = _model(products, precision)
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {f"x{place}": rng.normal(size=(shape.rows, shape.inputs)).astype(np.float32) for place, shape in enumerate(products)}
    return lambda: session.run(None, feeds)


def _model(products: tuple[ProductShape, ...], precision: Precision) -> onnx.ModelProto:
    graph = onnx.GraphProto(name="products")
    for place, shape in enumerate(products):
        x, y = f"x{place}", f"y{place}"
        graph.input.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, [shape.rows, shape.inputs]))
        graph.output.append(helper.make_tensor_value_info(y, TensorProto.FLOAT, [shape.rows, shape.outputs]))
        nodes, constants = _FORMS[precision](shape, x, y)
        graph.node.extend(nodes)
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


_Made = tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]


def _in_floats(shape: ProductShape, x: str, y: str) -> _Made:
    weight = f"{y}_weight"
    return [helper.make_node("MatMul", [x, weight], [y])], {weight: np.full((shape.inputs, shape.outputs), 0.01, dtype=np.float32)}


def _dynamic(shape: ProductShape, x: str, y: str) -> _Made:
    weight, steps, levels, scale, zero, sums, wide, scales = (
        f"{y}_{part}" for part in ("weight", "steps", "levels", "scale", "zero", "sums", "wide", "scales")
    )
    nodes = [
        helper.make_node("DynamicQuantizeLinear", [x], [levels, scale, zero]),
        helper.make_node("MatMulInteger", [levels, weight, zero], [sums]),
        helper.make_node("Cast", [sums], [wide], to=TensorProto.FLOAT),
        helper.make_node("Mul", [scale, steps], [scales]),
        helper.make_node("Mul", [wide, scales], [y]),
    ]
    matrix = np.ones((shape.inputs, shape.outputs), dtype=np.int8)
    return nodes, {weight: matrix, steps: np.full(shape.outputs, 0.01, dtype=np.float32)}


def _in_blocks(precision: Precision) -> Callable[[ProductShape, str, str], _Made]:
    def made(shape: ProductShape, x: str, y: str) -> _Made:
        attributes = block_attributes(shape.inputs, shape.outputs, precision)
        block = attributes["block_size"]
        blocks = -(-shape.inputs // block)
        node = helper.make_node(OPERATOR, [x, f"{y}_weight", f"{y}_steps"], [y], domain=DOMAIN)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        packed = np.full((shape.outputs, blocks, block * precision.bits // 8), 0x99, dtype=np.uint8)
        return [node], {f"{y}_weight": packed, f"{y}_steps": np.full((shape.outputs, blocks), 0.01, dtype=np.float32)}

    return made


_FORMS: Mapping[Precision, Callable[[ProductShape, str, str], _Made]] = {
    Precision.FP32: _in_floats,
    Precision.INT8_DYNAMIC: _dynamic,
    Precision.INT8_WEIGHTS: _in_blocks(Precision.INT8_WEIGHTS),
    Precision.INT4_WEIGHTS: _in_blocks(Precision.INT4_WEIGHTS),
}
