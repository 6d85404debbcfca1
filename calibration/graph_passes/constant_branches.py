"""Takes the branch of each If whose condition is constant: its nodes come into the graph, where they can be folded and be layers."""

from __future__ import annotations

import onnx_ir as ir


def take_branches(graph: ir.Graph) -> int:
    """Replace each If of the main graph with a constant condition by the branch that it takes, in place; return how many."""
    taken = [node for node in graph if node.op_type == "If" and node.domain == "" and _condition(node) is not None]
    for node in taken:
        branch = node.attributes["then_branch" if _condition(node) else "else_branch"].as_graph()
        _inline(graph, node, branch)
    return len(taken)


def _condition(node: ir.Node) -> bool | None:
    """Return the value of the condition, None where it is not constant."""
    value = node.inputs[0]
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return bool(value.const_value.numpy().reshape(-1)[0])


def _inline(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> None:
    """Put the nodes and constants of ``branch`` in the place of ``node``, under names that are free, and remove that."""
    known = {value.name for inner in graph.all_nodes() for value in inner.outputs if inner.graph is not branch}
    known |= {value.name for value in graph.inputs} | set(graph.initializers)
    results = list(branch.outputs)
    branch.outputs.clear()
    for value in tuple(branch.initializers.values()):
        branch.initializers.pop(value.name or "")
        value.name = _free(value.name or "constant", known)
        graph.register_initializer(value)
    nodes = list(branch)
    branch.remove(nodes)
    for inner in nodes:
        for value in inner.outputs:
            if value.name:
                value.name = _free(value.name, known)
    graph.insert_before(node, nodes)
    for old, result in zip(node.outputs, results, strict=True):
        copy = ir.node("Identity", [result])  # removed later where no two names must stay
        new, name = copy.outputs[0], old.name
        new.type, new.shape = old.type or result.type, old.shape or result.shape
        graph.insert_before(node, [copy])
        for index, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[index] = new
        old.replace_all_uses_with(new)
        old.name, new.name = None, name
    graph.remove(node, safe=True)


def _free(name: str, known: set[str | None]) -> str:
    unique, number = name, 1
    while unique in known:
        unique, number = f"{name}_{number}", number + 1
    known.add(unique)
    return unique
