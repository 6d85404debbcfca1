"""Plans on the GPU of this machine, which is TensorRT-RTX's too where it is the one that is built for; a GPU that pretends stands in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.errors import InvalidConfigError
from engine_builder.backends import registry as backends
from engine_builder.backends.base import Backend
from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.gpu.visible_gpu import VisibleGpu
from engine_builder.backends.nvidia import tensorrt_rtx
from engine_builder.backends.nvidia.local_gpu import LocalGpu
from engine_builder.backends.nvidia.network_build import Plan
from engine_builder.backends.nvidia.rtx.simulated_plan import SimulatedPlan
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from engine_builder.backends.registry import backend_for, gpu_here, opens_gpu, rtx_gpu_here, targets
from engine_builder.backends.target_checks import check_config
from engine_builder.config.builder_options import BuilderConfig, check_builder
from engine_builder.config.config import config_from_json
from engine_builder.errors import BuildError
from engine_builder.timing import MIN_GAIN, TimingPlan, time_interleaved
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_tensorrt import fake_tensorrt
from tests.model_text import cnn

pytest.importorskip("tensorrt_rtx", reason="needs the tensorrt-rtx builder (the extra rtx)")

FEEDS: dict[str, NDArray[Any]] = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "sizes": np.zeros(2, dtype=np.int64)}


@pytest.fixture
def here(tmp_path: Path) -> tuple[Backend, Path]:
    gpu = FakeGpu()
    plan = tmp_path / "engine.plan"
    plan.write_bytes(b"double")
    return TensorRtRtxBackend("RTX 4090", local=LocalGpu(lambda: fake_tensorrt(gpu), lambda: gpu)), plan


def test_a_plan_for_the_gpu_of_this_machine_runs_there(here: tuple[Backend, Path]) -> None:
    backend, plan = here
    runner = backend.open(plan, threads=1)
    np.testing.assert_array_equal(runner.run(FEEDS)[0], FEEDS["x"] * 2)
    runner.close()


def test_its_latency_is_measured_in_turns_with_the_baselines(here: tuple[Backend, Path]) -> None:
    backend, plan = here
    assert backend.capabilities.latency_source == "measured"
    assert backend.capabilities.least_gain == MIN_GAIN
    assert not backend.capabilities.parallel_runs
    runners = {name: backend.open(plan, threads=1) for name in ("baseline", "engine")}
    found = backend.timings(runners, FEEDS, TimingPlan(0.2, 1, 10, time_interleaved))
    assert found["engine"].runs > 1
    assert found["engine"].median_ms == pytest.approx(1.0)  # what a run takes on the GPU that pretends
    said = backend.environment()
    assert (said["gpu"], said["clock"]) == ("NVIDIA Fake 1", "CUDA events")
    assert "warnings" in said
    assert "prediction_error" not in said


def test_a_model_is_not_taken_for_an_engine(here: tuple[Backend, Path]) -> None:
    with pytest.raises(BuildError, match="a model, expected an engine"):
        here[0].open(here[1].with_suffix(".onnx"), threads=1)


def test_plans_without_weights_are_for_the_gpu_of_this_machine_only(here: tuple[Backend, Path]) -> None:
    asked = BuilderConfig(strip_weights=True)
    check_builder(asked, "tensorrt-rtx", here[0].capabilities.builder, (8, 9))
    with pytest.raises(InvalidConfigError, match="its builder needs the GPU for plans without weights"):
        check_builder(asked, "tensorrt-rtx", TensorRtRtxBackend("RTX 4090").capabilities.builder, (8, 9))


def test_a_plan_of_this_machine_is_opened_with_its_weights_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, told = FakeGpu(), list[str]()
    trt = fake_tensorrt(gpu)
    trt.__dict__["Refitter"] = lambda engine, log: SimpleNamespace(refit_cuda_engine=lambda: True)

    def read(path: str) -> bool:
        told.append(path)
        return True

    trt.__dict__["OnnxParserRefitter"] = lambda refitter, log: SimpleNamespace(refit_from_file=read)
    report = (("VERBOSE", "Layers:\n"),)
    monkeypatch.setattr(tensorrt_rtx, "build_plan", lambda *given, **more: Plan(b"double", b"", report, report))
    options = BuildOptions(strip_weights=True)
    backend = TensorRtRtxBackend("RTX 4090", options=options, local=LocalGpu(lambda: trt, lambda: gpu))
    onnx.save_model(cnn(), tmp_path / "explicit.onnx")
    engine = backend.build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")
    assert [path.name for path in engine.data_files] == ["engine.plan.kernels.json", "engine.plan.stripped.json"]
    backend.open(engine.path, threads=1)
    assert told == [str(tmp_path / "explicit.onnx")]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    forget()
    monkeypatch.setattr(backends, "has_cuda_package", lambda: True)
    yield monkeypatch
    forget()


def forget() -> None:
    rtx_gpu_here.cache_clear()
    gpu_here.cache_clear()


def gpu(name: str) -> VisibleGpu:
    return VisibleGpu(name, "1", (8, 9))


def test_the_gpu_that_is_here_is_timed_and_any_other_predicted(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(backends, "first_visible_gpu", lambda: gpu("NVIDIA GeForce RTX 4090"))
    assert rtx_gpu_here() == "RTX 4090"
    assert backend_for("tensorrt-rtx", "rtx 4090").capabilities.latency_source == "measured"
    assert backend_for("tensorrt-rtx", "L4").capabilities.latency_source == "predicted"
    unnamed = backend_for("tensorrt-rtx")
    assert (unnamed.capabilities.latency_source, unnamed.capabilities.compute_capability) == ("measured", (8, 9))
    assert next(item for item in targets() if item["target"] == "tensorrt-rtx")["latency_source"] == "measured"
    assert [opens_gpu("tensorrt-rtx", name) for name in ("RTX 4090", None, "L4")] == [True, True, False]


@pytest.mark.parametrize("name", [None, "NVIDIA H100 80GB HBM3", "a GPU of tomorrow"])
def test_without_a_gpu_that_rtx_can_target_everything_is_predicted(machine: pytest.MonkeyPatch, name: str | None, tmp_path: Path) -> None:
    machine.setattr(backends, "first_visible_gpu", lambda: None if name is None else gpu(name))
    backend = backend_for("tensorrt-rtx", "L4")
    assert backend.capabilities.latency_source == "predicted"
    (tmp_path / "engine.plan.kernels.json").write_text('{"explicit": "explicit.onnx", "kernels_at_opt": []}')
    assert isinstance(backend.open(tmp_path / "engine.plan", threads=1), SimulatedPlan)
    assert not opens_gpu("tensorrt-rtx", "L4")


def test_the_gpu_need_not_be_named_where_it_is_here(machine: pytest.MonkeyPatch) -> None:
    config = config_from_json({"target": "tensorrt-rtx"})
    machine.setattr(backends, "first_visible_gpu", lambda: None)
    with pytest.raises(InvalidConfigError, match="gpu: found none"):
        check_config(config)
    forget()
    machine.setattr(backends, "first_visible_gpu", lambda: gpu("NVIDIA L4"))
    check_config(config)


def test_without_a_cuda_package_nothing_is_timed(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(backends, "first_visible_gpu", lambda: gpu("NVIDIA L4"))
    machine.setattr(backends, "has_cuda_package", lambda: False)
    assert rtx_gpu_here() is None


def test_only_targets_that_run_on_the_gpu_are_watched_as_such() -> None:
    assert opens_gpu("tensorrt", None)
    assert not opens_gpu("onnxruntime-cpu", None)


def test_the_target_tensorrt_has_what_the_gpu_that_stages_open_has(machine: pytest.MonkeyPatch) -> None:
    """Whatever the first line of nvidia-smi is: CUDA_VISIBLE_DEVICES and MIG decide."""
    machine.setattr(backends, "first_visible_gpu", lambda: VisibleGpu("NVIDIA A30 MIG 1g.6gb", "MIG-1", (8, 0)))
    machine.setattr("engine_builder.backends.nvidia.tensorrt_api.require_tensorrt", lambda: None)
    found = backend_for("tensorrt").capabilities
    assert found.compute_capability == (8, 0)
    assert "fp8" not in found.low_precisions
