"""The float model cut into pieces, so that a probe of one layer runs that layer and what follows it, nothing else.

To probe a layer, its own inputs come from the float pass; the layer runs alone, changed; the rest of its block and the later blocks run on
from its output. On average that is half of a forward pass, and little more than one block of one batch of activations is alive at a time.

Sessions of the float model, each built once:

* for each block a *tap*, which gives out what the layers inside read, and what later blocks read: together they are the float pass;
* a *chain* of the same blocks, which carries a change from block to block: between two layers, and to the end where there are no tails.
  Apart from the taps, since a tensor that is given out can be neither fused nor kept in the layout that convolutions like best: the taps
  take half as long again;
* for each layer the *rest* of its block, and, where constants are few, one *tail* from each block's end to the model's end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from calibration.algorithms.gptq import Levels
from calibration.algorithms.smooth_quant import SmoothQuantScaling
from calibration.data.sample_axes import SampleAxes
from calibration.execution.float_pass import FloatPass, tapped_blocks
from calibration.execution.onnxruntime_session import Array, Piece, probe_provider, return_free_activations
from calibration.execution.partition import Block, Graph, Unit
from calibration.execution.provider import Provider
from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision, Scheme
from calibration.sensitivity.simulated_layers import Floats, Shifts, float_layer, quantized_layer, rounded_weight, weight_of

Spans = tuple[tuple[str, float, float], ...]

SMALL_BYTES = 16 << 20  # constants of a model whose blocks may be long
UNITS_PER_BLOCK, UNITS_IF_LARGE = 4, 2  # layers in one block
TAIL_BYTES = 64 << 20  # most that the tails' copies of constants may take
PROBES_BYTES = 128 << 20  # of what probes in flight hold, where that is room for more than one
OUTPUT_COPIES = 10  # in float32 numbers, while a probe's outputs are compared in float64
KEPT_BYTES = 32 << 20  # most that the float pass keeps of what taps give out; other blocks' taps run again when their turn comes


class ReferenceModel:
    """The float model, ready to be probed. Safe to use from several threads."""

    def __init__(
        self,
        model: onnx.ModelProto,
        layers: Sequence[Layer],
        ranges: Mapping[str, tuple[float, float]],
        scheme: Scheme,
        smooth_quants: Sequence[SmoothQuantScaling] = (),
        *,
        levels: Levels | None = None,
        shifts: Shifts | None = None,
        units_per_block: int | None = None,
        tail_bytes: int = TAIL_BYTES,
        kept_bytes: int = KEPT_BYTES,
        provider: Provider | None = None,
        axes: SampleAxes | None = None,
        outputs: Sequence[str] | None = None,
    ) -> None:
        """Build the sessions that every probe needs.

        Args:
            model: The prepared model.
            layers: Its layers, in topological order.
            ranges: Lowest and highest value of each tensor that may be quantized.
            scheme: How the target quantizes.
            smooth_quants: Tensors that are smoothed for the layers that read them, where those are quantized.
            levels: Integer weights in the place of the nearest, for some layers and precisions.
            shifts: What bias correction adds to the output of some layers in some precisions.
            units_per_block: Layers in one block; the constants of the model are held about half as often, besides the float pass. None: few
                for a model with many bytes of constants.
            tail_bytes: Constants that tails may hold; tails are left out if they would hold more.
            kept_bytes: Activations that a float pass may keep.
            provider: What all of it is to compute with. None: CUDA where that works, but for pieces that it does not take, else the CPU.
            axes: Where the model counts samples. None: on the first axis of every input and output.
            outputs: The tensors whose values are compared. None: the model's outputs.
        """
        self.axes = axes or SampleAxes()
        self.graph = Graph(model, layers, outputs)
        self.provider, self._falls_back = provider or probe_provider(), provider is None
        end = len(self.graph.nodes)
        is_large = self.graph.constant_bytes(0, end) > SMALL_BYTES
        self.blocks = self.graph.blocks(units_per_block or (UNITS_IF_LARGE if is_large else UNITS_PER_BLOCK))
        self._scheme = scheme
        self._ranges = ranges
        self._levels = levels or {}
        self._shifts = shifts or {}
        self._smooth_quant = {layer: smooth_quant for smooth_quant in smooth_quants for layer in smooth_quant.layers}
        self._units = {unit.layer.name: (index, unit) for index, block in enumerate(self.blocks) for unit in block.units}
        self._rests = {unit.layer.name: self._run_of(unit.stop, block.stop) for block in self.blocks for unit in block.units}
        constant = {tensor.name for tensor in model.graph.initializer}
        self._given = {name: self.graph.array(name) for name in self.graph.outputs if name in constant}
        self._needs = {unit.layer.name: self._needed(block, unit) for block in self.blocks for unit in block.units}
        self._tapped = tapped_blocks(self.graph, self.blocks, [self._tap(block) for block in self.blocks])
        has_tails = sum(self.graph.constant_bytes(block.stop, end) for block in self.blocks) <= tail_bytes
        self._tails = [self._run_of(block.stop, end) if has_tails else None for block in self.blocks]
        self._kept_bytes = kept_bytes
        self._built: dict[tuple[object, ...], Piece | None] = {}
        self._building = threading.Lock()
        self._has_new_sessions = True
        if not has_tails:
            self._open_chain()

    @property
    def sessions(self) -> int:
        """Sessions that are open."""
        fixed = (*self._tapped.taps, *self._tails, *self._rests.values())
        return sum(piece is not None for piece in (*fixed, *self._built.values()))

    def weight(self, layer: Layer) -> Floats:
        """Return the layer's weight, float32."""
        return weight_of(self.graph, layer)

    def rounded_weight(self, layer: Layer, precision: Precision) -> Floats:
        """Return the layer's weight after a round trip through the precision, in INT8 divided as its SmoothQuant scaling says."""
        levels = self._levels.get((layer.name, precision))
        return rounded_weight(self.graph, layer, precision, self.smooth_quant(layer), self._scheme, levels)

    def has_levels(self, layer: Layer, precision: Precision) -> bool:
        """Return whether the layer has integer weights other than the nearest in the precision."""
        return (layer.name, precision) in self._levels

    def smooth_quant(self, layer: Layer) -> SmoothQuantScaling | None:
        """Return how the layer's input is smoothed where it is quantized."""
        return self._smooth_quant.get(layer.name)

    def begin(self, batch: Mapping[str, Array]) -> Pass:
        """Run the float model on a batch and return the pass, from which layers can be probed.

        Args:
            batch: The feeds of a call: each input in the model's own form and type.
        """
        if self._has_new_sessions:  # opening them leaves holes, which activations do not fill, and what ran before has left its own
            if self.provider is Provider.CPU:  # whose arena lies in this memory
                return_free_activations()
            self._has_new_sessions = False
        given: dict[str, Array] = {**self.graph.matrices, **self.graph.constant_outputs, **batch}
        floats, samples = FloatPass(self._tapped, given, self.graph.outputs, kept_bytes=self._kept_bytes), self.axes.samples(batch)
        ends = tuple({**self._given, **floats.ends}[name] for name in self.graph.outputs)
        return Pass(self, floats, ends, self.axes.samples_first(ends, samples), samples)

    def open_float(self, layers: Iterable[Layer]) -> None:
        """Build what probes of these layers in float need besides; otherwise the first such probe of each does."""
        for layer in layers:
            self._float_head(layer)

    def open_quantized(self, wanted: Iterable[tuple[str, Precision]], spans: Spans = ()) -> None:
        """Build what probes of the layers so named in low precisions need besides; otherwise the first such probe of each does."""
        for name, precision in wanted:
            self._quantized_head(self._units[name][1].layer, precision, spans)

    def open_pairs(self, pairs: Iterable[tuple[Layer, Layer]]) -> None:
        """Build what probes of two layers at once need besides; otherwise the first such probe of each pair does."""
        self._open_chain()
        for first, second in pairs:
            self._joint(first, second)

    def _open_chain(self) -> None:
        for index in range(len(self.blocks)):
            self._link(index)

    def _link(self, index: int) -> Piece | None:
        """Return a whole block."""
        block = self.blocks[index]
        return self._once((block.start, block.stop), lambda: self._run_of(block.start, block.stop))

    def _float_head(self, layer: Layer) -> Piece:
        piece = self._once((layer.name,), lambda: self._piece(float_layer(self.graph, self._units[layer.name][1])))
        assert piece is not None
        return piece

    def _quantized_head(self, layer: Layer, precision: Precision, spans: Spans) -> Piece:
        unit = self._units[layer.name][1]
        smooth_quant = self.smooth_quant(layer)
        ranges = {**self._ranges, **{name: (low, high) for name, low, high in spans}}
        levels, shift = self._levels.get((layer.name, precision)), self._shifts.get((layer.name, precision))
        piece = self._once(
            (layer.name, precision, spans),
            lambda: self._piece(quantized_layer(self.graph, unit, precision, ranges, self._scheme, smooth_quant, levels, shift)),
        )
        assert piece is not None
        return piece

    def _joint(self, first: Layer, second: Layer) -> Piece | None:
        """Return the nodes between two layers of one block, or between the start of the second's block and the second."""
        (block_a, a), (block_b, b) = self._units[first.name], self._units[second.name]
        start = a.stop if block_a == block_b else self.blocks[block_b].start
        return self._once((start, b.start), lambda: self._run_of(start, b.start))

    def _once(self, key: tuple[object, ...], build: Callable[[], Piece | None]) -> Piece | None:
        with self._building:
            if key not in self._built:
                self._built[key] = build()
                self._has_new_sessions = True
            return self._built[key]

    def _run_of(self, start: int, stop: int, also: Sequence[str] = ()) -> Piece | None:
        outputs = self.graph.piece_outputs(start, stop, also)
        return self._piece(self.graph.piece(start, stop, outputs=outputs)) if outputs else None

    def _piece(self, model: onnx.ModelProto) -> Piece:
        return Piece(model, provider=self.provider, falls_back=self._falls_back)

    def _needed(self, block: Block, unit: Unit) -> tuple[str, ...]:
        """Return the tensors made in the block that the layer and the rest of the block after it read."""
        names = (*self.graph.piece_inputs(unit.start, unit.stop), *self.graph.piece_inputs(unit.stop, block.stop))
        made = {name for node in self.graph.nodes[block.start : unit.start] for name in node.output}
        return tuple(name for name in dict.fromkeys(names) if name in made)

    def _tap(self, block: Block) -> Piece | None:
        inside = [name for unit in block.units for name in self._needs[unit.layer.name]]
        return self._run_of(block.start, block.stop, inside)


@dataclass(slots=True)
class Pass:
    """One batch through the float model."""

    model: ReferenceModel
    floats: FloatPass
    made: tuple[Array, ...]  # the float model's outputs, in order and in the model's form
    outputs: tuple[Array, ...]  # the same, each (samples, ...)
    samples: int

    def at_once(self, most: int) -> int:
        """Return how many probes may be in flight, at most ``most``: each has activations of its own, and copies of the outputs."""
        each = 2 * self.floats.largest_bytes + OUTPUT_COPIES * sum(output.nbytes for output in self.outputs)
        return max(1, min(most, PROBES_BYTES // max(each, 1)))

    def probes(self) -> Iterator[Probe]:
        """Yield a probe for each layer, in order."""
        for index, (inside, behind) in enumerate(self.floats.walk()):
            for unit in self.model.blocks[index].units:
                yield Probe(self, index, unit.layer, inside, behind)
            del inside, behind  # or they would be there with those of the next block


@dataclass(slots=True)
class Probe:
    """One layer of one pass, ready to be run changed."""

    run: Pass
    block: int
    layer: Layer
    inside: dict[str, Array]  # float tensors that are there in the layer's block
    behind: dict[str, Array]  # those that a change of the layer needs in the blocks behind it

    def output(self, *, weight: Floats | None = None, inputs: Mapping[str, Floats] | None = None, shift: Floats | None = None) -> Floats:
        """Return the layer's output in float, (batch, ...) float32, with another weight or other inputs.

        Args:
            weight: In place of the layer's own weight, same shape.
            inputs: In place of some of the layer's inputs.
            shift: Of the layer's bias, or of an Add's behind it, (channels,).
        """
        model, layer = self.run.model, self.layer
        tensors: dict[str, Array] = {**self.inside, **(inputs or {})}
        if layer.weight is not None:
            tensors[layer.weight] = model.weight(layer) if weight is None else weight
        if layer.bias is not None:
            bias = np.asarray(model.graph.array(layer.bias), dtype=np.float32)
            tensors[layer.bias] = bias if shift is None else bias + shift.reshape(bias.shape)
        output = _only_output(model._float_head(layer), tensors)
        return output if shift is None or layer.bias is not None else output + shift

    def quantized_output(self, precision: Precision, spans: Spans = ()) -> Floats:
        """Return the layer's output in a low precision, (batch, ...) float32, on the float model's inputs of the layer.

        Args:
            precision: The precision.
            spans: Ranges in the place of some tensors' own: tensor, lowest and highest value.
        """
        model = self.run.model
        piece = model._quantized_head(self.layer, precision, spans)
        tensors = dict(self.inside)
        if self.layer.weight is not None and self.layer.weight in piece.inputs:
            tensors[self.layer.weight] = model.rounded_weight(self.layer, precision)
        shift = model._shifts.get((self.layer.name, precision)) if self.layer.bias is None else None
        output = _only_output(piece, tensors)
        return output if shift is None else output + shift  # the bias of an Add behind a MatMul

    def outputs_from(self, output: Floats) -> tuple[Array, ...]:
        """Return the model's outputs, each (samples, ...), when the layer's output is ``output``."""
        changed = self._to_block_end({self.layer.output: output})
        return self._to_model_end(self.block, changed)

    def outputs_with(self, output: Floats, second: Layer, precision: Precision) -> tuple[Array, ...]:
        """Return the model's outputs, each (samples, ...), when this layer's output is ``output`` and a later layer is quantized.

        Args:
            output: This layer's output.
            second: A later layer.
            precision: The second layer's precision.
        """
        model = self.run.model
        block, _ = model._units[second.name]
        changed: dict[str, Array] = {self.layer.output: output}
        inside = self.inside
        if block != self.block:
            changed = self._to_block_end(changed)
            for index in range(self.block + 1, block):
                self._through(index, changed)
            inside = self.behind
        joint = model._joint(self.layer, second)
        if joint is not None:
            changed |= joint.run({**inside, **changed})
        later = Probe(self.run, block, second, {**inside, **changed}, self.behind)
        changed[second.output] = later.quantized_output(precision)
        return self._to_model_end(block, later._to_block_end(changed))

    def _to_block_end(self, changed: dict[str, Array]) -> dict[str, Array]:
        rest = self.run.model._rests[self.layer.name]
        return changed if rest is None else {**changed, **rest.run({**self.inside, **changed})}

    def _to_model_end(self, block: int, changed: dict[str, Array]) -> tuple[Array, ...]:
        """Return the outputs, given the changed tensors at the end of ``block``."""
        model = self.run.model
        tail = model._tails[block]
        if tail is not None:
            changed |= tail.run({**self.behind, **changed})
        else:
            for index in range(block + 1, len(model.blocks)):
                self._through(index, changed)
        made = [changed.get(name, reference) for name, reference in zip(model.graph.outputs, self.run.made, strict=True)]
        return model.axes.samples_first(made, self.run.samples)

    def _through(self, index: int, changed: dict[str, Array]) -> None:
        """Run a block if a change reaches it, and leave of what is changed what is read behind it."""
        model = self.run.model
        piece, later = model._link(index), model._tapped.read_later[index]
        if piece is not None and not changed.keys().isdisjoint(piece.inputs):
            changed |= piece.run({**self.behind, **changed})
        for name in changed.keys() - later:
            del changed[name]


def _only_output(piece: Piece, tensors: Mapping[str, Array]) -> Floats:
    (name,) = piece.outputs
    return np.asarray(piece.run(tensors)[name], dtype=np.float32)
