"""The settings of a job's builder: where they go, and which targets refuse which."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import onnx
import pytest

from calibration.errors import InvalidConfigError
from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
from engine_builder.backends.nvidia.tensorrt_rtx import BUILDER as RTX_BUILDER
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.backends.target_checks import check_config
from engine_builder.config.builder_options import BuilderConfig, check_builder
from engine_builder.config.config import Config, config_from_json
from engine_builder.engines.factory import CACHES, build_options, building_backend, kept_timing_cache
from engine_builder.errors import BuildError
from engine_builder.workspace.workspace import StageContext, Workspace
from tests.engine_builder import dialect_models

needs_builder = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")


SUPPORT = {
    "onnxruntime-cpu": OrtCpuBackend().capabilities.builder,
    "tensorrt": TensorRtBackend().capabilities.builder,
    "tensorrt-rtx": RTX_BUILDER,
}


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    return StageContext(Workspace(tmp_path / "job"), tmp_path, lambda fraction, message: None)


def config_of(target: str = "tensorrt", **builder: object) -> Config:
    return config_from_json({"target": target, "builder": builder})


def test_every_setting_reaches_the_builder(context: StageContext) -> None:
    config = config_of(workspace_mb=3, optimization_level=5, search_optimization_level=1, hardware_compatible=True, version_compatible=True)
    caches = context.workspace.root / CACHES
    assert build_options(config, context, final=False) == BuildOptions(3 * 2**20, 1, True, True, caches)
    assert build_options(config, context, final=True) == BuildOptions(3 * 2**20, 5, True, True, caches)


def test_a_route_reaches_the_builder_and_no_other_build_has_it(context: StageContext) -> None:
    config = config_of()
    assert build_options(config, context, final=True, route="-a=1 -b=2").build_route == "-a=1 -b=2"
    assert build_options(config, context, final=True).build_route == ""


def test_the_budget_of_weights_reaches_every_build_in_bytes(context: StageContext) -> None:
    for final in (False, True):
        assert build_options(config_of(weight_streaming_mb=3), context, final=final).weight_budget_bytes == 3 * 2**20
    assert build_options(config_of(), context, final=True).weight_budget_bytes is None


def test_only_what_ships_is_built_without_its_weights(context: StageContext) -> None:
    config = config_of(strip_weights=True)
    assert [build_options(config, context, final=final).strip_weights for final in (False, True)] == [False, False]
    assert build_options(config, context, final=True, stripped=True).strip_weights


def test_search_and_final_build_alike_unless_told_otherwise(context: StageContext) -> None:
    config = config_of(optimization_level=4)
    assert not config.builder.rebuilds
    assert build_options(config, context, final=False) == build_options(config, context, final=True)
    assert config_of(optimization_level=4, search_optimization_level=3).builder.rebuilds


@pytest.mark.parametrize(
    ("target", "builder", "words"),
    [
        ("onnxruntime-cpu", {"workspace_mb": 64}, "builder.workspace_mb: found 64, expected none for onnxruntime-cpu"),
        ("onnxruntime-cpu", {"search_optimization_level": 1}, "builder.search_optimization_level: found 1"),
        ("tensorrt-rtx", {"optimization_level": 5}, "builder.optimization_level: found 5, expected none for tensorrt-rtx"),
        ("tensorrt-rtx", {"hardware_compatible": True}, "builder.hardware_compatible: found true, expected none for tensorrt-rtx"),
        ("tensorrt-rtx", {"version_compatible": True}, "builder.version_compatible: found true"),
        ("tensorrt-rtx", {"build_routes": "mixed"}, "builder.build_routes: found mixed, expected none for tensorrt-rtx"),
        (
            "tensorrt-rtx",
            {"profiles": [{"min": 1, "opt": 1, "max": 4}]},
            r'builder.profiles: found \[{"min": 1, "opt": 1, "max": 4}\], expected none for tensorrt-rtx: its latencies are predicted',
        ),
        ("onnxruntime-cpu", {"profiles": [{"min": 1, "opt": 1, "max": 4}]}, "expected none for onnxruntime-cpu: its engine is the model"),
        ("tensorrt-rtx", {"weight_streaming_mb": 0}, "builder.weight_streaming_mb: found 0, expected none for tensorrt-rtx: its latencies"),
        ("onnxruntime-cpu", {"strip_weights": True}, "builder.strip_weights: found true, expected none for onnxruntime-cpu: its engine is"),
        ("tensorrt-rtx", {"strip_weights": True}, "expected none for tensorrt-rtx: its builder needs the GPU for plans without weights"),
        ("onnxruntime-cpu", {"build_routes": "fast"}, "builder.build_routes: found fast, expected none for onnxruntime-cpu"),
    ],
)
def test_a_setting_that_means_nothing_to_the_target_is_refused_by_name(target: str, builder: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidConfigError, match=words) as caught:
        check_builder(config_of(target, **builder).builder, target, SUPPORT[target], None)
    assert "Leave builder." in caught.value.fix


def test_the_default_settings_suit_every_target() -> None:
    for target in ("onnxruntime-cpu", "tensorrt", "tensorrt-rtx"):
        check_builder(BuilderConfig(), target, SUPPORT[target], (7, 5))


def test_a_gpu_before_ampere_cannot_build_for_all_since() -> None:
    builder = BuilderConfig(hardware_compatible=True)
    check_builder(builder, "tensorrt", SUPPORT["tensorrt"], (8, 0))
    with pytest.raises(InvalidConfigError, match=r"compute capability 7\.5, expected 8\.0 \(Ampere\)"):
        check_builder(builder, "tensorrt", SUPPORT["tensorrt"], (7, 5))


def test_a_job_with_such_a_setting_is_refused_at_submit() -> None:
    with pytest.raises(InvalidConfigError, match=r"builder\.workspace_mb"):
        check_config(config_of("onnxruntime-cpu", workspace_mb=1))


@needs_builder
def test_the_workspace_limit_reaches_the_real_builder(context: StageContext, tmp_path: Path) -> None:
    model = dialect_models.gemm("int8")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save_model(model, tmp_path / "explicit.onnx")
    config = config_from_json({"target": "tensorrt-rtx", "gpu": "L4", "builder": {"workspace_mb": 1}})
    with pytest.raises(BuildError, match="workspace limit"):
        building_backend(config, context).build(tmp_path / "explicit.onnx", tmp_path / "engine.plan")


def test_the_timing_cache_that_is_kept_is_the_last_that_was_written(context: StageContext) -> None:
    assert kept_timing_cache(context.workspace) is None
    folder = context.workspace.root / CACHES
    folder.mkdir()
    for age, name in enumerate(("l4-cc8.9-tensorrt11.4.0.timing.cache", "l40s-cc8.9-tensorrt11.4.0.timing.cache", ".l4.timing.cache")):
        (folder / name).write_bytes(name.encode())
        os.utime(folder / name, (1000 - age, 1000 - age))
    os.utime(folder / ".l4.timing.cache", (2000, 2000))  # what a killed build left behind
    found = kept_timing_cache(context.workspace)
    assert found is not None
    assert context.workspace.path(found).read_bytes() == b"l4-cc8.9-tensorrt11.4.0.timing.cache"
