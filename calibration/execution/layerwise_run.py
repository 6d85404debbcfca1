"""Runs the float model a few layers at a time and hands each layer's tensors out as soon as they are there.

So few activations of one batch are alive at once, whatever the model's depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from calibration.execution.onnxruntime_session import Array, Piece
from calibration.execution.partition import Graph
from calibration.graph.layers import Layer

UNITS_PER_BLOCK = 2  # layers whose activations are alive at once


class LayerwiseRun:
    """The float model in pieces that give out the inputs and outputs of its layers. Read-only after construction."""

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer]) -> None:
        """Build the pieces.

        Args:
            model: A prepared model.
            layers: Layers of it, in topological order; their inputs and outputs are given out.
        """
        graph = Graph(model, layers)
        self._matrices = graph.matrices  # big ones are fed, not part of the pieces
        self._wanted = dict.fromkeys(name for layer in layers for name in (*layer.inputs, layer.output))
        self._pieces = []
        for block in graph.blocks(UNITS_PER_BLOCK):
            outputs = graph.piece_outputs(block.start, block.stop, tuple(self._wanted))
            later = frozenset(graph.piece_inputs(block.stop, len(graph.nodes)))
            if outputs:
                self._pieces.append((Piece(graph.piece(block.start, block.stop, outputs=outputs)), later))

    def tensors(self, batch: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield each tensor's name and values, (batch, ...)."""
        alive = dict(batch)
        yield from ((name, value) for name, value in batch.items() if name in self._wanted)
        for piece, later in self._pieces:
            made = piece.run({**self._matrices, **alive})
            yield from ((name, value) for name, value in made.items() if name in self._wanted)
            alive = {name: value for name, value in (alive | made).items() if name in later}
