"""The work of self-check that needs the GPU and TensorRT, as stages that run in child processes. Not yet run on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from calibration.codec import json_from_value, value_from_json
from calibration.graph.layers import find_layers
from calibration.onnx_model.model_io import read_model
from engine_builder.backends.achieved_precision import achieved_precisions
from engine_builder.backends.gpu.catalogue import gpu_by_name
from engine_builder.backends.gpu.cuda_runtime import CudaRuntime
from engine_builder.backends.gpu.devices import open_cuda
from engine_builder.backends.gpu.state import GpuMonitor, open_gpu_monitor
from engine_builder.backends.gpu.visible_gpu import DRIVER
from engine_builder.backends.nvidia.gpu_timing import TimedEngines, time_engines
from engine_builder.backends.nvidia.runner import TensorRtRunner
from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
from engine_builder.backends.nvidia.tensorrt_api import load_tensorrt, require_tensorrt
from engine_builder.errors import EngineError, UnsupportedTargetError
from engine_builder.self_check.cases import CASES, Case, asked_of, assignment_of, case_by_name, compared, file_stem, macs_of
from engine_builder.self_check.first_contact.stages import require_driver
from engine_builder.self_check.fit import roofline_parts
from engine_builder.self_check.model import INPUT
from engine_builder.self_check.times import EngineTimes
from engine_builder.self_check.workspace import EXPLICIT, PLAN, PREPARED, SAMPLES, SIMULATED, outputs_of, read_floats, shapes_of
from engine_builder.workspace.workspace import StageContext

SECONDS = 3.0  # of timed runs, for each group of engines and each way to start them


def gpu_device(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Return the first visible GPU, its driver and the versions that run it.

    Raises:
        UnsupportedTargetError: There is no driver, or a package is not installed.
        EngineError: All are there and do not work.
    """
    del request, context
    require_driver(DRIVER)
    require_tensorrt()
    trt, cuda = load_tensorrt(), open_cuda()
    monitor = open_gpu_monitor(cuda.device.pci_bus_id)
    info = None if monitor is None else monitor.info()
    return {
        "name": cuda.device.name,
        "compute_capability": list(cuda.device.compute_capability),
        "driver": None if info is None else info.driver,
        "mig": None if info is None else info.mig,
        "tensorrt": str(trt.__version__),
        "cuda": cuda.package,
    }


def gpu_build(
    request: Mapping[str, object], context: StageContext, *, make: Callable[[], TensorRtBackend] = TensorRtBackend
) -> dict[str, object]:
    """Build the engine of ``case``; says what each layer got, by the engine's inspector, and what the roofline predicts from it."""
    case = case_by_name(str(request["case"]))
    backend = make()
    model = read_model(context.workspace.path(PREPARED))
    layers = find_layers(model)
    start = time.perf_counter()
    explicit = context.workspace.path(EXPLICIT.format(case.model))
    engine = backend.build(explicit, context.scratch / "engine.plan", shapes=shapes_of(case))
    seconds = time.perf_counter() - start
    context.workspace.copy(engine.path, PLAN.format(file_stem(case)))
    rows = achieved_precisions(engine.kernels, asked_of(assignment_of(case, model, layers), layers))
    found: dict[str, object] = {
        "build_seconds": seconds,
        "plan_bytes": engine.size_bytes,
        "reached": [json_from_value(row) for row in rows],
        "kernels": json_from_value(engine.kernels),  # for us, where the rows are not as expected
    }
    try:
        gpu = gpu_by_name(str(request["gpu"]))
        found["roofline"] = json_from_value(roofline_parts(engine.kernels, gpu, macs=macs_of(case, model)))
    except (EngineError, UnsupportedTargetError) as error:
        found["no_roofline_because"] = error.detail
    return found


def gpu_run(
    request: Mapping[str, object], context: StageContext, *, make: Callable[[], TensorRtBackend] = TensorRtBackend
) -> dict[str, object]:
    """Run the engine of ``case`` on the pictures; says how it agrees with its simulation in ONNX Runtime."""
    case = case_by_name(str(request["case"]))
    with np.load(context.workspace.path(SAMPLES), allow_pickle=False) as arrays:
        pictures = np.asarray(arrays["pictures"], dtype=np.float32)
    runner = make().open(context.workspace.path(PLAN.format(file_stem(case))), threads=1)
    found = outputs_of(runner, pictures, batch=case.batch)
    simulated = read_floats(context, SIMULATED.format(case.model))[: len(found)]
    return {"comparison": json_from_value(compared(simulated, found))}


def gpu_time(
    request: Mapping[str, object],
    context: StageContext,
    *,
    open_gpu: Callable[[], CudaRuntime] = open_cuda,
    open_runner: Callable[[Path, CudaRuntime], TensorRtRunner] = lambda plan, cuda: TensorRtRunner(load_tensorrt(), plan, cuda),
    open_monitor: Callable[[str], GpuMonitor | None] = open_gpu_monitor,
    seconds: float = SECONDS,
    lock_folder: Path | None = None,
) -> dict[str, object]:
    """Time the engines of ``cases`` in turns, as CUDA graphs and without; those of another batch size apart."""
    wanted = set(value_from_json(tuple[str, ...], request["cases"]))
    with np.load(context.workspace.path(SAMPLES), allow_pickle=False) as arrays:
        pictures = np.asarray(arrays["pictures"], dtype=np.float32)
    cuda = open_gpu()
    monitor = open_monitor(cuda.device.pci_bus_id)
    found: dict[str, EngineTimes] = {}
    warnings: list[str] = []
    for batch in dict.fromkeys(case.batch for case in CASES if case.name in wanted):
        cases = [case for case in CASES if case.name in wanted and case.batch == batch]
        feeds = {INPUT: np.ascontiguousarray(pictures[:batch])}
        ways: dict[bool, TimedEngines] = {}
        for use_graph in (True, False):
            runners = {case.name: open_runner(context.workspace.path(PLAN.format(file_stem(case))), cuda) for case in cases}
            try:
                ways[use_graph] = time_engines(runners, feeds, cuda, monitor, seconds=seconds, use_graph=use_graph, lock_folder=lock_folder)
            finally:
                for runner in runners.values():
                    runner.close()
            warnings.extend(ways[use_graph].warnings)
        found.update({case.name: _times(case, ways) for case in cases})
    return {"timings": json_from_value(found), "warnings": list(dict.fromkeys(warnings))}


def _times(case: Case, ways: Mapping[bool, TimedEngines]) -> EngineTimes:
    best, plain = ways[True].timings[case.name], ways[False].timings[case.name]
    return EngineTimes(
        graph=best.graph,
        no_graph_because=best.no_graph_because,
        median_ms=best.timing.median_ms,
        p95_ms=best.timing.p95_ms,
        mad_ms=best.timing.mad_ms,
        runs=best.timing.runs,
        without_graph_ms=plain.timing.median_ms,
        enqueue_ms=plain.enqueue_ms,
        transfers_ms=ways[True].transfers[case.name],
    )
