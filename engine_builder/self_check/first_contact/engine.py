"""A small TensorRT engine, built, run and timed before anything else is: two products, all of it known. Not yet run on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.onnx_model.model_io import save_model
from engine_builder.backends.base import Runner
from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.gpu.devices import open_cuda
from engine_builder.backends.gpu.state import open_gpu_monitor
from engine_builder.backends.nvidia.gpu_timing import time_engines
from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
from engine_builder.config.config import ShapeRange
from engine_builder.errors import EngineError
from engine_builder.workspace.workspace import StageContext

ROWS, SIDE = 64, 512
SECONDS = 0.5
TOLERANCE = 0.02  # of the results' deviation: TF32 keeps 10 bits of the fraction, FP16 too
_MODEL, _PLAN, _INPUT = "first.onnx", "first.plan", "x"
Make = Callable[[], TensorRtBackend]


def gpu_first_build(request: Mapping[str, object], context: StageContext, *, make: Make = TensorRtBackend) -> dict[str, object]:
    """Parse and build the engine; says how long that took and what the inspector says."""
    del request
    path = context.scratch / _MODEL
    save_model(_model(), path)
    start = time.perf_counter()
    backend = make()
    refused = backend.refused(path)
    parsed = time.perf_counter()
    if refused:
        raise EngineError(f"TensorRT's parser refused node {refused[0].name!r}", fix="install a version between 10.12 and 11.4")
    shape = (ROWS, SIDE)
    engine = backend.build(path, context.scratch / _PLAN, shapes={_INPUT: ShapeRange(shape, shape, shape)})
    built = time.perf_counter()
    context.workspace.copy(engine.path, _PLAN)
    return {
        "parse_seconds": parsed - start,  # the library's own start is in it
        "build_seconds": built - parsed,
        "plan_bytes": engine.size_bytes,
        "kernels": [kernel.name for kernel in engine.kernels],
    }


def gpu_first_run(request: Mapping[str, object], context: StageContext, *, make: Make = TensorRtBackend) -> dict[str, object]:
    """Run the engine on known numbers and time it, as a CUDA graph and without.

    Raises:
        EngineError: It computes something else than the processor.
    """
    del request
    cuda = open_cuda()
    runner = make().open(context.workspace.path(_PLAN), threads=1)
    try:
        off = _off(runner)
        monitor = open_gpu_monitor(cuda.device.pci_bus_id)
        feeds = {_INPUT: _numbers(0, (ROWS, SIDE))}
        ways = {
            use_graph: time_engines({"first": runner}, feeds, cuda, monitor, seconds=SECONDS, use_graph=use_graph)
            for use_graph in (True, False)
        }
    finally:
        runner.close()
    graph, plain = ways[True].timings["first"], ways[False].timings["first"]
    return {
        "off": off,
        "graph": graph.graph,
        "no_graph_because": graph.no_graph_because,
        "median_ms": graph.timing.median_ms,
        "without_graph_ms": plain.timing.median_ms,
        "enqueue_ms": plain.enqueue_ms,
        "warnings": list(ways[True].warnings),
    }


def _with_options(options: BuildOptions) -> TensorRtBackend:
    return TensorRtBackend(options=options)


def gpu_first_strip(
    request: Mapping[str, object], context: StageContext, *, make: Callable[[BuildOptions], TensorRtBackend] = _with_options
) -> dict[str, object]:
    """Build the same engine without its weights, put them back, and run it on known numbers; says what that saved.

    Raises:
        BuildError: The plan cannot be built, or the weights do not go back.
        EngineError: The engine with its weights put back computes something else than the processor.
    """
    del request
    path, plan = context.scratch / _MODEL, context.scratch / _PLAN
    save_model(_model(), path)
    backend = make(BuildOptions(strip_weights=True))
    shape = (ROWS, SIDE)
    start = time.perf_counter()
    engine = backend.build(path, plan, shapes={_INPUT: ShapeRange(shape, shape, shape)})
    built = time.perf_counter()
    runner = backend.open(plan, threads=1)
    try:
        off = _off(runner)
    finally:
        runner.close()
    return {
        "build_seconds": built - start,
        "load_and_run_seconds": time.perf_counter() - built,
        "plan_bytes": engine.size_bytes,
        "whole_bytes": context.workspace.path(_PLAN).stat().st_size,
        "weights_bytes": path.stat().st_size,
        "off": off,
    }


def _off(runner: Runner) -> float:
    """Return how far the engine's results are from the processor's, at most, as a share of their deviation.

    Raises:
        EngineError: They are too far off.
    """
    x = _numbers(0, (ROWS, SIDE))
    expected = np.maximum(x @ _weight(1), 0) @ _weight(2)
    found = np.asarray(runner.run({_INPUT: x})[0], dtype=np.float32)
    off = float(np.max(np.abs(found - expected)) / np.std(expected))
    if not off <= TOLERANCE:
        raise EngineError(
            f"the first engine is off by {off:.3g} of its results' deviation, expected at most {TOLERANCE}",
            fix="report it with the file that this command writes",
        )
    return off


def _model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", [_INPUT, "first"], ["a"], name="product1"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "second"], ["y"], name="product2"),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", SIDE]) for name in (_INPUT, "y")]
    weights = [numpy_helper.from_array(_weight(seed), name) for seed, name in ((1, "first"), (2, "second"))]
    graph = helper.make_graph(nodes, "first", tensors[:1], tensors[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _weight(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return _numbers(seed, (SIDE, SIDE)) / np.float32(np.sqrt(SIDE))


def _numbers(seed: int, shape: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
