"""The work of self-check that needs no GPU, as stages that run in child processes; the table names those on the GPU too.

Every stage takes ``case``, the name of one, and finds the files of ``prepare`` in the workspace.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from calibration.codec import json_from_value
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare as prepared_model
from calibration.onnx_model.model_io import read_model, save_model
from calibration.ranges.collection import collect_ranges
from calibration.ranges.range_table import RangeMethod
from engine_builder.backends.achieved_precision import achieved_precisions
from engine_builder.backends.nvidia.tensorrt_api import USED_API
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.errors import EngineError, UnsupportedTargetError
from engine_builder.qdq.checks.validator import validate_tensorrt
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from engine_builder.self_check.cases import Case, asked_of, assignment_of, case_by_name, compared, macs_of
from engine_builder.self_check.first_contact.engine import gpu_first_build, gpu_first_run, gpu_first_strip
from engine_builder.self_check.fit import roofline_parts
from engine_builder.self_check.gpu import gpu_build, gpu_device, gpu_run, gpu_time
from engine_builder.self_check.model import INPUT, checked_network
from engine_builder.self_check.workspace import EXPLICIT, PREPARED, REFERENCE, SAMPLES, SIMULATED, outputs_of, read_floats, shapes_of
from engine_builder.workspace.workspace import StageContext


def prepare(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Make the network, measure its ranges and run it in float32; says how many layers it has and how good it is."""
    del request
    made = checked_network()
    context.progress(0.5, "network made")
    model = prepared_model(made.model).model
    layers = find_layers(model)
    path = context.workspace.path(PREPARED)
    save_model(model, path)
    table = collect_ranges(path, layers, [{INPUT: made.calibration}], method=RangeMethod.MINMAX)
    found = outputs_of(OrtCpuRunner(path, threads=2), made.validation)
    spans = ranges_of_moved_tensors(model, table.ranges)
    context.workspace.write_arrays(SAMPLES, pictures=made.validation, names=np.array(list(spans)), spans=np.array(list(spans.values())))
    context.workspace.write_arrays(REFERENCE, logits=found)
    kinds = Counter(layer.op_type for layer in layers)
    return {"layers": dict(kinds), "accuracy": float(np.mean(found.argmax(axis=1) == made.labels)), "samples": len(found)}


def simulate(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Write the explicit model, check that no trap is in it, and run it in ONNX Runtime; says how it agrees with float32."""
    case = _case(request)
    model = read_model(context.workspace.path(PREPARED))
    layers = find_layers(model)
    arrays = np.load(context.workspace.path(SAMPLES), allow_pickle=False)
    ranges = {str(name): (float(low), float(high)) for name, (low, high) in zip(arrays["names"], arrays["spans"], strict=True)}
    precisions = assignment_of(case, model, layers)
    explicit = rewrite_tensorrt(model, layers, precisions, ranges)
    validate_tensorrt(explicit, compute_capability=None)
    path = context.workspace.path(EXPLICIT.format(case.model))
    save_model(explicit, path)
    found = outputs_of(OrtCpuRunner(path, threads=2, as_written=True), np.asarray(arrays["pictures"], dtype=np.float32))
    context.workspace.write_arrays(SIMULATED.format(case.model), logits=found)
    reference = read_floats(context, REFERENCE)
    asked = asked_of(precisions, layers)
    return {
        "asked": {name: precision.value for name, precision in asked.items()},
        "comparison": json_from_value(compared(reference, found)),
    }


def rtx_build(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Build the plan for the GPU named ``gpu``; says what each layer of ``asked`` got and what the roofline predicts."""
    case = _case(request)
    backend = TensorRtRtxBackend(str(request["gpu"]))
    explicit = context.workspace.path(EXPLICIT.format(case.model))
    model = read_model(context.workspace.path(PREPARED))
    layers = find_layers(model)
    start = time.perf_counter()
    engine = backend.build(explicit, context.scratch / "engine.plan", shapes=shapes_of(case))
    seconds = time.perf_counter() - start
    rows = achieved_precisions(engine.kernels, asked_of(assignment_of(case, model, layers), layers))
    return {
        "build_seconds": seconds,
        "plan_bytes": engine.size_bytes,
        "reached": [json_from_value(row) for row in rows],
        "roofline": json_from_value(roofline_parts(engine.kernels_at_opt, backend.gpu, macs=macs_of(case, model))),
    }


def names(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Load the package ``package`` and return its version and which names that this program uses it lacks.

    Raises:
        UnsupportedTargetError: It is not installed.
        EngineError: It is, and does not load.
    """
    del context
    package = str(request["package"])
    if importlib.util.find_spec(package) is None:
        extra = "rtx" if package == "tensorrt_rtx" else "gpu"
        raise UnsupportedTargetError(f"{package} is not installed", fix=f"pip install 'onnx-trt-optimizer[{extra}]'")
    try:
        module = importlib.import_module(package)
    except (ImportError, OSError, RuntimeError) as exc:
        raise EngineError(f"{package} is installed but does not load: {exc}", fix="install it again, with its libraries") from exc
    lacking = [name for name in USED_API if not _has(module, name)]
    return {"version": str(module.__version__), "used": len(USED_API), "lacking": lacking}


def _has(module: object, name: str) -> bool:
    at = module
    for part in name.split("."):
        if not hasattr(at, part):  # what is only there to be overridden is told in words
            return f"def {part}(" in (getattr(at, "__doc__", None) or "")
        at = getattr(at, part)
    return True


def _case(request: Mapping[str, object]) -> Case:
    return case_by_name(str(request["case"]))


STAGES: Mapping[str, Callable[[Mapping[str, object], StageContext], dict[str, object]]] = {
    "prepare": prepare,
    "simulate": simulate,
    "rtx_build": rtx_build,
    "names": names,
    "gpu_first_build": gpu_first_build,
    "gpu_first_run": gpu_first_run,
    "gpu_first_strip": gpu_first_strip,
    "gpu_device": gpu_device,
    "gpu_build": gpu_build,
    "gpu_run": gpu_run,
    "gpu_time": gpu_time,
}
