"""Building goes through the real parser and builder of TensorRT-RTX, which needs no GPU and has TensorRT's interface."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TypedDict

import pytest

from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.nvidia.hooks import process_logger
from engine_builder.backends.nvidia.network_build import build_plan
from engine_builder.errors import BuildError, RefusedModelError
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_tensorrt import fake_tensorrt
from tests.engine_builder.tensorrt_builds import OPTIONS

ROOT = Path(__file__).resolve().parents[4]


class Written(TypedDict):
    """What the process with the real builder writes."""

    builds: dict[str, dict[str, object]]
    progress: list[tuple[float, str]]
    progress_of_two: list[tuple[float, str]]
    settings: dict[str, int]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt-rtx-cu13 is not installed")
    command = [sys.executable, "-m", "tests.engine_builder.tensorrt_builds", str(tmp_path_factory.mktemp("builds"))]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: Written = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def builds(written: Written) -> dict[str, dict[str, object]]:
    return written["builds"]


def detail(build: dict[str, object], kind: type[BuildError] = BuildError) -> str:
    assert build.get("error") == kind.__name__, build
    return str(build["detail"])


def test_a_model_whose_input_sets_sizes_is_built_for_the_values_that_it_may_have(builds: dict[str, dict[str, object]]) -> None:
    built, one = builds["values"], builds["one value"]
    assert int(str(built["bytes"])) > 1000
    assert built["layers"] != built["layers at opt"]  # compiled a second time with every value fixed
    assert "[3, 2, 4]" in str(built["layers at opt"]).replace("[3,2,4]", "[3, 2, 4]")
    assert one["layers"] == one["layers at opt"]


def test_unknown_values_of_such_an_input_are_a_build_error(builds: dict[str, dict[str, object]]) -> None:
    assert "the values of input 'n' set sizes of tensors, and none are known" in detail(builds["no values"])


def test_plan_is_built_and_its_layers_are_told_with_their_nodes(builds: dict[str, dict[str, object]]) -> None:
    assert int(str(builds["built"]["bytes"])) > 1000
    assert "[ONNX Layer: node0]" in str(builds["built"]["layers"])


def test_fixed_inputs_need_no_shapes_but_may_have_them(builds: dict[str, dict[str, object]]) -> None:
    assert builds["right fixed axis"]["bytes"] == builds["built"]["bytes"]
    assert "input 'z' of model.onnx is declared (1, 4) (-1: any), found (2, 4) to (2, 4)" in detail(builds["wrong fixed axis"])


def test_dynamic_input_without_shapes_is_named(builds: dict[str, dict[str, object]]) -> None:
    assert "model.onnx has dynamic inputs without shapes: 'x', (-1, 4)" in detail(builds["no shapes"])


def test_shapes_that_do_not_fit_are_refused(builds: dict[str, dict[str, object]]) -> None:
    assert "model.onnx has no input 'q', expected one of x, z" in detail(builds["unknown input"])
    assert "declared (-1, 4) (-1: any), found (1, 4, 1) to (1, 4, 1)" in detail(builds["wrong rank"])


def test_node_that_the_parser_refuses_is_named_with_its_operator(builds: dict[str, dict[str, object]]) -> None:
    assert "node 'node0' (Mystery)" in detail(builds["unknown operator"], RefusedModelError)


def test_mixed_element_types_are_refused_in_the_librarys_words(builds: dict[str, dict[str, object]]) -> None:
    assert "node1" in detail(builds["mixed types"], RefusedModelError)


def test_what_the_progress_callback_raises_ends_the_build_and_is_raised(builds: dict[str, dict[str, object]]) -> None:
    assert builds["cancelled"]["error"] == "StageCancelledError"


def test_a_route_that_the_builder_does_not_take_is_a_build_error(builds: dict[str, dict[str, object]]) -> None:
    assert "'-fuse=off'" in detail(builds["route"], BuildError)  # TensorRT-RTX has no knobs


def test_damaged_timing_cache_is_ignored(builds: dict[str, dict[str, object]]) -> None:
    assert builds["damaged cache"]["bytes"] == builds["built"]["bytes"]


def test_failures_leave_nothing_behind_for_the_next_build(builds: dict[str, dict[str, object]]) -> None:
    assert builds["after failures"] == builds["again"]


def test_a_second_profile_is_part_of_the_plan(builds: dict[str, dict[str, object]]) -> None:
    assert int(str(builds["two profiles"]["bytes"])) > int(str(builds["built"]["bytes"]))
    assert "'x' of model.onnx is declared (-1, 4)" in detail(builds["wrong profile"])


def test_report_at_opt_is_of_fixed_sizes_and_the_plan_is_the_open_one(builds: dict[str, dict[str, object]]) -> None:
    found, plain = builds["at opt"], builds["built"]
    assert found["bytes"] == plain["bytes"]
    assert plain["layers at opt"] == plain["layers"]
    assert "Dimensions: [-1" in str(found["layers"])
    assert "Dimensions: [2," in str(found["layers at opt"])
    assert "Dimensions: [-1" not in str(found["layers at opt"])


def test_two_compilations_share_the_progress(written: Written) -> None:
    shares = [share for share, _ in written["progress_of_two"]]
    assert shares == sorted(shares)
    assert min(share for share in shares if share > 0.0) < 0.5 < max(shares) <= 1.0


def test_builder_gets_the_level_and_the_workspace_of_the_options(written: Written) -> None:
    """As the library's own configuration tells them: TensorRT-RTX, unlike TensorRT, builds the same plan at every level."""
    settings = written["settings"]
    assert (settings["optimization level"], settings["workspace bytes"]) == (OPTIONS.optimization_level, OPTIONS.workspace_bytes)
    assert OPTIONS.optimization_level != BuildOptions().optimization_level
    assert OPTIONS.workspace_bytes != BuildOptions().workspace_bytes


def test_a_plan_can_stream_weights_where_there_is_a_budget_for_them(written: Written) -> None:
    assert (written["settings"]["streams weights"], written["settings"]["streams weights unasked"]) == (True, False)
    assert int(str(written["builds"]["streaming"]["bytes"])) > 1000


def test_a_plan_is_stripped_for_the_weights_that_it_was_built_with(written: Written) -> None:
    settings = written["settings"]
    assert [settings[name] for name in ("STRIP_PLAN", "REFIT_IDENTICAL", "REFIT", "strips unasked")] == [True, True, False, False]
    stripped = written["builds"]["stripped"]  # which the builder of TensorRT-RTX 1.7 does with a driver alone
    assert stripped.get("error") in (None, "RefusedModelError"), stripped


def test_kernels_that_need_more_than_the_workspace_are_refused(builds: dict[str, dict[str, object]]) -> None:
    assert "within workspace limit" in detail(builds["small workspace"], RefusedModelError)
    assert int(str(builds["large workspace"]["bytes"])) > 1000


def test_plan_is_built_without_tf32(builds: dict[str, dict[str, object]]) -> None:
    assert builds["built"]["sha256"] == builds["again"]["sha256"]
    assert builds["with TF32"]["sha256"] != builds["built"]["sha256"]


def test_progress_never_goes_back_and_names_phases(written: Written) -> None:
    steps = written["progress"]
    shares = [share for share, _ in steps]
    assert shares == sorted(shares)
    assert shares[-1] > shares[0]
    assert all(phase for _, phase in steps)


def test_library_that_does_not_start_is_a_build_error_about_the_driver(tmp_path: Path) -> None:
    def nothing(log: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")  # what the bindings of 11.4 say

    trt = fake_tensorrt(FakeGpu())
    trt.__dict__["Builder"] = nothing
    with pytest.raises(BuildError, match=r"TensorRT 11\.4\.0 did not start") as caught:
        build_plan(trt, tmp_path / "model.onnx", BuildOptions(), shapes={})
    assert "driver" in caught.value.fix


@pytest.mark.parametrize(("said", "error"), [("std::bad_alloc", MemoryError), ("no tactics", BuildError)])
def test_too_little_memory_is_told_from_a_model_that_is_refused(said: str, error: type[Exception], tmp_path: Path) -> None:
    trt = fake_tensorrt(FakeGpu())
    config = SimpleNamespace()

    def build(network: object, config: object) -> None:
        process_logger(trt).log(1, said)  # type: ignore[attr-defined]  # what TensorRT calls

    builder = SimpleNamespace(
        create_network=lambda flags: SimpleNamespace(num_inputs=0),
        create_builder_config=lambda: config,
        build_serialized_network=build,
    )
    trt.__dict__.update(
        Builder=lambda log: builder,
        OnnxParser=lambda network, log: SimpleNamespace(parse_from_file=lambda path: True),
        IErrorRecorder=type("IErrorRecorder", (), {}),
        IProgressMonitor=type("IProgressMonitor", (), {}),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=0),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="ampere"),
        BuilderFlag=SimpleNamespace(VERSION_COMPATIBLE="version", TF32="tf32"),
    )
    told: dict[str, object] = {}
    config.set_memory_pool_limit, config.set_flag = told.__setitem__, lambda flag: told.update(flag=flag)
    config.clear_flag = lambda flag: told.update(cleared=flag)
    with pytest.raises(error, match=said):
        build_plan(trt, tmp_path / "model.onnx", BuildOptions(64, 5, hardware_compatible=True, version_compatible=True), shapes={})
    assert told == {"workspace": 64, "cleared": "tf32", "flag": "version"}
    assert (config.builder_optimization_level, config.hardware_compatibility_level) == (5, "ampere")
    assert not process_logger(trt).messages.lock.locked()


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="optimization_level is 6, expected 0 to 5"):
        BuildOptions(optimization_level=6)
    with pytest.raises(ValueError, match="weight_budget_bytes is -1, expected at least 0"):
        BuildOptions(weight_budget_bytes=-1)
    with pytest.raises(ValueError, match="workspace_bytes is 0, expected at least 1"):
        BuildOptions(workspace_bytes=0)
