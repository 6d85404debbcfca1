"""Which operator sets the file of an engine needs: what whoever serves it must have."""

from __future__ import annotations

from pathlib import Path

import onnx

STANDARD = "ai.onnx"


def operator_sets(engine: Path) -> dict[str, int]:
    """Return the version of each operator set that nodes of an engine are of, by its domain; nothing for a plan.

    Args:
        engine: The file; its weights are not read.
    """
    if engine.suffix != ".onnx":
        return {}
    model = onnx.load_model(engine, load_external_data=False)
    used = _domains(model.graph) | {domain for function in model.functions for domain in map(_domain, function.node)}
    versions = {item.domain or STANDARD: item.version for item in model.opset_import}
    return {domain: versions[domain] for domain in sorted(used & versions.keys())}


def _domains(graph: onnx.GraphProto) -> set[str]:
    found = set(map(_domain, graph.node))
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g,) if attribute.HasField("g") else tuple(attribute.graphs):
                found |= _domains(inner)
    return found


def _domain(node: onnx.NodeProto) -> str:
    return node.domain or STANDARD
