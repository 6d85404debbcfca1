"""Models whose baseline in FP16 loses too much: by a difference of large numbers, by all of their layers, by numbers that do not fit."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.model_text import model_from_text

WEIGHTS = {f"w{index}": (64, 64) for index in range(1, 5)}


def chain(up: str = "Sum(h2, large)", down: str = "Sum(b2, opposite)", large: float = 3000.0) -> onnx.ModelProto:
    """Four products; what the second one gives is taken away from small numbers and back.

    By a Sum, which is folded into no layer.
    """
    model = model_from_text(
        f"""chain (float[N,64] x) => (float[N,64] y) {{
            [first] h1 = MatMul(x, w1)
            [relu1] a1 = Relu(h1)
            [second] h2 = MatMul(a1, w2)
            [up] b2 = {up}
            [down] c2 = {down}
            [relu2] a2 = Relu(c2)
            [third] h3 = MatMul(a2, w3)
            [relu3] a3 = Relu(h3)
            [fourth] y = MatMul(a3, w4)
        }}""",
        WEIGHTS,
    )
    for name, number in (("large", large), ("opposite", -large)):
        if any(name in node.input for node in model.graph.node):
            model.graph.initializer.append(numpy_helper.from_array(np.full(64, number, dtype=np.float32), name))
    return model


def cancelling() -> onnx.ModelProto:
    """The difference of two numbers near 3000, where the grid of FP16 has steps of 2: all that is left of the second product is lost."""
    return chain()


def harmless() -> onnx.ModelProto:
    """The same with small numbers."""
    return chain(large=0.5)


def overflowing() -> onnx.ModelProto:
    """The second product times 1e5 and back, which FP16 does not hold."""
    return chain("Mul(h2, large)", "Div(b2, large)", 1e5)


def escaping() -> onnx.ModelProto:
    """The second product times 3000 twice and back: FP16 holds the constant and what layers read and write, but not what lies between."""
    model = chain("Mul(h2, large)", "Div(b3, large)")
    up = next(index for index, node in enumerate(model.graph.node) if node.name == "up")
    again = [helper.make_node("Mul", ["b2", "large"], ["b4"], name="up2"), helper.make_node("Div", ["b4", "large"], ["b3"], name="down2")]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: up + 1], *again, *nodes[up + 1 :]])
    for node in model.graph.node:  # with biases, which are corrected where the layer is quantized
        if node.op_type == "MatMul":
            node.op_type = "Gemm"
            node.input.append(f"bias_{node.name}")
            model.graph.initializer.append(numpy_helper.from_array(np.full(64, 0.1, dtype=np.float32), node.input[2]))
    return model
