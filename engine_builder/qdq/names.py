"""Names for new values and nodes that nothing in the model bears yet."""

from __future__ import annotations

import onnx_ir as ir


class Names:
    """The names in use in one model; ``new`` hands out free ones, the same ones for the same model and order of calls."""

    def __init__(self, model: ir.Model) -> None:
        """Collect every name in the model, those inside subgraphs included."""
        self._taken: set[str] = set()
        for graph in model.graphs():
            self._taken.update(value.name or "" for value in (*graph.inputs, *graph.initializers.values()))
            for node in graph:
                self._taken.add(node.name or "")
                self._taken.update(value.name or "" for value in node.outputs)

    def new(self, tensor: str, suffix: str) -> str:
        """Return ``tensor_suffix``, with a number behind it if that is taken."""
        name, count = f"{tensor}_{suffix}", 0
        while name in self._taken:
            count += 1
            name = f"{tensor}_{suffix}_{count}"
        self._taken.add(name)
        return name
