"""Names for new values and nodes that nothing in a model bears yet: a user's tensor may be called just as one of ours would be."""

from __future__ import annotations

from collections.abc import Iterable, Set
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
        name = free_name(f"{tensor}_{suffix}", self._taken)
        self._taken.add(name)
        return name


def names_in(model: ir.Model) -> set[str]:
    """Return the names of all values and nodes of ``model``, those inside subgraphs included."""
    return names_of_values(model) | {node.name or "" for graph in model.graphs() for node in graph}


def names_of_values(model: ir.Model) -> set[str]:
    """Return the names of all values of ``model``, those inside subgraphs included."""
    names: set[str] = set()
    for graph in model.graphs():
        names.update(value.name or "" for value in (*graph.inputs, *graph.initializers.values()))
        names.update(value.name or "" for node in graph for value in node.outputs)
    return names


def free_name(name: str, taken: Set[str]) -> str:
    """Return ``name``, with a number behind it if it is taken."""
    free, number = name, 1
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free
