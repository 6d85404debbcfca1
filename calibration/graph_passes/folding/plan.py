"""Folding of one node with constants, as a whole or not at all: first it is tried on drafts of all layers it goes into, then written."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.graph.free_names import Names
from calibration.graph_passes.fold_constants import take_over
from calibration.graph_passes.folding import steps
from calibration.graph_passes.folding.channels import Affine, affine_of, constant_of
from calibration.graph_passes.folding.parameters import LAYERS, Parameters, parameters_of

_SUMS = ("Add", "Sub")  # of a constant: what a factor moves past
_MOST_STEPS = 12  # between a constant and a layer


class Plan:
    """Drafts of the layers and constants that one node is folded into."""

    def __init__(self, graph: ir.Graph, kept: Collection[ir.Node], names: Names, changed: set[ir.Value]) -> None:
        """Start with nothing drafted.

        Args:
            graph: The main graph.
            kept: Nodes whose constants must stay.
            names: Hands out names for new constants.
            changed: Tensors that no longer hold what the user's tensor of their name does; a fold that is written changes the set.
        """
        self._graph = graph
        self._kept = kept
        self._names = names
        self._changed = changed
        self._between: list[ir.Value] = []  # tensors between the node and the layers, whose values a fold changes
        self._layers: dict[ir.Node, Parameters] = {}
        self._constants: dict[ir.Node, NDArray[np.float32]] = {}  # of an Add or a Sub
        self._rest: Affine | None = None  # whose offset an Add must bring in the node's place

    def fold_behind(self, node: ir.Node) -> bool:
        """Fold a node into the layers that make its input; return whether that was done."""
        found = affine_of(node)
        if found is None or node in self._kept:
            return False
        value, affine = found
        if not self._make(value, affine, 0):
            return False
        self._write()
        if self._rest is None:
            take_over(self._graph, value, node)
            self._changed.discard(value)
        else:
            self._replace_by_add(node, value, self._rest)
        return True

    def fold_before(self, node: ir.Node) -> bool:
        """Fold a node into the layers that read its output; return whether that was done."""
        found = affine_of(node)
        if found is None or node in self._kept:
            return False
        value, affine = found
        if not self._read(node.outputs[0], affine, 0):
            return False
        self._write()
        node.outputs[0].replace_all_uses_with(value)
        self._graph.remove(node, safe=True)
        return True

    def readers_of(self, node: ir.Node) -> tuple[Parameters, ...]:
        """Return the layers that could take factors of a layer's channels, () where not all readers of its output can; changes nothing."""
        layer = parameters_of(node)
        value = node.outputs[0]
        if layer is None or not self._read(value, Affine(np.full(layer.channels_out, 2.0), np.array(0.0), layer.out_axis), 0):
            return ()
        return tuple(self._layers.values())

    def rescale_between(self, node: ir.Node, factors: NDArray[np.float64]) -> bool:
        """Divide a layer's output channels by ``factors``, (channels,), and let its readers multiply; return whether that was done."""
        layer, value = self._draft(node), node.outputs[0]
        if layer is None or not layer.fold_behind(Affine(1.0 / factors, np.array(0.0), layer.out_axis)):
            return False
        if not self._read(value, Affine(factors, np.array(0.0), layer.out_axis), 0):
            return False
        self._between.append(value)
        self._write()
        return True

    def _make(self, value: ir.Value, affine: Affine, depth: int) -> bool:
        """Draft the changes by which ``value`` becomes what ``affine`` makes of it; return whether there are any."""
        maker = value.producer()
        if maker is None or maker.graph is not self._graph or len(value.uses()) != 1 or value.is_graph_output() or depth > _MOST_STEPS:
            return False
        if affine.has_factor or affine.has_offset:
            self._between.append(value)
        if maker.op_type in LAYERS:
            layer = self._draft(maker)
            if layer is None:
                return False
            if affine.has_offset and not layer.has_bias_input:
                if depth or not affine.has_factor:  # an Add behind a MatMul is its bias
                    return False
                self._rest, affine = affine, affine.factor_alone
            return layer.fold_behind(affine)
        if maker.op_type in _SUMS and maker not in self._kept:
            source = self._rescale(maker, affine, is_behind=True)
            return source is not None and self._make(source, affine.factor_alone, depth + 1)
        moved = steps.before(maker, affine)
        if moved is None or maker in self._kept:
            return False
        sources = [(maker.inputs[index], one) for index, one in moved.items()]
        return all(source is not None and self._make(source, one, depth + 1) for source, one in sources)

    def _read(self, value: ir.Value, affine: Affine, depth: int) -> bool:
        """Draft the changes by which all readers do to ``value`` itself what they did to what ``affine`` made of it."""
        uses = tuple(value.uses())
        if value.is_graph_output() or not uses or depth > _MOST_STEPS:
            return False
        for use in uses:
            node, index = use.node, use.idx
            if node.graph is not self._graph or node in self._kept:
                return False
            if node.op_type in LAYERS:
                layer = self._draft(node)
                if layer is None or index != layer.activation or not layer.fold_before(affine):
                    return False
                continue
            passed: Affine | None
            if node.op_type in _SUMS:
                source = self._rescale(node, affine, is_behind=False)
                passed = None if source is None else affine.factor_alone
            else:
                passed = steps.behind(node, index, affine)
            if passed is None or not self._read(node.outputs[0], passed, depth + 1):
                return False
            self._between.append(node.outputs[0])
        return True

    def _draft(self, node: ir.Node) -> Parameters | None:
        if node not in self._layers:
            found = parameters_of(node)
            if found is None:
                return None
            self._layers[node] = found
        return self._layers[node]

    def _rescale(self, node: ir.Node, affine: Affine, *, is_behind: bool) -> ir.Value | None:
        """Draft the constant of an Add or a Sub past which the factor moves; return its computed input, None where there is no such.

        Behind:  a (x + c) + b = a x + (a c + b)
        Before:  a x + b + c = a (x + (b + c) / a)
        """
        sign = 1.0 if node.op_type == "Add" else -1.0
        index = next((one for one in (0, 1) if constant_of(node, one) is not None), None)
        value = None if index is None else node.inputs[1 - index]
        if index is None or value is None or value.dtype != ir.DataType.FLOAT or node in self._constants:
            return None
        if index == 0 and node.op_type == "Sub":
            return None
        constant = np.asarray(constant_of(node, index), dtype=np.float64)
        factor, offset = affine.broadcast(affine.factor), sign * affine.broadcast(affine.offset)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            exact = constant * factor + offset if is_behind else (constant + offset) / factor
            new = exact.astype(np.float32)
        if new.size > max(constant.size, factor.size, offset.size) or not np.all(np.isfinite(new)):
            return None
        self._constants[node] = new
        return value

    def _write(self) -> None:
        self._changed.update(self._between)
        for node, layer in self._layers.items():
            if layer.is_weight_new:
                self._set(node, layer.weight_index, layer.weight, "weight")
            if layer.is_bias_new and layer.bias is not None:
                self._set(node, 2, layer.bias.astype(np.float32), "bias")
        for node, constant in self._constants.items():
            self._set(node, 0 if constant_of(node, 0) is not None else 1, constant, "constant")

    def _set(self, node: ir.Node, index: int, array: NDArray[np.float32], what: str) -> None:
        set_constant(self._graph, node, index, array, self._names, what)

    def _replace_by_add(self, node: ir.Node, value: ir.Value, rest: Affine) -> None:
        """Put an Add of what is left behind a layer without a bias in the place of the node."""
        add = ir.node("Add", [value, None])
        self._graph.insert_before(node, [add])
        set_constant(self._graph, add, 1, rest.broadcast(rest.offset).astype(np.float32), self._names, "bias", of=node.outputs[0])
        take_over_output(self._graph, add, node)


def take_over_output(graph: ir.Graph, new: ir.Node, old: ir.Node) -> None:
    """Let the output of ``new``, a node of the graph, stand where that of ``old`` does, under its name; ``old`` is removed."""
    take_over(graph, new.outputs[0], old)
    new.name = old.name


def set_constant(
    graph: ir.Graph, node: ir.Node, index: int, array: NDArray[np.float32], names: Names, what: str, *, of: ir.Value | None = None
) -> None:
    """Give a node a constant input: a new value of the one it has where nothing else reads that, else one of its own.

    Args:
        graph: The main graph.
        node: The node.
        index: Place of the input.
        array: The constant.
        names: Hands out the name of a new one.
        what: Last part of that name.
        of: The tensor that it is named after; the node's output by default.
    """
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and not old.is_graph_output():
        old.const_value = ir.Tensor(np.ascontiguousarray(array), name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    name = names.new((of or node.outputs[0]).name or "tensor", what)
    tensor = ir.Tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
