"""What the installed onnxruntime says of a model: whether it takes it, which operators it has, and of which type each tensor is.

onnx's own checker, converter and inference know the standard operators alone, in the versions that the standard gives them. onnxruntime has
more: its own domain, ``ai.onnx.ml``, and operators of the standard domain that were never, or are no longer, in the standard.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping

import onnx
import onnxruntime

from calibration.graph.opset import STANDARD_DOMAINS
from calibration.graph.weightless import weightless_copy

MACHINE_DOMAINS = ("com.microsoft.nchwc", "com.ms.internal.nhwc")  # layouts that the graph optimizer chose for one machine
_IR_OF_FREE_INITIALIZERS = 4  # from here on initializers need not be listed as inputs; onnxruntime never demands it
_ELEMENTS = {
    "float": onnx.TensorProto.FLOAT,
    "double": onnx.TensorProto.DOUBLE,
    **{name.lower(): value for name, value in onnx.TensorProto.DataType.items() if name not in ("FLOAT", "DOUBLE", "UNDEFINED")},
}


def has_operator(domain: str, name: str, opset: int) -> bool:
    """Return whether onnxruntime has the operator; of other domains than the standard one in any version."""
    found = _operators().get(("" if domain in STANDARD_DOMAINS else domain, name), {})
    if domain not in STANDARD_DOMAINS:
        return bool(found)
    fitting = [version for version in found if version <= opset]
    return bool(fitting) and not found[max(fitting)]


def is_standard(domain: str, name: str, opset: int) -> bool:
    """Return whether the ONNX standard has the operator at this opset, and has not given it up."""
    if domain not in STANDARD_DOMAINS or not onnx.defs.has(name, opset):
        return False
    return not onnx.defs.get_schema(name, opset).deprecated


def refusal(model: onnx.ModelProto) -> str | None:
    """Return why onnxruntime does not take the model, in its own words, None if it does. Big weights need not be there."""
    try:
        _session(weightless_copy(model))
    except Exception as exc:  # onnxruntime's exceptions share no base class below Exception
        return " ".join(str(exc).split())
    return None


def objection(model: onnx.ModelProto) -> str | None:
    """Return why onnxruntime takes the model for no sound graph, None if it does. Big weights need not be there.

    Two nodes of one name do not count, nor does a kernel that it lacks: the prepared form may need neither.
    """
    work = weightless_copy(model)
    for node in nodes_of(work.graph):
        node.name = ""
    try:
        _session(work)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return None
    except Exception as exc:  # as above
        return " ".join(str(exc).split())
    return None


def complaint(model: onnx.ModelProto) -> str | None:
    """Return what onnx's checker has against the model, None if nothing."""
    work = weightless_copy(model)
    work.ir_version = max(work.ir_version, _IR_OF_FREE_INITIALIZERS)
    try:
        onnx.checker.check_model(work)
    except (onnx.checker.ValidationError, UnicodeDecodeError, ValueError) as exc:
        return " ".join(str(exc).split("\n\n")[0].split())
    return None


def types_of(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, onnx.TypeProto]:
    """Return the types that onnxruntime infers for tensors of the main graph; what is no tensor, or of unknown type, is left out.

    Args:
        model: A model; big weights need not be there. One that onnxruntime does not take has no types.
        names: Tensors that nodes of the main graph make.
    """
    work = weightless_copy(model)
    listed = {value.name for value in work.graph.output}
    wanted = [name for name in dict.fromkeys(names) if name]
    work.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in listed)
    try:
        session = _session(work)
    except Exception:  # as above; whoever needs the model to run says so
        return {}
    found = {value.name: (value.type, value.shape) for value in session.get_outputs()}
    types = {}
    for name in wanted:
        kind, shape = found[name]
        element = _ELEMENTS.get(kind.removeprefix("tensor(").removesuffix(")")) if kind.startswith("tensor(") else None
        if element is not None:  # onnxruntime gives a scalar and a tensor of unknown rank the same empty shape
            types[name] = onnx.helper.make_tensor_type_proto(element, shape or None)
    return types


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of the graph, those of subgraphs too."""
    yield from graph.node
    for inner in subgraphs(graph):
        yield from nodes_of(inner)


def subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that nodes of the graph hold, not those inside them."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


@functools.cache
def _operators() -> Mapping[tuple[str, str], Mapping[int, bool]]:
    """Return, by domain and name, the versions of each operator and whether that version gives it up."""
    found: dict[tuple[str, str], dict[int, bool]] = {}
    for schema in onnxruntime.capi.onnxruntime_pybind11_state.get_all_operator_schema():
        found.setdefault((schema.domain, schema.name), {})[schema.since_version] = bool(schema.deprecated)
    return found


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
