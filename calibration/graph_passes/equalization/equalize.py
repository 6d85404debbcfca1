"""Evens out the channels between layers, exactly: a layer's output channels are divided by powers of two, its readers multiply by them.

One scale for a tensor whose channels differ in size rounds the small ones badly, and the weights that bring them back are large. Trained
networks come like this where a BatchNormalization was folded into filters of very different size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from calibration.execution.onnxruntime_session import Array
from calibration.graph.free_names import Names, names_in
from calibration.graph.layers import Layer
from calibration.graph_passes.equalization.channel_statistics import SeenChannels, channel_statistics
from calibration.graph_passes.equalization.rounding_noise import Reader, best_factors
from calibration.graph_passes.folding.fold import rename_changed
from calibration.graph_passes.folding.fused_patterns import fused_nodes
from calibration.graph_passes.folding.parameters import LAYERS, Parameters, parameters_of
from calibration.graph_passes.folding.plan import Plan
from calibration.graph_passes.written_form import written
from calibration.onnx_model.foreign_types import without_foreign_types

WORTHWHILE = 0.5  # of the noise of rounding: what is left must be less


def equalize(model: onnx.ModelProto, layers: Sequence[Layer], batches: Iterable[Mapping[str, Array]]) -> tuple[onnx.ModelProto, int]:
    """Return a model that computes the same, and between how many layers its channels were evened out; without any, ``model`` itself.

    Args:
        model: A prepared model.
        layers: Its layers.
        batches: Inputs by name, each (batch, ...), from which the sizes of channels are taken; read only where they matter. Factors are
            chosen from every second one and judged on all: a channel that is rarely used looks small on few samples.

    Raises:
        CalibrationError: The model cannot run on these samples.
    """
    work = ir.from_proto(without_foreign_types(model))
    kept, names, changed = fused_nodes(work.graph), Names(names_in(work)), set[ir.Value]()
    between = {node: readers for node in work.graph if (readers := _readers(work.graph, node, kept, names))}
    if not between:
        return model, 0
    read = {reader.tensor: reader.in_axis for readers in between.values() for reader in readers}
    seen = channel_statistics(model, layers, read, batches)
    count = 0
    for node, readers in between.items():
        described = [_described(reader, seen) for reader in readers]
        known = [one for one in described if one is not None]
        if len(known) != len(readers):
            continue
        factors, left = best_factors(known)
        if left < WORTHWHILE:
            count += Plan(work.graph, kept, names, changed).rescale_between(node, factors)
    if not count:
        return model, 0
    rename_changed(changed, names, "equalized")
    return written(work, model), count


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A layer that reads another one's channels, without its weight: those of all layers together are the model once more."""

    node: ir.Node
    tensor: str  # that it reads
    in_axis: int
    channels_in: int


def _readers(graph: ir.Graph, node: ir.Node, kept: frozenset[ir.Node], names: Names) -> tuple[_Reading, ...]:
    """Return the layers that read a layer's channels, each of them as it is; () where factors cannot go between."""
    made = parameters_of(node) if node.op_type in LAYERS else None
    if made is None:
        return ()
    drafted = Plan(graph, kept, names, set()).readers_of(node)
    found = [reader for one in drafted if (reader := parameters_of(one.node)) is not None]
    if len(found) != len(drafted) or any(one.channels_in != made.channels_out for one in found):
        return ()
    return tuple(_Reading(one.node, _name(one), one.in_axis, one.channels_in) for one in found)


def _described(reader: _Reading, seen: Mapping[str, SeenChannels]) -> Reader | None:
    statistics = seen.get(reader.tensor)
    now = parameters_of(reader.node)  # its own outputs may have been scaled by now
    if statistics is None or now is None or len(statistics.judged_on.largest) != reader.channels_in:
        return None
    return Reader(now.weight_by_output(), now.groups if now.node.op_type in ("Conv", "ConvTranspose") else 1, statistics)


def _name(reader: Parameters) -> str:
    value = reader.node.inputs[reader.activation]
    return "" if value is None or value.name is None else value.name
