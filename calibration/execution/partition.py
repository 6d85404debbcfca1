"""Cuts a graph into contiguous pieces that run one after another, so that a probe runs only what it changes.

The nodes keep one fixed topological order. A *unit* is a layer's node with the activation that belongs to it; a *block* is a run of
units with what lies between them; a piece is any run of nodes [start, stop). Blocks end where the fewest computed tensors are alive.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from calibration.errors import CalibrationError
from calibration.graph.free_names import free_name
from calibration.graph.layers import Layer
from calibration.graph.weightless import size_bytes
from calibration.onnx_model.weights_in_file import array_of

FED_BYTES = 1 << 18  # matrices from this size on are fed to the pieces that read them, so that no piece holds a copy
_MATRIX_READERS = frozenset({"MatMul", "Gemm", "Gather"})  # as fast with a fed matrix as with a constant one, unlike convolutions


@dataclass(frozen=True, slots=True)
class Unit:
    """A layer's place in the node order: [start, stop)."""

    layer: Layer
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Block:
    """A run of nodes [start, stop) and the units inside it, in order."""

    start: int
    stop: int
    units: tuple[Unit, ...]


class Graph:
    """A model's nodes in the order of execution, with each layer's nodes side by side. Read-only after construction."""

    def __init__(
        self,
        model: onnx.ModelProto,
        layers: Sequence[Layer],
        outputs: Sequence[str] | None = None,
        *,
        matrices: Mapping[str, NDArray[np.generic]] | None = None,
    ) -> None:
        """Order the nodes.

        Args:
            model: A prepared model: float32, constants as initializers, nodes named and topologically sorted.
            layers: Its layers, in topological order.
            outputs: The tensors that it returns. None: the model's outputs.
            matrices: Those of another graph of the same model, whose returned tensors are the same: each graph has a copy of them, else.
        """
        self.model = model
        self.nodes = _with_units_together(list(model.graph.node), layers)
        self.inputs = tuple(value.name for value in model.graph.input if value.name not in {i.name for i in model.graph.initializer})
        self.outputs = tuple(value.name for value in model.graph.output) if outputs is None else tuple(outputs)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._taken = {*self.inputs, *self._initializers, *(name for node in self.nodes for name in node.output)}
        self._reads = [tuple(dict.fromkeys(read_names(node))) for node in self.nodes]
        self.matrices = self._matrices() if matrices is None else matrices
        self.constant_outputs = {n: array_of(self._initializers[n]) for n in self.outputs if n in self._initializers}
        graph = model.graph
        self._values = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
        self._produced = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self._last_read: dict[str, int] = {}
        for index, names in enumerate(self._reads):
            self._last_read |= dict.fromkeys(names, index)
        for name in self.outputs:
            self._last_read[name] = len(self.nodes)
        place = {node.name: index for index, node in enumerate(self.nodes)}
        self.units = tuple(Unit(layer, place[layer.nodes[0]], place[layer.nodes[0]] + len(layer.nodes)) for layer in layers)

    def initializer(self, name: str) -> onnx.TensorProto:
        """Return the constant tensor of that name; its values may be in a file (``array``)."""
        tensor: onnx.TensorProto = self._initializers[name]
        return tensor

    def array(self, name: str) -> NDArray[np.generic]:
        """Return the values of the constant tensor of that name; read-only, and not copied where it is one of ``matrices``."""
        known = self.matrices.get(name)
        return array_of(self._initializers[name]) if known is None else known

    def free_name(self, name: str) -> str:
        """Return ``name``, or one like it that no tensor of the model bears."""
        return free_name(name, self._taken)

    def blocks(self, units_per_block: int) -> tuple[Block, ...]:
        """Return blocks of about ``units_per_block`` units that together cover every node once."""
        cuts = [0]
        index = 0
        while index + units_per_block < len(self.units):
            reach = range(index + max(1, units_per_block - 1), min(index + units_per_block + 2, len(self.units)))
            index, cut = min(((i, self._narrowest(self.units[i - 1].stop, self.units[i].start)) for i in reach), key=self._width)
            cuts.append(cut)
        cuts.append(len(self.nodes))
        return tuple(
            Block(start, stop, tuple(u for u in self.units if start <= u.start < stop)) for start, stop in itertools.pairwise(cuts)
        )

    def piece_inputs(self, start: int, stop: int) -> tuple[str, ...]:
        """Return the computed tensors and graph inputs that nodes [start, stop) read from outside."""
        names: dict[str, None] = {}
        for read in self._reads[start:stop]:
            for name in read:
                if name not in self._initializers and self._produced.get(name, -1) < start:
                    names[name] = None
        return tuple(names)

    def piece_outputs(self, start: int, stop: int, also: Sequence[str] = ()) -> tuple[str, ...]:
        """Return what nodes [start, stop) produce and later nodes or the user read, and those of ``also`` that they produce."""
        made = [name for node in self.nodes[start:stop] for name in node.output if name]
        wanted = set(also)
        return tuple(name for name in made if self._last_read.get(name, -1) >= stop or name in wanted)

    def piece(
        self,
        start: int,
        stop: int,
        *,
        outputs: Sequence[str],
        fed: Sequence[str] = (),
        nodes: Sequence[onnx.NodeProto] | None = None,
        constants: Mapping[str, onnx.TensorProto] | None = None,
    ) -> onnx.ModelProto:
        """Return nodes [start, stop) as a model of their own. Besides computed tensors it is fed those of ``matrices`` that it reads.

        Args:
            start: First node.
            stop: One past the last node.
            outputs: Tensors it returns.
            fed: More initializers that become inputs.
            nodes: Put these nodes in place of [start, stop); they read tensors of the same names and types.
            constants: Initializers in place of the model's own, or besides them, by name.
        """
        body = self.nodes[start:stop] if nodes is None else list(nodes)
        own = dict(constants or {})
        reads = self._reads[start:stop] if nodes is None else map(read_names, body)
        read = dict.fromkeys(itertools.chain.from_iterable(reads))
        taken = [name for name in read if name in self._initializers and name not in own]
        given = [name for name in taken if name in self.matrices or name in fed]
        inputs = [self._value(name) for name in self.piece_inputs(start, stop)]
        inputs += [helper.make_tensor_value_info(n, self._initializers[n].data_type, tuple(self._initializers[n].dims)) for n in given]
        kept = [self._initializers[name] for name in taken if name not in given]
        graph = helper.make_graph(body, "piece", inputs, [_untyped(name) for name in outputs], [*kept, *own.values()])
        return helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)

    def constant_bytes(self, start: int, stop: int) -> int:
        """Return the size of the constants that a session of nodes [start, stop) holds a copy of."""
        read = set(itertools.chain.from_iterable(self._reads[start:stop])) & self._initializers.keys()
        return sum(size_bytes(self._initializers[name]) for name in read - self.matrices.keys())

    def _matrices(self) -> dict[str, NDArray[np.generic]]:
        """Return the large initializers that only matrix products and look-ups read, each a copy: protobuf gives out no views."""
        readers: dict[str, set[str]] = {}
        for node, names in zip(self.nodes, self._reads, strict=True):
            for name in names:
                readers.setdefault(name, set()).add(node.op_type)
        return {
            name: array_of(tensor)
            for name, tensor in self._initializers.items()
            if size_bytes(tensor) >= FED_BYTES and readers.get(name, {""}) <= _MATRIX_READERS and name not in self.outputs
        }

    def _value(self, name: str) -> onnx.ValueInfoProto:
        known = self._values.get(name)
        if known is None or not known.type.tensor_type.elem_type:
            raise CalibrationError(
                f"The type of tensor {name!r} could not be inferred.",
                fix="Run onnx.shape_inference on the model and check that every operator has a schema.",
            )
        value = onnx.ValueInfoProto()
        value.name = name
        value.type.tensor_type.elem_type = known.type.tensor_type.elem_type
        return value

    def _width(self, place: tuple[int, int]) -> tuple[int, int]:
        return self._alive(place[1]), place[0]

    def _alive(self, cut: int) -> int:
        return sum(1 for name, made in self._produced.items() if made < cut <= self._last_read.get(name, -1))

    def _narrowest(self, first: int, last: int) -> int:
        return min(range(first, last + 1), key=lambda cut: (self._alive(cut), cut))


def read_names(node: onnx.NodeProto) -> list[str]:
    """Return the tensors a node reads, those that its subgraphs take from outside included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
            local = {v.name for v in graph.input} | {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
            names += [name for inner in graph.node for name in read_names(inner) if name not in local]
            names += [value.name for value in graph.output if value.name not in local]
    return names


def _with_units_together(nodes: list[onnx.NodeProto], layers: Sequence[Layer]) -> list[onnx.NodeProto]:
    by_name = {node.name: node for node in nodes}
    follower = {layer.nodes[0]: [by_name[name] for name in layer.nodes[1:]] for layer in layers}
    moved = {name for layer in layers for name in layer.nodes[1:]}
    return [part for node in nodes if node.name not in moved for part in (node, *follower.get(node.name, []))]


def _untyped(name: str) -> onnx.ValueInfoProto:
    value = onnx.ValueInfoProto()
    value.name = name
    return value
