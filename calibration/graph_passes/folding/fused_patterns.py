"""Constants that belong to a pattern which the runtime turns into one kernel: folded into a layer, they would break it.

Rules:
    1. GELU by Erf or Tanh: the Mul or Div before, the Add of 1 behind, the product, and the halves before and behind that.
    2. LayerNormalization and RMSNormalization, written out: the Mul and the Add behind the division by the root of a mean.
    3. The scale of an attention: a Mul or Div by one number whose result, perhaps reshaped or transposed, enters a MatMul of two computed
       tensors.
HardSwish written out, x clip(x + 3, 0, 6) / 6, is none: onnxruntime has no kernel for it, so its division is one step less.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from calibration.graph_passes.folding.channels import constant_of

_SCALES = ("Mul", "Div")
_PRODUCTS_INPUTS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze"})


def fused_nodes(graph: ir.Graph) -> frozenset[ir.Node]:
    """Return the nodes with constants that are parts of such patterns."""
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type in ("Erf", "Tanh"):
            found.update(_of_gelu(node))
        elif node.op_type == "Sqrt":
            found.update(_of_normalization(node))
        elif node.op_type in _SCALES and _number(node) is not None and _enters_product(node):
            found.add(node)  # rule 3
    return frozenset(found)


def _of_gelu(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes of rule 1."""
    for plus in _readers(node, "Add"):
        if _number(plus) != 1.0:
            continue
        for product in _readers(plus, "Mul"):
            yield from (plus, product)
            yield from _makers(node, *_SCALES)
            for half in (*_makers(product, *_SCALES), *_readers(product, *_SCALES)):
                if _number(half) == (0.5 if half.op_type == "Mul" else 2.0):
                    yield half


def _of_normalization(root: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes of rule 2."""
    sums = [root, *_makers(root, "Add")]
    if not any(True for one in sums for _ in _makers(one, "ReduceMean")):
        return
    inverse = list(_readers(root, "Reciprocal"))
    divisions = [*_readers(root, "Div"), *(product for one in inverse for product in _readers(one, "Mul"))]
    for division in divisions:
        for gain in _readers(division, "Mul"):
            yield gain
            yield from _readers(gain, "Add")


def _enters_product(node: ir.Node) -> bool:
    for reader in _readers(node):
        if reader.op_type == "MatMul" and all(constant_of(reader, index) is None for index in (0, 1)):
            return True
        if reader.op_type in _PRODUCTS_INPUTS and _enters_product(reader):
            return True
    return False


def _number(node: ir.Node) -> float | None:
    """Return the one constant number that a node of two inputs has, None where it has none."""
    for index in (0, 1):
        constant = constant_of(node, index)
        if constant is not None and constant.size == 1:
            return float(np.asarray(constant).reshape(-1)[0])
    return None


def _readers(node: ir.Node, *operators: str) -> Iterator[ir.Node]:
    for use in node.outputs[0].uses():
        if not operators or use.node.op_type in operators:
            yield use.node


def _makers(node: ir.Node, *operators: str) -> Iterator[ir.Node]:
    for value in node.inputs:
        maker = None if value is None else value.producer()
        if maker is not None and maker.op_type in operators:
            yield maker
