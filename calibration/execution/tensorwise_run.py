"""Runs a model tensor by tensor with all samples side by side, so that what one tensor needs is done before the next is computed."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from calibration.execution.onnxruntime_session import Array, Piece
from calibration.execution.partition import Graph


class TensorwiseRun:
    """A model that runs up to one tensor after another, all batches side by side."""

    def __init__(self, model: onnx.ModelProto, tensors: Mapping[str, str], *, matrices: Mapping[str, Array] | None = None) -> None:
        """Keep the tensors to stop at, each under a key; all are computed, none is an input.

        Args:
            model: The model.
            tensors: Those to stop at.
            matrices: Of a graph of the same model that is there as well, to be used by both.
        """
        self._graph = Graph(model, (), matrices=matrices)
        place = {name: index for index, node in enumerate(self._graph.nodes) for name in node.output}
        self._tensors = tensors
        self._stop = {key: place[tensor] + 1 for key, tensor in tensors.items()}
        self._start = 0

    def advance(self, alive: list[dict[str, Array]], key: str) -> list[Array]:
        """Return the values of ``key``'s tensor, batch by batch. Keys come in graph order.

        Args:
            alive: The tensors of each batch that are alive so far; in their place come those that are still needed behind ``key``'s, one
                batch after another, so that no more than one batch is there twice. What a caller changes in them, later tensors see.
            key: Where to stop.
        """
        stop, tensor = self._stop[key], self._tensors[key]
        piece = Piece(self._graph.piece(self._start, stop, outputs=self._graph.piece_outputs(self._start, stop, [tensor])))
        later = frozenset(self._graph.piece_inputs(stop, len(self._graph.nodes)))
        values, is_last = [], stop == max(self._stop.values())
        for index, tensors in enumerate(alive):
            made = piece.run({**self._graph.matrices, **tensors}, gives_back=is_last and index == len(alive) - 1)
            values.append(made[tensor])
            alive[index] = {name: value for name, value in (tensors | made).items() if name in later}
        self._start = stop
        return values
