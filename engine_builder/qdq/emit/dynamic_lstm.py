"""An LSTM of the explicit graph that rounds its input and its hidden state at run time: com.microsoft.DynamicQuantizeLSTM."""

from __future__ import annotations

import onnx_ir as ir

from calibration.graph.free_names import Names
from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision, Scheme
from calibration.number_formats.recurrent_weights import (
    DOMAIN,
    OPERATOR,
    PLAIN_INPUTS,
    RECURRENT,
    WEIGHT,
    integer_gates,
    takes_attribute,
)
from engine_builder.qdq.emit.activations import add_initializer
from engine_builder.qdq.emit.int8_weights import float_initializer


def quantize_lstm(model: ir.Model, node: ir.Node, layer: Layer, precision: Precision, scheme: Scheme, names: Names) -> bool:
    """Put the integer LSTM, which bears the layer's name, in the place of a float one; return whether it is exact on any processor.

    Args:
        model: Is edited in place; gets the operator set of onnxruntime's own.
        node: The LSTM; its weights are initializers of the main graph.
        layer: Its layer.
        precision: A dynamic one.
        scheme: How the target quantizes.
        names: Hands out the names of new values.
    """
    graph = model.graph
    inputs: list[ir.Value | None] = [*node.inputs, *[None] * (PLAIN_INPUTS - len(node.inputs))]
    exact, old = True, []
    for index in (WEIGHT, RECURRENT):
        taken = inputs[index]
        assert taken is not None  # the operator needs it
        tensor = str(taken.name)
        gates = integer_gates(float_initializer(graph, tensor, layer.name), layer, precision, scheme)
        exact = exact and gates.keeps_pair_bound
        inputs[index] = add_initializer(graph, names.new(tensor, "quantized"), gates.levels)
        inputs += [
            add_initializer(graph, names.new(tensor, part), array) for part, array in (("scale", gates.scale), ("zero", gates.zero_point))
        ]
        old.append(tensor)
    attributes = [attribute for name, attribute in node.attributes.items() if takes_attribute(name)]
    made = ir.Node(DOMAIN, OPERATOR, inputs, attributes, num_outputs=len(node.outputs), name=layer.name)
    ir.convenience.replace_nodes_and_values(graph, node, [node], [made], node.outputs, made.outputs)
    model.opset_imports.setdefault(DOMAIN, 1)
    for tensor in old:
        value = graph.initializers.get(tensor)
        if value is not None and not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[tensor]
    return exact
