"""The float model cut into pieces, so that a probe of one layer runs that layer and what follows it, nothing else.

Blocks of a few layers are built once with constant weights. To probe a layer, its block's inputs and the layer's own inputs come from
the float pass; the layer runs alone with its weight fed; the rest of its block and the later blocks run on from its output. On average
that is half of a forward pass, and only one block of one batch of activations is alive at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration.layers import Layer
from calibration.precision import Precision, Scheme, activation_grid
from calibration.segments import Block, Graph, Unit
from calibration.session import Array, Piece
from calibration.smoothing import Smoothing

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Head:
    """What runs a layer alone and on to the end of its block."""

    alone: Piece  # the layer in float, its weight fed
    rounded: Piece | None  # the same between Q/DQ pairs; None where a range is missing
    rest: Piece | None  # the nodes after it in its block; None at the block's end
    fetch: tuple[str, ...]  # tensors of the block that these need


class ReferenceModel:
    """The float model, ready to be probed. Read-only after construction, safe to use from several threads."""

    def __init__(
        self,
        model: onnx.ModelProto,
        layers: Sequence[Layer],
        ranges: Mapping[str, tuple[float, float]],
        scheme: Scheme,
        smoothings: Sequence[Smoothing] = (),
        *,
        units_per_block: int = 4,
    ) -> None:
        """Build every session that probes of single layers need.

        Args:
            model: The prepared model.
            layers: Its layers, in topological order.
            ranges: Lowest and highest value of each tensor that may be quantized.
            scheme: How the target quantizes.
            smoothings: Tensors that are smoothed for the layers that read them, where those are low.
            units_per_block: Layers in one block; the weights of about this number of layers are held twice.
        """
        self.graph = Graph(model, layers)
        self.blocks = self.graph.blocks(units_per_block)
        self._scheme = scheme
        self._ranges = ranges
        self._smoothing = {layer: smoothing for smoothing in smoothings for layer in smoothing.layers}
        self._heads = {unit.layer.name: self._head(block, unit) for block in self.blocks for unit in block.units}
        self._taps = [tuple(dict.fromkeys(n for u in block.units for n in self._heads[u.layer.name].fetch)) for block in self.blocks]
        self._block_outputs = [self.graph.piece_outputs(block.start, block.stop) for block in self.blocks]
        self._pieces = [
            Piece(self.graph.piece(block.start, block.stop, outputs=self.graph.piece_outputs(block.start, block.stop, taps)))
            if block.stop > block.start
            else None
            for block, taps in zip(self.blocks, self._taps, strict=True)
        ]
        self._joints: dict[tuple[int, int], Piece] = {}

    def weight(self, layer: Layer) -> Floats:
        """Return the layer's weight, float32."""
        if layer.weight is None:
            raise KeyError(layer.name)
        return np.asarray(numpy_helper.to_array(self.graph.initializer(layer.weight)), dtype=np.float32)

    def smoothing(self, layer: Layer) -> Smoothing | None:
        """Return how the layer's input is smoothed where it is low."""
        return self._smoothing.get(layer.name)

    def begin(self, batch: Mapping[str, Array]) -> Pass:
        """Run the float model on a batch and return the pass, from which layers can be probed.

        Args:
            batch: Each input, (batch, ...), of the model's own types.
        """
        alive: dict[str, Array] = dict(batch)
        states = []
        for piece, outputs in zip(self._pieces, self._block_outputs, strict=True):
            states.append(dict(alive))
            if piece is not None:
                alive.update(piece.run(alive, outputs))
        states.append(alive)
        return Pass(self, states)

    def join(self, first: Layer, second: Layer) -> None:
        """Build what a probe of both layers at once needs beyond the probes of each (a session or two; kept)."""
        for span in self._between(first, second):
            if span not in self._joints and span[1] > span[0]:
                self._joints[span] = Piece(self.graph.piece(*span, outputs=self.graph.piece_outputs(*span)))

    def _between(self, first: Layer, second: Layer) -> list[tuple[int, int]]:
        """Return the node runs inside blocks from ``first`` to the entrance of ``second`` that singles do not have."""
        block_a, a = self._place(first)
        block_b, b = self._place(second)
        return [(a.stop, b.start)] if block_a == block_b else [(self.blocks[block_b].start, b.start)]

    def _place(self, layer: Layer) -> tuple[int, Unit]:
        return next((i, unit) for i, block in enumerate(self.blocks) for unit in block.units if unit.layer.name == layer.name)

    def _head(self, block: Block, unit: Unit) -> _Head:
        layer = unit.layer
        fed = (layer.weight,) if layer.weight is not None else ()
        alone = Piece(self.graph.piece(unit.start, unit.stop, outputs=[layer.output], fed=fed))
        rest = None
        if block.stop > unit.stop:
            rest = Piece(self.graph.piece(unit.stop, block.stop, outputs=self.graph.piece_outputs(unit.stop, block.stop)))
        wanted = dict.fromkeys((*self.graph.piece_inputs(unit.start, unit.stop), *(rest.inputs if rest is not None else ())))
        made = {name for node in self.graph.nodes[block.start : block.stop] for name in node.output}
        return _Head(alone, self._rounded(unit), rest, tuple(name for name in wanted if name in made))

    def _rounded(self, unit: Unit) -> Piece | None:
        layer = unit.layer
        outputs = (layer.output,) if layer.op_type in self._scheme.quantized_outputs else ()
        tensors = tuple(dict.fromkeys((*layer.inputs, *outputs)))
        if any(name not in self._ranges for name in tensors):
            return None
        constants: list[TensorProto] = []
        nodes = []
        smoothing = self.smoothing(layer)
        for name in dict.fromkeys(layer.inputs):
            if smoothing is None:
                nodes += self._round_trip(self._ranges[name], name, f"{name}__rounded", constants)
            else:
                nodes += self._smoothed_round_trip(smoothing, f"{name}__rounded", constants)
        for node in self.graph.nodes[unit.start : unit.stop]:
            clone = onnx.NodeProto()
            clone.CopyFrom(node)
            if node.name == layer.name:
                for index, name in enumerate(clone.input):
                    if name in layer.inputs:
                        clone.input[index] = f"{name}__rounded"
            if outputs:
                for index, name in enumerate(clone.output):
                    if name == layer.output:
                        clone.output[index] = f"{name}__exact"
            nodes.append(clone)
        if outputs:
            nodes += self._round_trip(self._ranges[layer.output], f"{layer.output}__exact", layer.output, constants)
        fed = (layer.weight,) if layer.weight is not None else ()
        model = self.graph.piece(unit.start, unit.stop, outputs=[layer.output], fed=fed, nodes=nodes)
        model.graph.initializer.extend(constants)
        return Piece(model)

    def _smoothed_round_trip(self, smoothing: Smoothing, target: str, constants: list[TensorProto]) -> list[onnx.NodeProto]:
        """Round the product with the factors and undo the product: what is fed as the weight has its own channels back too."""
        constants += [
            numpy_helper.from_array(smoothing.factor, f"{target}__factor"),
            numpy_helper.from_array(1.0 / smoothing.factor, f"{target}__inverse"),
        ]
        return [
            helper.make_node("Mul", [smoothing.tensor, f"{target}__factor"], [f"{target}__smoothed"]),
            *self._round_trip((smoothing.low, smoothing.high), f"{target}__smoothed", f"{target}__product", constants),
            helper.make_node("Mul", [f"{target}__product", f"{target}__inverse"], [target]),
        ]

    def _round_trip(self, span: tuple[float, float], source: str, target: str, constants: list[TensorProto]) -> list[onnx.NodeProto]:
        symmetric = self._scheme.symmetric_activations
        scale, zero_point, _, _ = activation_grid(*span, bits=8, symmetric=symmetric)
        kind = np.int8 if symmetric else np.uint8
        constants += [
            numpy_helper.from_array(np.asarray(scale, np.float32), f"{target}__scale"),
            numpy_helper.from_array(np.asarray(zero_point, kind), f"{target}__zero_point"),
        ]
        grid = [f"{target}__scale", f"{target}__zero_point"]
        return [
            helper.make_node("QuantizeLinear", [source, *grid], [f"{target}__levels"]),
            helper.make_node("DequantizeLinear", [f"{target}__levels", *grid], [target]),
        ]


@dataclass(slots=True)
class Pass:
    """One batch through the float model. ``states[b]`` holds the tensors alive at the start of block b."""

    model: ReferenceModel
    states: list[dict[str, Array]]
    _outputs: tuple[Array, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Pick the graph outputs."""
        self._outputs = tuple(self.states[-1][name] for name in self.model.graph.outputs)

    @property
    def outputs(self) -> tuple[Array, ...]:
        """The float model's outputs, in graph order, each (batch, ...)."""
        return self._outputs

    def probes(self) -> Iterator[Probe]:
        """Yield a probe for each layer, in order; a probe is valid until the next one is taken."""
        for index, block in enumerate(self.model.blocks):
            taps = self.model._taps[index]
            piece = self.model._pieces[index]
            if not block.units or piece is None:
                continue
            inside = {**self.states[index], **(piece.run(self.states[index], taps) if taps else {})}
            for unit in block.units:
                yield Probe(self, index, unit.layer, inside)


@dataclass(slots=True)
class Probe:
    """One layer of one pass, ready to be run changed."""

    run: Pass
    block: int
    layer: Layer
    inside: dict[str, Array]

    @property
    def can_round(self) -> bool:
        """Whether every range that rounding needs is known."""
        return self.run.model._heads[self.layer.name].rounded is not None

    def output(self, *, weight: Floats | None = None, inputs: Mapping[str, Floats] | None = None, rounded: bool = False) -> Floats:
        """Return the layer's output, (batch, ...) float32, with another weight or other inputs.

        Args:
            weight: In place of the layer's own weight, same shape.
            inputs: In place of some of the layer's inputs.
            rounded: Pass inputs (and the output, where the scheme says so) through their integer grids.
        """
        head = self.run.model._heads[self.layer.name]
        piece = head.rounded if rounded else head.alone
        if piece is None:
            raise KeyError(self.layer.name)
        tensors: dict[str, Array] = {**self.inside, **(inputs or {})}
        if self.layer.weight is not None:
            tensors[self.layer.weight] = self.run.model.weight(self.layer) if weight is None else weight
        return np.asarray(piece.run(tensors)[self.layer.output], dtype=np.float32)

    def outputs_from(self, output: Floats) -> tuple[Array, ...]:
        """Return the model's outputs when the layer's output is ``output``."""
        return self._on(self.block, {self.layer.output: output}, self.run.model._heads[self.layer.name].rest)

    def outputs_with(self, output: Floats, second: Layer, weight: Floats | None, precision: Precision) -> tuple[Array, ...]:
        """Return the model's outputs when this layer's output is ``output`` and the later layer ``second`` is low.

        Args:
            output: This layer's output.
            second: A later layer, joined before with ``ReferenceModel.join``.
            weight: The second layer's weight, rounded; None where it has none.
            precision: The second layer's precision.
        """
        model = self.run.model
        block, _ = model._place(second)
        span = model._between(self.layer, second)[0]
        changed: dict[str, Array] = {self.layer.output: output}
        inside = self.inside
        if block != self.block:
            changed = self._advance(self.block, changed, model._heads[self.layer.name].rest, block)
            inside = self.run.states[block]
        joint = model._joints.get(span)
        if joint is not None:
            changed |= joint.run({**inside, **changed})
        later = Probe(self.run, block, second, {**inside, **changed})
        changed[second.output] = later.output(weight=weight, rounded=precision is Precision.INT8)
        return later._on(block, changed, model._heads[second.name].rest)

    def _on(self, block: int, changed: dict[str, Array], rest: Piece | None) -> tuple[Array, ...]:
        model = self.run.model
        final = self._advance(block, changed, rest, len(model.blocks))
        return tuple(final.get(name, reference) for name, reference in zip(model.graph.outputs, self.run.outputs, strict=True))

    def _advance(self, block: int, changed: dict[str, Array], rest: Piece | None, until: int) -> dict[str, Array]:
        """Return the changed tensors at the start of block ``until``."""
        model = self.run.model
        alive = dict(changed)
        if rest is not None:
            alive.update(rest.run({**self.inside, **alive}))
        for index in range(block + 1, until):
            piece = model._pieces[index]
            if piece is not None and not alive.keys().isdisjoint(piece.inputs):
                alive.update(piece.run({**self.run.states[index], **alive}, model._block_outputs[index]))
        return alive
