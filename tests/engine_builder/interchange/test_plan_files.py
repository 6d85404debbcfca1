"""The files that go with a plan."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine_builder.config.builder_options import BuilderConfig
from engine_builder.interchange.plan_files import plan_files
from engine_builder.records.stripped_plan import StrippedPlan, WeightsFile
from engine_builder.stage_io.engines import VerdictRequest, VerdictResult
from engine_builder.workspace.workspace import Workspace
from tests.engine_builder.fake_job import HALFWAY, FakeStages

SHIPS = StrippedPlan(100, None, 10, (WeightsFile("model.explicit.onnx", "a" * 64, 90),))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def judged(workspace: Workspace) -> VerdictResult:
    plain: VerdictResult = FakeStages(HALFWAY).verdict("verdict", VerdictRequest.__new__(VerdictRequest))
    plan = workspace.write_bytes("stripped/engine.plan", b"plan")
    return dataclasses.replace(plain, engine=plan, environment={"tensorrt_rtx": "1.7.1"})


def test_a_plan_without_weights_comes_with_its_own_layers_and_the_script(workspace: Workspace, judged: VerdictResult) -> None:
    layers, own = workspace.write_bytes("layers.json", b"1"), workspace.write_bytes("own.json", b"2")
    plan = dataclasses.replace(SHIPS, layers=own)
    found = plan_files(judged, plan, BuilderConfig(), workspace, layers=layers, timing_cache=None)
    assert sorted(found) == ["engine.layers.json", "refit.py"]
    assert found["engine.layers.json"] == own
    script = workspace.path(found["refit.py"]).read_text()
    assert judged.engine is not None
    assert judged.engine.sha256 in script
    assert "import tensorrt_rtx as trt" in script


def test_a_plan_with_its_weights_needs_no_script(workspace: Workspace, judged: VerdictResult) -> None:
    layers = workspace.write_bytes("layers.json", b"1")
    for plan in (None, dataclasses.replace(SHIPS, why_not="it is slower")):
        assert plan_files(judged, plan, BuilderConfig(), workspace, layers=layers, timing_cache=None) == {"engine.layers.json": layers}
