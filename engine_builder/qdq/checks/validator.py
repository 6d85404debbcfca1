"""Refuses an explicit model that TensorRT would reject with a riddle, or accept and run otherwise than written.

TensorRT's parser and builder pass over much without a word: uint8 is read as int8, a layer with one quantized operand runs in float, a
graph output changes its type. Each such trap is refused here by name, before a build, with what to do about it:

1. *Names*: a node without a name, or with another's, cannot be found in the builder's report.
2. *Pairs* (``validated_pairs``): types other than int8, e4m3 and int4; a missing zero point; zero points that are not 0; scales that are
   not positive; several scales on a computed tensor; FP8 on a GPU without it.
3. *Layers* (``validated_layers``): one quantized operand of two; weight scales along the wrong axis; quantized biases; ConvTranspose;
   INT4 anywhere but in the weight of a MatMul or Gemm, with whole blocks and a float input.
4. *Types*: operands of one operator that differ in type, and graph outputs that are not of the type declared.
"""

from __future__ import annotations

import onnx

from engine_builder.errors import BuildError
from engine_builder.qdq.checks.layer_rules import check_layer, check_readers, is_layer
from engine_builder.qdq.checks.pair_rules import check_pair
from engine_builder.qdq.graph.qdq_graph import ExplicitGraph, refusal, word

_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})


def validate_tensorrt(model: onnx.ModelProto, *, compute_capability: tuple[int, int] | None) -> None:
    """Check an explicit model against the rules above.

    Args:
        model: The explicit model, in memory or with external data loaded.
        compute_capability: (major, minor) of the GPU that the engine is for; None where it is not known yet.

    Raises:
        BuildError: Naming the node, what was found, what is needed and what to do.
    """
    _check_names(model)
    graph = ExplicitGraph(model)
    for node in graph.nodes:
        if node.op_type in _PAIR:
            check_pair(graph, node, compute_capability)
    for node in graph.nodes:
        if is_layer(node):
            check_layer(graph, node)
        elif node.op_type not in _PAIR:
            check_readers(graph, node)
    for node in graph.nodes:
        _check_types(graph, node)
    for name, declared in graph.declared.items():
        found = graph.type_of(name)
        if found and declared and found != declared:
            raise BuildError(
                f"graph output {name!r}: computed as {word(found)}, expected {word(declared)} as declared (the engine changes the type)",
                fix="end the graph with a Cast to the declared type",
            )


def _check_names(model: onnx.ModelProto) -> None:
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name:
            raise BuildError(
                f"node without a name ({node.op_type} that makes {', '.join(node.output)!r}), expected a unique name",
                fix="name every node: the builder's report knows layers by the names of their nodes",
            )
        if node.name in seen:
            raise refusal(node, "a second node of this name", "unique names", "give each node a name of its own")
        seen.add(node.name)


def _check_types(graph: ExplicitGraph, node: onnx.NodeProto) -> None:
    """Refuse operands that the operator's schema wants alike and that differ."""
    if node.domain not in ("", "ai.onnx"):
        return
    schema = onnx.defs.get_schema(node.op_type, graph.opset, "")
    first: dict[str, str] = {}
    for index, name in enumerate(node.input):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if not name or not graph.type_of(name) or not formal.is_homogeneous:
            continue
        other = first.setdefault(formal.type_str, name)
        if graph.type_of(other) != graph.type_of(name):
            found = f"{other!r} is {word(graph.type_of(other))} and {name!r} is {word(graph.type_of(name))}"
            raise refusal(node, found, "operands of one type", "put a Cast before it, and convert its constants too")
