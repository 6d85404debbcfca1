"""Folds every constant factor and offset around a layer into its weight and bias, exactly up to rounding.

The fewer steps stand between layers, the less there is to run, and to quantize: behind a quantized layer a separate bias or factor costs
one more rounding, and the layer has no bias that could be corrected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from calibration.graph.free_names import Names
from calibration.graph_passes.folding.channels import constant_of
from calibration.graph_passes.folding.folded_steps import FoldedSteps, Place
from calibration.graph_passes.folding.fused_patterns import fused_nodes
from calibration.graph_passes.folding.plan import Plan

_FOLDABLE = frozenset({"Mul", "Div", "Add", "Sub", "Neg", "BatchNormalization"})


@dataclass(frozen=True, slots=True, eq=False)
class Folding:
    """What was folded."""

    steps: tuple[FoldedSteps, ...]  # sorted
    changed: tuple[ir.Value, ...]  # tensors that no longer hold what the user's tensor of their name does


def fold_into_layers(graph: ir.Graph, names: Names) -> Folding:
    """Fold what can be folded, in place; return what was.

    Rules:
        1. Behind a layer, if nothing else reads what lies between: Mul, Div, Add, Sub, Neg and BatchNormalization by one number or a number
           for each output channel.
        2. Before a layer, if all readers can take it: the same by one number or a number for each input channel; what adds something only
           where the layer has a bias and pads nothing.
        3. Through the steps of ``steps`` and past sums with constants, as far as those let it.
        4. Nothing of ``fused_patterns``; nothing that leaves the numbers that FP16 or float32 hold well (``parameters``).

    Args:
        graph: The main graph, without Identity nodes, its constants initializers, each tensor with its shape and type.
        names: Hands out the names of new constants.
    """
    kept = fused_nodes(graph)
    counts: Counter[tuple[str, Place]] = Counter()
    saved: Counter[tuple[str, Place]] = Counter()
    values: set[ir.Value] = set()
    changed = True
    while changed:
        changed = False
        for node in tuple(graph):
            if node.op_type in _FOLDABLE:
                is_saved = not _is_done_by_the_runtime(node)
                if Plan(graph, kept, names, values).fold_behind(node):
                    counts[node.op_type, Place.BEHIND] += 1
                    saved[node.op_type, Place.BEHIND] += is_saved
                    changed = True
        for node in reversed(tuple(graph)):  # the last before a layer first
            if node.op_type in _FOLDABLE and Plan(graph, kept, names, values).fold_before(node):
                counts[node.op_type, Place.BEFORE] += 1
                saved[node.op_type, Place.BEFORE] += 1
                changed = True
    steps = tuple(FoldedSteps(*key, number, saved[key]) for key, number in sorted(counts.items()))
    return Folding(steps, tuple(value for node in graph for value in node.outputs if value in values))


def rename_changed(values: Iterable[ir.Value], names: Names, how: str = "folded") -> None:
    """Give tensors that hold other values than the user's tensors of their names names of their own, which end in ``how``."""
    for value in values:
        value.name = names.new(value.name or "tensor", how)


def _is_done_by_the_runtime(node: ir.Node) -> bool:
    """Return whether a node stands directly behind a convolution, and onnxruntime's own optimizer would fold it there.

    That are BatchNormalization, and behind a Conv an Add or Mul whose second input has a number for each channel.
    """
    source = node.inputs[0]
    maker = None if source is None else source.producer()
    if maker is None or maker.op_type not in ("Conv", "ConvTranspose"):
        return False
    if node.op_type == "BatchNormalization":
        return True
    constant = constant_of(node, 1)
    return node.op_type in ("Add", "Mul") and maker.op_type == "Conv" and constant is not None and constant.size > 1
