"""The script that puts weights back: it names what there is, checks its files, and says what was set for the timing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from engine_builder.config.builder_options import BuilderConfig
from engine_builder.interchange.refit_script import refit_script
from engine_builder.records.stripped_plan import StrippedPlan, WeightsFile
from tests.engine_builder.backends.nvidia.test_tensorrt_api import (
    empty_libraries,
    lacking,
    names_used,
    needs_bindings,
    needs_compiler,
)

PLAN = StrippedPlan(100, None, 10, (WeightsFile("model.explicit.onnx", "a" * 64, 90), WeightsFile("weights.bin", "b" * 64, 80)))


def script(builder: BuilderConfig | None = None, module: str = "tensorrt") -> str:
    return refit_script(PLAN, builder or BuilderConfig(), plan="engine.plan", plan_sha256="c" * 64, module=module, version="11.4.0.106")


def names(text: str) -> list[str]:
    """Return what the script asks of the package; its objects are told by the names of its variables."""
    found = names_used(text)
    classes = {"engine": "ICudaEngine", "runtime": "Runtime", "config": "ISerializationConfig"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in classes:
            found.add(f"{classes[node.value.id]}.{node.attr}")
    return sorted(name for name in found if not name.startswith("IBuilderConfig."))


WHOLE = BuilderConfig(version_compatible=True, weight_streaming_mb=3)


def test_it_asks_for_what_puts_weights_back_and_writes_a_whole_plan() -> None:
    assert {
        "OnnxParserRefitter.refit_from_file",
        "Refitter.refit_cuda_engine",
        "SerializationFlag.EXCLUDE_WEIGHTS",
        "ISerializationConfig.clear_flag",
        "ICudaEngine.serialize_with_config",
        "Runtime.deserialize_cuda_engine",
    } <= set(names(script(WHOLE)))


@needs_compiler
@needs_bindings
def test_the_bindings_of_tensorrt_11_have_all_of_it(tmp_path: Path) -> None:
    assert lacking("tensorrt_bindings", names(script(WHOLE)), LD_LIBRARY_PATH=empty_libraries(tmp_path))[1] == []


def test_tensorrt_rtx_has_all_of_it() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    assert lacking("tensorrt_rtx", names(script(WHOLE, "tensorrt_rtx")))[1] == []


def test_it_sets_what_the_engine_was_timed_with_and_nothing_else() -> None:
    plain, whole = script(), script(WHOLE)
    assert "engine.weight_streaming_budget_v2 = min(3145728, engine.streamable_weights_size)" in whole
    assert "runtime.engine_host_code_allowed = True" in whole
    assert "weight_streaming" not in plain
    assert "host_code" not in plain
    assert "import tensorrt_rtx as trt" in script(module="tensorrt_rtx")


@pytest.mark.parametrize("missing", [False, True])
def test_files_that_are_not_those_of_the_plan_are_refused_before_anything_is_loaded(tmp_path: Path, *, missing: bool) -> None:
    (tmp_path / "tensorrt.py").write_text("")  # it has nothing: whoever loads a plan fails otherwise
    (tmp_path / "refit.py").write_text(script())
    for name in ("engine.plan", "model.explicit.onnx", *([] if missing else ["weights.bin"])):
        (tmp_path / name).write_bytes(b"other")
    done = subprocess.run([sys.executable, "refit.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "engine.plan is not the file that belongs to this script" in done.stderr
