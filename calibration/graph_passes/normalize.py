"""One form for every model: float32, a recent opset, constant weights that each belong to one layer, and unique names.

The prepared model computes what the user's model computes, from the same inputs to the same outputs; only standard operators are in it,
and nothing in it depends on the machine. All that follows (ranges, probes, rewriting) reads this form only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes import common

from calibration.errors import InvalidModelError
from calibration.graph.free_names import Names, free_name, names_in
from calibration.graph.opset import STANDARD_DOMAINS
from calibration.graph.runtime_view import complaint, refusal, types_of
from calibration.graph.type_inference import standing_in
from calibration.graph.weightless import big_weights, weightless_copy
from calibration.graph_passes.constant_branches import take_branches
from calibration.graph_passes.expand_functions import expand
from calibration.graph_passes.fold_constants import fold_constants, remove_no_ops
from calibration.graph_passes.folding.biases import complete_biases
from calibration.graph_passes.folding.fold import Folding, fold_into_layers, rename_changed
from calibration.graph_passes.folding.folded_steps import FoldedSteps, folded_in_words
from calibration.graph_passes.fuse_into_layers import fold_gemm_factors, fold_pads
from calibration.graph_passes.to_float32 import convert_to_float32, float_type
from calibration.graph_passes.written_form import written
from calibration.number_formats.precision import Precision
from calibration.onnx_model.foreign_types import foreign_values, without_foreign_types
from calibration.onnx_model.opset_conversion import modernize

_HIDDEN = "no tensors"  # a domain of which nothing is inferred
_PARAMETERS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1)}  # inputs that hold a weight or bias


@dataclass(frozen=True, slots=True, eq=False)
class PreparedModel:
    """A model in the one form, and how it differs from the user's."""

    model: onnx.ModelProto
    notes: tuple[str, ...]  # what was changed, in the user's words
    float_type: Precision  # of the user's own weights: fp32, fp16 or bf16
    folded: tuple[FoldedSteps, ...] = ()  # into the layers around them
    is_equalized: bool = False  # whether channels between layers were scaled


def prepare(model: onnx.ModelProto, expanded: Collection[str] = (), *, folds: bool = True) -> PreparedModel:
    """Return ``model`` in the one form; ``model`` itself is left as it is.

    Args:
        model: A model from ``read_model``.
        expanded: Operators to replace by those that ONNX defines them by.
        folds: Whether constant factors and offsets around layers go into their weights and biases.

    Raises:
        InvalidModelError: It cannot be converted, or onnxruntime cannot run it.
    """
    notes: list[str] = []
    found = complaint(model)
    if found is not None:
        notes.append(f"onnx's checker refuses the model; it is taken, since onnxruntime runs it in its prepared form: {found}")
    graph_only = expand(modernize(weightless_copy(model), notes), expanded, notes)
    foreign = foreign_values(graph_only)
    graph_only = without_foreign_types(graph_only)
    work = _with_weights(graph_only, model)
    _drop_overridable(work, notes)
    common.RemoveUnusedNodesPass()(work)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(work)
    kind = float_type(work)
    _infer(work, foreign)
    if convert_to_float32(work):
        notes.append(f"half-precision tensors computed in float32; inputs and outputs keep their types (weights are mostly {kind.value})")
        _infer(work, foreign)
    _simplify(work, foreign, notes)
    names = Names(names_in(work))
    folding = fold_into_layers(work.graph, names) if folds else Folding((), ())
    complete_biases(work.graph, names)
    if folding.steps:
        notes.append(f"folded into weights and biases: {folded_in_words(folding.steps)}")
    common.RemoveUnusedNodesPass()(work)
    _name_nodes(work)
    rename_changed(folding.changed, names)  # after the nodes, whose names are made of the user's
    _own_parameters(work.graph, notes)
    common.RemoveUnusedNodesPass()(work)
    result = written(work, model)
    _check_runs(result)
    return PreparedModel(result, tuple(notes), kind, folding.steps)


def _with_weights(graph_only: onnx.ModelProto, model: onnx.ModelProto) -> ir.Model:
    """Return the weightless copy with the big weights of ``model`` in it again, not copied."""
    missing = big_weights(model)
    work = ir.from_proto(graph_only)
    placeholders = {value.name: value for value in work.graph.inputs if value.name in missing}
    for tensor in model.graph.initializer:
        value = placeholders.get(tensor.name)
        if value is not None:
            value.const_value = ir.from_proto(tensor)
            work.graph.register_initializer(value)
    listed = {value.name for value in model.graph.input}
    inputs = [value for value in work.graph.inputs if value.name in listed]
    work.graph.inputs.clear()
    work.graph.inputs.extend(inputs)
    return work


def _drop_overridable(work: ir.Model, notes: list[str]) -> None:
    weights = sum(value.is_initializer() for value in work.graph.inputs)
    if weights:
        common.RemoveInitializersFromInputsPass()(work)
        notes.append(f"{_count(weights, 'initializer')} listed as inputs made constant")


def _simplify(work: ir.Model, foreign: frozenset[str], notes: list[str]) -> None:
    counts: Counter[str] = Counter()
    changed = 1
    while changed:
        branches = take_branches(work.graph)
        changed = remove_no_ops(work.graph) + fold_constants(work)
        counts["constant node"] += changed
        counts["If"] += branches
        changed += branches
        if changed:
            _infer(work, foreign)
    counts["Pad"] = fold_pads(work.graph)
    counts["Gemm factor"] = fold_gemm_factors(work.graph)
    common.RemoveUnusedNodesPass()(work)
    if counts["constant node"]:
        notes.append(f"{_count(counts['constant node'], 'constant node')} computed once")
    if counts["If"]:
        notes.append(f"{_count(counts['If'], 'If')} with a constant condition replaced by the branch taken")
    for what, into in (
        ("Pad", "the convolution after it"),
        ("Gemm factor", "its weight and bias"),
    ):
        if counts[what]:
            notes.append(f"{_count(counts[what], what)} folded into {into}")


def _infer(work: ir.Model, foreign: frozenset[str]) -> None:
    """Infer all shapes anew: a dimension once inferred as unknown would stay so; a shape that cannot be inferred stays as it was.

    Where onnx's inference knows no type, as for the operators of other domains, onnxruntime's does.

    Args:
        work: The model.
        foreign: Names of what is no tensor, which onnx_ir would take for one.
    """
    nodes = [node for node in work.graph.all_nodes() if node.domain in STANDARD_DOMAINS]
    known = {value: value.shape for node in nodes for value in node.outputs if not value.is_graph_output()}
    for value in known:
        value.shape = None
    hidden = [node for node in work.graph.all_nodes() if any(value.name in foreign for value in node.outputs)]
    infer = common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    _infer_around(work, hidden, infer)
    made = [value for node in work.graph for value in node.outputs if value.name and value.name not in foreign]
    untyped = {value.name or "": value for value in made if value.type is None}
    found = types_of(ir.to_proto(work), untyped) if untyped else {}
    for name, kind in found.items():
        typed = ir.serde.deserialize_value_info_proto(onnx.ValueInfoProto(name=name, type=kind), None)
        untyped[name].type, untyped[name].shape = typed.type, typed.shape
    if found:
        _infer_around(work, hidden, infer)
    for value, shape in known.items():
        if value.shape is None and value.name not in foreign:
            value.shape = shape


def _infer_around(work: ir.Model, hidden: Iterable[ir.Node], infer: ir.passes.InPlacePass) -> None:
    """Infer shapes of all but the hidden nodes."""
    domains = [(node, node.domain) for node in hidden]
    for node, _ in domains:
        node.domain = _HIDDEN
    work.graph.opset_imports[_HIDDEN] = 1
    with standing_in(work.graph.all_nodes()):
        infer(work)
    del work.graph.opset_imports[_HIDDEN]
    for node, domain in domains:
        node.domain = domain


def _name_nodes(work: ir.Model) -> None:
    """Give each node a name of its own: the user's, else one made of its operator and its first output."""
    taken = {node.name for node in work.graph.all_nodes() if node.name}
    seen: set[str] = set()
    for node in work.graph.all_nodes():
        if not node.name or node.name in seen:
            made = next((value.name for value in node.outputs if value.name), "")
            node.name = free_name(f"{node.name or node.op_type}_{made}", taken)
            taken.add(node.name)
        seen.add(node.name)


def _own_parameters(graph: ir.Graph, notes: list[str]) -> None:
    """Give each layer its own copy of a weight or bias that something else uses too; the first in the graph keeps the original."""
    taken = {value.name or "" for node in graph.all_nodes() for value in node.outputs} | set(graph.initializers)
    taken |= {value.name or "" for value in graph.inputs}
    copied: list[str] = []
    for node in reversed(tuple(graph)):
        for index in _PARAMETERS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None or not value.is_initializer() or (len(value.uses()) < 2 and not value.is_graph_output()):
                continue
            name = free_name(f"{value.name}_{node.name}", taken)
            taken.add(name)
            own = ir.Value(name=name, type=value.type, shape=value.shape, const_value=value.const_value)
            graph.register_initializer(own)
            node.replace_input_with(index, own)
            copied.append(value.name or "")
    notes.extend(f"'{name}' is shared; {_count(times, 'layer')} got a copy of its own" for name, times in sorted(Counter(copied).items()))


def _check_runs(model: onnx.ModelProto) -> None:
    why = refusal(model)
    if why is not None:
        raise InvalidModelError(
            f"model: onnxruntime {onnxruntime.__version__} cannot run it: {why}",
            fix="Check that the model runs in onnxruntime (CPU) as it is, then upload it again.",
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
