"""What every target says of itself fits together: what code asks instead of the target's name."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Backend, Source
from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.gpu.catalogue import known_gpus
from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.backends.registry import BACKENDS, gpu_alike
from engine_builder.backends.triton_platform import TritonPlatform
from engine_builder.config.builder_options import BuilderConfig
from engine_builder.errors import StageCrashedError
from engine_builder.pipeline.optimize import optimize
from tests.engine_builder.fake_job import Watcher
from tests.engine_builder.fake_job import asked as job_request
from tests.seams.toy_backend import ToyBackend

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
KEYS = {item.name for item in dataclasses.fields(BuilderConfig)}


@pytest.fixture(params=["onnxruntime-cpu", "tensorrt", pytest.param("tensorrt-rtx", marks=needs_rtx), "toy"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "tensorrt-rtx":
        return TensorRtRtxBackend("L4")
    made: dict[str, Callable[[], Backend]] = {"onnxruntime-cpu": OrtCpuBackend, "tensorrt": TensorRtBackend, "toy": ToyBackend}
    return made[request.param]()


def test_layers_take_quantized_precisions_and_the_baseline_is_a_float_type(backend: Backend) -> None:
    capabilities = backend.capabilities
    assert all(precision.is_quantized for precision in capabilities.low_precisions)
    assert not capabilities.baseline.is_quantized
    assert capabilities.dialect.has_float_types or capabilities.baseline is Precision.FP32


def test_targets_of_gpus_know_what_a_conversion_takes_there(backend: Backend) -> None:
    """A processor takes about 1.5e-6 ms an element, a GPU between 5e-10 (B200) and 2e-8 (A2)."""
    capabilities = backend.capabilities
    if capabilities.target in ("tensorrt", "tensorrt-rtx"):
        assert capabilities.conversion_ms is not None
        assert 4e-10 < capabilities.conversion_ms < 3e-8
    else:
        assert capabilities.conversion_ms is None


def test_what_a_builder_does_without_is_said(backend: Backend) -> None:
    builder = backend.capabilities.builder
    assert builder.keys <= KEYS
    assert builder.keys == KEYS or builder.why_not


def test_a_measured_engine_may_have_predicted_kernels_but_not_the_reverse(backend: Backend) -> None:
    capabilities = backend.capabilities
    assert (capabilities.latency_source, capabilities.kernel_times) != (Source.PREDICTED, Source.MEASURED)


def test_triton_loads_a_plan_by_its_tensors_and_a_model_by_its_file(backend: Backend, tmp_path: Path) -> None:
    capabilities = backend.capabilities
    if capabilities.triton is not TritonPlatform.TENSORRT:  # a plan is opened to be asked
        assert backend.tensors(tmp_path / capabilities.engine_name) is None
    assert (capabilities.triton is TritonPlatform.ONNXRUNTIME) == capabilities.engine_name.endswith(".onnx")


def test_only_targets_that_take_a_gpu_ask_for_one_list_some_or_open_one() -> None:
    for name, row in BACKENDS.items():
        if not row.takes_gpu:
            assert not row.needs_gpu_name(), name
            assert row.gpus() == (), name
            assert not row.opens_gpu(None), name


@needs_rtx
def test_the_listed_gpus_are_known_ones_that_the_target_builds_for() -> None:
    names = BACKENDS["tensorrt-rtx"].gpus()
    assert names
    assert set(names) <= {gpu.name for gpu in known_gpus()}
    for name in names:
        assert BACKENDS["tensorrt-rtx"].make(name, BuildOptions()).capabilities.target == "tensorrt-rtx"


def test_a_gpu_is_inspected_as_any_other_of_its_compute_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine_builder.backends.registry.gpu_here", lambda: None)
    assert gpu_alike("tensorrt", "NVIDIA GeForce RTX 4090") == gpu_alike("tensorrt", "L4")
    assert gpu_alike("tensorrt", "A10") != gpu_alike("tensorrt", "L4")
    assert gpu_alike("tensorrt", "Voodoo 2") == "Voodoo 2"
    assert gpu_alike("onnxruntime-cpu", None) is None
    monkeypatch.setattr("engine_builder.backends.registry.gpu_here", lambda: "some GPU")
    assert gpu_alike("tensorrt", "L4") == "L4"


@needs_rtx
def test_a_job_for_another_type_of_the_same_capability_asks_the_first_stage_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine_builder.backends.registry.gpu_here", lambda: None)
    asked: list[object] = []

    def ends(name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        asked.append(request)
        raise StageCrashedError("the end", fix="None.")

    for gpu in ("L4", "RTX 4090"):
        with pytest.raises(StageCrashedError):
            optimize(job_request(target="tensorrt-rtx", gpu=gpu), ends, Watcher())
    assert asked[0] == asked[1]
