"""The tensorrt target: what it offers, keeps and refuses; its builder is tested in test_tensorrt_build.py, its runner beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray

from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import TENSORRT_SCHEME, Precision
from engine_builder.backends.base import Backend
from engine_builder.backends.build_options import CACHE_SUFFIX, BuildOptions
from engine_builder.backends.gpu.cuda_runtime import CudaDevice
from engine_builder.backends.gpu.devices import open_cuda
from engine_builder.backends.gpu.lock import gpu_lock
from engine_builder.backends.gpu.state import open_gpu_monitor
from engine_builder.backends.kernels import KernelTime
from engine_builder.backends.nvidia import tensorrt
from engine_builder.backends.nvidia.gpu_timing import time_engines
from engine_builder.backends.nvidia.network_build import Plan
from engine_builder.backends.nvidia.stripped.refit import weights_of
from engine_builder.backends.nvidia.tensorrt import PROFILED_RUNS, TensorRtBackend, timing_cache_path
from engine_builder.config.builder_options import BuilderConfig, BuildRoutes, check_builder
from engine_builder.config.config import ShapeRange
from engine_builder.errors import BuildError, UnsupportedTargetError
from engine_builder.records.build_route import Knob
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_tensorrt import EngineInspector, fake_tensorrt

FEEDS: dict[str, NDArray[Any]] = {"x": np.ones((2, 3), dtype=np.float32), "sizes": np.array([3], dtype=np.int64)}


@dataclass
class FakeBuilder:
    """Stands in for ``build_plan``: gives a plan and notes the timing cache that it was given."""

    plan: bytes = b"double"
    knobs: str = ""
    caches: list[bytes] = field(default_factory=list)
    options: list[BuildOptions] = field(default_factory=list)

    def __call__(self, trt: ModuleType, model: Path, options: BuildOptions, *, timing_cache: bytes, **more: object) -> Plan:
        self.options.append(options)
        self.caches.append(timing_cache)
        return Plan(self.plan, timing_cache + b"+", (), (), self.knobs)


def backend(cache_folder: Path | None = None) -> TensorRtBackend:
    gpu = FakeGpu()
    return TensorRtBackend(options=BuildOptions(timing_caches=cache_folder), load=lambda: fake_tensorrt(gpu), open_gpu=lambda: gpu)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    made = FakeBuilder()
    monkeypatch.setattr(tensorrt, "build_plan", made)
    return made


def test_capabilities_need_neither_gpu_nor_library() -> None:
    def missing() -> ModuleType:
        raise AssertionError("asked for the library")

    made: Backend = TensorRtBackend(load=missing)
    assert made.capabilities.baseline == Precision.FP16
    assert made.capabilities.scheme == TENSORRT_SCHEME
    assert made.capabilities.latency_source == "measured"


@pytest.mark.parametrize(
    ("capability", "quantized"),
    [
        (None, (Precision.INT8, Precision.FP8, Precision.INT4)),
        ((7, 5), (Precision.INT8, Precision.INT4)),
        ((8, 6), (Precision.INT8, Precision.INT4)),
        ((8, 9), (Precision.INT8, Precision.FP8, Precision.INT4)),
        ((12, 0), (Precision.INT8, Precision.FP8, Precision.INT4)),
    ],
)
def test_fp8_is_offered_where_the_gpu_has_it(capability: tuple[int, int] | None, quantized: tuple[Precision, ...]) -> None:
    assert TensorRtBackend(capability).capabilities.low_precisions == quantized


def test_gpu_older_than_turing_is_refused() -> None:
    with pytest.raises(UnsupportedTargetError, match=r"compute capability 7\.0, expected 7\.5 or newer"):
        TensorRtBackend((7, 0))


def test_built_engine_runs_and_what_its_inspector_says_lies_beside_it(builder: FakeBuilder, tmp_path: Path) -> None:
    target = backend()
    engine = target.build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
    assert engine.size_bytes == len(builder.plan)
    assert engine.data_files == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.plan", "engine.plan.layers.json"]
    assert engine.layers == tmp_path / "engine.plan.layers.json"
    assert engine.layers.read_text(encoding="utf-8").startswith('{"Layers": [{"Name": "kernel1"')
    runner = target.open(engine.path, threads=1)
    np.testing.assert_array_equal(runner.run(FEEDS)[0], FEEDS["x"] * 2)


def test_a_build_tells_the_knobs_of_the_builder(builder: FakeBuilder, tmp_path: Path) -> None:
    assert backend().build(tmp_path / "explicit.onnx", tmp_path / "engine.plan").knobs == ()
    builder.knobs = '{"tuner_options": [{"option": "-a", "allowed_values": "-a=[on|off]", "default_value": "on"}]}'
    assert backend().build(tmp_path / "explicit.onnx", tmp_path / "engine.plan").knobs == (Knob("-a", "on", ("on", "off")),)


@pytest.mark.parametrize(("version", "refused"), [((11, 0), True), ((10, 14), True), ((11, 1), False), (None, False)])
def test_routes_are_refused_at_intake_where_the_installed_version_is_known_to_have_none(
    version: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    monkeypatch.setattr(tensorrt, "installed_version", lambda: version)
    support = TensorRtBackend().capabilities.builder
    check_builder(BuilderConfig(), "tensorrt", support, (8, 9))  # the default is no error
    if not refused:
        check_builder(BuilderConfig(build_routes=BuildRoutes.FAST), "tensorrt", support, (8, 9))
        return
    with pytest.raises(
        InvalidConfigError, match=r"builder\.build_routes: found fast, expected none for tensorrt: TensorRT .* is installed"
    ):
        check_builder(BuilderConfig(build_routes=BuildRoutes.FAST), "tensorrt", support, (8, 9))


def test_timing_cache_is_kept_from_build_to_build(builder: FakeBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "driver_version", lambda: "580.95.05")
    for _ in range(3):
        backend(tmp_path / "caches").build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
    assert builder.caches == [b"", b"+", b"++"]
    assert [path.name for path in (tmp_path / "caches").iterdir()] == [f"nvidia-fake-1-cc8.9-tensorrt11.4.0-driver580.95.05{CACHE_SUFFIX}"]


def test_no_two_jobs_build_on_one_gpu_at_once(builder: FakeBuilder, tmp_path: Path) -> None:
    """A builder chooses kernels by timing them."""
    told: list[str] = []

    def on_progress(share: float, phase: str) -> None:
        told.append(phase)
        raise TimeoutError

    with gpu_lock("GPU-1", wait_s=0), pytest.raises(TimeoutError):
        backend().build(tmp_path / "explicit.onnx", tmp_path / "engine.plan", on_progress=on_progress)
    assert told == [f"waiting for the GPU, which process {os.getpid()} uses"]
    assert builder.caches == []
    backend().build(tmp_path / "explicit.onnx", tmp_path / "engine.plan", on_progress=on_progress)  # free again: nobody waits


def test_options_are_passed_on(builder: FakeBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "load_lean_runtime", lambda version: None)
    gpu, options = FakeGpu(), BuildOptions(2**20, 5, hardware_compatible=True, version_compatible=True)
    target = TensorRtBackend(options=options, load=lambda: fake_tensorrt(gpu), open_gpu=lambda: gpu)
    target.build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
    assert builder.options == [options]


def test_timing_caches_differ_by_gpu_type_version_and_driver(tmp_path: Path) -> None:
    small, large = CudaDevice("NVIDIA L4", "a", (8, 9), "1"), CudaDevice("NVIDIA L40S", "b", (8, 9), "2")
    paths = {
        timing_cache_path(tmp_path, device, version, driver)
        for device in (small, large)
        for version in ("11.3.0", "11.4.0")
        for driver in ("580.95.05", "590.1", None)
    }
    assert len(paths) == 12


def test_engine_that_does_not_load_leaves_nothing_behind(builder: FakeBuilder, tmp_path: Path) -> None:
    builder.plan = b"broken"
    with pytest.raises(BuildError, match="cannot load it"):
        backend().build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_a_plan_are_read_and_the_plan_is_closed(builder: FakeBuilder, tmp_path: Path) -> None:
    target = backend()
    engine = target.build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
    found = target.tensors(engine.path)
    assert found is not None
    assert [tensor.name for tensor in (*found.inputs, *found.outputs)] == ["x", "sizes", "y"]


def test_model_is_not_taken_for_an_engine(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"model\.onnx: a model, expected an engine"):
        backend().open(tmp_path / "model.onnx", threads=1)


def test_kernels_and_their_times_are_told_by_node(builder: FakeBuilder, tmp_path: Path) -> None:
    target = backend()
    engine = target.build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
    assert [kernel.name for kernel in engine.kernels] == ["kernel1", "move"]
    assert target.kernel_times(engine.path, FEEDS, threads=1, scratch=tmp_path) == (
        KernelTime(("mul", "relu"), 0.75, layer="kernel1", mean_ms=0.75, runs=PROFILED_RUNS),
        KernelTime((), 0.25, layer="move", mean_ms=0.25, runs=PROFILED_RUNS),
    )


@pytest.mark.parametrize("failure", [RuntimeError("no such layer"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")])
def test_an_inspector_that_fails_does_not_fail_the_build(
    builder: FakeBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def broken(inspector: EngineInspector, form: str) -> str:
        raise failure

    monkeypatch.setattr(EngineInspector, "get_engine_information", broken)
    target = backend()
    engine = target.build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
    assert engine.kernels == ()
    # Then kernels are known by the profiler's names alone.
    found = target.kernel_times(engine.path, FEEDS, threads=1, scratch=tmp_path)
    assert [(time.names, time.milliseconds) for time in found] == [(("kernel1",), 0.75), (("move",), 0.25)]


def stripping(*, puts_back: bool) -> TensorRtBackend:
    gpu = FakeGpu()
    trt = fake_tensorrt(gpu)
    trt.__dict__["Refitter"] = lambda engine, log: SimpleNamespace(refit_cuda_engine=lambda: puts_back, get_missing_weights=lambda: ["w"])
    trt.__dict__["OnnxParserRefitter"] = lambda refitter, log: SimpleNamespace(refit_from_file=lambda path: True)
    return TensorRtBackend(options=BuildOptions(strip_weights=True), load=lambda: trt, open_gpu=lambda: gpu)


def test_beside_a_plan_without_weights_stands_where_they_are(builder: FakeBuilder, tmp_path: Path) -> None:
    (tmp_path / "explicit.onnx").write_bytes(b"weights")
    target = stripping(puts_back=True)
    engine = target.build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
    assert [path.name for path in engine.data_files] == ["engine.plan.stripped.json"]
    assert weights_of(engine.path) == tmp_path / "explicit.onnx"
    np.testing.assert_array_equal(target.open(engine.path, threads=1).run(FEEDS)[0], FEEDS["x"] * 2)


def test_a_plan_whose_weights_do_not_go_back_leaves_nothing_behind(builder: FakeBuilder, tmp_path: Path) -> None:
    (tmp_path / "explicit.onnx").write_bytes(b"weights")
    with pytest.raises(BuildError, match="could not be put back: 1 are missing, 'w' among them"):
        stripping(puts_back=False).build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
    assert [path.name for path in tmp_path.iterdir()] == ["explicit.onnx"]


@pytest.mark.gpu
def test_engine_built_on_the_gpu_runs_reports_and_is_timed_there(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt", reason="tensorrt-cu13 is not installed")
    gpu = open_cuda()
    target = TensorRtBackend(gpu.device.compute_capability, options=BuildOptions(timing_caches=tmp_path / "caches"), open_gpu=lambda: gpu)
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N,4] x) => (float[N,4] y)
    <float[4,4] w = {1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4}>
    { y = MatMul(x, w) }
    """)
    model.graph.node[0].name = "product"
    onnx.save_model(model, tmp_path / "explicit.onnx")
    engine = target.build(tmp_path / "explicit.onnx", tmp_path / "engine.plan", shapes={"x": ShapeRange((1, 4), (2, 4), (4, 4))})
    feeds = {"x": np.ones((3, 4), dtype=np.float32)}
    runner = target.open(engine.path, threads=1)
    found = np.asarray(runner.run(feeds)[0], np.float32)
    np.testing.assert_allclose(found, [[1, 2, 3, 4]] * 3, rtol=1e-3)  # TF32 keeps 10 bits of the fraction
    assert any("product" in kernel.nodes for kernel in engine.kernels)
    monitor = open_gpu_monitor(gpu.device.pci_bus_id)
    times = time_engines({"a": runner}, feeds, gpu, monitor, seconds=0.2, lock_folder=tmp_path)
    assert 0 < times.timings["a"].timing.median_ms < 100
    runner.close()
