"""Runs a model tensor by tensor with all samples side by side, so that what one tensor needs is done before the next is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from calibration.segments import Graph
from calibration.session import Array, Piece


class Cut:
    """A model that runs up to one tensor after another, all batches side by side."""

    def __init__(self, model: onnx.ModelProto, tensors: Mapping[str, str]) -> None:
        """Keep the tensors to stop at, each under a key; all are computed, none is an input."""
        self._graph = Graph(model, ())
        place = {name: index for index, node in enumerate(self._graph.nodes) for name in node.output}
        self._tensors = tensors
        self._stop = {key: place[tensor] + 1 for key, tensor in tensors.items()}
        self._start = 0

    def advance(self, alive: Sequence[dict[str, Array]], key: str) -> tuple[list[dict[str, Array]], list[Array]]:
        """Return the tensors that are still needed behind ``key``'s, batch by batch, and its own values. Keys come in graph order."""
        stop, tensor = self._stop[key], self._tensors[key]
        piece = Piece(self._graph.piece(self._start, stop, outputs=self._graph.piece_outputs(self._start, stop, [tensor])))
        later = frozenset(self._graph.piece_inputs(stop, len(self._graph.nodes)))
        left, values = [], []
        for tensors in alive:
            made = piece.run({**self._graph.matrices, **tensors})
            values.append(made[tensor])
            left.append({name: value for name, value in (tensors | made).items() if name in later})
        self._start = stop
        return left, values
