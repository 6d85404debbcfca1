"""Plans built by the real TensorRT-RTX builder, without a GPU."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from calibration.errors import InputError
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import TENSORRT_SCHEME, Precision
from calibration.onnx_model.model_io import read_model, save_model
from calibration.ranges.collection import collect_ranges
from calibration.ranges.range_table import RangeMethod
from engine_builder.backends.achieved_precision import Rule, achieved_precisions
from engine_builder.backends.base import Backend, Engine
from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.gpu.catalogue import known_gpus
from engine_builder.backends.nvidia.tensorrt_rtx import COMPUTE_CAPABILITIES, TensorRtRtxBackend, supported_gpus
from engine_builder.config.config import ShapeRange
from engine_builder.errors import BuildError, EngineError, StageCancelledError, UnsupportedTargetError
from engine_builder.qdq.checks.simulation import simulated as simulation_of
from engine_builder.qdq.rules.eligibility import Eligibility
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from engine_builder.timing import TimingPlan, time_interleaved
from tests.engine_builder import dialect_models as models

trt = pytest.importorskip("tensorrt_rtx", reason="needs the tensorrt-rtx builder (the extra rtx)")

EXAMPLE = Path(__file__).parents[4] / "examples" / "fashion_mnist" / "fmnist_mbv2.onnx"
FP16, INT8, FP8, INT4 = Precision.FP16, Precision.INT8, Precision.FP8, Precision.INT4


def sizes(model: onnx.ModelProto) -> dict[str, ShapeRange]:
    """Return batches of 1 to 16, 8 at best."""
    (value,) = model.graph.input
    rest = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)[1:]
    return {value.name: ShapeRange((1, *rest), (8, *rest), (16, *rest))}


def built(
    model: onnx.ModelProto, folder: Path, gpu: str | None = "L4", on_progress: Callable[[float, str], None] = lambda share, phase: None
) -> Engine:
    explicit = folder / "explicit.onnx"
    onnx.save_model(model, explicit)
    return TensorRtRtxBackend(gpu).build(explicit, folder / "engine.plan", shapes=sizes(model), on_progress=on_progress)


@pytest.mark.parametrize(
    ("make", "asked"),
    [
        (functools.partial(models.residual, "fp16"), {"first": FP16, "second": FP16}),
        (functools.partial(models.residual, "int8"), {"first": INT8, "second": INT8}),
        (functools.partial(models.residual, "mixed"), {"first": INT8, "second": FP16}),
        (functools.partial(models.gemm, "fp16"), {"fc": FP16}),
        (functools.partial(models.gemm, "int8"), {"fc": INT8}),
        (functools.partial(models.gemm, "fp8"), {"fc": FP8}),
        (models.matmul_int4, {"product": INT4}),
        (functools.partial(models.attention, quantized=False), dict.fromkeys(("q0", "k0", "v0", "scores", "mixed", "out"), FP16)),
        (functools.partial(models.attention, quantized=True), {"q0": FP16, "scores": INT8, "mixed": INT8, "out": FP16}),
        (models.depthwise_int8, {"depthwise": INT8}),
        (models.fallback_region, {"first": FP16, "y": Precision.FP32}),
    ],
)
def test_plan_runs_each_layer_in_the_precision_asked_for(
    make: Callable[[], onnx.ModelProto], asked: dict[str, Precision], tmp_path: Path
) -> None:
    found = achieved_precisions(built(make(), tmp_path).kernels, asked)
    assert {layer.layer: (layer.got, layer.reason) for layer in found} == {name: (precision, None) for name, precision in asked.items()}


@pytest.mark.parametrize(
    ("make", "node", "rule"),
    [
        (functools.partial(models.gemm, "weight"), "fc", Rule.WEIGHT_ONLY),
        (functools.partial(models.transposed, quantized=True), "up", Rule.TRANSPOSED),
        (models.half_quantized_conv, "conv", Rule.NOT_QUANTIZED),
        (functools.partial(models.attention, quantized=False), "scores", Rule.ATTENTION),
    ],
)
def test_what_the_builder_runs_in_floating_point_after_all_is_explained(
    make: Callable[[], onnx.ModelProto], node: str, rule: Rule, tmp_path: Path
) -> None:
    (found,) = achieved_precisions(built(make(), tmp_path).kernels, {node: INT8})
    assert (found.got, found.reason) == (FP16, rule)


def test_plan_lists_its_kernels_open_and_at_opt(tmp_path: Path) -> None:
    engine = built(models.residual("int8"), tmp_path)
    assert any(-1 in tensor.shape for kernel in engine.kernels for tensor in kernel.outputs)
    assert {tensor.shape[0] for kernel in engine.kernels_at_opt for tensor in kernel.outputs} == {8}


def test_model_of_fixed_sizes_is_built_once(tmp_path: Path) -> None:
    model = models.gemm("int8")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    explicit = tmp_path / "explicit.onnx"
    onnx.save_model(model, explicit)
    engine = TensorRtRtxBackend("L4").build(explicit, tmp_path / "engine.plan")
    assert engine.kernels is engine.kernels_at_opt


def predicted_ms(backend: TensorRtRtxBackend, engine: Engine) -> float:
    runners = {"engine": backend.open(engine.path, threads=1)}
    timing = backend.timings(runners, {}, TimingPlan(1.0, 1, 1, time_interleaved))["engine"]
    assert timing.runs == 0
    return timing.median_ms


def test_double_write_of_a_mixed_residual_block_shows_in_the_prediction(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("int8", "mixed")}
    for folder in folders.values():
        folder.mkdir()
    outputs = {name: built(models.residual(name), folder).kernels_at_opt[0].outputs for name, folder in folders.items()}
    assert [sorted(tensor.dtype for tensor in outputs[name]) for name in ("int8", "mixed")] == [["int8"], ["half", "int8"]]


def test_kernel_times_add_up_to_the_predicted_latency_and_name_the_layers(tmp_path: Path) -> None:
    backend = TensorRtRtxBackend("L4")
    engine = built(models.residual("int8"), tmp_path)
    times = backend.kernel_times(engine.path, {}, threads=1, scratch=tmp_path)
    assert {"first", "second"} <= {name for kernel in times for name in kernel.names}
    assert sum(kernel.milliseconds for kernel in times) == pytest.approx(predicted_ms(backend, engine))


def test_backend_keeps_the_protocol() -> None:
    backend: Backend = TensorRtRtxBackend("L4")
    capabilities = backend.capabilities
    assert (capabilities.target, capabilities.baseline, capabilities.scheme) == ("tensorrt-rtx", FP16, TENSORRT_SCHEME)
    assert (capabilities.latency_source, capabilities.kernel_times) == ("predicted", "predicted")


@pytest.mark.parametrize(("gpu", "quantized"), [("RTX 3090", (INT8, INT4)), ("RTX 4090", (INT8, FP8, INT4)), (None, (INT8, FP8, INT4))])
def test_low_precisions_are_those_of_the_gpu(gpu: str | None, quantized: tuple[Precision, ...]) -> None:
    assert TensorRtRtxBackend(gpu).capabilities.low_precisions == quantized


def test_compute_capabilities_are_the_packages() -> None:
    names = {name for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    assert {"SM{}{}".format(*capability) for capability in COMPUTE_CAPABILITIES} == names


@pytest.mark.parametrize("capability", sorted({gpu.compute_capability for gpu in supported_gpus()}))
def test_every_supported_generation_builds(capability: tuple[int, int], tmp_path: Path) -> None:
    gpu = next(gpu.name for gpu in supported_gpus() if gpu.compute_capability == capability)
    engine = built(models.gemm("int8"), tmp_path, gpu)
    assert predicted_ms(TensorRtRtxBackend(gpu), engine) > 0


@pytest.mark.parametrize("gpu", ["H100", "NVIDIA H200", "GH200", "B200"])
def test_gpu_without_rtx_is_refused_by_name_with_what_to_use(gpu: str) -> None:
    with pytest.raises(UnsupportedTargetError, match=gpu.split()[-1]) as raised:
        TensorRtRtxBackend(gpu)
    assert "use the target 'tensorrt'" in raised.value.fix
    assert isinstance(raised.value, InputError)


def test_supported_gpus_are_all_but_the_data_center_ones_since_hopper() -> None:
    assert {gpu.name for gpu in known_gpus()} - {gpu.name for gpu in supported_gpus()} == {"H100", "H100 PCIe", "H200", "GH200", "B200"}


def test_fp8_for_a_gpu_without_it_is_a_build_error_in_the_builders_words(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="fp8_e4m3"):
        built(models.gemm("fp8"), tmp_path, "RTX 3090")
    assert [path.name for path in tmp_path.iterdir()] == ["explicit.onnx"]


def test_prediction_needs_a_gpus_name(tmp_path: Path) -> None:
    engine = built(models.gemm("fp16"), tmp_path, None)
    with pytest.raises(UnsupportedTargetError, match="found none"):
        predicted_ms(TensorRtRtxBackend(), engine)


def test_parser_error_names_the_node(tmp_path: Path) -> None:
    model = models.gemm("fp16")
    model.graph.node[-2].input[2] = "wide"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(96, np.float32), "wide"))
    with pytest.raises(BuildError, match=r"node 'fc' \(Gemm\).*Half and Float") as raised:
        built(model, tmp_path)
    assert "cudaError" not in raised.value.detail


def test_garbage_is_a_build_error(tmp_path: Path) -> None:
    explicit = tmp_path / "explicit.onnx"
    explicit.write_bytes(b"\x08\x08garbage")
    with pytest.raises(BuildError, match=r"explicit\.onnx"):
        TensorRtRtxBackend("L4").build(explicit, tmp_path / "engine.plan")
    assert list(tmp_path.iterdir()) == [explicit]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "dynamic inputs without shapes: 'x'"),
        ({"z": ShapeRange((1, 64), (1, 64), (1, 64))}, "no input 'z', expected one of x"),
        ({"x": ShapeRange((1,), (1,), (1,))}, "is declared .* found"),
        ({"x": ShapeRange((1, 32), (1, 64), (1, 64))}, "is declared .* found"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_before_the_build(shapes: dict[str, ShapeRange], message: str, tmp_path: Path) -> None:
    explicit = tmp_path / "explicit.onnx"
    onnx.save_model(models.gemm("fp16"), explicit)
    with pytest.raises(BuildError, match=message):
        TensorRtRtxBackend("L4").build(explicit, tmp_path / "engine.plan", shapes=shapes)


def test_external_data_is_found_beside_the_model_and_goes_into_the_plan(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    model = models.gemm("int8")
    save_model(model, source / "explicit.onnx", limit_bytes=0)
    assert (source / "explicit.onnx.data").exists()
    engine = TensorRtRtxBackend("L4").build(source / "explicit.onnx", tmp_path / "engine.plan", shapes=sizes(model))
    inside = tmp_path / "inside"
    inside.mkdir()
    assert engine.path.read_bytes() == built(model, inside).path.read_bytes()


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    model = models.gemm("int8")
    save_model(model, tmp_path / "explicit.onnx", limit_bytes=0)
    (tmp_path / "explicit.onnx.data").unlink()
    with pytest.raises(BuildError, match=r"lies in explicit\.onnx\.data"):
        TensorRtRtxBackend("L4").build(tmp_path / "explicit.onnx", tmp_path / "engine.plan", shapes=sizes(model))


def test_build_stops_when_told_to_and_leaves_nothing(tmp_path: Path) -> None:
    phases: list[str] = []

    def stop_at_the_third(share: float, phase: str) -> None:
        phases.append(phase)
        if len(phases) == 3:
            raise StageCancelledError("cancelled at the third step", fix="none")

    with pytest.raises(StageCancelledError, match="cancelled at the third step"):
        built(models.residual("int8"), tmp_path, on_progress=stop_at_the_third)
    assert len(phases) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["explicit.onnx"]


def test_error_of_the_progress_callback_comes_out_of_the_build(tmp_path: Path) -> None:
    def fail(share: float, phase: str) -> None:
        raise RuntimeError(f"lost at {phase}")

    with pytest.raises(RuntimeError, match="lost at"):
        built(models.gemm("int8"), tmp_path, on_progress=fail)


def test_failed_build_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="fp8"):
        built(models.gemm("fp8"), tmp_path, "RTX 3090")
    assert built(models.gemm("int8"), tmp_path, "RTX 3090").size_bytes > 0


def test_too_little_workspace_is_a_build_error(tmp_path: Path) -> None:
    model = models.gemm("int8")
    explicit = tmp_path / "explicit.onnx"
    onnx.save_model(model, explicit)
    with pytest.raises(BuildError, match="workspace limit"):
        TensorRtRtxBackend("L4", options=BuildOptions(workspace_bytes=2**20)).build(explicit, tmp_path / "engine.plan", shapes=sizes(model))


@pytest.mark.parametrize("make", [functools.partial(models.residual, "int8"), functools.partial(models.gemm, "fp8"), models.matmul_int4])
def test_explicit_model_can_be_simulated_without_a_gpu(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    model = make()
    explicit = tmp_path / "explicit.onnx"
    onnx.save_model(model, explicit)
    backend = TensorRtRtxBackend("L4")
    runner = backend.open(backend.build(explicit, tmp_path / "engine.plan", shapes=sizes(model)).path, threads=1)
    x = np.random.default_rng(0).standard_normal(sizes(model)["x"].opt).astype(np.float32)
    (output,) = runner.run({"x": x})
    runner.close()
    assert output.dtype == np.float32
    assert np.isfinite(output).all()
    assert np.abs(output).max() > 0


def test_no_thread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="threads"):
        TensorRtRtxBackend("L4").open(tmp_path / "engine.plan", threads=0)


def test_lost_list_of_kernels_is_a_build_error(tmp_path: Path) -> None:
    engine = built(models.gemm("fp16"), tmp_path)
    (listed,) = engine.data_files
    assert set(json.loads(listed.read_text())) == {"explicit", "kernels_at_opt"}
    listed.unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        TensorRtRtxBackend("L4").kernel_times(engine.path, {}, threads=1, scratch=tmp_path)
    with pytest.raises(EngineError, match="cannot be read"):
        TensorRtRtxBackend("L4").open(engine.path, threads=1)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # how Python itself marks a package that cannot be imported
    with pytest.raises(UnsupportedTargetError, match="found no tensorrt_rtx package") as raised:
        TensorRtRtxBackend("L4")
    assert raised.value.fix == "install onnx-trt-optimizer[rtx]"


def test_a_simulated_fp8_net_with_residual_sums_computes_what_its_graph_says(tmp_path: Path) -> None:
    prepared = prepare(read_model(EXAMPLE)).model
    layers = find_layers(prepared, {"input": (8, 1, 28, 28)})
    x = np.random.default_rng(0).standard_normal((8, 1, 28, 28)).astype(np.float32)
    path = tmp_path / "prepared.onnx"
    save_model(prepared, path)
    ranges = ranges_of_moved_tensors(prepared, collect_ranges(path, layers, [{"input": x}], method=RangeMethod.MINMAX).ranges)
    eligibility = Eligibility(prepared, layers)
    quantized = {layer.name: FP8 for layer in layers if eligibility.can_take(layer, FP8)}
    engine = built(rewrite_tensorrt(prepared, layers, quantized, ranges, baseline=FP16), tmp_path, "RTX 4090")
    (simulated,) = TensorRtRtxBackend("RTX 4090").open(engine.path, threads=1).run({"input": x})
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    work = simulation_of(onnx.load_model(tmp_path / "explicit.onnx"))
    session = onnxruntime.InferenceSession(work.SerializeToString(), plain, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": x})
    assert np.abs(simulated - expected).max() <= 0.02 * np.abs(expected).max()  # sums in another order, then halves and FP8: a step or two
    # Without the roundings to 16 bits other values turn from one FP8 step to the next, but no more of them: the error is of the same size.
    floats, exact = (
        onnxruntime.InferenceSession(str(file), plain, providers=["CPUExecutionProvider"]) for file in (path, tmp_path / "explicit.onnx")
    )
    (reference,), (unrounded,) = (each.run(None, {"input": x}) for each in (floats, exact))
    assert np.linalg.norm(simulated - reference) == pytest.approx(np.linalg.norm(unrounded - reference), rel=0.25)
