"""Names for new values and nodes that nothing in the model bears yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


class Names:
    """The names in use in one model; ``new`` hands out free ones, the same ones for the same names and order of calls."""

    def __init__(self, taken: Iterable[str]) -> None:
        """Begin with the names that are in use."""
        self._taken = set(taken)

    def new(self, tensor: str, suffix: str) -> str:
        """Return ``tensor_suffix``, with a number behind it if that is taken."""
        name, count = f"{tensor}_{suffix}", 0
        while name in self._taken:
            count += 1
            name = f"{tensor}_{suffix}_{count}"
        self._taken.add(name)
        return name


def names_in(model: ir.Model) -> Iterator[str]:
    """Yield every name in the model, those inside subgraphs included."""
    for graph in model.graphs():
        yield from (value.name or "" for value in (*graph.inputs, *graph.initializers.values()))
        for node in graph:
            yield node.name or ""
            yield from (value.name or "" for value in node.outputs)
