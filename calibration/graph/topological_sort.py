"""Putting the nodes of a graph into topological order, which ONNX demands and some converters (onnxruntime's float16) do not keep."""

from __future__ import annotations

import heapq

import onnx


def sort_nodes(graph: onnx.GraphProto) -> bool:
    """Put the nodes of ``graph`` into topological order, in place, and return whether that changed anything.

    Nodes keep their order where that is possible. A node that reads a tensor which nothing makes counts as ready; nodes on a cycle
    stay at the end: both are for the checker to refuse.
    """
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waiting: list[set[int]] = []
    readers: dict[int, list[int]] = {}
    for index, node in enumerate(graph.node):
        waiting.append({maker[name] for name in (*node.input, *captured_names(node)) if name in maker})
        for before in waiting[index]:
            readers.setdefault(before, []).append(index)
    ready = [index for index, before in enumerate(waiting) if not before]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            waiting[reader].discard(index)
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    order += sorted(set(range(len(waiting))) - set(order))
    if order == list(range(len(waiting))):
        return False
    nodes = [graph.node[index] for index in order]
    result = onnx.GraphProto(node=nodes)
    del graph.node[:]
    graph.node.extend(result.node)
    return True


def captured_names(node: onnx.NodeProto) -> frozenset[str]:
    """Return the names that the subgraphs of ``node`` read, those of their own tensors among them."""
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            names.update(value.name for value in graph.output)
            for inner in graph.node:
                names.update(inner.input)
                names |= captured_names(inner)
    return frozenset(names)
