"""Tensors that graphs inside nodes take from the graph around them, each handed in by an Identity of its own.

onnx's version converter, where it puts new nodes behind one, lets all readers of the old output read the new one, and fails on readers
inside another graph ("replaceInputWith: Assertion `from->owningGraph() == graph_` failed"). Behind an Identity there are none.
"""

from __future__ import annotations

import onnx

from calibration.graph.free_names import free_name
from calibration.graph.runtime_view import subgraphs
from calibration.graph.topological_sort import captured_names


def hand_in_captures(graph: onnx.GraphProto) -> None:
    """Let the graphs inside the nodes of ``graph`` read a copy of each tensor that a node of it makes, in place."""
    taken = _names(graph)
    made = {name for node in graph.node for name in node.output if name}
    copies: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for name in sorted(captured_names(node)):
            if name in made and name not in copies:
                copies[name] = free_name(f"{name}_handed_in", taken)
                taken.add(copies[name])
                nodes.append(onnx.helper.make_node("Identity", [name], [copies[name]]))
        nodes.append(node)
    if copies:
        for inner in subgraphs(graph):
            _rename(inner, copies)
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)


def _rename(graph: onnx.GraphProto, copies: dict[str, str]) -> None:
    own = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    own |= {tensor.name for tensor in graph.initializer}
    outer = {name: copy for name, copy in copies.items() if name not in own}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = outer.get(name, name)
    for value in graph.output:
        value.name = outer.get(value.name, value.name)
    for inner in subgraphs(graph):
        _rename(inner, outer)


def _names(graph: onnx.GraphProto) -> set[str]:
    names = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    names |= {name for node in graph.node for name in (*node.input, *node.output)}
    return names.union(*(_names(inner) for inner in subgraphs(graph)))
